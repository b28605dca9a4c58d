"""How pictures look: colours, letters, numbers on an axis, and how they become files.

An SVG has the colours of a light page, and a style that exchanges them where the reader prefers a
dark one. It brings its own ground, so that it can be read on any page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from io import StringIO

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullLocator

from bench import front

PAPER, INK, FAINT = "#ffffff", "#1f2328", "#d1d9e0"
DARK = {PAPER: "#0d1117", INK: "#e6edf3", FAINT: "#3d444d"}
# They can be read on both grounds, and told apart by who sees no red or no green.
COLOURS = {"ours": "#2f81f7", "limit": "#8b949e", "peer": "#d9822b", "client": "#3fa39a"}
NAMES = {
    "ours": "ours",
    "limit": "the limit: a bare socket",
    "peer": "peers",
    "client": "clients",
}
FONTS = "'DejaVu Sans', Verdana, sans-serif"  # the second is as wide as the first
WIDTH = 8.8  # inch

STYLE = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same everywhere
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": PAPER,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",  # letters stay letters: they can be searched and read aloud
    "svg.hashsalt": "commlib",  # or each drawing had names of its own
}


def style() -> AbstractContextManager[None]:
    """What is drawn and saved while it is open looks as it shall."""
    return mpl.rc_context(STYLE)


def new(height: float) -> Figure:
    """An empty picture, so many inches high."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def short(value: float) -> str:
    """Three figures at most: 0.42, 9.7, 185, 12 k, 501 k, 1.2 M."""
    for size, unit in ((1e6, " M"), (1e3, " k")):
        if value >= size * 0.9995:
            return f"{front.short(value / size)}{unit}"
    return front.short(value)


SHORT = FuncFormatter(lambda value, place: short(value))


def legend(figure: Figure, *handles: Artist) -> None:
    """The legend, above all of it."""
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))


def legend_of_kinds(figure: Figure, kinds: Iterable[str], *more: Artist) -> None:
    """The same, of the kinds of contenders and what else there is."""
    found = set(kinds)
    patches = [Patch(color=COLOURS[kind], label=NAMES[kind]) for kind in COLOURS if kind in found]
    legend(figure, *patches, *more)


def names_at(axes: Axes, names: Sequence[str]) -> None:
    """A line for each of them, from above."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", size=0)
    axes.spines["left"].set_visible(False)


def write_at(axes: Axes, x: float, y: float, text: str, aside: int = 5) -> None:
    """A few words beside a point; ``aside`` is how far, to the left of it if negative."""
    axes.annotate(
        text,
        (x, y),
        xytext=(aside, 0),
        textcoords="offset points",
        verticalalignment="center",
        horizontalalignment="left" if aside > 0 else "right",
        fontsize=8,
    )


def logarithmic(axes: Axes, which: str = "x") -> None:
    """Make an axis logarithmic, with plain numbers at it."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(SHORT)
    axis.set_minor_locator(NullLocator())


def svg(figure: Figure, stamp: str) -> str:
    """The picture as text, with a stamp in it; the same picture gives the same text."""
    out = StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    rules = "".join(
        f'[style*="{what}: {light}"]{{{what}:{dark} !important}}'
        for light, dark in DARK.items()
        for what in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    text = out.getvalue().replace("'DejaVu Sans'", FONTS)
    lines = [line.rstrip() for line in text.splitlines()]
    return "\n".join(lines).replace("<defs>", f"{stamp}\n {style}\n <defs>", 1) + "\n"
