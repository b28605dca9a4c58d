"""A link that breaks: it stands between clients and a broker, and does what networks do.

It reads no faster than it hands on, so that a client whose link is slow or stalled finds its own
buffers full, as it would on a real one.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

from faults.way import Gate, Quality, Way, cut

BUFFER_BYTES = 16 * 1024  # that may wait in a socket of a slow link, where a sender thinks it sent


class Proxy:
    """Passes on to the broker at ``url`` what comes to ``self.url``, and back.

    The options are those of a ``Quality``, for each direction of each connection.
    """

    def __init__(
        self, url: str, *, piece: int = 0, delay: float = 0, jitter: float = 0, rate: float = 0
    ) -> None:
        self.longest = 0
        """New connections are cut after at most so many bytes; 0: they are not."""
        self.refuses = False
        """New connections are reset at once."""
        self.quality = Quality(piece, delay, jitter, rate)
        self._place = urlsplit(url)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._port = self._listening.getsockname()[1]
        self._prepare(self._listening)  # what it accepts inherits that
        self._to_broker, self._to_client = Gate(), Gate()
        self._connections: dict[asyncio.Task[None], list[Way]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy")

    @property
    def url(self) -> str:
        """Where clients connect to."""
        return self._place._replace(netloc=f"127.0.0.1:{self._port}").geturl()

    def cut(self) -> None:
        """Reset all connections, without a word to either side."""
        self._tell(lambda: self._cut(self._connections))

    def stall(self, *, to_broker: bool = True, to_client: bool = True) -> None:
        """Let no more bytes pass, in both directions or in one; connections stay."""
        if to_broker:
            self._tell(self._to_broker.hold)
        if to_client:
            self._tell(self._to_client.hold)

    def half_open(self) -> None:
        """Go on taking what clients send, and let it vanish; nothing comes from the broker."""
        self._tell(self._to_broker.lose)
        self._tell(self._to_client.hold)

    def resume(self) -> None:
        """Let bytes pass again; a connection that has lost some is reset, as hosts do then."""
        self._tell(self._resume)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _tell(self, action: Callable[[], object]) -> None:
        """Have something done on the loop; it is when this returns."""
        done = threading.Event()
        self._loop.call_soon_threadsafe(action)
        self._loop.call_soon_threadsafe(done.set)
        done.wait()

    # ---- on its loop ----

    def _run(self) -> None:
        loop = self._loop
        accepting = loop.create_task(self._accept())
        loop.run_forever()
        accepting.cancel()
        self._cut(self._connections)
        while tasks := asyncio.all_tasks(loop):
            loop.run_until_complete(asyncio.wait(tasks))
        self._listening.close()
        loop.close()

    def _cut(self, connections: Iterable[asyncio.Task[None]]) -> None:
        for task in connections:
            task.cancel()

    def _resume(self) -> None:
        self._cut(
            task for task, ways in self._connections.items() if any(way.has_lost for way in ways)
        )
        self._to_broker.open()
        self._to_client.open()

    def _prepare(self, sock: socket.socket) -> None:
        if self.quality.rate:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        sock.setblocking(False)

    async def _accept(self) -> None:
        while True:
            near, _ = await self._loop.sock_accept(self._listening)
            if self.refuses:
                cut(near)
                continue
            ways: list[Way] = []
            task = self._loop.create_task(self._serve(near, ways))
            self._connections[task] = ways
            task.add_done_callback(self._connections.pop)
            # One that is cut in the turn in which it was made does not even begin.
            task.add_done_callback(lambda task, near=near: near.close())  # type: ignore[misc]

    async def _serve(self, near: socket.socket, ways: list[Way]) -> None:
        far = socket.socket()
        self._prepare(far)
        end = cut
        try:
            with suppress(OSError):  # the broker is away, or an end was reset
                await self._loop.sock_connect(far, ("127.0.0.1", self._place.port))
                for sock in (near, far):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                left = [random.randint(1, self.longest)] if self.longest else []
                ways.append(Way(near, far, self._to_broker, self.quality, left))
                ways.append(Way(far, near, self._to_client, self.quality, left))
                await _all(ways)
                end = socket.socket.close  # which sends what is still to be sent
        finally:
            end(near)
            end(far)


async def _all(ways: Iterable[Way]) -> None:
    """Until both directions have ended, or one is cut. Raises OSError then."""
    running = [asyncio.ensure_future(way.run()) for way in ways]
    try:
        await asyncio.gather(*running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
