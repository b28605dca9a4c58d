"""A front of a broker that speaks TLS, with whatever certificate, and passes on what it is told.

Without its certificate there would be nothing wrong with it: behind it is a broker that answers.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

CHUNK = 65_536


class Front:
    """Listens on ``port`` of 127.0.0.1; ``told`` is all that clients have sent within TLS."""

    def __init__(self, broker_port: int, folder: Path) -> None:
        self.told = b""
        self.handshakes = 0
        """How many clients have taken its certificate."""
        self._broker_port = broker_port
        self._file = folder / "front.pem"
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="front")
        self._connections: set[asyncio.Task[None]] = set()

    def show(self, key_and_chain: bytes) -> None:
        """Have this certificate from the next connection on, with its private key."""
        self._file.write_bytes(key_and_chain)
        self._context.load_cert_chain(self._file)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *exc_info: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        self._loop.set_exception_handler(lambda loop, context: None)  # handshakes fail on purpose
        return await asyncio.start_server(self._pass_on, "127.0.0.1", 0, ssl=self._context)

    async def _close(self) -> None:
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio runs it in one"
        self._connections.add(task)
        self.handshakes += 1
        back, forth = await asyncio.open_connection("127.0.0.1", self._broker_port)
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._copy(reader, forth, note=True))
                ways.create_task(self._copy(back, writer, note=False))
        finally:
            for end in (writer, forth):
                end.transport.abort()
            self._connections.discard(task)

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, note: bool
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                if note:
                    self.told += data
                writer.write(data)
                await writer.drain()
        writer.close()
