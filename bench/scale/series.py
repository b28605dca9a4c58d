"""What is shown of the runs in `runs`: series of figures over how many there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import pairwise

from bench.scale.runs import Figures

DRAWN = {
    ("topics", "make_s"),
    ("topics", "rss_kb"),
    ("topics", "all_busy_us"),
    ("publishers", "cpu_us"),
    ("services", "all_busy_us"),
    ("clients", "cpu_us"),
    ("nodes", "make_s"),
    ("shared_nodes", "make_s"),
    ("topics", "more_us"),
    ("services", "more_us"),
    ("nodes", "more_us"),
    ("shared_nodes", "more_us"),
}
"""Those that are drawn: the figures of which runs."""
NOTHING = {"make_s": 0.01, "make_cpu_s": 0.001, "rss_kb": 1.0}
"""The least s or MB that is told apart from none.

Whether the broker has confirmed all is looked up every 10 ms, and Python takes memory by the MB.
"""
NO_MICROSECONDS = 1.0  # the same of all other figures
DECADES = (1, 10, 100, 1_000, 10_000)


class Cost(StrEnum):
    """What a figure is the cost of."""

    TOTAL = "total"  # of all there are
    EACH = "each"  # of one message, call or copy, or of one more


@dataclass(frozen=True)
class Kind:
    """A series: which figure of a run, times ``factor``, and what it is called.

    ``has_step``: with some a message finds what it wakes asleep, with one it is awake (see
    `promise.STEP`).
    """

    run: str
    figure: str
    name: str
    y_label: str
    x_label: str
    factor: float = 1.0
    cost: Cost = Cost.EACH
    has_step: bool = False


def _making(run: str, name: str, x_label: str) -> Iterator[Kind]:
    """What all of them take until they are made."""
    for figure, y_label in (("make_s", "s until confirmed"), ("make_cpu_s", "s of CPU")):
        yield Kind(run, figure, f"{name}: making all", y_label, x_label, cost=Cost.TOTAL)


def _made(run: str, name: str, x_label: str) -> Iterator[Kind]:
    """What it takes to make many, and a further one, and to have them."""
    yield from _making(run, name, x_label)
    yield Kind(run, "more_us", f"{name}: one more", "µs until confirmed", x_label)
    yield Kind(run, "rss_kb", f"{name}: memory", "MB in all", x_label, 1 / 1024, Cost.TOTAL)


def _used(run: str, figure: str, name: str, y_label: str, x_label: str, step: bool = False) -> Kind:
    """What it takes to use one of them, or each in turn."""
    return Kind(run, figure, name, y_label, x_label, has_step=step)


MESSAGE, CALL = "CPU µs per message", "CPU µs per call"
SOME_PATTERNS = "messages for 1000 patterns at most"
KINDS: tuple[Kind, ...] = (
    *_made("topics", "subscriptions", "subscriptions"),
    *_making("topics_uncollected", "subscriptions, collector off", "subscriptions"),
    _used("topics", "one_busy_us", "messages on one topic", MESSAGE, "subscriptions"),
    _used("topics", "all_busy_us", "messages on all topics", MESSAGE, "subscriptions", step=True),
    *_made("patterns", "patterns", "patterns"),
    _used("patterns", "one_busy_us", "messages for one pattern", MESSAGE, "patterns"),
    _used("patterns", "all_busy_us", SOME_PATTERNS, MESSAGE, "patterns", step=True),
    *_made("one_topic", "subscribers of one topic", "subscribers"),
    _used("one_topic", "copy_us", "copies of a message", "CPU µs per copy", "subscribers"),
    *_made("publishers", "publishers", "publishers"),
    _used("publishers", "cpu_us", "publishing on all topics", MESSAGE, "publishers"),
    *_made("services", "services", "services"),
    _used("services", "one_busy_us", "serving, one is called", CALL, "services"),
    _used("services", "all_busy_us", "serving, all are called", CALL, "services", step=True),
    _used("services", "all_busy_call_us", "time per call, all called", "µs per call", "services"),
    *_made("clients", "clients", "clients"),
    _used("clients", "cpu_us", "calling, all clients", CALL, "clients"),
    *_made("nodes", "nodes", "nodes"),
    _used("nodes", "cpu_us", "messages of all nodes", MESSAGE, "nodes", step=True),
    *_made("shared_nodes", "nodes on one connection", "nodes"),
    _used("shared_nodes", "cpu_us", "their messages", MESSAGE, "nodes", step=True),
)


@dataclass(frozen=True)
class Series:
    """The figures of one kind on one broker: ``y`` for each number in ``x``, in rising order."""

    name: str
    broker: str
    run: str
    figure: str
    cost: Cost
    has_step: bool
    x: tuple[int, ...]
    y: tuple[float, ...]
    x_label: str
    y_label: str
    is_drawn: bool

    @property
    def title(self) -> str:
        """Its name without the broker."""
        return self.name.partition(", ")[2]

    def spans(self) -> list[tuple[int, int]]:
        """From the first number to the next decade, and so on, to the last."""
        ends = (self.x[0], self.x[-1])
        return list(pairwise(many for many in self.x if many in DECADES or many in ends))

    def growth(self, low: int, high: int) -> float | None:
        """How many times as much ``high`` of them cost as ``low``.

        None where that is too little to be told from nothing. Where only what fewer cost is, that
        counts as the least that can be told: nothing that grows is passed over.
        """
        begin, end = self.y[self.x.index(low)], self.y[self.x.index(high)]
        nothing = NOTHING.get(self.figure, NO_MICROSECONDS)
        return None if end < nothing else end / max(begin, nothing)

    def as_dict(self) -> dict[str, object]:
        """As it is written down."""
        return asdict(self)


def series(broker: str, runs: Mapping[str, Mapping[int, Figures]]) -> list[Series]:
    """All series of what was run on a broker: by the run's name, how many, and its figures."""
    return [_series(broker, kind, points) for kind in KINDS if (points := runs.get(kind.run))]


def _series(broker: str, kind: Kind, points: Mapping[int, Figures]) -> Series:
    x = tuple(sorted(points))
    return Series(
        f"{broker}, {kind.name}",
        broker,
        kind.run,
        kind.figure,
        kind.cost,
        kind.has_step,
        x,
        tuple(round(points[many][kind.figure] * kind.factor, 6) for many in x),
        kind.x_label,
        kind.y_label,
        is_drawn=(kind.run, kind.figure) in DRAWN,
    )
