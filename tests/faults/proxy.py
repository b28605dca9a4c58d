"""A link that breaks: it cuts connections to a broker, or hands bytes on one by one."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

READ_BYTES = 65_536


class Proxy:
    """Passes on to the broker at ``url`` what comes to ``self.url``, and back.

    ``piece`` is how many bytes it hands on at once; 0: as they come.
    """

    def __init__(self, url: str, *, piece: int = 0) -> None:
        self.longest = 0
        """New connections are cut after at most so many bytes; 0: they are not."""
        self._place = urlsplit(url)
        self._piece = piece
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy")

    @property
    def url(self) -> str:
        """Where clients connect to."""
        port = self._listening.getsockname()[1]
        return self._place._replace(netloc=f"127.0.0.1:{port}").geturl()

    def cut(self) -> None:
        """End all connections, without a word to either side."""
        self._loop.call_soon_threadsafe(self._cut)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    # ---- on its loop ----

    def _run(self) -> None:
        loop = self._loop
        serving = asyncio.start_server(self._serve, sock=self._listening)
        server = loop.run_until_complete(serving)
        loop.run_forever()
        server.close()
        self._cut()
        while tasks := asyncio.all_tasks(loop):
            loop.run_until_complete(asyncio.wait(tasks))
        loop.close()

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._place.port)
        except OSError:  # the broker is away
            writer.transport.abort()
            return
        both = {writer, far_writer}
        self._writers |= both
        left = [random.randint(1, self.longest)] if self.longest else []
        ways = [
            asyncio.ensure_future(self._pass_on(reader, far_writer, left)),
            asyncio.ensure_future(self._pass_on(far_reader, writer, left)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for end in both:
            end.transport.abort()
        await asyncio.wait(ways)
        self._writers -= both

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: list[int]
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(READ_BYTES):
                if left:
                    data, left[0] = data[: left[0]], left[0] - len(data)
                step = self._piece or READ_BYTES
                for begin in range(0, len(data), step):
                    writer.write(data[begin : begin + step])
                    await writer.drain()
                    await asyncio.sleep(0)
                if left and left[0] <= 0:
                    return
