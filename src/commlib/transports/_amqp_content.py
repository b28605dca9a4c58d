"""A message that comes in several frames, put together. Pure.

Source: AMQP 0-9-1, section 4.2.6.
"""

from __future__ import annotations

from commlib._long_bytes import LongBytes
from commlib._parts import LONG, Part


class Content:
    """A message of which more frames are to come."""

    __slots__ = ("arguments", "kind", "long", "missing", "parts", "properties", "room")

    def __init__(self, kind: bytes, arguments: bytes) -> None:
        self.kind = kind
        self.arguments = arguments
        self.properties = b""
        self.missing = -1  # bytes of the body; -1: its header is to come
        self.room = 0  # bytes of it that are yet to come and kept
        self.parts: list[bytes] = []
        self.long: LongBytes | None = None
        """Where they are put if they are many."""

    def announce(self, size: int, limit: int) -> None:
        """The body will have so many bytes, of which no more than ``limit`` are kept."""
        self.missing = size
        self.room = min(size, limit)
        if self.room >= LONG:
            self.long = LongBytes(self.room)

    def add(self, part: Part) -> None:
        """The next bytes of the body."""
        self.missing -= len(part)
        kept = part[: self.room]
        self.room -= len(kept)
        if self.long is not None:
            self.long.add(kept)
        elif kept:
            self.parts.append(bytes(kept))

    def body(self) -> bytes:
        """All of it that was kept."""
        return b"".join(self.parts) if self.long is None else self.long.whole()
