"""The pictures in the docs: what is written above each, and who cannot see it reads instead.

They are in `docs/performance.md` in this order, each as soon as a run has drawn it. `bench.plots`
draws them.
"""

from __future__ import annotations

import hashlib
import textwrap
from dataclasses import dataclass
from pathlib import Path

from bench.markers import Part
from bench.record import FOLDER as RECORDS
from bench.roster import ROOT

FOLDER = ROOT / "docs" / "pictures"
WIDTH = 100
SCALE = RECORDS / "scale.json"
PART = Part(ROOT / "docs" / "performance.md", "bench.gallery")


@dataclass(frozen=True)
class Picture:
    """A file of that name, without its ending; without a title it belongs to the one before."""

    name: str
    title: str
    words: str
    instead: str

    @property
    def file(self) -> Path:
        """Where it is."""
        return FOLDER / f"{self.name}.svg"


PICTURES = (
    Picture(
        "rates",
        "Rates",
        "Messages of three floats in the envelope of commlib-py, published to nobody, and received "
        "by a second process.",
        "Messages in a second that each contender publishes and receives, on each broker",
    ),
    Picture(
        "processor",
        "Processor time",
        "What such a message costs the process that publishes it, and the one that receives it.",
        "Microseconds of processor time for a message, of each contender on each broker",
    ),
    Picture(
        "calls",
        "Calls",
        "A client that calls, and waits for each reply before it calls again.",
        "Percentiles of the time that a call takes, of each contender on each broker",
    ),
    Picture(
        "latency",
        "Latency",
        "Messages at a fixed rate, whatever becomes of them. The clock of each starts when it was "
        "due, not when it was sent: what keeps one waiting is counted for all behind it, too.",
        "Percentiles of the latency of messages at two rates, of each contender on each broker",
    ),
    Picture(
        "payloads",
        "Large and small payloads",
        "Binary payloads, from another process.",
        "Megabytes in a second that are received, over the size of a payload, on each broker",
    ),
    Picture(
        "scale-using",
        "Many of everything",
        "What a message or a call costs if there are many topics, services or clients in a "
        "process. What is level costs no more; the faint lines are as steep as twice for twice. "
        "It is a run of its own, on another day than the rest of this page: its heights are those "
        "of the machine on that day, and what counts is how they rise. How often it was measured, "
        "and all else, says bench/results/scale.md.",
        "Cost of a message over the number of subscriptions, publishers, services or clients",
    ),
    Picture(
        "scale-making",
        "",
        "The time to make many subscriptions or nodes, until the broker has confirmed the last; "
        "nodes with connections of their own go to 2000:",
        "Seconds to make many subscriptions, or nodes",
    ),
    Picture(
        "scale-further",
        "",
        "The time to make a further one, when there are so many:",
        "Microseconds for one more subscription, service or node, to 10 000",
    ),
    Picture(
        "scale-memory",
        "",
        "The memory of subscriptions:",
        "Megabytes for many subscriptions, to 10 000",
    ),
)


def stamp(file: Path) -> str:
    """What a picture has in it of the file that it is drawn of: it tells whether it is of this."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    return f"<!-- drawn of {file.name}, {digest} -->"


def text() -> str:
    """All that have been drawn."""
    return "".join(
        (f"## {picture.title}\n\n" if picture.title else "")
        + f"{textwrap.fill(picture.words, WIDTH)}\n\n"
        + f"![{picture.instead}]({picture.file.relative_to(PART.file.parent)})\n\n"
        for picture in PICTURES
        if picture.file.exists()
    )
