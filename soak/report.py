"""What a soak tells in the end: a table, and what failed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from soak.run import Record
from soak.samples import second_half, slope

HOUR = 3600


def document(records: Sequence[Record], seed: int) -> str:
    """The whole of it."""
    head = ["", *(record.version or record.broker for record in records)]
    rows = [head, ["---", *["---:"] * len(records)]]
    rows += [[title, *map(cell, records)] for title, cell in ROWS]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"Seed {seed}.\n\n{table}\n{_failures(records)}"


def as_json(records: Sequence[Record], seed: int, minutes: float) -> dict[str, Any]:
    """The same with all samples."""
    return {
        "seed": seed,
        "minutes": minutes,
        "brokers": {
            record.broker: vars(record)
            | {"samples": [sample._asdict() for sample in record.samples]}
            for record in records
        },
    }


def _failures(records: Sequence[Record]) -> str:
    parts = []
    for record in records:
        if record.failures:
            parts += [f"\n{record.broker} has failed:\n", *record.failures]
            parts += ["\nThe end of its log:\n", record.log]
    return "\n".join([*parts, ""]) if parts else "\nAll is well.\n"


# ---- the cells ----


def _number(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ")


def _count(part: str, key: str) -> Callable[[Record], str]:
    def cell(record: Record) -> str:
        counts = record.counts.get(part)
        return "?" if counts is None else _number(counts.get(key, 0))

    return cell


def _listening(key: str) -> Callable[[Record], str]:
    def cell(record: Record) -> str:
        each = record.counts.get("listening")
        return ", ".join(_number(one[key]) for one in each.values()) if each else "?"

    return cell


def _by_kind(counts: Mapping[str, int] | None) -> str:
    if counts is None:
        return "?"
    kinds = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{_number(count)} {kind}" for kind, count in kinds) or "none"


def _took(pattern: str) -> Callable[[Record], str]:
    def cell(record: Record) -> str:
        took = record.took.get(pattern, [])[1:]  # the first is the begin
        return f"{statistics.median(took):.2f}, {max(took):.2f}" if took else "?"

    return cell


def _memory(record: Record) -> str:
    late = second_half(record.samples)
    if not late:
        return "?"
    mb_an_hour = HOUR * slope([one.at for one in late], [one.rss_mb for one in late])
    first, middle, last = (one.rss_mb for one in (record.samples[0], late[0], record.samples[-1]))
    return f"{first:.1f}, {middle:.1f}, {last:.1f} ({mb_an_hour:+.1f} MB/h)"


def _size(name: str) -> Callable[[Record], str]:
    def cell(record: Record) -> str:
        values = [moment[name] for moment in record.calm]
        if not values:
            return "?"
        middle = values[len(values) // 2]
        return f"{_number(values[0])}, {_number(middle)}, {_number(values[-1])}"

    return cell


ROWS: list[tuple[str, Callable[[Record], str]]] = [
    ("minutes", lambda record: f"{record.seconds / 60:.1f}"),
    ("messages sent (by topic, by pattern, at QoS 1)", _listening("sent")),
    ("received", _listening("received")),
    ("counted as lost", _listening("lost")),
    ("of these dropped by the offline policy", _count("publisher", "discarded")),
    ("duplicates", _listening("duplicates")),
    ("reordered", _listening("reordered")),
    ("calls", lambda record: _by_kind(record.counts.get("calls"))),
    ("late replies, which reach nobody", _count("client", "late")),
    ("goals", lambda record: _by_kind(record.counts.get("goals"))),
    ("reconnects of the publisher's node", _count("publisher", "reconnects")),
    ("faults", lambda record: _by_kind(record.faults)),
    ("PubSub works again, s: p50, max", _took("PubSub")),
    ("RPC works again", _took("RPC")),
    ("actions work again", _took("actions")),
    ("RSS, MB: begin, middle, end (slope after the middle)", _memory),
    ("open handles at calm times: first, middle, last", _size("handles")),
    ("threads", _size("threads")),
    ("objects that the collector knows", _size("objects")),
    ("blocks of memory", _size("blocks")),
]
