"""One direction of a connection through the proxy: bytes come here, go there, late or never."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

READ_BYTES = 65_536
UNDERWAY = 32  # reads that wait for their time; then no more is read
CATCH_UP_SECONDS = 0.1
READS_A_SECOND = 20  # of a slow link: so evenly it goes on


@dataclass
class Quality:
    """What becomes of bytes that pass.

    ``piece``: how many are handed on at once; 0: as they come. ``delay`` and ``jitter``: how long
    they take, in order (s). ``rate``: how many pass in a second; 0: as many as come.
    """

    piece: int = 0
    delay: float = 0
    jitter: float = 0
    rate: float = 0


class Gate:
    """Whether bytes pass in one direction: they do, they wait, or they vanish."""

    def __init__(self) -> None:
        self._decided = asyncio.Event()
        self._decided.set()
        self._is_open = True

    def open(self) -> None:
        self._is_open = True
        self._decided.set()

    def hold(self) -> None:
        self._decided.clear()

    def lose(self) -> None:
        self._is_open = False
        self._decided.set()

    async def passes(self) -> bool:
        """Whether they do, as soon as that is known."""
        await self._decided.wait()
        return self._is_open


class Way:
    """Hands on what comes from ``source``; ``left`` is how many bytes may pass, if not all."""

    def __init__(
        self,
        source: socket.socket,
        sink: socket.socket,
        gate: Gate,
        quality: Quality,
        left: list[int],
    ) -> None:
        self.has_lost = False
        """Whether bytes have vanished: whatever comes after them would make no sense."""
        self._source = source
        self._sink = sink
        self._gate = gate
        self._quality = quality
        self._left = left
        self._underway: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue(UNDERWAY)
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Until the source has ended. Raises OSError when the connection is to be cut."""
        reading = asyncio.ensure_future(self._read())
        try:
            await self._write()
        finally:
            reading.cancel()
            await asyncio.wait([reading])

    async def _read(self) -> None:
        quality, loop = self._quality, self._loop
        latest = free = 0.0
        data: bytes | None = b"something"
        while data:
            size = int(quality.rate / READS_A_SECOND) if quality.rate else READ_BYTES
            try:
                data = await loop.sock_recv(self._source, max(1, size))
            except OSError:
                data = None  # a reset
            delay = quality.delay + random.uniform(0, quality.jitter)
            latest = max(latest, loop.time() + delay)
            await self._underway.put((latest, data))
            if quality.rate and data:
                # What it slept too long, on a busy machine, it makes up for.
                free = max(free, loop.time() - CATCH_UP_SECONDS) + len(data) / quality.rate
                await asyncio.sleep(free - loop.time())

    async def _write(self) -> None:
        while True:
            due, data = await self._underway.get()
            if (early := due - self._loop.time()) > 0:
                await asyncio.sleep(early)
            if not await self._gate.passes():
                self.has_lost = True
            elif data is None:
                raise ConnectionResetError
            elif data:
                await self._hand_on(data)
            else:
                self._sink.shutdown(socket.SHUT_WR)
                return

    async def _hand_on(self, data: bytes) -> None:
        left = self._left
        if left:
            data, left[0] = data[: max(0, left[0])], left[0] - len(data)
        for part in self._parts(data):
            await self._loop.sock_sendall(self._sink, part)
            await asyncio.sleep(0)
        if left and left[0] <= 0:
            raise ConnectionResetError

    def _parts(self, data: bytes) -> Iterator[bytes]:
        step = self._quality.piece or len(data) or 1  # nothing, where the other way has used it up
        for begin in range(0, len(data), step):
            yield data[begin : begin + step]


def cut(sock: socket.socket) -> None:
    """Close a socket so that its other end sees a reset."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
