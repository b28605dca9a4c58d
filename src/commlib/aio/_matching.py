"""Warns where what others publish and read does not go together with what we do."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from itertools import combinations, islice
from time import perf_counter

from commlib._discovery import (
    MAX_UNLIKE,
    Mismatch,
    NodeInfo,
    Port,
    are_alike,
    go_together,
    is_comparable,
    look,
    mismatch,
)

log = logging.getLogger("commlib.discovery")

WARNINGS = 1000  # mismatches of one beacon that are logged
JUDGED = 10_000  # pairs of ports whose judgement is kept
LONGEST = 0.05  # s that comparing may take at once: strangers can tell of much


Looked = tuple[Hashable, Port]
"""What a port looks like, and the port."""


class Ports:
    """Ports by name, one each of those that look alike."""

    def __init__(self) -> None:
        self.suspect: dict[str, None] = {}
        """The names, in order, of ports that are perhaps at odds with each other."""
        self._by_name: dict[str, Port | list[Port]] = {}
        self._looks: dict[str, dict[Hashable, Port]] = {}

    def add(self, port: Port) -> None:
        """Most names have one port, and most others two that go together."""
        endpoint = port[1]
        known = self._by_name.setdefault(endpoint.name, port)
        if known is port:
            return
        if isinstance(known, tuple):
            known = [known]
        if any(are_alike(endpoint, other) for _, other in known):
            return
        if not all(go_together(endpoint, other) for _, other in known):
            self.suspect[endpoint.name] = None
        self._by_name[endpoint.name] = [*known, port]

    def has(self, name: str) -> bool:
        """Whether there is a port of this name."""
        return name in self._by_name

    def find(self, name: str) -> dict[Hashable, Port]:
        """The ports of a name that there is, by what they look like; none are added after that."""
        looks = self._looks.get(name)
        if looks is None:
            known = self._by_name[name]
            ports = [known] if isinstance(known, tuple) else known
            looks = self._looks[name] = {look(port[1]): port for port in ports}
        return looks


def all_differ(nodes: Iterable[NodeInfo]) -> bool:
    """Whether no two of their ports have one name."""
    names = [endpoint.name for node in nodes for endpoint in node.endpoints]
    return len(set(names)) == len(names)


class Matching:
    """Our ports by name, and what was found of those of others that go by these names."""

    def __init__(self) -> None:
        self._ports: Ports | None = None
        """None: they have changed."""
        self._judged: dict[Hashable, Mismatch | None] = {}
        self._warned: set[Hashable] = set()
        self._to_compare: deque[str] | None = None
        """The names of ours that are still to be compared; None: all."""
        self._compared = 0
        """How many were: when they have changed, that many of them have their turn last."""

    def note_change(self) -> None:
        """Our own ports are others from now on."""
        self._ports = self._to_compare = None

    def compare(
        self, nodes: Iterable[NodeInfo], ours: Callable[[], Iterable[NodeInfo]]
    ) -> list[NodeInfo]:
        """Warn where these nodes do not go together with ours; which of ours that is.

        What there is no time for is left out.
        """
        ports = self._index(ours)
        found: dict[str, NodeInfo] = {}
        end = perf_counter() + LONGEST
        for node in nodes:
            for endpoint in node.endpoints:
                if not ports.has(endpoint.name):
                    continue
                if perf_counter() >= end:
                    return list(found.values())
                for own in self._mismatched(ports.find(endpoint.name), (node, endpoint)):
                    found[own.id] = own
        return list(found.values())

    def compare_own(self, ours: Callable[[], Iterable[NodeInfo]]) -> bool:
        """Warn where our nodes do not go together with each other.

        False: there was no time for all of it; to ask again goes on with the rest.
        """
        if self._ports is None and all_differ(ours()):
            return True  # the usual case, and the index may never be needed
        ports = self._index(ours)
        if self._to_compare is None:
            self._to_compare = deque(ports.suspect)
            self._to_compare.rotate(-self._compared)
        end = perf_counter() + LONGEST
        while self._to_compare:
            if perf_counter() >= end:
                return False
            self._compared += 1
            looks = ports.find(self._to_compare.popleft()).items()
            for one, other in combinations(islice(looks, MAX_UNLIKE), 2):
                self._is_wrong(one, other)
        return True

    def _index(self, ours: Callable[[], Iterable[NodeInfo]]) -> Ports:
        if self._ports is None:
            self._ports = Ports()
            for node in ours():
                for endpoint in node.endpoints:
                    if is_comparable(endpoint):
                        self._ports.add((node, endpoint))
        return self._ports

    def _mismatched(self, known: dict[Hashable, Port], port: Port) -> Iterable[NodeInfo]:
        """Those of ours by this name that it does not go together with."""
        other = look(port[1]), port
        for own in known.items():
            if own[0] != other[0] and self._is_wrong(own, other):
                yield own[1][0]

    def _is_wrong(self, one: Looked, other: Looked) -> bool:
        """Whether two ports of one name do not go together; that is warned of."""
        (one_look, one_port), (other_look, other_port) = one, other
        key = one_port[1].name, frozenset((one_look, other_look))
        if key not in self._judged:
            if len(self._judged) >= JUDGED:
                self._judged.clear()
            self._judged[key] = mismatch(one_port, other_port)
        wrong = self._judged[key]
        if wrong is not None:
            self._warn(key, wrong)
        return wrong is not None

    def _warn(self, key: Hashable, wrong: Mismatch) -> None:
        if key not in self._warned and len(self._warned) < WARNINGS:
            self._warned.add(key)
            log.warning("%s", wrong)
