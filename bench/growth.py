"""What many of everything cost, drawn of `bench/results/scale.json`: a panel for each kind of cost.

Both axes are logarithmic, and faint lines are as steep as twice the cost for twice as many. What
all of them cost shall be no steeper, wherever it begins; what one message, call or further one
costs shall be level.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from bench import canvas

ACROSS, HEIGHT = 4, 2.0  # panels side by side, and inches of each
LOOKS = {"redis": ("#d9822b", "o"), "mqtt": ("#2f81f7", "s"), "amqp": ("#3fa39a", "^")}
OTHER = ("#8b949e", "d")
NAMES = {"redis": "Redis", "mqtt": "MQTT", "amqp": "AMQP"}
Series = Mapping[str, Any]

# By the beginning of the label of their y axis: what is neither of these is a cost in use.
PICTURES = {"making": "s until", "further": "µs until", "memory": "MB"}


def pictures(all_series: Sequence[Series]) -> dict[str, Figure]:
    """By name: what it costs to make many, to make a further one, to have and to use them."""
    groups: dict[str, list[Series]] = {"using": []}
    for one in all_series:
        names = (name for name, begin in PICTURES.items() if one["y_label"].startswith(begin))
        groups.setdefault(next(names, "using"), []).append(one)
    return {f"scale-{name}": _picture(group) for name, group in groups.items() if group}


def _picture(group: Sequence[Series]) -> Figure:
    panels: dict[str, list[Series]] = {}
    for one in group:
        panels.setdefault(_title(one), []).append(one)
    lines = -(-len(panels) // ACROSS)
    figure = canvas.new(HEIGHT * lines + 0.4)
    grid = figure.subplots(lines, ACROSS, squeeze=False).flat
    for axes, (title, of_brokers) in zip(grid, panels.items(), strict=False):
        _panel(axes, title, of_brokers)
    for axes in list(grid)[len(panels) :]:
        axes.set_visible(False)
    brokers = dict.fromkeys(one["broker"] for one in group)
    canvas.legend(
        figure,
        *(_line([], [], broker) for broker in brokers),
        Line2D([], [], color=canvas.FAINT, label="as steep as twice for twice"),
    )
    return figure


def _title(one: Series) -> str:
    """Its name without the broker, and without what all in the picture are."""
    title = str(one["name"]).partition(", ")[2]
    for ending in (": making all", ": one more", ": memory"):
        title = title.removesuffix(ending)
    return title


def _panel(axes: Axes, title: str, of_brokers: Sequence[Series]) -> None:
    points = [
        (x, y) for one in of_brokers for x, y in zip(one["x"], one["y"], strict=True) if y > 0
    ]
    canvas.logarithmic(axes, "x")
    canvas.logarithmic(axes, "y")
    axes.set_title(title, fontsize=9, fontweight="normal")
    axes.set_xlabel(of_brokers[0]["x_label"], fontsize=8)
    axes.set_ylabel(of_brokers[0]["y_label"], fontsize=8)
    axes.tick_params(labelsize=8)
    if not points:
        return
    for one in of_brokers:
        pairs = [(x, y) for x, y in zip(one["x"], one["y"], strict=True) if y > 0]
        axes.add_line(_line([x for x, _ in pairs], [y for _, y in pairs], one["broker"]))
    most = max(x for x, _ in points)
    low, high = _decades([y for _, y in points])
    axes.set_xlim(0.7, most * 1.5)
    axes.set_ylim(low, high)
    axes.xaxis.set_major_locator(LogLocator(100 if most >= 10_000 else 10))
    for exponent in range(round(math.log10(low / most)) - 1, round(math.log10(high)) + 1):
        begin = 10.0**exponent
        axes.plot([1, most], [begin, begin * most], color=canvas.FAINT, linewidth=0.8, zorder=0)


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """Bounds of an axis for these; two decades at least, or noise would look like growth."""
    low, high = min(values) / 1.6, max(values) * 1.6
    if (missing := 100 / (high / low)) > 1:
        low, high = low / math.sqrt(missing), high * math.sqrt(missing)
    return low, high


def _line(x: Sequence[float], y: Sequence[float], broker: str) -> Line2D:
    colour, mark = LOOKS.get(broker, OTHER)
    return Line2D(
        x, y, color=colour, marker=mark, markersize=3.5, linewidth=1.4, label=NAMES.get(broker)
    )
