"""Lets a message of a websocket be taken as it comes, and not only when all of it is here. Pure.

A frame may be of any size, and a reader of frames keeps each until it is whole. But what is carried
here is a stream (MQTT 5.0, section 6: packets have nothing to do with frames), and its reader has a
limit of its own, behind which it needs no memory. So a frame whose end is not here yet is cut into
fragments, as RFC 6455, section 5.4, allows anybody on the way to do. That is all that is looked at:
what is wrong with a frame is found by the reader behind.
"""

from __future__ import annotations

FIN = 0x80
CONTROL = 0x08
MASKED = 0x80
LONGEST_CONTROL = 125  # bytes of the payload of a control frame, which must not be cut


class Fragments:
    """Frames out of what is received, of which none has to wait for more."""

    def __init__(self) -> None:
        self._kept = b""  # the beginning of a frame that says too little
        self._left = 0  # bytes to come of the frame that is being cut
        self._first = self._mask = 0  # of its next fragment

    def of(self, data: bytes) -> bytes:
        """The frames that have come with these bytes."""
        data, self._kept = self._kept + data, b""
        rest = min(self._left, len(data))
        found = self._fragment(data[:rest]) if rest else b""
        behind = _behind_whole_frames(data, rest)
        found += data[rest:behind]
        return found + self._begin(data[behind:]) if behind < len(data) else found

    def _begin(self, data: bytes) -> bytes:
        """The first fragment of a frame that is not whole, as far as it is worth one."""
        start, size = _payload(data, 0)
        if start >= len(data) or (data[0] & CONTROL and size <= LONGEST_CONTROL):
            self._kept = data
            return b""
        self._first, self._mask, self._left = data[0], data[1] & MASKED, size
        return self._fragment(data[start:])

    def _fragment(self, payload: bytes) -> bytes:
        self._left -= len(payload)
        first = self._first & ~FIN if self._left else self._first
        self._first &= FIN  # what follows is a continuation: its kind is 0
        return bytes((first,)) + _length(len(payload), self._mask) + payload


def _behind_whole_frames(data: bytes, at: int) -> int:
    end = len(data)
    while at < end:
        start, size = _payload(data, at)
        if start + size > end:
            break
        at = start + size
    return at


def _payload(data: bytes, at: int) -> tuple[int, int]:
    """Where the payload of a frame begins, and its size; beyond the data if that is not known."""
    start = at + 2
    if start > len(data):
        return start, 0
    size = data[at + 1] & ~MASKED
    if size > LONGEST_CONTROL:  # RFC 6455, section 5.2: the size is in the next 2 or 8 bytes
        size_at, start = start, start + (2 if size == 126 else 8)
        size = int.from_bytes(data[size_at:start])
    return start, size


def _length(size: int, mask: int) -> bytes:
    if size < 126:
        return bytes((mask | size,))
    if size < 1 << 16:
        return bytes((mask | 126,)) + size.to_bytes(2)
    return bytes((mask | 127,)) + size.to_bytes(8)
