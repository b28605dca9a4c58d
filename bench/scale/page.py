"""The page on what many of everything cost, in Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from math import log2

from bench.scale import collector
from bench.scale.judgement import Judgement, judge
from bench.scale.promise import ALLOWED, NOISE, PROMISE, STEP, Growth, growths
from bench.scale.record import Record
from bench.scale.runs import Figures
from bench.scale.series import Cost, Series

WIDTH = 100
INTRODUCTION = """\
# What many of everything cost

By `make scale`: so many subscriptions, publishers, services, clients or nodes in one process, made
with the synchronous face as it comes, without uvloop. *Making all* is the time until the broker has
confirmed all of them, which were begun at once; *one more* that of a further one, the median of 11.
A message, call or copy costs CPU of the process that receives, serves or calls; where all are busy
they take turns, so that hardly anything is found in the processor's caches, and no two messages in
a row are worked off in one go.
"""
RULE = f"""
*Twice as many* is how many times as much twice as many cost, on average from the decade before; 1
is no more than before. What all of them cost may be {PROMISE[Cost.TOTAL]:g} times as much for twice
as many. What one message, call or copy costs, or one more of them, shall stay as it is, which is
{PROMISE[Cost.EACH]:g}. The machine has other things to do: only what is beyond
{ALLOWED[Cost.TOTAL]:.2f} and {ALLOWED[Cost.EACH]:.2f}, which is {NOISE[Cost.TOTAL]:.2f} and
{NOISE[Cost.EACH]:.2f} times what is promised, is taken for a broken promise, and in bold type; over
a decade that noise would add up to {NOISE[Cost.TOTAL] ** log2(10):.1f} and
{NOISE[Cost.EACH] ** log2(10):.1f} times, so that what grows slower than it is not seen here. In
brackets is the step from one to some, which is not judged: {STEP}. Less than 10 ms, 1 ms of CPU
and 1 MB cannot be told from nothing, and count as that much.
"""
NOTES = """\
* A process pops the requests of 100 services at most on one connection to Redis, for each request
  is waited for with the names of all of them: 10 000 services have 100 connections for it.
* RabbitMQ takes up to a millisecond to bind or declare a queue, so that is what the time of making
  all is made of there, and it does so no faster for several at once.
* Nodes that share a connection are limited by memory alone. With connections of their own it is the
  limit of open files, here and at the broker, and `maxclients` of Redis, 10 000 as it comes: a node
  has one connection to Mosquitto and RabbitMQ, and two to four to Redis.
"""


def document(record: Record) -> str:
    """The whole of it."""
    all_series = record.series()
    parts = [
        INTRODUCTION,
        *(f"\n{_filled(text)}\n" for text in (RULE, _machine(record))),
        "\n## What costs too much\n\n",
        *_judgement(judge(all_series)),
    ]
    for broker, runs in record.runs.items():
        own = [one for one in all_series if one.broker == broker]
        parts += [f"\n## {broker}\n\n", *_table(own), *_sockets(runs)]
    parts += ["\n## What the figures say\n\n", *_collector(all_series), NOTES]
    if record.failures:
        parts += ["\n## Where it ended\n\n", *(f"* {failure}\n" for failure in record.failures)]
    return "".join(parts)


def _machine(record: Record) -> str:
    described = record.machine
    times = "once" if record.rounds == 1 else f"{record.rounds} times, of which the median is shown"
    return (
        f"{described['cores']} cores of {described['processor']}, {described['memory_mb']} MB, "
        f"{described['system']}, {described['python']}; {described['date']}. All was measured "
        f"{times}."
    )


# -- what is too much -----------------------------------------------------------------------------


def _judgement(found: Judgement) -> Iterator[str]:
    if found.unexplained:
        yield "For this there is no known reason:\n\n"
        yield from (f"* {sentence(growth)}\n" for growth in found.unexplained)
    else:
        yield "Nothing without a known reason.\n"
    if found.explained:
        yield "\nThe reasons for the rest are known:\n\n"
    for known, all_growths in found.explained.items():
        yield _filled(f"* {known.name}: {known.reason}. So it is with", "  ") + "\n"
        yield from (f"  * {sentence(growth)}\n" for growth in all_growths)
    if found.gone:
        names = "; ".join(known.name for known in found.gone)
        yield f"\nKnown exceptions that no longer occur, to be taken out of the list: {names}.\n"


def sentence(growth: Growth) -> str:
    """What is too much, in words."""
    one = growth.series
    return (
        f"{one.name}, {one.y_label}: {growth.doubling:.2f} times as much for twice as many, from "
        f"{_spaced(growth.low)} to {_spaced(growth.high)} (at most {ALLOWED[one.cost]:.2f})"
    )


def _collector(all_series: Sequence[Series]) -> Iterator[str]:
    for note in collector.notes(all_series):
        yield _filled(f"* {note}", "  ") + "\n"


# -- the tables -----------------------------------------------------------------------------------


def _table(own: Sequence[Series]) -> Iterator[str]:
    points = sorted({many for one in own for many in one.x})
    ends = sorted({high for one in own for _, high in one.spans()})
    heads = ["", "unit", *map(_spaced, points), *(f"twice as many, to {_spaced(n)}" for n in ends)]
    yield _row(heads)
    yield _row(["---", "---", *["---:"] * (len(heads) - 2)])
    for one in own:
        figures = dict(zip(one.x, one.y, strict=True))
        cells = [_figure(figures.get(many)) for many in points]
        found = {growth.high: growth for growth in growths(one)}
        cells += [_factor(found.get(end)) for end in ends]
        yield _row([one.title, one.y_label, *cells])


def _sockets(runs: Mapping[str, Mapping[int, Figures]]) -> Iterator[str]:
    """How many connections nodes have."""
    for run, text in (("nodes", "own connections"), ("shared_nodes", "a shared one")):
        counts = [
            f"{_spaced(many)}: {_spaced(int(figures['connections']))}"
            for many, figures in sorted(runs.get(run, {}).items())
        ]
        if counts:
            yield f"\nConnections of nodes with {text}: {'; '.join(counts)}.\n"


def _filled(text: str, indent: str = "") -> str:
    return textwrap.fill(" ".join(text.split()), WIDTH, subsequent_indent=indent)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if value < 1000 else _spaced(round(value))


def _factor(growth: Growth | None) -> str:
    if growth is None:
        return "–"
    text = f"{growth.doubling:.2f}"
    return f"({text})" if growth.is_step else f"**{text}**" if growth.is_too_much else text
