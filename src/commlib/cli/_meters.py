"""What is measured of messages: how often they come, how large and how old they are. Pure.

Each meter remembers the last ``window`` messages; what it tells is of those, but for ``messages``,
which counts all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice, pairwise
from typing import Any, Protocol

from commlib._packet import Packet, unix_ms
from commlib.cli._figures import in_bytes, in_ms, spread
from commlib.cli._traffic import header_of

Measured = dict[str, Any]
"""Plain data for JSON; None where there is too little to tell."""


class Meter(Protocol):
    """What counts messages and tells of them."""

    messages: int

    def measured(self) -> Measured:
        """What it knows now."""
        ...

    def told(self) -> str:
        """The same, for people; empty while there is nothing to tell."""
        ...


class RateMeter:
    """How many messages come a second, and how regularly."""

    def __init__(self, window: int) -> None:
        self.messages = 0
        self._times: deque[float] = deque(maxlen=window + 1)

    def note(self, at: float) -> None:
        """A message has come, at a time in s."""
        self.messages += 1
        self._times.append(at)

    def measured(self) -> Measured:
        intervals = [(after - before) * 1000 for before, after in pairwise(self._times)]
        return {
            "messages": self.messages,
            "window": len(self._times),
            "rate": per_second(len(intervals), self._times),
            "interval_ms": spread(intervals),
        }

    def told(self) -> str:
        if not self.messages:
            return ""
        found = self.measured()
        if found["rate"] is None:
            return "1 message, and a rate takes two"
        interval = in_ms(found["interval_ms"], "min", "mean", "max", "std")
        return f"{found['rate']:.4g} msg/s, interval {interval}{_of(found)}"


class SizeMeter:
    """How many bytes of payload come a second, and how large payloads are."""

    def __init__(self, window: int) -> None:
        self.messages = 0
        self._sizes: deque[tuple[float, int]] = deque(maxlen=window + 1)

    def note(self, at: float, size: int) -> None:
        """A payload of so many bytes has come, at a time in s."""
        self.messages += 1
        self._sizes.append((at, size))

    def measured(self) -> Measured:
        times = [at for at, _ in self._sizes]
        after_first = sum(size for _, size in islice(self._sizes, 1, None))
        return {
            "messages": self.messages,
            "window": len(self._sizes),
            "rate": per_second(after_first, times),
            "bytes": spread(size for _, size in self._sizes),
        }

    def told(self) -> str:
        if not self.messages:
            return ""
        found = self.measured()
        sizes = found["bytes"]
        rate = "one message, and a rate takes two"
        if found["rate"] is not None:
            rate = f"{in_bytes(found['rate'])}/s"
        low, mean, high = (in_bytes(sizes[name]) for name in ("min", "mean", "max"))
        return f"{rate}, payload min {low}, mean {mean}, max {high}{_of(found)}"


class AgeMeter:
    """How old messages are when they come, by the time that their sender has written in them.

    ``messages`` counts those that have one; ``timeless`` counts the others.
    """

    def __init__(self, window: int) -> None:
        self.messages = self.timeless = 0
        self._ages: deque[float] = deque(maxlen=window)

    def note(self, packet: Packet, now: float) -> None:
        """A message has come; ``now`` is in ms since 1970, by the clock of this machine."""
        header = header_of(packet)
        sent = None if header is None else unix_ms(header.timestamp)
        if sent is None:
            self.timeless += 1
            return
        self.messages += 1
        self._ages.append(now - sent)

    def measured(self) -> Measured:
        return {
            "messages": self.messages,
            "without_timestamp": self.timeless,
            "window": len(self._ages),
            "delay_ms": spread(self._ages),
        }

    def told(self) -> str:
        found = self.measured()
        ages = found["delay_ms"]
        if ages is None:
            none = f"{self.timeless} messages, and none has the time of its sending"
            return none if self.timeless else ""
        text = f"delay {in_ms(ages, 'min', 'p50', 'mean', 'p99', 'max')}{_of(found)}"
        if ages["min"] < 0:
            text += f"; negative: the sender's clock is at least {-ages['min']:.0f} ms ahead"
        return text


class TripMeter:
    """How long messages take to the broker and back. ``lost`` did not come back."""

    def __init__(self, window: int) -> None:
        self.messages = self.lost = 0
        self._trips: deque[float] = deque(maxlen=window)

    def note(self, took: float) -> None:
        """A message has come back after so many s."""
        self.messages += 1
        self._trips.append(took * 1000)

    def measured(self) -> Measured:
        return {
            "messages": self.messages,
            "lost": self.lost,
            "window": len(self._trips),
            "round_trip_ms": spread(self._trips),
        }

    def told(self) -> str:
        if not self.messages:
            return ""
        found = self.measured()
        lost = f", {self.lost} lost" if self.lost else ""
        trips = in_ms(found["round_trip_ms"], "min", "p50", "p99", "max")
        return f"round trip {trips}{lost}{_of(found)}"


def per_second(count: float, times: Iterable[float]) -> float | None:
    """How much it is a second, from the first to the last of times; None for no time at all."""
    times = list(times)
    took = times[-1] - times[0] if times else 0
    return count / took if took > 0 else None


def _of(found: Measured) -> str:
    looked_at, messages = found["window"], found["messages"]
    return f" ({'' if looked_at >= messages else f'the last {looked_at} of '}{messages} messages)"
