"""How long what was told holds: each word of somebody renews his lease."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LATE = 0.1  # s after the end of a lease: many that end together are looked at once


class Leases:
    """Leases by name; ``on_end`` is told of each that was not renewed. On the loop.

    ``most`` is how many there can be, ``longest`` how many seconds one lasts at most.
    """

    def __init__(self, on_end: Callable[[str], None], most: int, longest: float) -> None:
        self._on_end = on_end
        self._most = most
        self._longest = longest
        self._ends: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._ends)

    def renew(self, name: str, lease: float) -> bool:
        """Let it last so many seconds from now; False: there are too many leases."""
        if name not in self._ends and len(self._ends) >= self._most:
            return False
        end = asyncio.get_running_loop().time() + min(lease, self._longest)
        self._ends[name] = end
        if self._timer is None or end + LATE < self._timer.when():
            self._look_at(end)
        return True

    def clear(self) -> None:
        """Forget all of them, without a word."""
        self._ends.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_at(self, end: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(end + LATE, self._look)

    def _look(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for name in [name for name, end in self._ends.items() if end <= now]:
            del self._ends[name]
            self._on_end(name)
        if self._ends:
            self._look_at(max(now, min(self._ends.values())))
