"""The table of the README, made of a record: a few figures that tell most, as ratios."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from bench.markers import Part
from bench.record import Record
from bench.report import number
from bench.results import Results
from bench.roster import CONTENDERS, ROOT
from bench.targets import FIGURES, Figure

PART = Part(ROOT / "README.md", "bench.front")
WIDTH = 100
NAMES = {"redis": "Redis", "mqtt": "MQTT", "amqp": "AMQP"}
PEERS = [who.name for who in CONTENDERS if who.kind == "peer"]
PIPELINED = "redis-py, asyncio"  # the only client in Python that collects messages

# By measurement, key and the contender of ours: the words for it.
ROWS = {
    ("publish", "rate", "ours"): "publish, messages/s",
    ("receive", "rate", "ours"): "receive, messages/s",
    ("burst", "rate", "ours"): "receive a burst of 50 000 from the same sender, messages/s",
    ("bridge", "rate", "ours"): "receive through a bridge, messages/s",
    ("blob", "mb_per_s", "ours"): "receive payloads of 1 MB that come all at once, MB/s",
    ("tasks", "rate", "ours, aio"): "64 calls in flight by `commlib.aio`, calls/s",
    ("calls", "rate", "ours"): "8 threads calling, calls/s",
    ("call", "p50_us", "ours"): "*call, median, µs*",
    ("goals", "p50_us", "ours"): "*goal that is reached at once, median, µs*",
    ("start", "first_ms", "ours"): "*first message after process start, ms*",
    ("node", "rss_mb", "ours"): "*memory of a node with 10 endpoints, MB*",
}
_FIGURES = {(figure.measurement, figure.key, figure.ours): figure for figure in FIGURES}


def text(record: Record) -> str:
    """The table with what must be said beside it."""
    claims, conditions, terms = (
        textwrap.fill(words, WIDTH, break_on_hyphens=False)
        for words in (_claims(record), _conditions(record), _terms(record))
    )
    return f"{claims}\n\n{conditions}\n\n{_table(record)}\n{terms}\n"


def _claims(record: Record) -> str:
    """What it comes to, in ratios."""
    publish, receive, call = (
        _FIGURES["publish", "rate", "ours"],
        _FIGURES["receive", "rate", "ours"],
        _FIGURES["call", "p50_us", "ours"],
    )
    peers = f"{', '.join(PEERS[:-1])} and {PEERS[-1]}"
    return (
        f"Beside the best of {peers}, taken in the same run, it publishes "
        f"{_span(record, publish, 'peer')} as many messages, receives "
        f"{_span(record, receive, 'peer')} as many, and a call takes "
        f"{_span(record, call, 'peer')} as long. Beside the *limit*, a bare socket with the same "
        f"codecs and nothing around them, it publishes {_span(record, publish, 'limit')} as many "
        f"and receives {_span(record, receive, 'limit')} as many."
    )


def _conditions(record: Record) -> str:
    """What the ratios are of, where that is not plain."""
    publish, burst = _FIGURES["publish", "rate", "ours"], _FIGURES["burst", "rate", "ours"]
    pipelined = [_quotient(results, publish, PIPELINED) for results in record.brokers]
    return (
        "To *receive* is end to end: each is fed by a publisher of its own, and none receives "
        "faster than that one publishes meanwhile. The *burst* is of receivers alone, for one "
        "sender feeds them all: ours receives it "
        f"{_span(record, burst, 'peer')} as fast as the best peer. On "
        "Redis, peers' publishing returns with the broker's answer to each message, ours when "
        "the message is in the bounded outgoing queue; all are measured until the broker has all "
        f"messages. Beside the fastest Python client with pipelines ({PIPELINED}; a hundred "
        f"messages each, by hand) ours publishes {_times(pipelined)} as many."
    )


def _quotient(results: Results, figure: Figure, contender: str) -> float | None:
    """Ours by that of a contender; None if one is missing."""
    ours, other = results.value(figure, figure.ours), results.value(figure, contender)
    return ours / other if ours is not None and other else None


def _span(record: Record, figure: Figure, to: str) -> str:
    """The ratios on all brokers, as "from A to B times"."""
    return _times([results.ratio(figure, figure.ours, to) for results in record.brokers])


def _times(ratios: Sequence[float | None]) -> str:
    """From the least to the greatest of those that there are."""
    texts = [short(ratio) for ratio in sorted(ratio for ratio in ratios if ratio is not None)]
    if not texts:
        return "? times"
    return f"{texts[0]} times" if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]} times"


def _table(record: Record) -> str:
    """Three columns for each broker: ours, and its two ratios."""
    head, rule = [""], ["---"]
    for results in record.brokers:
        head += [NAMES.get(results.broker, results.broker), "of limit", "of best peer"]
        rule += ["---:"] * 3
    lines = [head, rule, *_lines(record)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _lines(record: Record) -> Iterator[list[str]]:
    for key, title in ROWS.items():
        cells = [cell for results in record.brokers for cell in _cells(results, _FIGURES[key])]
        if any(cell != "–" for cell in cells):
            yield [title, *cells]


def _cells(results: Results, figure: Figure) -> list[str]:
    """Ours, its share of the limit, and its multiple of the best peer."""
    value = results.value(figure, figure.ours)
    ratios = [results.ratio(figure, figure.ours, to) for to in ("limit", "peer")]
    return [
        "–" if value is None else number(float(f"{value:.3g}")),  # more is noise
        *("–" if ratio is None else f"{short(ratio)} ×" for ratio in ratios),
    ]


def short(ratio: float) -> str:
    """Two figures, or all before the point: 0.042, 0.56, 3.9, 45."""
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2g}"


def _terms(record: Record) -> str:
    """What the columns mean, and where it was measured."""
    machine = record.machine
    rounds = "One round" if record.rounds == 1 else f"Medians of {record.rounds} rounds"
    brokers = ", ".join(results.version for results in record.brokers)
    return (
        "In the lines *in italics*, less is better. *Of best peer*: the quotient of ours and the "
        f"best of {', '.join(PEERS)}, which were measured in turn with ours; ours is without "
        f"uvloop. {rounds} on "
        f"{record.date[:10]}; {machine['processor']}, {machine['cores']} cores, "
        f"{machine['system']}, {machine['python']}; {brokers}, all on one machine."
    )
