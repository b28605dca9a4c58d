"""What costs too much and is known to, and why: everything else that does is a fault.

An exception is no licence: it says on which figures, from how many on and how much it explains. If
nothing is left of it, the page says so, and it is to be taken out of here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.brokers import BROKERS
from bench.scale.promise import Growth, growths
from bench.scale.series import Series


@dataclass(frozen=True)
class Known:
    """A known exception.

    It explains these ``figures`` of these ``runs`` on these ``brokers``, in spans that begin at
    ``since`` or beyond, as long as twice as many cost no more than ``at_most`` times as much. Where
    it is ``shown_by`` a run without the cause, it explains nothing unless that was measured on
    the same broker, and keeps the promise there.
    """

    name: str
    reason: str
    runs: frozenset[str]
    figures: frozenset[str]
    since: int
    at_most: float
    brokers: frozenset[str] = field(default_factory=lambda: frozenset(BROKERS))
    shown_by: str = ""

    def is_about(self, one: Series) -> bool:
        """Whether it is about a series at all."""
        return one.broker in self.brokers and one.run in self.runs and one.figure in self.figures

    def was_looked_for(self, all_series: Sequence[Series]) -> bool:
        """Whether anything was measured in which it could occur."""
        return any(
            growth.low >= self.since
            for one in all_series
            if self.is_about(one)
            for growth in growths(one)
        )

    def explains(self, growth: Growth, all_series: Sequence[Series]) -> bool:
        """Whether it is the reason why this is too much."""
        return (
            self.is_about(growth.series)
            and growth.low >= self.since
            and growth.doubling <= self.at_most
            and (not self.shown_by or self._is_shown(growth.series, all_series))
        )

    def _is_shown(self, of: Series, all_series: Sequence[Series]) -> bool:
        without = [
            growth
            for one in all_series
            if (one.broker, one.run, one.figure) == (of.broker, self.shown_by, of.figure)
            for growth in growths(one)
            if growth.low >= self.since
        ]
        return bool(without) and not any(growth.is_too_much for growth in without)


KNOWN = (
    Known(
        "Python's garbage collector",
        "it looks at all objects when a quarter more have come since it last did, and for the "
        "first time at some 70 000. It explains something only on a broker where subscriptions "
        "that are made with it off keep the promise",
        runs=frozenset({"topics", "patterns", "one_topic", "services", "nodes", "shared_nodes"}),
        figures=frozenset({"make_s", "make_cpu_s"}),
        since=1_000,
        at_most=3.0,
        shown_by="topics_uncollected",
    ),
    Known(
        "Redis and patterns",
        "Redis compares each message with every pattern of every client, so that it is the server "
        "that is slow, and messages come one by one; Mosquitto and RabbitMQ look patterns up",
        runs=frozenset({"patterns"}),
        figures=frozenset({"one_busy_us", "all_busy_us"}),
        since=100,
        at_most=1.5,
        brokers=frozenset({"redis"}),
    ),
    Known(
        "Nodes with connections of their own",
        "the more of them take turns, the fewer messages lie ready when one is read, until each is "
        "written and read alone, at system calls of its own; nodes that share a connection are "
        "spared that",
        runs=frozenset({"nodes"}),
        figures=frozenset({"cpu_us"}),
        since=10,
        at_most=2.2,
    ),
)
