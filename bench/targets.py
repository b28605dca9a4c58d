"""What shall come of it: the figures of the table, and their targets on each broker.

A target is a bound for a figure itself, or for its ratio to that of the limit, of the best peer or
of the best client, taken in the same run. A later broker gets a column of `TARGETS`; a figure
without a target is shown all the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Figure:
    """A line of the table.

    ``ours`` is the contender that is judged. ``more_is_better``: whether a target is a lower bound.
    ``beside``: whether what did not go well is shown beside it.
    """

    measurement: str
    key: str
    title: str
    more_is_better: bool = False
    ours: str = "ours"
    beside: bool = False


@dataclass(frozen=True)
class Target:
    """A bound for a figure, or for its ratio to that of another contender."""

    of: Literal["itself", "limit", "peer", "client"]
    bound: float


def itself(bound: float) -> Target:
    """The figure has this bound."""
    return Target("itself", bound)


def of_limit(bound: float) -> Target:
    """Its ratio to the limit has."""
    return Target("limit", bound)


def of_best_peer(bound: float) -> Target:
    """Its ratio to the best peer has."""
    return Target("peer", bound)


def of_client(bound: float) -> Target:
    """Its ratio to the best client has, the limit among them: some are faster with much data."""
    return Target("client", bound)


def _latencies(pace: str, prefix: str) -> list[Figure]:
    """From when a message was due to when it was received, at this rate."""
    percentiles = {"p50_us": "p50", "p99_us": "p99", "p999_us": "p99.9", "max_us": "max"}
    return [
        Figure(
            "latency",
            f"{prefix}{key}",
            f"latency at {pace}, {percentile} µs",
            beside=key == "p50_us",
        )
        for key, percentile in percentiles.items()
    ]


def _payloads(size: str, measurement: str) -> list[Figure]:
    """Binary payloads of this size."""
    return [
        Figure(measurement, key, f"{size} payloads, {what}", more_is_better=True, beside=beside)
        for key, what, beside in (
            ("published_rate", "publish to a receiver, messages/s", False),
            ("rate", "receive, messages/s", True),
            ("mb_per_s", "receive, MB/s", False),
        )
    ]


def _by_both(*figures: Figure) -> list[Figure]:
    """The same by each face of ours."""
    return [*figures, *(_by_aio(figure) for figure in figures)]


def _by_aio(figure: Figure) -> Figure:
    """The same by ``aio``, which stands in the title before the unit."""
    what, comma, unit = figure.title.rpartition(", ")
    title = f"{what} by `aio`{comma}{unit}" if comma else f"{figure.title}, by `aio`"
    return replace(figure, title=title, ours="ours, aio")


FIGURES = (
    *_by_both(
        Figure("publish", "rate", "publish, messages/s", more_is_better=True),
        Figure("publish", "cpu_us", "publish, CPU µs each"),
        Figure("receive", "rate", "receive, messages/s", more_is_better=True, beside=True),
        Figure("receive", "cpu_us", "receive, CPU µs each"),
        Figure("receive", "peak_mb", "receive, peak RSS, MB"),
        Figure("burst", "rate", "burst of 50 000, messages/s", more_is_better=True, beside=True),
        Figure("burst", "cpu_us", "burst of 50 000, CPU µs each"),
        Figure("burst", "lost", "burst of 50 000, lost"),
    ),
    *_by_both(*_latencies("1000 messages/s", ""), *_latencies("10 000 messages/s", "fast_")),
    *_by_both(
        Figure("call", "p50_us", "call, p50 µs", beside=True),
        Figure("call", "p99_us", "call, p99 µs"),
    ),
    Figure("calls", "rate", "8 threads calling, calls/s", more_is_better=True, beside=True),
    Figure(
        "calls",
        "rate",
        "8 calls in flight by `aio`, calls/s",
        more_is_better=True,
        ours="ours, aio",
        beside=True,
    ),
    Figure(
        "tasks",
        "rate",
        "64 calls in flight by `aio`, calls/s",
        more_is_better=True,
        ours="ours, aio",
        beside=True,
    ),
    *_by_both(
        Figure("goals", "p50_us", "goal reached at once, p50 µs", beside=True),
        Figure("goals", "p99_us", "goal reached at once, p99 µs"),
        Figure("slow_goals", "p50_us", "goal of 50 ms with three feedbacks, p50 µs", beside=True),
        Figure(
            "bridge",
            "rate",
            "receive through a bridge, messages/s",
            more_is_better=True,
            beside=True,
        ),
        Figure(
            "fan_out",
            "rate",
            "10 subscriptions of one topic in a process, receive, messages/s",
            more_is_better=True,
            beside=True,
        ),
        Figure(
            "spread",
            "rate",
            "10 subscribers in processes of their own, receive together, messages/s",
            more_is_better=True,
            beside=True,
        ),
        Figure(
            "fan_in",
            "rate",
            "10 publishers in processes of their own, receive, messages/s",
            more_is_better=True,
            beside=True,
        ),
        *_payloads("16 B", "payload_16"),
        *_payloads("200 B", "payload_200"),
        *_payloads("10 kB", "payload_10k"),
        *_payloads("1 MB", "payload_1m"),
        Figure(
            "blob", "mb_per_s", "1 MB payloads all at once, MB/s", more_is_better=True, beside=True
        ),
        Figure("topics", "one_busy_ratio", "cost with 10 000 subscriptions / 10, one busy, ratio"),
        Figure("topics", "all_busy_ratio", "cost with 10 000 subscriptions / 10, all busy, ratio"),
    ),
    *_by_both(
        Figure("node", "connections", "node with 10 endpoints: connections"),
        Figure("node", "threads", "its threads at rest"),
        Figure("node", "rss_mb", "its RSS, MB"),
        Figure("node", "growth_mb", "its growth by 100 subscriptions, MB"),
        Figure("node", "idle_percent", "its idle CPU, % of a core"),
        Figure("start", "import_ms", "import, ms"),
        Figure("start", "first_ms", "first message after process start, ms"),
    ),
)

# By measurement, key and the contender that is judged.
TARGETS: dict[str, dict[tuple[str, str, str], tuple[Target, ...]]] = {
    "redis": {
        ("publish", "rate", "ours"): (of_limit(0.5), of_best_peer(25)),
        ("publish", "cpu_us", "ours"): (itself(3),),
        ("receive", "rate", "ours"): (of_limit(0.4), of_best_peer(15)),
        ("receive", "cpu_us", "ours"): (itself(4),),
        ("burst", "lost", "ours"): (itself(0),),
        ("call", "p50_us", "ours"): (of_limit(2), of_best_peer(0.25)),
        ("calls", "rate", "ours"): (of_best_peer(10),),
        ("tasks", "rate", "ours, aio"): (itself(20_000),),
        ("goals", "p50_us", "ours"): (itself(2000),),
        ("node", "connections", "ours"): (itself(4),),
        ("node", "threads", "ours"): (itself(2),),
        ("node", "rss_mb", "ours"): (itself(28),),
        ("node", "growth_mb", "ours"): (itself(1),),
        ("node", "idle_percent", "ours"): (itself(0.1),),
        ("start", "import_ms", "ours"): (itself(90),),
        ("start", "first_ms", "ours"): (itself(130),),
        ("topics", "one_busy_ratio", "ours"): (itself(1.5),),
        ("topics", "all_busy_ratio", "ours"): (itself(1.5),),
        ("blob", "mb_per_s", "ours"): (of_client(0.8),),
    },
    "mqtt": {
        ("publish", "rate", "ours"): (of_limit(0.5), of_best_peer(3)),
        ("publish", "cpu_us", "ours"): (itself(5),),
        ("receive", "rate", "ours"): (of_limit(0.6), of_best_peer(2)),
        ("receive", "cpu_us", "ours"): (itself(10),),
        ("burst", "lost", "ours"): (itself(0),),
        ("call", "p50_us", "ours"): (of_best_peer(0.5),),
        ("calls", "rate", "ours"): (of_best_peer(3),),
        ("tasks", "rate", "ours, aio"): (itself(10_000),),
        ("goals", "p50_us", "ours"): (itself(2000),),
        ("node", "connections", "ours"): (itself(1),),
        ("node", "threads", "ours"): (itself(2),),
        ("node", "rss_mb", "ours"): (itself(32),),
        ("node", "idle_percent", "ours"): (itself(0.1),),
        ("start", "import_ms", "ours"): (itself(140),),
        ("start", "first_ms", "ours"): (itself(180),),
        ("topics", "one_busy_ratio", "ours"): (itself(1.5),),
        ("topics", "all_busy_ratio", "ours"): (itself(1.5),),
        ("blob", "mb_per_s", "ours"): (of_client(0.8),),
    },
    "amqp": {
        ("publish", "rate", "ours"): (of_limit(0.4), of_best_peer(2)),
        ("publish", "cpu_us", "ours"): (itself(5),),
        ("receive", "rate", "ours"): (of_limit(0.3), of_best_peer(3)),
        ("receive", "cpu_us", "ours"): (itself(15),),
        ("burst", "lost", "ours"): (itself(0),),
        ("call", "p50_us", "ours"): (of_best_peer(0.5),),
        ("calls", "rate", "ours"): (of_best_peer(4),),
        ("tasks", "rate", "ours, aio"): (itself(5000),),
        ("goals", "p50_us", "ours"): (itself(3000),),
        ("node", "connections", "ours"): (itself(1),),
        ("node", "threads", "ours"): (itself(2),),
        ("node", "rss_mb", "ours"): (itself(34),),
        ("node", "idle_percent", "ours"): (itself(0.1),),
        ("start", "import_ms", "ours"): (itself(140),),
        ("start", "first_ms", "ours"): (itself(200),),
        ("topics", "one_busy_ratio", "ours"): (itself(1.5),),
        ("topics", "all_busy_ratio", "ours"): (itself(1.5),),
        ("blob", "mb_per_s", "ours"): (of_client(0.8),),
    },
}


def targets_of(broker: str, figure: Figure) -> tuple[Target, ...]:
    """What is expected of a figure on this broker."""
    return TARGETS.get(broker, {}).get((figure.measurement, figure.key, figure.ours), ())
