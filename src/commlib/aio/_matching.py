"""Warns where what others publish and read does not go together with what we do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable
from itertools import combinations, islice
from time import perf_counter

from commlib._discovery import (
    MAX_UNLIKE,
    Mismatch,
    NodeInfo,
    Port,
    is_comparable,
    look,
    mismatch,
)

log = logging.getLogger("commlib.discovery")

WARNINGS = 1000  # mismatches of one beacon that are logged
JUDGED = 10_000  # pairs of ports whose judgement is kept
LONGEST = 0.05  # s that one announcement may take: strangers can tell of much


Looking = tuple[Hashable, Port]
"""A port behind what it looks like."""


class Ports:
    """Ports by name, one each of those that look alike."""

    def __init__(self) -> None:
        self.unlike: dict[str, dict[Hashable, Port]] = {}
        """The ports of names that have several, by what they look like."""
        self._first: dict[str, Port] = {}

    def add(self, port: Port) -> None:
        """Most names have one port, and what that looks like is of no interest."""
        endpoint = port[1]
        first = self._first.setdefault(endpoint.name, port)
        if first is port:
            return
        known = self.find(endpoint.name)
        known.setdefault(look(endpoint), port)
        if len(known) > 1:
            self.unlike[endpoint.name] = known

    def find(self, name: str) -> dict[Hashable, Port]:
        """The ports of a name by what they look like."""
        if name in self.unlike:
            return self.unlike[name]
        first = self._first.get(name)
        return {} if first is None else {look(first[1]): first}


class Matching:
    """Our ports by name, and what was found of those of others that go by these names."""

    def __init__(self) -> None:
        self._ports: Ports | None = None
        """None: they have changed."""
        self._judged: dict[Hashable, Mismatch | None] = {}
        self._warned: set[Hashable] = set()

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
        """Warn where our nodes do not go together with each other."""
        end = perf_counter() + LONGEST
        for known in self._index(ours).unlike.values():
            if perf_counter() < end:
                for one, other in combinations(islice(known.items(), MAX_UNLIKE), 2):
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

    def _is_wrong(self, one: Looking, other: Looking) -> bool:
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
