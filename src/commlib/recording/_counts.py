"""What is counted of each topic while it is recorded. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec import Struct

from commlib._packet import Header
from commlib._schemas import Schema
from commlib._sequence import LONGEST_ORIGIN, Gaps
from commlib._stats import Stats


class About(Struct, frozen=True):
    """What is known of the messages of a topic.

    ``kind``: of a topic, or of the requests or responses of the service ``name``.
    """

    name: str
    kind: str = "topic"
    type: str = ""
    schema: Schema | None = None
    qos: int = 0


class Losses(NamedTuple):
    """What did not get into the file, and what did that was counted otherwise.

    ``before`` is lost on the way to the recorder, by the gaps in the senders' numbers; ``inside``
    is what the recorder had no room for. ``duplicates`` came twice and are recorded twice.
    ``unnumbered`` have no number, so that nobody can say what was lost among them.
    """

    before: int = 0
    inside: int = 0
    duplicates: int = 0
    unnumbered: int = 0

    def since(self, other: Losses) -> Losses:
        """What has been counted since then."""
        return Losses(*(a - b for a, b in zip(self, other, strict=True)))


def is_numbered(header: Header) -> bool:
    """Whether it can be told by such headers what is missing."""
    return 0 < len(header.origin) <= LONGEST_ORIGIN and header.seq >= 0


@dataclass(slots=True, eq=False)
class TopicCounter:
    """One topic on the loop: what came of it, and what was lost."""

    name: str
    about: About
    inside: int = 0
    unnumbered: int = 0
    stats: Stats = field(default_factory=Stats)
    gaps: Gaps = field(init=False)

    def __post_init__(self) -> None:
        self.gaps = Gaps(self.stats)

    def note(self, header: Header) -> None:
        """A message has come."""
        if is_numbered(header):
            self.gaps.note(header.origin, self.name, header.seq)
        else:
            self.unnumbered += 1

    @property
    def losses(self) -> Losses:
        """All so far."""
        stats = self.stats
        return Losses(stats.gaps, self.inside, stats.duplicates, self.unnumbered)


class Written(Struct):
    """What a file has of one topic: the messages, their bytes on the wire, and the losses."""

    messages: int = 0
    bytes: int = 0
    before: int = 0
    inside: int = 0
    duplicates: int = 0
    unnumbered: int = 0
