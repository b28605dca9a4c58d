"""The pictures of the docs, drawn of a record.

    python -m bench.plots bench/results/2026-11-27-2cores-x86_64-py311.json
    python -m bench.plots bench/results/scale.json
    python -m bench.plots --png FOLDER FILE     # to look at

The same record gives the same bytes. Nothing else under `bench` needs what draws them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from matplotlib.figure import Figure

from bench import canvas, gallery, growth, sizes
from bench.panels import Column, bars, spans
from bench.record import Record


def rates(record: Record) -> Figure | None:
    """Messages in a second."""
    return bars(
        record,
        "messages/s",
        Column("publish", "publish", ("rate",)),
        Column("receive", "receive", ("rate",)),
        more_is_better=True,
    )


def processor(record: Record) -> Figure | None:
    """What a message costs the process that sends or receives it."""
    return bars(
        record,
        "µs of CPU for a message",
        Column("publish", "publish", ("cpu_us",)),
        Column("receive", "receive", ("cpu_us",)),
        more_is_better=False,
    )


def calls(record: Record) -> Figure | None:
    """How long a call takes."""
    return spans(
        record,
        "µs from the call to its reply",
        ("p50", "p99"),
        Column("call", "call", ("p50_us", "p99_us")),
    )


def latency(record: Record) -> Figure | None:
    """How long a message is under way, at two rates that do not wait for anybody."""
    keys = ("p50_us", "p99_us", "p999_us", "max_us")
    return spans(
        record,
        "µs from when a message was due to when it was received",
        ("p50", "p99", "p99.9", "longest"),
        Column("latency", "1000 messages/s", keys),
        Column("latency", "10 000 messages/s", tuple(f"fast_{key}" for key in keys)),
    )


OF_A_RUN: Mapping[str, Callable[[Record], Figure | None]] = {
    "rates": rates,
    "processor": processor,
    "calls": calls,
    "latency": latency,
    "payloads": sizes.payloads,
}


def figures(file: Path) -> Iterator[tuple[str, Figure]]:
    """All pictures of a record, or of scale.json, with their names."""
    if file.name == gallery.SCALE.name:
        yield from growth.pictures(json.loads(file.read_text())["series"]).items()
        return
    record = Record.read(file)
    for name, draw in OF_A_RUN.items():
        if (figure := draw(record)) is not None:
            yield name, figure


def write(file: Path, folder: Path = gallery.FOLDER) -> list[Path]:
    """Draw them all; returns the files."""
    folder.mkdir(exist_ok=True)
    written = []
    with canvas.style():
        for name, figure in figures(file):
            written.append(folder / f"{name}.svg")
            written[-1].write_text(canvas.svg(figure, gallery.stamp(file)))
    return written


def write_png(file: Path, folder: Path) -> list[Path]:
    """The same for who has nothing that shows an SVG."""
    folder.mkdir(exist_ok=True)
    written = []
    with canvas.style():
        for name, figure in figures(file):
            written.append(folder / f"{name}.png")
            figure.savefig(written[-1])
    return written


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m bench.plots")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--png", type=Path, metavar="FOLDER", help="to look at, instead")
    options = parser.parse_args()
    for file in options.files:
        written = write_png(file, options.png) if options.png else write(file)
        print(*written, sep="\n")


if __name__ == "__main__":
    main()
