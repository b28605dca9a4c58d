"""Counts what is published on each topic, in bounded memory. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import Struct

from commlib._discovery import NodeInfo
from commlib._topics import matcher

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

    def take(self, seconds: float, nodes: Sequence[NodeInfo] = ()) -> list[Rate]:
        """All topics, those that only nodes tell of among them, and begin a new interval."""
        rates = {topic: tally.rate(topic, seconds) for topic, tally in self._of.items()}
        for tally in self._of.values():
            tally.begin()
        if len(self._of) > MAX_TOPICS:  # let go of the quiet ones, so that others have their turn
            quiet = [topic for topic, rate in rates.items() if not rate.rate]
            for topic in quiet:
                del self._of[topic]
        for topic in topics_of(nodes):
            rates.setdefault(topic, Rate(topic))
        return list(rates.values())


def topics_of(nodes: Iterable[NodeInfo]) -> dict[str, None]:
    """The topics that nodes publish or read, patterns left aside."""
    ports = (port for node in nodes for port in node.endpoints)
    kinds = ("publisher", "subscriber")
    return {port.name: None for port in ports if port.kind in kinds and "*" not in port.name}


def count_ports(rates: Iterable[Rate], nodes: Sequence[NodeInfo], native: str = "") -> None:
    """Note how many publish and read each topic, those that read it by a pattern among them.

    ``native`` are the characters of the broker's own wildcards; what such a pattern takes only the
    broker knows, so it is not counted.
    """
    published: dict[str, int] = {}
    takes: list[Callable[[str], bool]] = []
    for port in (port for node in nodes for port in node.endpoints):
        if port.kind == "publisher":
            published[port.name] = published.get(port.name, 0) + 1
        elif port.kind == "subscriber" and (take := matcher(port.name, native)) is not None:
            takes.append(take)
    for rate in rates:
        rate.publishers = published.get(rate.topic, 0)
        rate.subscribers = sum(take(rate.topic) for take in takes)


ORDERS: dict[str, Callable[[Rate], Any]] = {
    "rate": lambda rate: (-rate.rate, rate.topic),
    "bytes": lambda rate: (-rate.bytes_rate, rate.topic),
    "latency": lambda rate: (-(rate.latency or 0.0), rate.topic),
    "lost": lambda rate: (-rate.lost, rate.topic),
    "topic": lambda rate: rate.topic,
}
"""How topics can be sorted: what there is most of comes first."""
