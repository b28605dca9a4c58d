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
import os
import sys

STORM = 1000  # calls a second that are many
SOME = 64  # calls on which that is judged
LOOK_SECONDS = 0.1  # between looks how it goes
STARVED = 5  # times as long as it runs it was kept waiting; in a storm it is up to 3 times
REST_SECONDS = 10.0  # without, after that

_TIMES = "/proc/thread-self/schedstat"


class Courtesy:
    """That of a loop which has a thread to itself. All of it is for that thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls = 0
        self._since = 0.0
        self._not_before = 0.0
        self._is_shown = False
        self._times = (0, 0)

    def note(self) -> None:
        """A thread is about to have one more request, or reply."""
        self._calls += 1
        if self._calls == SOME and not self._is_shown:
            now = self._loop.time()
            is_storm = STORM * (now - self._since) < SOME
            self._calls, self._since = 0, now
            if is_storm and now >= self._not_before:
                self._begin()

    def _begin(self) -> None:
        self._is_shown = _mark_batch()
        if self._is_shown:
            self._times = _times()
            self._loop.call_later(LOOK_SECONDS, self._look)
        else:
            self._rest()

    def _look(self) -> None:
        times = _times()
        ran, waited = times[0] - self._times[0], times[1] - self._times[1]
        is_starved = waited > STARVED * ran
        if is_starved:
            self._rest()
        if is_starved or self._calls < STORM * LOOK_SECONDS / 2:
            self._is_shown = False
            _mark_usual()
        else:
            self._times = times
            self._loop.call_later(LOOK_SECONDS, self._look)
        self._calls, self._since = 0, self._loop.time()

    def _rest(self) -> None:
        self._not_before = self._loop.time() + REST_SECONDS


def _mark_batch() -> bool:
    """Have this thread interrupt no other; whether that could be done.

    It is not if this thread is to come before others, or somebody has asked for another schedule.
    Threads and programs that are started here are as usual.
    """
    # Only Linux tells by thread, and with musl Python has none of this.
    if sys.platform != "linux" or not hasattr(os, "sched_setscheduler"):
        return False
    try:
        if _policy() != os.SCHED_OTHER or os.getpriority(os.PRIO_PROCESS, 0) < 0:
            return False
        _times()
        _set_policy(os.SCHED_BATCH)
    except OSError:  # a sandbox may forbid it, and a kernel be without these counters
        return False
    return True


def _mark_usual() -> None:
    """Have this thread interrupt others again."""
    if _policy() == os.SCHED_BATCH:  # else somebody has asked for something else meanwhile
        _set_policy(os.SCHED_OTHER)


def _policy() -> int:
    return os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK


def _set_policy(policy: int) -> None:
    os.sched_setscheduler(0, policy | os.SCHED_RESET_ON_FORK, os.sched_param(0))


def _times() -> tuple[int, int]:
    """How long this thread has run, and was kept waiting for a processor, in ns."""
    with open(_TIMES) as file:
        ran, waited, _ = file.read().split()
    return int(ran), int(waited)
