"""Ticks at a fixed rate, for a sender that must not wait for whom it sends to.

A sender that sleeps between two messages, or waits until the last one is taken, measures a system
that is given time to breathe: what is slow is asked less often ("coordinated omission"). Here each
message has a time at which it is due, whether the one before is done or not; its latency counts
from that time. Who falls a second behind is given up: what it has not sent counts as lost.

The ticks are those of a kernel timer: asyncio and uvloop round theirs up to milliseconds.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import AsyncIterator, Iterator

TFD_CLOEXEC, TFD_TIMER_ABSTIME = os.O_CLOEXEC, 1  # timerfd_create(2); Python has it since 3.13
SOON_NS = 5_000_000  # from now to the first tick
GIGA = 1_000_000_000
TOO_LATE = 1.0  # s behind, as only those are that the rate is too much for

_libc = ctypes.CDLL(None, use_errno=True)


class Metronome:
    """So many ticks a second; tick 0 is the first."""

    def __init__(self, rate: int) -> None:
        self._period = GIGA // rate
        self._begin = time.monotonic_ns() + SOON_NS
        self._timer = _checked(_libc.timerfd_create(time.CLOCK_MONOTONIC, TFD_CLOEXEC))
        # struct itimerspec: the interval, and when it begins, in seconds and nanoseconds each.
        spec = (ctypes.c_long * 4)(*divmod(self._period, GIGA), *divmod(self._begin, GIGA))
        _checked(_libc.timerfd_settime(self._timer, TFD_TIMER_ABSTIME, spec, None))

    def ticks(self, count: int) -> Iterator[tuple[int, float]]:
        """So many ticks, once, each as soon as it is due: its number, and when it was.

        By ``time.monotonic``, which all processes share. Whoever falls too far behind gets no more.
        """
        due = 0
        for number in range(count):
            if number >= due:
                due += self._wait()
            if self._is_too_late(number):
                break
            yield number, self._time_of(number)
        os.close(self._timer)

    async def ticks_on_loop(self, count: int) -> AsyncIterator[tuple[int, float]]:
        """The same, while the loop runs on."""
        loop, ticked, due = asyncio.get_running_loop(), asyncio.Event(), 0

        def tick() -> None:
            nonlocal due
            due += self._wait()
            ticked.set()

        loop.add_reader(self._timer, tick)
        try:
            for number in range(count):
                while number >= due:
                    ticked.clear()
                    await ticked.wait()
                if self._is_too_late(number):
                    return
                yield number, self._time_of(number)
        finally:
            loop.remove_reader(self._timer)
            os.close(self._timer)

    def _wait(self) -> int:
        """How many ticks there were since the last time, one at least."""
        return int.from_bytes(os.read(self._timer, 8), "little")

    def _time_of(self, number: int) -> float:
        return (self._begin + number * self._period) / GIGA

    def _is_too_late(self, number: int) -> bool:
        return time.monotonic() - self._time_of(number) > TOO_LATE


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
