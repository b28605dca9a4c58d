"""Answers to requests and replies, that nobody waits for: many are read at once.

Each of them would wake the loop, beside the threads that make and answer calls.
"""

from __future__ import annotations

import asyncio

from commlib.transports._redis_link import RedisLink

LATER = 0.005  # s that such an answer may wait; Python's threads take turns every 5 ms
MANY = 8  # such answers within that time: 1600 wake-ups of the loop a second


class LazyReading:
    """Reads from a link now and then, while answers of no interest come to it all the time.

    Those to PUBLISH are of interest: a thread that publishes writes itself where all was answered.
    """

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._since = self._asked = self._loop.time()
        self._reads = 0
        self._pause: asyncio.TimerHandle | None = None
        link.on_idle = self._note
        link.on_asked = self.hurry

    def hurry(self) -> None:
        """Somebody waits for an answer."""
        self._asked = self._loop.time()
        self._go_on()

    def _note(self) -> None:
        """All that had come was read."""
        if self._link.answered.__class__ is str:
            self._reads = 0
            return
        if self._pause is not None:
            return
        now = self._loop.time()
        if now - self._since > LATER:
            self._since, self._reads = now, 0
        self._reads += 1
        if self._reads >= MANY and now - self._asked > LATER:
            self._pause = self._loop.call_later(LATER, self._go_on)
            self._link.pause()

    def _go_on(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
            self._since = self._loop.time()
            # What has come meanwhile is read once: then it goes on, or is over.
            self._reads = MANY - 1 if self._link.unanswered >= MANY else 0
            self._link.go_on()
