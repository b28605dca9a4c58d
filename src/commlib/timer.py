"""A timer that calls a function again and again, in a thread of its own.

It keeps to a schedule: what one call is late is not added to the next. A tick that falls due while
the callback still runs is skipped, not made up for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from traceback import walk_tb
from typing import Any, Self

__all__ = ["Timer", "TimerEvent"]

MAX_REPORTS = 100  # different errors of one timer that are logged

log = logging.getLogger("commlib.timer")


@dataclass(frozen=True, slots=True)
class TimerEvent:
    """What a timer tells its callback: when this call and the one before were due, and took place.

    All in seconds since 1970, by the clock as it was at that call; those of the call before are
    None at the first one. ``last_duration`` is how many seconds the callback ran then.
    """

    last_expected: float | None
    last_real: float | None
    current_expected: float
    current_real: float
    last_duration: float | None


class Timer(threading.Thread):
    """Calls ``callback(event)`` every ``period`` seconds from ``start()`` on, the first time after
    one period; with ``oneshot`` that once only.

    The callback runs in the timer's thread, a daemon. When it raises, SystemExit too, that is
    counted in ``errors`` and logged with its traceback, the same error once, and the timer goes
    on. Like any thread it can be started once. In a ``with`` block it runs until the end of it,
    and there the callback is waited for.

    Raises ValueError for a period that is not above zero.
    """

    def __init__(
        self, period: float, callback: Callable[[TimerEvent], Any], oneshot: bool = False
    ) -> None:
        if not period > 0:
            raise ValueError(f"the period of a timer is a time above 0 s, not {period!r}")
        super().__init__(name="commlib-timer", daemon=True)
        self.errors = 0
        """How often the callback raised."""
        self._period = period
        self._callback = callback
        self._oneshot = oneshot
        self._ending = threading.Event()
        self._reported: set[tuple[type[BaseException], str, int]] = set()

    def shutdown(self) -> None:
        """No more calls; idempotent, and from any thread, the callback's too.

        Returns at once: a call that is under way finishes, and ``join()`` waits for it.
        """
        self._ending.set()

    def run(self) -> None:
        """What the thread does; ``start()`` it instead."""
        last_expected = last_real = last_duration = None
        due = time.monotonic() + self._period
        while self._sleep_until(due):
            begin, real = time.monotonic(), time.time()
            # From the lateness, for the system's clock may be set while this runs.
            expected = real - (begin - due)
            self._call(TimerEvent(last_expected, last_real, expected, real, last_duration))
            if self._oneshot:
                return
            now = time.monotonic()
            last_expected, last_real, last_duration = expected, real, now - begin
            due = _next_tick(due, now, self._period)

    def _sleep_until(self, due: float) -> bool:
        """Whether that time came before the end of the timer did."""
        while (pause := due - time.monotonic()) > 0 and not self._ending.is_set():
            self._ending.wait(min(pause, threading.TIMEOUT_MAX))
        return not self._ending.is_set()

    def _call(self, event: TimerEvent) -> None:
        try:
            self._callback(event)
        except BaseException as exc:  # SystemExit too: no callback ends a timer
            self._report(exc)

    def _report(self, error: BaseException) -> None:
        self.errors += 1
        *_, (frame, line) = walk_tb(error.__traceback__)
        key = (type(error), frame.f_code.co_filename, line)
        if key not in self._reported and len(self._reported) < MAX_REPORTS:
            self._reported.add(key)
            log.error(
                "the callback of a timer failed: %r (further ones like this are only counted)",
                error,
                exc_info=error,
            )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()
        self.join()


def _next_tick(due: float, now: float, period: float) -> float:
    """The first tick of the schedule after ``due`` that has not been missed at ``now``."""
    due += period
    late = now - due
    return due if late <= 0 else now + period - late % period
