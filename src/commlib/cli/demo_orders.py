"""What `commlib demo` and its processes say to each other: one JSON document a line."""

from __future__ import annotations

import msgspec

# -- orders, from the demo ------------------------------------------------------------------------


class Pace(msgspec.Struct, tag=True):
    """Publish so many messages, evenly within so many seconds."""

    count: int
    seconds: float


class Burst(msgspec.Struct, tag=True):
    """Publish so many messages as fast as it goes, but for no more than so many seconds."""

    count: int
    seconds: float


class Expect(msgspec.Struct, tag=True):
    """Report once so many messages were received since the last report, or after ``patience`` s."""

    count: int
    patience: float


class Call(msgspec.Struct, tag=True):
    """Call the adder for so many seconds, with so many calls under way at once."""

    at_once: int
    seconds: float


class Stop(msgspec.Struct, tag=True):
    """Leave the broker and end."""


Order = Pace | Burst | Expect | Call | Stop


# -- reports, from the processes ------------------------------------------------------------------


class Ready(msgspec.Struct):
    """The broker has confirmed all that the role needs."""


class Latency(msgspec.Struct):
    """In seconds: half of all took no longer than ``p50``, 99 of 100 no longer than ``p99``."""

    p50: float = 0.0
    p99: float = 0.0

    @classmethod
    def of(cls, nanoseconds: list[int]) -> Latency:
        """The latency of so many single ones."""
        if not nanoseconds:
            return cls()
        ranked = sorted(nanoseconds)
        return cls(ranked[len(ranked) // 2] / 1e9, ranked[len(ranked) * 99 // 100] / 1e9)


class Published(msgspec.Struct):
    """So many messages were confirmed by the broker within so many seconds."""

    count: int
    seconds: float


class Received(msgspec.Struct):
    """So many messages, so many seconds from the first to the last.

    ``irregular``: by the publisher's numbers missing, doubled or overtaken, and messages that were
    dropped or refused; all since the start.
    """

    count: int
    seconds: float
    latency: Latency
    irregular: int


class Called(msgspec.Struct):
    """So many right replies within so many seconds; how many were wrong or did not come, and why.

    ``error`` tells of the first of those.
    """

    count: int
    seconds: float
    latency: Latency
    wrong: int
    error: str


Report = Ready | Published | Received | Called
