"""When something is due that happens at a pace, whatever holds it up meanwhile."""

from __future__ import annotations

from collections.abc import Callable


class Pace:
    """Counts from the beginning, so that small delays are made up for and never add up.

    Of a long one, as after Ctrl-Z, only ``catch_up`` s are made up for: nobody wants a flood of all
    that was missed. ``clock`` gives s.
    """

    def __init__(self, clock: Callable[[], float], catch_up: float) -> None:
        self._clock = clock
        self._catch_up = catch_up
        self._begin = clock()
        self._last = 0.0

    def pause(self, seconds: float) -> float:
        """The s until something is due that comes so long after the beginning; 0 if it is late."""
        now = self._clock()
        self._last = max(self._last, seconds)  # one that is due before others is no delay
        self._begin = max(self._begin, now - self._last - self._catch_up)
        return max(0.0, self._begin + seconds - now)
