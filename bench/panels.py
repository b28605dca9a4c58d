"""Pictures with a row of panels for each broker, and a line in them for each contender.

Two kinds: bars for one figure of each, and spans for several percentiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench import canvas
from bench.record import Record
from bench.results import Results
from bench.roster import CONTENDERS

KINDS = {who.name: who.kind for who in CONTENDERS}
LINE, MARGIN, AROUND = 0.19, 0.55, 0.6  # inch: of a contender, around a panel, around them all
ROOM = 1.9  # how much longer than the longest bar an axis is, for what is written beside that one


@dataclass(frozen=True)
class Column:
    """Figures of one measurement, and what is written above their panels.

    Contenders are in the order of the first key of the first column.
    """

    measurement: str
    title: str
    keys: tuple[str, ...]

    def values(self, results: Results, contender: str) -> list[float]:
        """Those of a contender; none if it was not measured."""
        result = results.results.get(self.measurement, {}).get(contender)
        if result is None:
            return []
        return [value for key in self.keys if (value := result.value(key))]


@dataclass(frozen=True)
class Panel:
    """A column on one broker."""

    axes: Axes
    column: Column
    results: Results
    names: Sequence[str]

    def lines(self) -> Iterator[tuple[int, str, list[float]]]:
        """The place, the name and the figures of each contender that has any."""
        for place, name in enumerate(self.names):
            if values := self.column.values(self.results, name):
                yield place, name, values


def bars(record: Record, unit: str, *columns: Column, more_is_better: bool) -> Figure | None:
    """A bar for each contender, with the figure and how many times better ours is."""

    def draw(panel: Panel) -> None:
        ours = panel.column.values(panel.results, "ours")
        for place, name, (value, *_) in panel.lines():
            panel.axes.barh(place, value, height=0.72, color=_colour(name))
            text = canvas.short(value)
            if ours and KINDS[name] != "ours":
                times = ours[0] / value if more_is_better else value / ours[0]
                text += f"  (ours {canvas.short(times)} ×)"
            canvas.write_at(panel.axes, value, place, text)

    return _picture(record, unit, columns, draw, more_is_better=more_is_better)


MARKS = ("o", "|", "d", "x")


def spans(record: Record, unit: str, words: Sequence[str], *columns: Column) -> Figure | None:
    """Several percentiles of each contender, the first and the last in numbers.

    ``words`` are the names of the keys.
    """

    def draw(panel: Panel) -> None:
        for place, name, values in panel.lines():
            colour = _colour(name)
            panel.axes.plot([values[0], values[-1]], [place, place], color=colour, linewidth=2)
            for mark, value in zip(MARKS, values, strict=False):
                panel.axes.plot(value, place, mark, color=colour, markeredgewidth=2)
            canvas.write_at(panel.axes, values[0], place, canvas.short(values[0]), aside=-6)
            canvas.write_at(panel.axes, values[-1], place, canvas.short(values[-1]), aside=6)

    marks = [
        Line2D([], [], marker=mark, color=canvas.INK, linestyle="none", label=word)
        for mark, word in zip(MARKS, words, strict=False)
    ]
    return _picture(record, unit, columns, draw, *marks)


def _colour(name: str) -> str:
    return canvas.COLOURS[KINDS[name]]


def _picture(
    record: Record,
    unit: str,
    columns: Sequence[Column],
    draw: Callable[[Panel], None],
    *marks: Line2D,
    more_is_better: bool = False,
) -> Figure | None:
    """All panels, with one scale for all of them; None if nothing was measured."""
    ranked = [(results, _ranked(results, columns[0], more_is_better)) for results in record.brokers]
    rows = [(results, names) for results, names in ranked if names]
    if not rows:
        return None
    heights = [LINE * len(names) + MARGIN for _, names in rows]
    figure = canvas.new(sum(heights) + AROUND)
    grid = figure.subplots(
        len(rows), len(columns), height_ratios=heights, squeeze=False, sharex=True
    )
    panels = [
        Panel(axes, column, results, names)
        for line, (results, names) in zip(grid, rows, strict=True)
        for axes, column in zip(line, columns, strict=True)
    ]
    _scale(panels)
    for panel in panels:
        _frame(panel, is_first=panel.column is columns[0])
        draw(panel)
    figure.supxlabel(unit, fontsize=9)
    canvas.legend_of_kinds(figure, {KINDS[name] for _, names in rows for name in names}, *marks)
    return figure


def _ranked(results: Results, column: Column, more_is_better: bool) -> list[str]:
    """Who has the figure, the best first. On uvloop ours differs little, and is left out."""
    found = {
        who.name: values[0]
        for who in CONTENDERS
        if "uvloop" not in who.name and (values := column.values(results, who.name))
    }
    return sorted(found, key=found.__getitem__, reverse=more_is_better)


def _scale(panels: Sequence[Panel]) -> None:
    values = [value for panel in panels for _, _, found in panel.lines() for value in found]
    low, high = min(values), max(values)
    aside = (high / low) ** 0.15
    canvas.logarithmic(panels[0].axes)
    panels[0].axes.set_xlim(low / max(2, aside), high * aside * ROOM)


def _frame(panel: Panel, *, is_first: bool) -> None:
    """What is around the figures."""
    canvas.names_at(panel.axes, panel.names)
    panel.axes.set_title(f"{panel.results.version}, {panel.column.title}")
    panel.axes.tick_params(axis="x", labelbottom=True)
    if not is_first:
        panel.axes.set_yticklabels([])
