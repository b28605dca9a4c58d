"""A bound on how many messages a second are let through."""

from __future__ import annotations

import threading
import time

from commlib._packet import Header
from commlib._wire import Refused


class RateLimit:
    """A token bucket: ``per_second`` on average, and as many in a burst. Safe from any thread."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._most = max(1.0, float(per_second))
        self._left = self._most
        self._looked = time.monotonic()
        self._lock = threading.Lock()

    def check(self, header: Header) -> None:
        """Count one more message. Raises Refused, with its header, for one that is too many."""
        with self._lock:
            now = time.monotonic()
            grown = self._left + (now - self._looked) * self._per_second
            self._left, self._looked = min(self._most, grown), now
            if self._left >= 1:
                self._left -= 1
                return
        text = f"more than {self._per_second:g} messages a second"
        raise Refused(text, header, "TooManyMessages")


def rate_limit(per_second: float | None) -> RateLimit | None:
    """The limit, None if there is none. Raises ValueError for what is no rate."""
    if per_second is None:
        return None
    if not (isinstance(per_second, int | float) and per_second > 0):
        raise ValueError(f"max_rate={per_second!r}: it is a number of messages a second")
    return RateLimit(per_second)
