"""What goes over a broker, heard beside the nodes: headers and sizes, the data is not decoded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from commlib._letter import open_letter
from commlib._packet import Header, Packet, now_ms, peek
from commlib._sequence import Gaps
from commlib._stats import Stats
from commlib._wire import Refused
from commlib.aio import Node
from commlib.cli._topic_ports import ANY
from commlib.cli._watch import Watch
from commlib.compression import ZLIB_START, ZSTD_START

MAX_PLAIN = 1 << 20  # bytes that are decompressed for the sake of a header
FIRST_IN_MS = 10**12  # a timestamp in ms of 2001; smaller ones are of peers that count in s


class Overheard(NamedTuple):
    """A message. ``header`` is None where it has none, as that of a device. ``lost`` is how many of
    its sender did not come before it; -1 for one that was taken for lost and is only late."""

    packet: Packet
    header: Header | None
    lost: int

    @property
    def size(self) -> int:
        """Bytes of its payload."""
        return len(self.packet.payload)


@asynccontextmanager
async def hearing(node: Node, hear: Callable[[Overheard], None]) -> AsyncIterator[Watch]:
    """Hand over each message that is published meanwhile, on the loop. Raises AuthError.

    What there is no room for here is in the ``stats.dropped`` of what it gives.
    """
    stats = Stats()
    gaps = Gaps(stats)

    def take(packet: Packet) -> None:
        header, lost = header_of(packet), stats.gaps
        if header is not None and header.origin and header.seq >= 0:
            gaps.note(header.origin, packet.topic, header.seq)
        # What was only overtaken takes one back that was counted before.
        hear(Overheard(packet, header, stats.gaps - lost))

    async with Watch(node, ANY, take) as watch:
        yield watch


def header_of(packet: Packet) -> Header | None:
    """The header of a message, None if there is none."""
    if packet.header is not None:
        return packet.header
    if packet.payload[:1] == ZLIB_START or packet.payload[:4] == ZSTD_START:
        try:
            letter = open_letter(packet, MAX_PLAIN)
        except Refused:
            return None
        return None if letter.is_bare else letter.header
    return peek(packet.payload)


def age_of(header: Header | None, since: int = 0) -> int | None:
    """How many ms ago it was sent, by the clocks of both ends; None where that cannot be told.

    What was sent before ``since`` has no age: the broker had kept it for who comes later.
    """
    if header is None or header.timestamp < max(FIRST_IN_MS, since):
        return None
    age = now_ms() - header.timestamp
    return age if abs(age) < FIRST_IN_MS else None  # µs or ns
