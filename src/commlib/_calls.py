"""Calls that wait for their reply: which token is whose, who is next, what came too late. Pure.

The one who takes a token out of here decides how its call ends; everybody after that is late.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

C = TypeVar("C")


class Calls(Generic[C]):
    """The pending calls of one inbox, with at most ``capacity`` on their way at once."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._under_way: dict[str, C] = {}
        self._waiting: dict[str, C] = {}
        self._line: deque[str] = deque()  # tokens of _waiting, and of those that gave up since

    def __len__(self) -> int:
        return len(self._under_way) + len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether the next call would have to wait."""
        return bool(self._waiting) or len(self._under_way) >= self.capacity

    def __contains__(self, token: str) -> bool:
        return token in self._under_way or token in self._waiting

    def add(self, token: str, call: C) -> bool:
        """Note a call. True: it may be sent now; False: it waits until ``next`` names it."""
        if len(self._under_way) < self.capacity:
            self._under_way[token] = call
            return True
        self._waiting[token] = call
        self._line.append(token)
        return False

    def take(self, token: str) -> C | None:
        """End a call that is under way because its reply is here; None if it came too late."""
        return self._under_way.pop(token, None)

    def drop(self, token: str) -> tuple[C | None, bool]:
        """End a call without a reply: the call, if it had not ended, and whether it was sent."""
        call = self._waiting.pop(token, None)
        if call is not None:
            return call, False
        call = self._under_way.pop(token, None)
        return call, call is not None

    def next(self) -> C | None:
        """The call that has waited longest and may be sent now; it is under way from here on."""
        while self._line and len(self._under_way) < self.capacity:
            token = self._line.popleft()
            call = self._waiting.pop(token, None)
            if call is not None:
                self._under_way[token] = call
                return call
        return None

    def clear(self) -> list[C]:
        """End all calls; returns them."""
        calls = [*self._under_way.values(), *self._waiting.values()]
        self._under_way.clear()
        self._waiting.clear()
        self._line.clear()
        return calls
