"""How readily the thread of the event loop interrupts those that it works with.

Where threads make or answer many calls, a packet that arrives wakes the loop, and the kernel lets
it interrupt the thread that is just at work. In Python that is for nothing: the interrupted one
holds the lock that the loop needs, so both change places twice. While there are many calls the loop
is therefore marked SCHED_BATCH (man 7 sched): it has its share of the processors as before, but
waits until one is free, and finds then what has come meanwhile.

Where other programs take all processors it would wait for them, some milliseconds each time. The
kernel counts how long a thread is kept waiting, so that is seen, and ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys

log = logging.getLogger("commlib")

STORM = 1000  # calls a second that are many
JUDGED = 64  # calls, of which each so many are looked at together
LOOK_SECONDS = 0.1  # between looks how it goes
STARVED = 5  # times as long as it runs it is kept waiting; with many calls 3 at most (measured)
REST_SECONDS = 10.0  # without, after that

_TIMES = "/proc/thread-self/schedstat"
_told: list[OSError] = []
"""What was logged: once for all threads."""


class Courtesy:
    """That of a loop with a thread to itself. Methods are for that thread; ``end_here`` for any."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls = 0
        self._since = 0.0
        self._not_before = 0.0
        self._is_marked = self._was_marked = False
        self._times = (0, 0)

    def note(self) -> None:
        """A thread is about to have one more request, or reply."""
        self._calls += 1
        if self._calls == JUDGED and not self._is_marked:
            now = self._loop.time()
            is_storm = STORM * (now - self._since) < JUDGED
            self._calls, self._since = 0, now
            if is_storm and now >= self._not_before:
                self._begin(now)

    def end_here(self) -> None:
        """Have this thread, which the loop may have started, or a fork of it, be as usual."""
        if self._was_marked:
            _mark_usual()

    def _begin(self, now: float) -> None:
        times = _mark_batch()
        if times is None:
            self._not_before = now + REST_SECONDS
            return
        self._times = times
        self._is_marked = self._was_marked = True
        self._loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        now, times = self._loop.time(), _times()
        is_starved = times is None or times[1] - self._times[1] > STARVED * (
            times[0] - self._times[0]
        )
        is_storm = self._calls > STORM / 2 * (now - self._since)
        self._calls, self._since = 0, now
        if times is not None and is_storm and not is_starved:
            self._times = times
            self._loop.call_later(LOOK_SECONDS, self._look)
            return
        if is_starved:
            self._not_before = now + REST_SECONDS
        self._is_marked = False
        _mark_usual()


def _mark_batch() -> tuple[int, int] | None:
    """Have this thread interrupt no other: its times then, None where that cannot be.

    It is not if this thread is to come before others, or somebody has asked for another schedule.
    Threads and programs that are started from here begin like this one.
    """
    # Only Linux tells by thread, and with musl Python has none of this.
    if sys.platform != "linux" or not hasattr(os, "sched_setscheduler"):
        return None
    times = _times()
    try:
        is_usual = os.sched_getscheduler(0) == os.SCHED_OTHER
        if times is None or not is_usual or os.getpriority(os.PRIO_PROCESS, 0) < 0:
            return None
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError:  # a sandbox forbids it
        return None
    return times


def _mark_usual() -> None:
    """Have this thread interrupt others again, if it does not."""
    try:
        if os.sched_getscheduler(0) == os.SCHED_BATCH:  # else somebody has asked for something else
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    except OSError as exc:  # a sandbox forbids it by now
        if not _told:
            _told.append(exc)
            log.warning("a thread stays marked SCHED_BATCH, and may be slow at times: %s", exc)


def _times() -> tuple[int, int] | None:
    """How long this thread has run, and was kept waiting for a processor, in ns.

    None if the kernel does not count that.
    """
    try:
        with open(_TIMES) as file:
            ran, waited, turns, *_ = map(int, file.read().split())
    except (OSError, ValueError):
        return None
    return (ran, waited) if turns else None
