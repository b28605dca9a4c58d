"""The recorded counts, and what became of them. Pure.

A count is one of a build of Python and of the libraries in C that are used: another compiler makes
other instructions. So a record tells with what it was made, and is compared with the same only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from bench.instructions.paths import EVERYWHERE, Path

TOLERANCE = 0.03  # by how much a count may grow, beside what it was seen to vary by


class Count(msgspec.Struct, frozen=True):
    """Instructions of one message, and by what share of them several runs differed."""

    instructions: int
    spread: float = 0.0


Counts = dict[str, dict[str, Count]]
"""By path and broker."""


class Record(msgspec.Struct, frozen=True):
    """What is written down. ``machine`` is told, and not compared."""

    made_with: dict[str, str]
    machine: dict[str, str]
    counts: Counts


def counted(rounds: Sequence[float]) -> Count:
    """A count out of those of several runs."""
    ranked = sorted(rounds)
    middle = ranked[len(ranked) // 2]
    return Count(round(middle), round((ranked[-1] - ranked[0]) / middle, 4))


@dataclass(frozen=True)
class Row:
    """One path on one broker: now, and as recorded, if it was."""

    path: str
    broker: str
    now: int
    recorded: Count | None

    @property
    def name(self) -> str:
        return f"{self.path} on {self.broker}"

    @property
    def change(self) -> float:
        """By what share it has grown; 0 if it is new."""
        return self.now / self.recorded.instructions - 1 if self.recorded else 0.0

    @property
    def has_grown(self) -> bool:
        """Whether by more than it varies."""
        return self.change > self._tolerance

    @property
    def has_shrunk(self) -> bool:
        """The opposite."""
        return self.change < -self._tolerance

    @property
    def _tolerance(self) -> float:
        return TOLERANCE + (self.recorded.spread if self.recorded else 0)

    def __str__(self) -> str:
        recorded = f"{self.recorded.instructions:,}" if self.recorded else "-"
        change = f"{self.change * 100:+.1f} %" if self.recorded else "new"
        word = "  MORE" if self.has_grown else "  less" if self.has_shrunk else ""
        return f"{self.path:16} {self.broker:7} {self.now:>10,} {recorded:>10} {change:>9}{word}"


HEADING = f"{'path':16} {'broker':7} {'now':>10} {'recorded':>10} {'change':>9}"


def compared(now: Counts, recorded: Counts) -> list[Row]:
    """All that was counted now, beside what was recorded of it."""
    return [
        Row(path, broker, count.instructions, recorded.get(path, {}).get(broker))
        for path, by_broker in now.items()
        for broker, count in by_broker.items()
    ]


def differences(now: Mapping[str, str], then: Mapping[str, str]) -> list[str]:
    """What is used now that the record was not made with; only of what both tell of."""
    return [
        f"{name} is {now[name] or 'none'}, not {then[name] or 'none'}"
        for name in now
        if name in then and now[name] != then[name]
    ]


def merged(old: Record, new: Record, paths: Iterable[Path]) -> Record:
    """The new record, and what only the old one has of these paths, made with the same things."""
    counts: Counts = {}
    for path in paths:
        both = {**old.counts.get(path.name, {}), **new.counts.get(path.name, {})}
        counts[path.name] = {name: both[name] for name in path.brokers if name in both}
    return Record({**old.made_with, **new.made_with}, new.machine, counts)


def missing(counts: Counts, paths: Iterable[Path]) -> list[str]:
    """The paths, each on a broker, that are not in the record."""
    return [
        f"{path.name} on {broker}"
        for path in paths
        for broker in path.brokers
        if broker not in counts.get(path.name, {})
    ]


def read(data: bytes) -> Record:
    """A record that was written down."""
    return msgspec.json.decode(data, type=Record)


def write(record: Record) -> bytes:
    """The same for a file: a line for each count, so that it is easily seen what has changed."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def document(record: Record, paths: Sequence[Path]) -> str:
    """The record for people, in Markdown."""
    spread = max(
        count.spread for by_broker in record.counts.values() for count in by_broker.values()
    )
    told = [
        f"{name} {what or 'none'}" for name, what in {**record.made_with, **record.machine}.items()
    ]
    lines = [
        "# Instructions per message",
        "",
        "What one message costs the processor at one end of its way, in instructions outside the "
        "kernel. They are counted by callgrind in a process that does nothing else, in all of its "
        "threads, without start-up and imports. `make instructions` counts anew and compares.",
        "",
        f"| path | {' | '.join(EVERYWHERE)} |",
        f"|---|{'---:|' * len(EVERYWHERE)}",
        *(_line(path, record.counts[path.name]) for path in paths),
        "",
        f"Several runs differed by {spread * 100:.1f} % at most. In memory nobody is at the other "
        "end: what that costs is in the count.",
        "",
        *(f"* **{path.name}**: {path.text}." for path in paths),
        "",
        f"Made with: {', '.join(told)}.",
        "",
    ]
    return "\n".join(lines)


def _line(path: Path, counts: Mapping[str, Count]) -> str:
    cells = (f"{counts[name].instructions:,}" if name in counts else "–" for name in EVERYWHERE)
    return f"| {path.name} | {' | '.join(cells)} |"
