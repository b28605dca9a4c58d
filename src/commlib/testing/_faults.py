"""What goes wrong on a broker of a test, and when: drawn from a seed. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from commlib._topics import check_pattern, matcher

REPLIES = "replies"
"""The name under which all replies to calls are counted; their own ones are random."""


class Fate(NamedTuple):
    """What becomes of one message: ``delay`` in seconds."""

    is_cut: bool = False
    is_dropped: bool = False
    is_doubled: bool = False
    delay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Faults:
    """How often a broker of a test fails, each a share between 0 and 1 of the messages.

    * ``seed``: the same one makes the same faults. What becomes of a message depends on the seed,
      its topic or service, and how many were sent there before, and so not on how threads take
      turns. All replies to calls count as one topic.
    * ``drop``: it reaches nobody.
    * ``duplicate``: it comes twice.
    * ``delay`` (s): each comes so much later at most. The order on a topic is kept.
    * ``cut``: its sender loses the connection before it, for ``away`` seconds.
    * ``only``: a topic, service or pattern outside of which nothing happens; replies to calls are
      outside of any.

    Raises ValueError for what is no share or time, and for a pattern that is none.
    """

    seed: int | str
    drop: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    cut: float = 0.0
    away: float = 0.05
    only: str | None = None

    def __post_init__(self) -> None:
        for name in ("drop", "duplicate", "cut"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise ValueError(f"{name}={share!r}: it is a share between 0 and 1")
        for name in ("delay", "away"):
            seconds = getattr(self, name)
            if not 0 <= seconds < float("inf"):
                raise ValueError(f"{name}={seconds!r}: it is a time in seconds")
        if self.only is not None:
            check_pattern(self.only)

    def concern(self, name: str) -> bool:
        """Whether anything can happen to messages of this name."""
        if self.only is None:
            return True
        matches = matcher(self.only)
        return matches is not None and name != REPLIES and matches(name)

    def fate(self, name: str, number: int) -> Fate:
        """What becomes of the message of this number, counted from 1 for each name."""
        if not self.concern(name):
            return Fate()
        draw = Random(f"{self.seed}/{name}/{number}").random
        # Always all of them, in this order: one share more changes nothing about the others.
        cut, drop, duplicate, delay = draw(), draw(), draw(), draw()
        return Fate(
            cut < self.cut, drop < self.drop, duplicate < self.duplicate, delay * self.delay
        )
