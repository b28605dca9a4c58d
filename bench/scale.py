"""Measure what many of everything cost, from 1 to 10 000, and say whether it grows too fast.

    make scale ARGS="--brokers mqtt --only topics,nodes --points 1,100,10000"

A whole run takes about eight minutes and is written to ``bench/results/scale.json`` and
``scale.md``; a part of one is only shown.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence

from bench import machine, scale_report
from bench.brokers import BROKERS, Broker
from bench.contenders import ROOT
from bench.scale_runs import FAILURES, RUNS, Bed, Figures
from bench.scale_series import Series, series

FOLDER = ROOT / "bench" / "results"
POINTS = (1, 10, 100, 1_000, 2_000, 5_000, 10_000)
FEWER = (1, 100, 1_000, 10_000)
POINTS_OF = {
    "patterns": FEWER,
    "one_topic": FEWER,
    "clients": FEWER,
    # Each has connections of its own: for 10 000 the usual limits are too low.
    "nodes": (1, 10, 100, 1_000, 2_000),
}

Runs = dict[str, dict[int, Figures]]


def main() -> None:
    """Do what the command line says."""
    options = _parser().parse_args()
    described = machine.describe() | {"date": time.strftime("%Y-%m-%d")}
    begun = time.monotonic()
    runs: dict[str, Runs] = {}
    failures: list[str] = []
    for name in options.brokers:
        runs[name] = _run(BROKERS[name], options.only, options.points, failures)
    described["seconds"] = round(time.monotonic() - begun)
    found = [one for name in runs for one in series(name, runs[name])]
    text = scale_report.document(described, found, runs, failures)
    print(text)
    for line in scale_report.too_much(found):
        print(f"too much: {line}")
    is_whole = options.only == list(RUNS) and options.brokers == list(BROKERS)
    if is_whole and not options.points:
        _write(described, found, runs, failures, text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make scale", description=__doc__.partition("\n")[0])
    parser.add_argument("--brokers", type=_Names(BROKERS), default=list(BROKERS))
    parser.add_argument("--only", type=_Names(RUNS), default=list(RUNS), help=", ".join(RUNS))
    parser.add_argument("--points", type=_numbers, default=[], help="how many of each")
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
    return [int(word) for word in text.split(",")]


def _run(broker: Broker, names: Sequence[str], points: Sequence[int], failures: list[str]) -> Runs:
    """All runs on one broker; where one fails, there is nothing beyond."""
    runs: Runs = {}
    with broker.start() as server:
        bed = Bed(broker.name, server)
        for name in names:
            begun = time.monotonic()
            runs[name] = {}
            for many in points or POINTS_OF.get(name, POINTS):
                try:
                    runs[name][many] = RUNS[name](bed, many)
                except FAILURES as exc:
                    failures.append(f"{broker.name}, {name}, {many}: {exc}")
                    break
            seconds = time.monotonic() - begun
            print(f"{broker.name}, {name}: {seconds:.0f} s", file=sys.stderr, flush=True)
    return runs


def _write(
    described: dict[str, object],
    found: Sequence[Series],
    runs: dict[str, Runs],
    failures: Sequence[str],
    text: str,
) -> None:
    FOLDER.mkdir(exist_ok=True)
    record = {
        "machine": described,
        "series": [one.as_dict() for one in found if one.is_drawn],
        "more_series": [one.as_dict() for one in found if not one.is_drawn],
        "runs": runs,
        "failures": failures,
    }
    file = FOLDER / "scale.json"
    file.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    page = FOLDER / "scale.md"
    page.write_text(text)
    print(f"written to {file.relative_to(ROOT)} and {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
