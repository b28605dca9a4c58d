"""Frames with a long payload, which is not copied into them. Pure.

A short frame is ``bytes``: to put it together costs less than to tell the kernel of its parts. From
``LONG`` on it is the other way round, so such a frame is ``Parts``, which a link hands to the
kernel as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

LONG = 64 * 1024
"""Bytes of a payload from which on it is faster not to copy it, as measured."""

Part: TypeAlias = bytes | memoryview


class Parts:
    """A frame whose parts are not joined: its head, then payload and what is around it.

    ``len`` is that of all; nobody changes any of them.
    """

    __slots__ = ("_size", "head", "tail")

    def __init__(self, head: bytes, *tail: Part) -> None:
        self.head = head
        self.tail = tail
        self._size = len(head) + sum(map(len, tail))

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return b"".join((self.head, *self.tail))

    def __add__(self, behind: bytes) -> Parts:
        return Parts(self.head, *self.tail, behind)

    def __radd__(self, before: bytes) -> Parts:
        return Parts(before + self.head, *self.tail)


Frame: TypeAlias = bytes | Parts
"""What a link writes."""


def head_of(frame: Frame) -> bytes:
    """The part of a frame that is before the payload, or all of it."""
    return frame.head if isinstance(frame, Parts) else frame


def with_head(frame: Frame, head: bytes) -> Frame:
    """The frame with something else in the place of its ``head_of``."""
    return Parts(head, *frame.tail) if isinstance(frame, Parts) else head


def parts_of(frame: Frame) -> tuple[Part, ...]:
    """All parts of a frame."""
    return (frame.head, *frame.tail) if isinstance(frame, Parts) else (frame,)


def in_parts(frames: Iterable[Frame]) -> list[Part]:
    """The parts of some frames, in order; short ones are joined."""
    found: list[Part] = []
    short: list[Part] = []
    for frame in frames:
        for part in parts_of(frame):
            if len(part) < LONG:
                short.append(part)
                continue
            if short:
                found.append(b"".join(short))
                short = []
            found.append(part)
    if short:
        found.append(b"".join(short))
    return found


def rest_of(parts: Sequence[Part], size: int) -> list[Part]:
    """What is left of some parts when so many bytes of them were taken."""
    for index, part in enumerate(parts):
        if size < len(part):
            rest: Part = memoryview(part)[size:] if size else part
            return [rest, *parts[index + 1 :]]
        size -= len(part)
    return []
