"""The page on what many of everything cost, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bench.scale_runs import Figures
from bench.scale_series import Series

SPANS = ((100, 1_000), (1_000, 10_000))
PROMISE = 2.0  # times as much, at most, for twice as many
NOISE = 1.15  # times as much again, of what is measured once
INTRODUCTION = """\
# What many of everything cost

By `make scale`: so many subscriptions, publishers, services, clients or nodes in one process, made
with the synchronous face as it comes, without uvloop. *Making all* is the time until the broker has
confirmed all of them, which were begun at once; *one more* that of a further one, the median of 11.
A message, call or copy costs CPU of the process that receives, serves or calls; where all are busy
they take turns, so that hardly anything is found in the processor's caches, and no two messages in
a row are worked off in one go.

*Twice as many* is how many times as much twice as many cost, on average over the span. The promise
is 2 at most; 1 is no more than before. All is measured once, on a machine with other things to do:
only what is beyond 2.3 is taken for a broken promise, and in bold type.
"""
NOTES = """\

## What the figures say

* Python's garbage collector looks at all objects when a quarter more have come since it last did,
  and for the first time at some 70 000, which is from about 2000 endpoints on. That is why the
  first 1000 are cheaper to make than the last; with it off, each of 20 000 subscriptions costs what
  each of 1000 does.
* With all busy a message finds no worker at work on its lane and wakes one, while a burst on one
  topic is worked off in one go. That is a step between one and some, and no growth. So it is with
  nodes that have connections of their own: each message is read and written alone.
* A process pops the requests of 100 services at most on one connection to Redis, for each request
  is waited for with the names of all of them: 10 000 services have 100 connections for it.
* Redis compares each message with every pattern of every client, so that with many patterns it is
  the server that is slow, and messages come one by one; Mosquitto and RabbitMQ look patterns up.
* RabbitMQ takes up to a millisecond to bind or declare a queue, so that is what the time of making
  all is made of there, and it does so no faster for several at once.
* Nodes that share a connection are limited by memory alone. With connections of their own it is the
  limit of open files, here and at the broker, and `maxclients` of Redis, 10 000 as it comes: a node
  has one connection to Mosquitto and RabbitMQ, and two to four to Redis.
"""


def document(
    described: Mapping[str, object],
    all_series: Sequence[Series],
    runs: Mapping[str, Mapping[str, Mapping[int, Figures]]],
    failures: Sequence[str],
) -> str:
    """The whole of it."""
    parts = [INTRODUCTION, f"\n{_machine(described)}\n"]
    for broker in dict.fromkeys(one.broker for one in all_series):
        own = [one for one in all_series if one.broker == broker]
        parts += [f"\n## {broker}\n\n", *_table(own), *_sockets(runs.get(broker, {}))]
    parts.append(NOTES)
    if failures:
        parts += ["\n## Where it ended\n\n", *(f"* {failure}\n" for failure in failures)]
    return "".join(parts)


def too_much(all_series: Sequence[Series]) -> list[str]:
    """What breaks the promise."""
    return [
        f"{one.name}: {factor:.2f} times as much for twice as many, from {low} to {high}"
        for one in all_series
        for low, high in SPANS
        if (factor := one.doubling(low, high)) is not None and factor > PROMISE * NOISE
    ]


def _machine(described: Mapping[str, object]) -> str:
    return (
        f"{described['cores']} cores of {described['processor']}, {described['memory_mb']} MB, "
        f"{described['system']}, {described['python']}; {described['date']}."
    )


def _table(own: Sequence[Series]) -> Iterator[str]:
    points = sorted({many for one in own for many in one.x})
    heads = ["", "unit", *map(_spaced, points)]
    heads += [f"twice as many, {_spaced(low)} to {_spaced(high)}" for low, high in SPANS]
    yield _row(heads)
    yield _row(["---", "---", *["---:"] * (len(heads) - 2)])
    for one in own:
        figures = dict(zip(one.x, one.y, strict=True))
        cells = [_figure(figures.get(many)) for many in points]
        cells += [_factor(one.doubling(low, high)) for low, high in SPANS]
        yield _row([one.name.partition(", ")[2], one.y_label, *cells])


def _sockets(runs: Mapping[str, Mapping[int, Figures]]) -> Iterator[str]:
    """How many connections nodes have."""
    for run, text in (("nodes", "own connections"), ("shared_nodes", "a shared one")):
        counts = [
            f"{_spaced(many)}: {_spaced(int(figures['connections']))}"
            for many, figures in sorted(runs.get(run, {}).items())
        ]
        if counts:
            yield f"\nConnections of nodes with {text}: {'; '.join(counts)}.\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if value < 1000 else _spaced(round(value))


def _factor(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if value <= PROMISE * NOISE else f"**{value:.2f}**"
