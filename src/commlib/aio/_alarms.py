"""What is to be done later on a loop, each thing once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

SHARE = 20  # times as long as something took is waited until it is done again


class Alarms:
    """Timers by name. On the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def set(self, name: str, due: float, act: Callable[[], None]) -> None:
        """Act at that time (s, of the loop), or when it was to be done before."""
        timer = self._timers.get(name)
        if timer is not None:
            # The handle that uvloop gives for what is due at once does not know when that is.
            if getattr(timer, "when", self._loop.time)() <= due:
                return
            timer.cancel()

        def ring() -> None:
            del self._timers[name]
            act()

        self._timers[name] = self._loop.call_at(due, ring)

    def cancel(self, name: str) -> None:
        """Do not do it."""
        if (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()

    def clear(self) -> None:
        """Do nothing of it."""
        for name in list(self._timers):
            self.cancel(name)
