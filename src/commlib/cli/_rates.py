"""Counts what is published on each topic, in bounded memory. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import Struct

from commlib._topics import is_pattern
from commlib.cli._topic_ports import Topic, key, told_matcher
from commlib.transports.base import Traits

MAX_TOPICS = 10_000  # that are counted each on its own
OTHERS = "(others)"  # under which topics beyond that are counted


class Rate(Struct):
    """A topic in one interval.

    ``rate`` is in messages/s, ``bytes_rate`` in bytes of payload/s. ``latency`` and ``latency_max``
    are ms from the sender's timestamp to here, by the clocks of both; None where nothing tells.
    ``lost`` counts from the beginning. ``publishers`` and ``subscribers`` are ports of nodes.
    """

    topic: str
    rate: float = 0.0
    bytes_rate: float = 0.0
    latency: float | None = None
    latency_max: float | None = None
    lost: int = 0
    publishers: int = 0
    subscribers: int = 0


class _Tally:
    """Of one topic, since the last look."""

    __slots__ = ("aged", "ages", "count", "lost", "oldest", "size")

    def __init__(self) -> None:
        self.lost = 0
        self.begin()

    def begin(self) -> None:
        """Count anew, but for what was lost."""
        self.count = self.size = self.aged = self.ages = 0
        self.oldest: int | None = None

    def rate(self, topic: str, seconds: float) -> Rate:
        """What there was in so many seconds."""
        latency = round(self.ages / self.aged, 1) if self.aged else None
        rates = round(self.count / seconds, 3), round(self.size / seconds, 3)
        return Rate(topic, *rates, latency, self.oldest, self.lost)


class Tallies:
    """The topics that are heard of, the first ``MAX_TOPICS``; others together under ``OTHERS``."""

    def __init__(self) -> None:
        self._of: dict[str, _Tally] = {}

    def note(self, topic: str, size: int, lost: int, age: int | None) -> None:
        """A message of ``size`` bytes has come, ``age`` ms after it was sent."""
        tally = self._of.get(topic)
        if tally is None:
            if len(self._of) >= MAX_TOPICS:
                topic = OTHERS
            tally = self._of.setdefault(topic, _Tally())
        tally.count += 1
        tally.size += size
        tally.lost = max(0, tally.lost + lost)
        if age is not None:
            tally.aged += 1
            tally.ages += age
            tally.oldest = age if tally.oldest is None else max(tally.oldest, age)

    def take(self, seconds: float) -> list[Rate]:
        """All topics that were heard of; a new interval begins."""
        rates = [tally.rate(topic, seconds) for topic, tally in self._of.items()]
        for tally in self._of.values():
            tally.begin()
        if len(self._of) > MAX_TOPICS:  # let go of the quiet ones, so that others have their turn
            for rate in rates:
                if not rate.rate:
                    del self._of[rate.topic]
        return rates


def with_silent(rates: Iterable[Rate], topics: Iterable[Topic], traits: Traits) -> list[Rate]:
    """The same, and the topics of nodes on which nothing is said; patterns are left aside."""
    of_key = {key(rate.topic, traits): rate for rate in rates}
    for topic in topics:
        if not is_pattern(topic.topic, traits.native_wildcards):
            of_key.setdefault(key(topic.topic, traits), Rate(topic.topic))
    return list(of_key.values())


def count_ports(rates: Iterable[Rate], topics: Sequence[Topic], traits: Traits) -> None:
    """Note how many publish and read each topic, those that read it by a pattern among them."""
    published = {key(topic.topic, traits): topic.publishers for topic in topics}
    read = [(told_matcher(each.topic, traits), each.subscribers) for each in topics]
    for rate in rates:
        rate.publishers = published.get(key(rate.topic, traits), 0)
        rate.subscribers = sum(count for takes, count in read if count and takes(rate.topic))


ORDERS: dict[str, Callable[[Rate], Any]] = {
    "rate": lambda rate: (-rate.rate, rate.topic),
    "bytes": lambda rate: (-rate.bytes_rate, rate.topic),
    "latency": lambda rate: (-(rate.latency or 0.0), rate.topic),
    "lost": lambda rate: (-rate.lost, rate.topic),
    "topic": lambda rate: rate.topic,
}
"""How topics can be sorted: what there is most of comes first."""
