"""The socket of a link to a broker, played by a test."""

from __future__ import annotations

import asyncio
import socket
from pickle import PickleBuffer
from typing import Any, Generic, TypeVar, cast

from commlib._parts import Frame
from commlib.transports._stream_link import StreamLink

L = TypeVar("L", bound=StreamLink)


class PlayedSocket(Generic[L]):
    """Keeps what is written to it, and lets the test say what comes."""

    def __init__(self, link: L) -> None:
        self.link = link
        self.written: list[bytes] = []
        self.is_cut = False
        self.holds = False
        """Whether it holds on to what the link has it read into while it tells of it, as uvloop."""
        link.connection_made(cast("asyncio.Transport", self))

    def comes(self, frame: Frame, at_once: int = 1_000_000) -> None:
        """The link receives this, in pieces of at most so many bytes."""
        data = bytes(frame)
        for start in range(0, len(data), at_once):
            piece = data[start : start + at_once]
            while piece and not self.is_cut:
                buffer = self.link.get_buffer(-1)
                held = PickleBuffer(buffer) if self.holds else None
                taken = min(len(buffer), len(piece))
                buffer[:taken] = piece[:taken]
                self.link.buffer_updated(taken)
                if held is not None:
                    held.release()
                piece = piece[taken:]

    # What the link sees of asyncio.

    def write(self, data: bytes) -> None:
        if data:
            self.written.append(data)

    def abort(self) -> None:
        if not self.is_cut:
            self.is_cut = True
            asyncio.get_running_loop().call_soon(self.link.connection_lost, None)

    close = abort

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.abort()  # the broker closes its end at once

    def is_closing(self) -> bool:
        return self.is_cut

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> Any:
        return _Socket() if name == "socket" else None


class _Socket:
    """What a link needs to know of a socket."""

    family = socket.AF_UNIX

    def setsockopt(self, *option: int) -> None:
        """There is nothing to set."""
