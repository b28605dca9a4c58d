"""Tell what became slower or faster between two records from what is noise.

    make compare A=before.json B=after.json

Every figure of every contender that both records have gets a line, but for p99.9 of messages, which
is one of all rounds together. The exit status is 1 if one of
ours became worse or fails in any round where none failed before, and 2 if none could be judged for
want of rounds.

`bench.changes` has what is compared with what, `bench.verdict` which differences count, why, and
how many rounds that takes: ten for a whole run. What is "perhaps" one is to be measured again, as
by ``make bench ARGS="--only publish --brokers redis --rounds 10 --record again.json"``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.changes import HARDWARE, Change, changes, differences, failing
from bench.record import Record
from bench.report import number
from bench.verdict import LEAST, UNLIKELY, Verdict, rounds_needed

SOFTWARE = ("system", "python")
TOLD = (Verdict.REGRESSION, Verdict.IMPROVEMENT, Verdict.PERHAPS)


def text(before: Record, after: Record, found: Sequence[Change], least: float = LEAST) -> str:
    """All changes in a table, and what they come to."""
    head = ["", "figure", "contender", "before", "after", "change", "verdict"]
    lines = [head, ["---", "---", "---", "---:", "---:", "---:", "---"], *map(_line, found)]
    parts = [f"| {' | '.join(cells)} |\n" for cells in lines]
    worse = [f"* fails now: {what}\n" for what in failing(before, after)]
    return "".join([*_notes(before, after), *parts, "\n", *_summary(found, least), *worse])


def _line(change: Change) -> list[str]:
    suffix = " × limit" if change.of_limit else ""
    return [
        change.broker,
        change.figure.title,
        change.contender,
        f"{number(change.before)}{suffix}",
        f"{number(change.after)}{suffix}",
        "–" if change.percent is None else f"{change.percent:+.1f} %",
        f"**{change.verdict}**" if change.verdict in TOLD else change.verdict,
    ]


def _notes(before: Record, after: Record) -> Iterator[str]:
    """What makes the records less alike than they should be."""
    if other := differences(before, after, HARDWARE):
        yield f"The machines differ ({'; '.join(other)}): only ratios are compared.\n\n"
    if other := differences(before, after, SOFTWARE) + _other_versions(before, after):
        yield f"Not the same: {'; '.join(other)}.\n\n"


def _other_versions(before: Record, after: Record) -> list[str]:
    """Brokers and packages that were others."""
    olds, news = _versions(before), _versions(after)
    return [
        f"{name}: {olds[name]} and {new}"
        for name, new in news.items()
        if olds.get(name, new) != new
    ]


def _versions(record: Record) -> Mapping[str, str]:
    brokers = {f"broker of {results.broker}": results.version for results in record.brokers}
    packages = {
        f"{package} of {contender}": version
        for contender, versions in record.versions.items()
        for package, version in versions.items()
    }
    return brokers | packages


def _summary(found: Sequence[Change], least: float) -> Iterator[str]:
    ours = [change for change in found if change.is_ours]
    judged = [change for change in ours if change.is_judged]
    yield (
        f"Ours: {len(ours)} figures, {len(judged)} judged, at {least:g} % or more and a chance of "
        f"{UNLIKELY:g} for all of them together.\n"
    )
    for verdict in TOLD:
        for change in ours:
            if change.verdict is verdict:
                broker, title, contender, old, new, percent, _ = _line(change)
                yield f"* {verdict}: {broker}, {title}, {contender}: {old} to {new} ({percent})\n"
    if few := len(ours) - len(judged):
        needed = rounds_needed(len(ours))
        yield f"{few} of them have too few rounds: among so many it takes {needed} on each side.\n"


def status(before: Record, after: Record, found: Sequence[Change]) -> int:
    """1 if anything of ours became worse or fails, 2 if none of it could be judged, or 0."""
    ours = [change for change in found if change.is_ours]
    if failing(before, after) or any(change.verdict is Verdict.REGRESSION for change in ours):
        return 1
    return 0 if any(change.is_judged for change in ours) else 2


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        usage='make compare A=before.json B=after.json [ARGS="--least PERCENT"]',
        description=__doc__.partition("\n")[0],
    )
    parser.add_argument("before", type=Path, help="a record of make bench")
    parser.add_argument("after", type=Path, help="a later one")
    parser.add_argument("--least", type=float, default=LEAST, help=f"a change in %% ({LEAST:g})")
    options = parser.parse_args()
    try:
        before, after = Record.read(options.before), Record.read(options.after)
    except (ValueError, OSError) as exc:
        parser.error(f"{exc}; what make bench writes to bench/results are records")
    found = changes(before, after, options.least)
    print(text(before, after, found, options.least), end="")
    return status(before, after, found)


if __name__ == "__main__":
    sys.exit(main())
