"""Count the instructions of a message on all paths, and compare them with the record.

    make instructions ARGS="--only 'publish; receive' --brokers mqtt,memory"

Ends with status 1 when something costs more than recorded. With ``--record`` all that is counted
is written down instead.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from bench.brokers import BROKERS
from bench.instructions import build, record
from bench.instructions.paths import EVERYWHERE, PATHS
from bench.instructions.record import Counts, Record
from bench.instructions.survey import Cell, Survey, cells_of
from bench.roster import ROOT

FILE = ROOT / "bench" / "results" / "instructions.json"
ROUNDS = 3  # to record: they show what a count varies by
RETRIES = 2  # for a count that has grown, of which the least counts: noise only adds


class Place(NamedTuple):
    """Where is counted, with what."""

    urls: dict[str, str]
    made_with: dict[str, str]


def main() -> int:
    """Do what the command line says."""
    options = _parser().parse_args()
    if shutil.which("valgrind") is None:
        print("valgrind is missing; install it with: apt-get install valgrind", file=sys.stderr)
        return 1
    paths = [path for path in PATHS if path.name in options.only]
    cells = cells_of(paths, options.brokers)
    old = record.read(FILE.read_bytes()) if FILE.exists() else None
    with _place(options.brokers) as place:
        others = record.differences(place.made_with, old.made_with) if old else []
        if options.record:
            return _record(place, cells, None if others else old)
        return _compare(place, cells, old, others)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make instructions", description=__doc__.partition("\n")[0]
    )
    names = [path.name for path in PATHS]
    parser.add_argument(
        "--only", type=_Names(names, ";"), default=names, help=f"of {'; '.join(names)}"
    )
    parser.add_argument(
        "--brokers",
        type=_Names(EVERYWHERE, ","),
        default=list(EVERYWHERE),
        help=f"of {', '.join(EVERYWHERE)}",
    )
    parser.add_argument("--record", action="store_true", help="write down what is counted")
    return parser


class _Names:
    """Reads a list of names out of an argument."""

    def __init__(self, known: Iterable[str], separator: str) -> None:
        self._known = list(known)
        self._separator = separator

    def __call__(self, text: str) -> list[str]:
        names = [name.strip() for name in text.split(self._separator)]
        if unknown := [name for name in names if name not in self._known]:
            known = f"{self._separator} ".join(self._known)
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {known}")
        return names


@contextmanager
def _place(brokers: Iterable[str]) -> Iterator[Place]:
    """These brokers, running."""
    place = Place({}, build.made_with())
    with ExitStack() as stack:
        for name in brokers:
            if name in BROKERS:
                server = stack.enter_context(BROKERS[name].start())
                place.urls[name] = server.url
                place.made_with[f"{name} broker"] = BROKERS[name].version(server)
            else:
                place.urls[name] = f"{name}://counted"
        yield place


def _record(place: Place, cells: list[Cell], old: Record | None) -> int:
    """Count and write down; what is not counted now stays if it is comparable."""
    survey = Survey(place.urls)
    found = survey.counts(cells, ROUNDS)
    _show(found, old)
    if survey.failures:
        print(*survey.failures, "nothing was recorded", sep="\n", file=sys.stderr)
        return 1
    new = Record(place.made_with, build.described(), _as_counts(found))
    new = record.merged(old, new, PATHS) if old else new
    if missing := record.missing(new.counts, PATHS):
        print(f"not counted, so nothing was recorded: {', '.join(missing)}", file=sys.stderr)
        return 1
    FILE.write_bytes(record.write(new))
    FILE.with_suffix(".md").write_text(record.document(new, PATHS))
    print(f"written to {FILE.relative_to(ROOT)} and {FILE.with_suffix('.md').name} beside it")
    return 0


def _compare(place: Place, cells: list[Cell], old: Record | None, others: list[str]) -> int:
    """Count and show; status 1 if something has grown or failed."""
    survey = Survey(place.urls)
    found = survey.counts(cells, 1)
    recorded = old.counts if old else {}
    for _ in range(RETRIES if not others else 0):
        rows = record.compared(_as_counts(found), recorded)
        grown = {(row.path, row.broker) for row in rows if row.has_grown}
        again = [cell for cell in found if (cell[0].name, cell[1]) in grown]
        for cell, counts in survey.counts(again, 1).items():
            found[cell] = [min(*found[cell], *counts)]
    _show(found, old)
    if survey.failures:
        print(*survey.failures, sep="\n", file=sys.stderr)
        return 1
    if others:
        print(f"no verdict: the record was made with something else: {'; '.join(others)}")
        return 0
    rows = record.compared(_as_counts(found), recorded)
    for word, names in (
        ("costs more than recorded", [row.name for row in rows if row.has_grown]),
        ("costs less (record that with ARGS=--record)", [r.name for r in rows if r.has_shrunk]),
    ):
        if names:
            print(f"{word}: {'; '.join(names)}")
    return int(any(row.has_grown for row in rows))


def _as_counts(found: dict[Cell, list[float]]) -> Counts:
    counts: Counts = {}
    for (path, broker), rounds in found.items():
        counts.setdefault(path.name, {})[broker] = record.counted(rounds)
    return counts


def _show(found: dict[Cell, list[float]], old: Record | None) -> None:
    rows = record.compared(_as_counts(found), old.counts if old else {})
    print(record.HEADING, *rows, sep="\n")


if __name__ == "__main__":
    sys.exit(main())
