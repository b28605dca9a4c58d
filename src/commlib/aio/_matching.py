"""Warns where what others publish and read does not go together with what we do."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from itertools import combinations
from time import perf_counter

from commlib._discovery import (
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
        """The names, in order, whose ports differ in more than what they do with the messages."""
        self._first: dict[str, Port] = {}
        self._others: dict[str, list[Port]] = {}

    def add(self, port: Port) -> None:
        """Most names have one port, others two that have all but their kind in common."""
        endpoint = port[1]
        first = self._first.setdefault(endpoint.name, port)
        if first is port:
            return
        others = self._others.setdefault(endpoint.name, [])
        if not any(are_alike(endpoint, known) for _, known in (first, *others)):
            others.append(port)
            if not go_together(endpoint, first[1]):
                self.suspect[endpoint.name] = None

    def find(self, name: str) -> dict[Hashable, Port]:
        """The ports of a name by what they look like."""
        first = self._first.get(name)
        if first is None:
            return {}
        return {look(port[1]): port for port in (first, *self._others.get(name, ()))}


class Matching:
    """Our ports by name, and what was found of those of others that go by these names."""

    def __init__(self) -> None:
        self._ports: Ports | None = None
        """None: they have changed."""
        self._judged: dict[Hashable, Mismatch | None] = {}
        self._warned: set[Hashable] = set()
        self._compared = 0

    def note_change(self) -> None:
        """Our own ports are others from now on."""
        self._ports = None

    def compare(
        self, nodes: Iterable[NodeInfo], ours: Callable[[], Iterable[NodeInfo]]
    ) -> list[NodeInfo]:
        """Warn where these nodes do not go together with ours; which of ours that is."""
        ports = self._index(ours)
        found: dict[str, NodeInfo] = {}
        end = perf_counter() + LONGEST
        for node in nodes:
            for endpoint in node.endpoints:
                known = ports.find(endpoint.name)
                if known and perf_counter() < end:
                    for own in self._mismatched(known, (node, endpoint)):
                        found[own.id] = own
        return list(found.values())

    def compare_own(self, ours: Callable[[], Iterable[NodeInfo]]) -> None:
        """Warn where our nodes do not go together with each other.

        What is not come to in the time that there is has its turn first the next time.
        """
        ports = self._index(ours)
        names = deque(ports.suspect)
        names.rotate(-self._compared)
        end = perf_counter() + LONGEST
        for name in names:
            if perf_counter() >= end:
                return
            self._compared += 1
            for one, other in combinations(ports.find(name).items(), 2):
                self._is_wrong(one, other)

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
