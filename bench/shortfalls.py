"""What falls short of its target in a record, and why.

The figures are those of the record; the reasons are written here, by hand, each on a profile or an
experiment. A test sees to it that no target is missed without one.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.front import NAMES
from bench.markers import Part
from bench.record import Record
from bench.report import number, target_text
from bench.results import Results
from bench.roster import ROOT
from bench.targets import FIGURES, Figure, Target, targets_of

PART = Part(ROOT / "docs" / "performance.md", "bench.shortfalls")

THREADS = (
    "The waking of threads is a part of it, see below; without threads, 8 calls at once by `aio` "
    "fall short as well"
)
NOISE_OF_BROKER = (
    "The broker is the limit here, and takes turns with both programs on two cores: the figure "
    "moves by a third from run to run, that of the limit as well"
)
REASONS: dict[tuple[str, str, str], str] = {
    ("redis", "call", "p50_us"): (
        "Ours takes less than the limit, a blocking socket with no thread and no queue, which "
        "takes 0.58 times the best peer's time. In the record before, on a slower machine, it was "
        "0.38 times: ours takes half as long now, the best peer 0.38 times"
    ),
    ("redis", "publish", "cpu_us"): (
        "It is 1.7 times what a bare socket takes, and its rounds were 3.1 to 3.7. On a machine "
        "whose bare socket took a quarter less it was 2.3 µs, 1.45 times"
    ),
    ("mqtt", "call", "p50_us"): THREADS,
    ("redis", "calls", "rate"): THREADS,
    ("mqtt", "calls", "rate"): (
        "The waking of threads is what is missing, see below: without threads, 8 calls at once by "
        "`aio` have 3.02 times. In the record before it was 3.5 times; the best peer has 1.9 times "
        "as many calls on this machine, ours 1.4 times"
    ),
    ("amqp", "calls", "rate"): (
        "The limit, two processes of bare sockets with no thread, has 5.6 times the best peer. "
        "Where such sockets ask of RabbitMQ what ours does besides (acknowledgements, `mandatory`, "
        "expiry and headers) they have 4 times, tried beside an earlier record. With ours RabbitMQ "
        "takes 80 µs of each call, the client 65 and the service 38, and a fifth of the two cores "
        "is idle, for calls come in groups, and one program waits for the other. The waking of "
        "threads is a part of it, see below; without threads, 8 calls at once by `aio` fall short "
        "as well"
    ),
    ("amqp", "call", "p50_us"): (
        "The limit takes two thirds of it, and a fifth of the rest is the waking of two threads, "
        "as the call by `aio` shows. Beyond the limit ours acknowledges each request when it was "
        "handled, for which RabbitMQ takes 14 µs, and has it say where nobody serves, which takes "
        "4 µs (tried beside this record, with 8 calls at once)"
    ),
    ("redis", "topics", "all_busy_ratio"): (
        "It is the processor's cache: 300 busy topics of the 10 000 cost what 10 do, from 1000 on "
        "what a subscription has to itself (some 25 cache lines) is found in memory only. What is "
        "measured is the first burst besides, with the counters that it makes. Handing over was "
        "two thirds of it before; it takes no lock any more"
    ),
    ("amqp", "topics", "all_busy_ratio"): (
        "As on Redis, the processor's cache; and RabbitMQ sends what is for many queues one by one"
    ),
    ("mqtt", "topics", "all_busy_ratio"): (
        "It was Python's collector, which looked at all objects there are in the middle of it, and "
        "what a node tells of itself soon after its start; see below"
    ),
    ("redis", "receive", "rate"): NOISE_OF_BROKER,
    ("mqtt", "receive", "rate"): NOISE_OF_BROKER,
    ("redis", "blob", "mb_per_s"): (
        "`hiredis` copies a payload twice before it is handed out, into its buffer and out of it. "
        "A reader of our own was tried: 46 µs for 1 MB instead of 65, of 290 in all"
    ),
    ("mqtt", "blob", "mb_per_s"): NOISE_OF_BROKER,
    ("amqp", "blob", "mb_per_s"): NOISE_OF_BROKER,
}
"""By broker, measurement and key."""


def missed(results: Results) -> Iterator[tuple[Figure, Target]]:
    """The targets that were not met."""
    for figure in FIGURES:
        for target in targets_of(results.broker, figure):
            if results.is_met(figure, target, figure.ours) is False:
                yield figure, target


def text(record: Record) -> str:
    """A table for each broker."""
    parts = []
    for results in record.brokers:
        lines = [_line(results, figure, target) for figure, target in missed(results)]
        name = NAMES.get(results.broker, results.broker)
        if lines:
            head = "| figure | target | measured | why |\n| --- | --- | --- | --- |\n"
            parts.append(f"On {name}:\n\n{head}{''.join(lines)}\n")
        else:
            parts.append(f"On {name} nothing does.\n\n")
    return "".join(parts)


def _line(results: Results, figure: Figure, target: Target) -> str:
    value = results.value(figure, figure.ours)
    measured = "–" if value is None else number(float(f"{value:.3g}"))
    if target.of != "itself":
        ratio = results.ratio(figure, figure.ours, target.of)
        measured = "–" if ratio is None else f"{number(ratio)} × ({measured})"
    why = REASONS.get((results.broker, figure.measurement, figure.key), "")
    return f"| {figure.title} | {target_text(figure, target)} | {measured} | {why} |\n"
