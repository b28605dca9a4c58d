"""Measure what many of everything cost, from 1 to 10 000, and say whether it grows too fast.

    make scale ARGS="--brokers mqtt --only topics,nodes --points 1,100,10000"
    make scale ARGS="--rounds 3"
    make scale ARGS="--judge bench/results/scale.json"

A whole run takes about 25 minutes a round and is written to
``bench/results/scale.json`` and ``scale.md``; a part of one is only shown. The status is 1 if
anything costs too much for which there is no known reason, or could not be measured.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench import machine
from bench.brokers import BROKERS, Broker
from bench.roster import ROOT
from bench.scale import page
from bench.scale.judgement import judge
from bench.scale.record import Record, medians
from bench.scale.runs import FAILURES, RUNS, Bed, Runs

FOLDER = ROOT / "bench" / "results"
POINTS = (1, 10, 100, 1_000, 2_000, 5_000, 10_000)
FEWER = (1, 100, 1_000, 10_000)
POINTS_OF = {
    "topics_uncollected": (100, 1_000, 10_000),
    "patterns": FEWER,
    "one_topic": FEWER,
    "clients": FEWER,
    # Each has connections of its own: for 10 000 the usual limits are too low.
    "nodes": (1, 10, 100, 1_000, 2_000),
}


def main() -> int:
    """Do what the command line says; returns the status."""
    options = _parser().parse_args()
    if options.judge:
        record = Record.read(options.judge)
        print(page.document(record))
        return status(record)
    record = _measure(options)
    print(page.document(record))
    is_whole = options.only == list(RUNS) and options.brokers == list(BROKERS)
    if is_whole and not options.points:
        _write(record)
    return status(record)


def status(record: Record) -> int:
    """Say what costs too much without a reason, or failed; 1 if anything does, else 0."""
    unexplained = judge(record.series()).unexplained
    for growth in unexplained:
        print(f"too much: {page.sentence(growth)}")
    for failure in record.failures:
        print(f"failed: {failure}")
    return 1 if unexplained or record.failures else 0


# -- the command line -----------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make scale", description=__doc__.partition("\n")[0])
    parser.add_argument("--brokers", type=_Names(BROKERS), default=list(BROKERS))
    parser.add_argument("--only", type=_Names(RUNS), default=list(RUNS), help=", ".join(RUNS))
    parser.add_argument("--points", type=_numbers, default=[], help="how many of each")
    parser.add_argument("--rounds", type=_positive, default=1, help="of which to take medians (1)")
    parser.add_argument("--judge", type=Path, metavar="FILE", help="this record; measure nothing")
    return parser


class _Names:
    """Reads a list of known names out of an argument."""

    def __init__(self, known: Iterable[str]) -> None:
        self._known = list(known)

    def __call__(self, text: str) -> list[str]:
        names = [name.strip() for name in text.split(",")]
        if unknown := [name for name in names if name not in self._known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(self._known)}")
        return names


def _numbers(text: str) -> list[int]:
    return [_positive(word) for word in text.split(",")]


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


# -- measuring ------------------------------------------------------------------------------------


def _measure(options: argparse.Namespace) -> Record:
    record = Record(machine.describe(), options.rounds, {}, [])
    begun = time.monotonic()
    for name in options.brokers:
        # All once and then all again, so that no moment of the machine spoils every round of one.
        rounds = [
            _run(BROKERS[name], options.only, options.points, record.failures)
            for _ in range(options.rounds)
        ]
        record.runs[name] = medians(rounds)
    record.machine |= {
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.monotonic() - begun),
    }
    return record


def _run(broker: Broker, names: Sequence[str], points: Sequence[int], failures: list[str]) -> Runs:
    """All runs on one broker; where one fails, there is nothing beyond."""
    runs: Runs = {}
    with broker.start() as server:
        bed = Bed(broker.name, server)
        for name in names:
            begun = time.monotonic()
            runs[name] = {}
            for many in sorted(points) or POINTS_OF.get(name, POINTS):
                try:
                    runs[name][many] = RUNS[name](bed, many)
                except FAILURES as exc:
                    failures.append(f"{broker.name}, {name}, {many}: {exc}")
                    break
            seconds = time.monotonic() - begun
            print(f"{broker.name}, {name}: {seconds:.0f} s", file=sys.stderr, flush=True)
    return runs


def _write(record: Record) -> None:
    FOLDER.mkdir(exist_ok=True)
    file, text = FOLDER / "scale.json", FOLDER / "scale.md"
    record.write(file)
    text.write_text(page.document(record))
    print(f"written to {file.relative_to(ROOT)} and {text.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
