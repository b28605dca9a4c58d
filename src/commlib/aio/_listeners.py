"""Who is told when a connection comes and goes: each once, in the order in which they came."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from commlib.transports.base import StateHandler


class Listeners:
    """The listeners of one connection; many nodes may share it, so none is looked for in a row."""

    def __init__(self) -> None:
        self._by_key: dict[Hashable, StateHandler] = {}

    def add(self, listener: StateHandler) -> None:
        """Tell this one, too, if it is not told yet."""
        self._by_key.setdefault(_key(listener), listener)

    def discard(self, listener: StateHandler) -> None:
        """Tell it no more."""
        self._by_key.pop(_key(listener), None)

    def __iter__(self) -> Iterator[StateHandler]:
        # As they are now: one that is told may leave, or bring others.
        return iter(list(self._by_key.values()))

    def __len__(self) -> int:
        return len(self._by_key)


def _key(listener: StateHandler) -> Hashable:
    try:
        hash(listener)
    except TypeError:  # an object of the program's own that can be called, and compared
        return id(listener)
    return listener
