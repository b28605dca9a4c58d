"""The table of docs/reliability.md, as test_reliability.py has measured it, and what it names."""

from __future__ import annotations

import ast
import os
import re
from dataclasses import astuple, dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "reliability.md"
WRITE = "RELIABILITY_PAGE"
"""With this in the environment the table is written; its figures are those of one run."""

BEGIN, END = "<!-- faults: made by the tests -->\n", "<!-- end of faults -->"
HEAD = (
    *("fault", "broker", "published", "lost", "`gaps`", "`discarded`", "`unconfirmed`"),
    *("twice", "wrong", "calls", "of them unanswered", "noticed after", "all works again after"),
)
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@dataclass(frozen=True)
class Outcome:
    """What a fault did on one broker; the counters are those of the API, times are in seconds."""

    published: int
    lost: int
    gaps: int
    discarded: int
    unconfirmed: int
    twice: int
    wrong: int
    calls: int
    unanswered: int
    noticed: float | None
    again: float

    @property
    def cells(self) -> list[str]:
        return [
            "–" if value is None else f"{value:.2f} s" if isinstance(value, float) else f"{value}"
            for value in astuple(self)
        ]


Outcomes = dict[tuple[str, str], Outcome]
"""By the fault and the broker."""


def table(outcomes: Outcomes) -> str:
    rows = [[fault, broker, *outcome.cells] for (fault, broker), outcome in outcomes.items()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (HEAD, ["---"] * len(HEAD), *rows))


def settle(outcomes: Outcomes, expected: list[tuple[str, str]]) -> None:
    """Write the table if that is asked for, and the run has tried all."""
    if os.environ.get(WRITE) == "write" and set(expected) <= outcomes.keys():
        before, _, rest = PAGE.read_text().partition(BEGIN)
        _, end, behind = rest.partition(END)
        assert end, f"{PAGE.name} has no marks for its table"
        whole = table({key: outcomes[key] for key in expected})
        PAGE.write_text(f"{before}{BEGIN}\n{whole}\n\n{end}{behind}")


def rows() -> list[dict[str, str]]:
    """The table as it stands on the page."""
    text = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [dict(zip(HEAD, cells, strict=True)) for cells in lines[2:]]


def missing_tests() -> list[str]:
    """The tests that the page names, and nobody has written."""
    named = set(NAMED.findall(PAGE.read_text()))
    written = {file: _tests_of(ROOT / file) for file, _ in named}
    return sorted(f"{file}::{name}" for file, name in named if name not in written[file])


def _tests_of(file: Path) -> set[str]:
    if not file.exists():
        return set()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, functions)
    }
