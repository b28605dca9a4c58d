"""Measure all contenders side by side, and say what came of it.

    make bench ARGS="--rounds 5 --only publish,receive --brokers mqtt --contenders 'ours; limit'"

A whole run is written to `bench/results`, and what the README and the docs show of it is made anew.
A part of one is only printed, or recorded in a file of yours: ``--record before.json``.
"""

from __future__ import annotations

import argparse
import compileall
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import machine, report, shown
from bench.brokers import BROKERS, Broker
from bench.measurements import MEASUREMENTS, Lab, Measurement
from bench.record import FOLDER, Record
from bench.results import Results
from bench.roster import CONTENDERS, ROOT, Contender


def main() -> None:
    """Do what the command line says."""
    options = _parser().parse_args()
    described = machine.describe() | {"source": machine.source()}
    # As an installer does: else each process would compile what it imports.
    compileall.compile_dir(ROOT / "src", quiet=1)
    compileall.compile_dir(ROOT / "bench", quiet=1)
    contenders = [
        who
        for who in CONTENDERS
        if _is_chosen(who.name, options.contenders) and who.brokers.intersection(options.brokers)
    ]
    measurements = [what for what in MEASUREMENTS if _is_chosen(what.name, options.only)]
    began = time.monotonic()
    all_results = [
        _run(BROKERS[name], measurements, contenders, options.rounds) for name in options.brokers
    ]
    described["seconds"] = round(time.monotonic() - began)
    record = Record(
        time.strftime("%Y-%m-%d %H:%M"),
        described,
        options.rounds,
        {who.name: machine.versions(who) for who in contenders},
        tuple(all_results),
    )
    print(report.document(record))
    if machine.source() != described["source"]:
        edited = Path(tempfile.gettempdir()) / "bench-of-edited-sources.json"
        record.write(edited)
        sys.exit(f"src or bench was edited meanwhile, which each process imports: see {edited}")
    if options.record:
        record.write(options.record)
    if not options.only and not options.contenders and options.brokers == list(BROKERS):
        file = FOLDER / f"{record.date[:10]}-{machine.short_name()}.json"
        record.write(file)
        for page in shown.write(file):
            print(f"written: {page.relative_to(ROOT)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (5)")
    parser.add_argument(
        "--only",
        type=_Names([what.name for what in MEASUREMENTS]),
        help=f"of {', '.join(what.name for what in MEASUREMENTS)}",
    )
    parser.add_argument(
        "--contenders",
        type=_Names([who.name for who in CONTENDERS], separator=";"),
        help=f"of {'; '.join(who.name for who in CONTENDERS)}",
    )
    parser.add_argument(
        "--brokers", type=_Names(BROKERS), default=list(BROKERS), help=f"of {', '.join(BROKERS)}"
    )
    parser.add_argument("--record", type=Path, help="a file for what is measured, as JSON")
    return parser


class _Names:
    """Reads a list of names out of an argument."""

    def __init__(self, known: Iterable[str], separator: str = ",") -> None:
        self._known = list(known)
        self._separator = separator

    def __call__(self, text: str) -> list[str]:
        names = [name.strip() for name in text.split(self._separator)]
        if unknown := [name for name in names if name not in self._known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(self._known)}")
        return names


def _is_chosen(name: str, chosen: list[str] | None) -> bool:
    return chosen is None or name in chosen


def _run(
    broker: Broker,
    measurements: Sequence[Measurement],
    contenders: Sequence[Contender],
    rounds: int,
) -> Results:
    """All measurements on one broker."""
    with broker.start() as server, tempfile.TemporaryDirectory(prefix="commlib-bench-") as folder:
        lab = Lab(broker, server, Path(folder))
        results = Results(broker.name, broker.version(server))
        present = [who for who in contenders if broker.name in who.brokers]
        for what in measurements:
            began = time.monotonic()
            taking_part = [who for who in present if not _why_not(results, what, who)]
            for number in range(rounds):
                # Whoever comes first finds the machine in another state than the rest.
                turn = number % max(1, len(taking_part))
                _round(lab, results, what, taking_part[turn:] + taking_part[:turn])
            seconds = time.monotonic() - began
            print(f"{broker.name}, {what.name}: {seconds:.0f} s", file=sys.stderr, flush=True)
    return results


def _why_not(results: Results, what: Measurement, who: Contender) -> str:
    """Why it does not take part in this, which is noted; empty if it does."""
    result = results.of(what.name, who.name)
    result.cannot = who.why_not(what.name, results.broker)
    return result.cannot


def _round(lab: Lab, results: Results, what: Measurement, contenders: Sequence[Contender]) -> None:
    """One measurement of all of them, one after the other unless they only wait."""

    def measure(who: Contender) -> None:
        result = results.of(what.name, who.name)
        try:
            result.rounds.append(what.measure(lab, who))
        except Exception as exc:  # whatever it is, the others go on, and the table tells
            result.fail(f"{type(exc).__name__}: {exc}")

    if what.is_quiet and contenders:
        with ThreadPoolExecutor(len(contenders)) as pool:
            list(pool.map(measure, contenders))
    else:
        for who in contenders:
            measure(who)


if __name__ == "__main__":
    main()
