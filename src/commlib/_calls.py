"""Calls that wait for their reply: which token is whose, who is next, what came too late. Pure.

The one who takes a token out of here decides how its call ends; everybody after that is late.

One name must not starve the others: calls of a service that does not answer hold their places
until they time out. So a name may have ``SHARE`` times as many calls under way as there are places
left. With one name that is three quarters of all that are not reserved, with two that do not answer
there is still a sixteenth left for a third.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sized
from typing import Generic, TypeVar

C = TypeVar("C")

SHARE = 3


class Calls(Generic[C]):
    """The pending calls of one inbox, with at most ``capacity`` on their way at once.

    As many as there are in ``reserved`` are kept for calls to come, which ``begin`` by themselves.
    """

    def __init__(self, capacity: int, reserved: Sized = ()) -> None:
        self.capacity = capacity
        self._reserved = reserved
        self._under_way: dict[str, tuple[C, str]] = {}
        self._of_name: dict[str, int] = {}  # how many each name has under way
        self._waiting: dict[str, C] = {}
        self.lines: dict[str, deque[str]] = {}
        """Tokens of calls that wait, and of those that gave up since; the names take turns."""

    def __len__(self) -> int:
        return len(self._under_way) + len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether the next call would have to wait."""
        return bool(self._waiting) or self._free <= 0

    @property
    def _free(self) -> int:
        return self.capacity - len(self._reserved) - len(self._under_way)

    def __contains__(self, token: str) -> bool:
        return token in self._under_way or token in self._waiting

    def add(self, token: str, call: C, name: str = "") -> bool:
        """Note a call. True: it may be sent now; False: it waits until ``next`` names it.

        ``name`` is what is called; without one only the capacity counts.
        """
        if self._has_room(name):
            self.begin(token, call, name)
            return True
        self._waiting[token] = call
        self.lines.setdefault(name, deque()).append(token)
        return False

    def _has_room(self, name: str) -> bool:
        free = self._free
        return free > 0 and (not name or self._of_name.get(name, 0) < SHARE * free)

    def begin(self, token: str, call: C, name: str = "") -> None:
        """Note a call that is under way from here on; whether there is room for it was seen to."""
        self._under_way[token] = call, name
        if name:
            self._of_name[name] = self._of_name.get(name, 0) + 1

    def get(self, token: str) -> C | None:
        """The call that is under way with this token; it stays."""
        found = self._under_way.get(token)
        return None if found is None else found[0]

    def take(self, token: str) -> C | None:
        """End a call that is under way because its reply is here; None if it came too late."""
        found = self._under_way.pop(token, None)
        if found is None:
            return None
        call, name = found
        if name:
            self._of_name[name] -= 1
            if not self._of_name[name]:
                del self._of_name[name]
        return call

    def drop(self, token: str) -> tuple[C | None, bool]:
        """End a call without a reply: it, if it had not ended, and whether it was under way."""
        call = self._waiting.pop(token, None)
        if call is not None:
            return call, False
        call = self.take(token)
        return call, call is not None

    def next(self) -> C | None:
        """A call that may be sent now, the oldest of its name; it is under way from here on."""
        if self._free <= 0:
            return None  # as nearly always: there may be many names to look at in vain
        name = self._next_name()
        if name is None:
            return None
        line = self.lines.pop(name)
        token = line.popleft()
        if line:
            self.lines[name] = line  # behind the others
        call = self._waiting.pop(token)
        self.begin(token, call, name)
        return call

    def _next_name(self) -> str | None:
        """The first name with a call that waits, and has room."""
        found, empty = None, []
        for name, line in self.lines.items():
            while line and line[0] not in self._waiting:
                line.popleft()
            if not line:
                empty.append(name)
            elif self._has_room(name):
                found = name
                break
        for name in empty:
            del self.lines[name]
        return found

    def clear(self) -> list[C]:
        """End all calls; returns them."""
        # A copy: threads take what they have read themselves.
        under_way = list(self._under_way.values())
        calls = [*(call for call, _ in under_way), *self._waiting.values()]
        self._under_way.clear()
        self._of_name.clear()
        self._waiting.clear()
        self.lines.clear()
        return calls
