"""``docs/interop.md`` says what the tests show, and no cell is missing."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import pytest

from interop.cells import BROKERS, FROM_PEER, IMPOSSIBLE, SECTIONS, TO_PEER, VERSIONS, Row
from interop.released import ROOT

PAGE = ROOT / "docs" / "interop.md"
COLUMNS = [(direction, version) for version in VERSIONS for direction in (TO_PEER, FROM_PEER)]


class Outcome(NamedTuple):
    """What a test shows: that it works, or a fault or limit, in a sentence."""

    kind: str
    sentence: str


class Cell(NamedTuple):
    """Where a test shows something."""

    broker: str
    row: Row
    direction: str
    version: str


def read(item: pytest.Item) -> tuple[Cell, Outcome]:
    assert isinstance(item, pytest.Function), "a cell is a test function"
    mark = item.get_closest_marker("cell")
    assert mark is not None, "only such are given"
    kind, row, direction, _ = mark.args
    sentence = " ".join((inspect.getdoc(item.obj) or "").split())
    assert (kind == "works") == (not sentence), f"{item.name}: what is wrong needs a sentence"
    params = item.callspec.params
    return Cell(params["broker"], row, direction, params["peer"]), Outcome(kind, sentence)


def tables(broker: str, shown: Iterable[tuple[Cell, Outcome]]) -> str:
    """The matrix of a broker, and the faults and limits that it refers to, as Markdown."""
    found: dict[Cell, set[Outcome]] = defaultdict(set)
    for cell, outcome in shown:
        found[cell].add(outcome)
    rows = [row for row in Row if any(cell[:2] == (broker, row) for cell in found)]
    notes: dict[Outcome, list[str]] = {}

    def text(cell: Cell) -> str:
        if cell not in found:
            return "–"
        assert len(found[cell]) == 1, f"{cell}: {found[cell]}"
        (outcome,) = found[cell]
        if outcome.kind == "works":
            return "works"
        versions = notes.setdefault(outcome, [])
        if cell.version not in versions:
            versions.append(cell.version)
        return f"{outcome.kind} {list(notes).index(outcome) + 1}"

    heads = [f"{direction} {version}" for direction, version in COLUMNS]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for row in rows:
        texts = [text(Cell(broker, row, *column)) for column in COLUMNS]
        lines.append(f"| {row} | {' | '.join(texts)} |")
    lines += ["", "| | release | what happens |", "|---|---|---|"]
    for number, ((kind, sentence), versions) in enumerate(notes.items(), 1):
        lines.append(f"| {kind} {number} | {', '.join(versions)} | {sentence} |")
    return "\n".join(lines)


def test_the_page_shows_what_the_tests_show(cells: list[pytest.Item]) -> None:
    shown = [read(item) for item in cells]
    assert shown, "run the whole folder: this looks at all tests in it"

    for broker in BROKERS:
        expected = tables(broker, shown)
        assert expected in section(broker), f"{broker}: the page should have\n{expected}\n"


def section(broker: str) -> str:
    """The text under the heading for a broker."""
    _, _, text = PAGE.read_text().partition(f"\n## {SECTIONS[broker]}\n")
    return text.partition("\n## ")[0]


def test_every_cell_is_shown_that_can_be(cells: list[pytest.Item]) -> None:
    shown = {read(item)[0] for item in cells}
    wanted = {Cell(broker, row, *column) for broker, row, *_ in shown for column in COLUMNS}

    assert {cell[1:] for cell in wanted - shown} == IMPOSSIBLE
