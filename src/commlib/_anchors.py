"""Finds the patterns that may match a name without a look at each of them. Pure.

A pattern is kept by one of its literal words and the place where that stands, its *anchor*: a name
that it matches has the same word there. Patterns without a literal word are looked at for every
name. What is found still has to be compared: it may match more than the anchor says, never less.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Generic, TypeVar

V = TypeVar("V", bound=Hashable)

WILDCARDS = frozenset("*+#")
"""Words that may stand for others: in our grammar, or that of a broker."""
OPEN_END = "#"
"""The one that may stand for any number of words: behind it no place is certain."""


class Anchors(Generic[V]):
    """Values by the words of their patterns; a value has one pattern."""

    def __init__(self) -> None:
        self._anchored: dict[tuple[int, str], dict[V, None]] = {}
        self._adrift: dict[V, None] = {}
        self._anchors: dict[V, tuple[int, str] | None] = {}

    def __len__(self) -> int:
        return len(self._anchors)

    def add(self, words: Sequence[str], value: V) -> None:
        """Keep a value by its pattern."""
        anchor = self._anchors[value] = self._best(words)
        if anchor is None:
            self._adrift[value] = None
        else:
            self._anchored.setdefault(anchor, {})[value] = None

    def _best(self, words: Sequence[str]) -> tuple[int, str] | None:
        """The word that the fewest are kept by so far."""
        literal = []
        for place in enumerate(words):
            if place[1] == OPEN_END:
                break
            if place[1] not in WILDCARDS:
                literal.append(place)
        if not literal:
            return None
        return min(literal, key=lambda place: len(self._anchored.get(place, ())))

    def discard(self, value: V) -> None:
        """Keep it no longer."""
        anchor = self._anchors.pop(value, None)
        if anchor is None:
            self._adrift.pop(value, None)
            return
        del self._anchored[anchor][value]
        if not self._anchored[anchor]:
            del self._anchored[anchor]

    def find(self, words: Sequence[str]) -> Iterator[V]:
        """The values whose patterns may match the name that has these words."""
        yield from self._adrift
        for place in enumerate(words):
            yield from self._anchored.get(place, ())
