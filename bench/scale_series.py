"""What is shown of the runs in `scale_runs`: series of figures over how many there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import log2

from bench.scale_runs import Figures

DRAWN = {
    ("topics", "make_s"),
    ("topics", "rss_kb"),
    ("topics", "all_busy_us"),
    ("publishers", "cpu_us"),
    ("services", "all_busy_us"),
    ("clients", "cpu_us"),
    ("nodes", "make_s"),
    ("shared_nodes", "make_s"),
}
"""Those that are drawn: the figures of which runs."""
NOTHING = {"s": 1e-3, "MB": 0.1, "µs": 1.0}
"""The least figure of each unit that is told apart from none."""


@dataclass(frozen=True)
class Kind:
    """A series: which figure of a run, times ``factor``, and what it is called."""

    run: str
    figure: str
    name: str
    y_label: str
    x_label: str
    factor: float = 1.0

    @property
    def unit(self) -> str:
        """The first word of the label that is one: s, MB or µs."""
        return next(word for word in self.y_label.split() if word in NOTHING)


def _made(run: str, name: str, x_label: str) -> Iterator[Kind]:
    """What it takes to make many."""
    yield Kind(run, "make_s", f"{name}: making all", "s until confirmed", x_label)
    yield Kind(run, "make_cpu_s", f"{name}: making all", "s of CPU", x_label)
    yield Kind(run, "more_us", f"{name}: one more", "µs until confirmed", x_label)
    yield Kind(run, "rss_kb", f"{name}: memory", "MB in all", x_label, 1 / 1024)


KINDS: tuple[Kind, ...] = (
    *_made("topics", "subscriptions", "subscriptions"),
    Kind("topics", "one_busy_us", "messages on one topic", "CPU µs per message", "subscriptions"),
    Kind("topics", "all_busy_us", "messages on all topics", "CPU µs per message", "subscriptions"),
    *_made("patterns", "patterns", "patterns"),
    Kind("patterns", "one_busy_us", "messages for one pattern", "CPU µs per message", "patterns"),
    Kind(
        "patterns",
        "all_busy_us",
        "messages for 1000 patterns at most",
        "CPU µs per message",
        "patterns",
    ),
    *_made("one_topic", "subscribers of one topic", "subscribers"),
    Kind("one_topic", "copy_us", "copies of a message", "CPU µs per copy", "subscribers"),
    *_made("publishers", "publishers", "publishers"),
    Kind("publishers", "cpu_us", "publishing on all topics", "CPU µs per message", "publishers"),
    *_made("services", "services", "services"),
    Kind("services", "one_busy_us", "serving, one is called", "CPU µs per call", "services"),
    Kind("services", "all_busy_us", "serving, all are called", "CPU µs per call", "services"),
    Kind("services", "all_busy_call_us", "time per call, all called", "µs per call", "services"),
    *_made("clients", "clients", "clients"),
    Kind("clients", "cpu_us", "calling, all clients", "CPU µs per call", "clients"),
    *_made("nodes", "nodes", "nodes"),
    Kind("nodes", "cpu_us", "messages of all nodes", "CPU µs per message", "nodes"),
    *_made("shared_nodes", "nodes on one connection", "nodes"),
    Kind("shared_nodes", "cpu_us", "their messages", "CPU µs per message", "nodes"),
)


@dataclass(frozen=True)
class Series:
    """The figures of one kind on one broker: ``y`` for each number in ``x``."""

    name: str
    broker: str
    what: str
    x: tuple[int, ...]
    y: tuple[float, ...]
    x_label: str
    y_label: str
    unit: str
    is_drawn: bool

    def doubling(self, low: int, high: int) -> float | None:
        """How many times as much twice as many cost, on average from ``low`` to ``high``.

        None where the figures are not there, or too small to be told from nothing.
        """
        if low not in self.x or high not in self.x:
            return None
        begin, end = self.y[self.x.index(low)], self.y[self.x.index(high)]
        if min(begin, end) < NOTHING[self.unit]:
            return None
        return float((end / begin) ** (1 / log2(high / low)))

    def as_dict(self) -> dict[str, object]:
        """As it is written down."""
        return asdict(self)


def series(broker: str, runs: Mapping[str, Mapping[int, Figures]]) -> list[Series]:
    """All series of what was run on a broker: by the run's name, how many, and its figures."""
    made = []
    for kind in KINDS:
        points = {
            many: figures[kind.figure] * kind.factor
            for many, figures in sorted(runs.get(kind.run, {}).items())
        }
        if points:
            x, y = tuple(points), tuple(round(value, 6) for value in points.values())
            made.append(
                Series(
                    f"{broker}, {kind.name}",
                    broker,
                    kind.run,
                    x,
                    y,
                    kind.x_label,
                    kind.y_label,
                    kind.unit,
                    is_drawn=(kind.run, kind.figure) in DRAWN,
                )
            )
    return made
