"""Warns where what others publish and read does not go together with what we do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable
from time import perf_counter

from commlib._discovery import (
    Announcement,
    EndpointInfo,
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


class Matching:
    """Our ports by name, and what was found of those of others that go by these names."""

    def __init__(self) -> None:
        self._ports: dict[str, dict[Hashable, Port]] | None = None
        """One each of those that look alike; None: they have changed."""
        self._judged: dict[Hashable, Mismatch | None] = {}
        self._warned: set[Hashable] = set()

    def note_change(self) -> None:
        """Our own ports are others from now on."""
        self._ports = None

    def compare(self, said: Announcement, ours: Callable[[], Iterable[NodeInfo]]) -> list[NodeInfo]:
        """Warn where these nodes do not go together with ours; which of ours that is."""
        ports = self._index(ours)
        found: dict[str, NodeInfo] = {}
        end = perf_counter() + LONGEST
        for node in said.nodes:
            for endpoint in node.endpoints:
                known = ports.get(endpoint.name)
                if known and perf_counter() < end:
                    for own in self._mismatched(known, node, endpoint):
                        found[own.id] = own
        return list(found.values())

    def _index(self, ours: Callable[[], Iterable[NodeInfo]]) -> dict[str, dict[Hashable, Port]]:
        if self._ports is None:
            self._ports = {}
            for node in ours():
                for endpoint in node.endpoints:
                    if is_comparable(endpoint):
                        of_name = self._ports.setdefault(endpoint.name, {})
                        of_name.setdefault(look(endpoint), (node, endpoint))
        return self._ports

    def _mismatched(
        self, known: dict[Hashable, Port], node: NodeInfo, endpoint: EndpointInfo
    ) -> Iterable[NodeInfo]:
        """Those of ours by this name that it does not go together with."""
        other_look = look(endpoint)
        for own_look, own in known.items():
            if own_look == other_look:
                continue
            key = endpoint.name, frozenset((own_look, other_look))
            if key not in self._judged:
                if len(self._judged) >= JUDGED:
                    self._judged.clear()
                self._judged[key] = mismatch(own, (node, endpoint))
            wrong = self._judged[key]
            if wrong is not None:
                self._warn(key, wrong)
                yield own[0]

    def _warn(self, key: Hashable, wrong: Mismatch) -> None:
        if key not in self._warned and len(self._warned) < WARNINGS:
            self._warned.add(key)
            log.warning("%s", wrong)
