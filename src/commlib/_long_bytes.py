"""Bytes that come in many pieces, put at once where they will stay. Pure.

Bytes cannot be written to, and a ``bytearray`` is copied when bytes are made of it. But a
``BytesIO`` lets its own bytes be written to through ``getbuffer()`` as long as nobody else has
them, and gives just these away by ``getvalue()`` when the view on them is gone. (Where that is not
so, on another Python, or while somebody holds on to the view, it copies them, so that nothing
but time depends on it.)
"""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO

from commlib._parts import Part

MOST_KEPT = 16 * 1024 * 1024
_kept = 0


def keep_memory(size: int) -> None:
    """Let memory of this size stay with the process when it is freed, for what comes next.

    The allocator of glibc gives large blocks back to the kernel at once, until it has seen a larger
    one go (man 3 mallopt, M_MMAP_THRESHOLD). To be given it anew costs a page fault for every
    4 KiB, which was measured to take up to four times as long as all copies of the payload. So
    it is shown one, untouched, when payloads of a new size begin to come.
    """
    global _kept
    if size > _kept // 4 and _kept < MOST_KEPT:
        _kept = min(size * 4, MOST_KEPT)
        bytes(_kept)


class LongBytes:
    """So many bytes, of which some are ``missing``."""

    __slots__ = ("_at", "_room", "_shown", "_store", "missing")

    def __init__(self, size: int) -> None:
        keep_memory(size)
        self._store = BytesIO(bytes(size))  # pages of zeros that cost no memory until written to
        self._room = self._store.getbuffer()
        self._shown = self._room
        self._at = 0
        self.missing = size

    def add(self, data: Part) -> None:
        """The next bytes; no more than are missing."""
        self._room[self._at : self._at + len(data)] = data
        self._advance(len(data))

    def room(self) -> memoryview:
        """Where the next bytes belong; it is told by ``filled`` how many were put there."""
        self._shown = self._room[self._at :]
        return self._shown

    def filled(self, size: int) -> bool:
        """So many bytes have been put into the ``room``, which is not used after that.

        False: whoever has put them there holds on to it for a moment yet.
        """
        self._advance(size)
        try:
            self._shown.release()
        except BufferError:
            return False
        return True

    def _advance(self, size: int) -> None:
        self._at += size
        self.missing -= size

    def whole(self) -> bytes:
        """All of them, when none is missing; only once."""
        with suppress(BufferError):  # of who still holds on to them: then they are copied
            self._shown.release()
            self._room.release()
        return self._store.getvalue()
