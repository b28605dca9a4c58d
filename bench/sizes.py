"""The rate of payloads over their size."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import canvas
from bench.record import Record
from bench.results import Results
from bench.roster import CONTENDERS

HEIGHT = 3.9  # inch
# Bytes of a payload.
SIZES = {"payload_16": 16, "payload_200": 200, "payload_10k": 10_000, "payload_1m": 1_000_000}
DASHES = ("-", "--", ":", "-.")  # of several contenders of one kind


def payloads(record: Record) -> Figure | None:
    """MB/s received over the size of a payload; None if nothing was measured."""
    found = [(results, _rates_of_sizes(results)) for results in record.brokers]
    found = [(results, lines) for results, lines in found if lines]
    if not found:
        return None
    figure = canvas.new(HEIGHT)
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, (results, lines) in zip(panels, found, strict=True):
        _lines(axes, lines)
        axes.set_title(results.version)
        axes.set_xlabel("bytes of a payload")
    panels[0].set_ylabel("received, MB/s")
    return figure


def _rates_of_sizes(results: Results) -> dict[str, dict[int, float]]:
    """From contender and size to MB/s, of those that have more than one size."""
    rates = {
        who.name: {
            size: rate
            for measurement, size in SIZES.items()
            if (result := results.results.get(measurement, {}).get(who.name)) is not None
            and (rate := result.value("mb_per_s"))
        }
        for who in CONTENDERS
        if "uvloop" not in who.name
    }
    return {name: by_size for name, by_size in rates.items() if len(by_size) > 1}


def _lines(axes: Axes, lines: Mapping[str, Mapping[int, float]]) -> None:
    kinds = {who.name: who.kind for who in CONTENDERS}
    seen: list[str] = []
    for name, by_size in lines.items():
        kind = kinds[name]
        dashes = DASHES[seen.count(kind) % len(DASHES)]
        seen.append(kind)
        axes.plot(
            list(by_size),
            list(by_size.values()),
            color=canvas.COLOURS[kind],
            linestyle=dashes,
            marker="o",
            markersize=4,
            label=name,
            zorder=3 if kind == "ours" else 2,
        )
    canvas.logarithmic(axes, "x")
    canvas.logarithmic(axes, "y")
    axes.set_xticks(list(SIZES.values()))
    axes.legend(loc="lower right", fontsize=8)
