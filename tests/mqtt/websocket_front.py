"""A web server in front of an MQTT broker: the test decides how it cuts what it passes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from ssl import SSLContext
from types import TracebackType
from typing import Self

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

CHUNK = 65_536


class WebSocketFront:
    """Listens on a free port, and connects each client to the broker at another one.

    ``frame`` is how many bytes of the broker's stream it puts into a message, 0 for all that there
    are; ``fragment`` how many of a message into a frame, ``piece`` how many of that it writes at
    once; ``ping``: beside each of them it sends a ping. ``is_plain``: there are no websockets.
    """

    def __init__(self, broker_port: int, *, ssl: SSLContext | None = None) -> None:
        self.frame = self.fragment = self.piece = 0
        self.ping = self.is_plain = False
        self.requests: list[Request] = []
        self.alpn: list[str | None] = []
        """What each client with TLS has offered that we know as well."""
        self.pongs: list[bytes] = []
        self.closes: list[int | None] = []
        """The codes that clients have left with."""
        self._broker_port = broker_port
        self._ssl = ssl
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: list[_Client] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", ssl=self._ssl)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"{'wss' if self._ssl else 'ws'}://127.0.0.1:{self.port}"

    def write(self, data: bytes) -> None:
        """Send bytes of the test's own to all clients."""
        for client in self._clients:
            client.write(data)

    def close_with(self, code: int, reason: str) -> None:
        """Take leave of all clients."""
        for client in self._clients:
            client.protocol.send_close(code, reason)
            client.flush()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio runs it in one"
        self._tasks.add(task)
        client = _Client(self, writer)
        tls = writer.get_extra_info("ssl_object")
        if tls is not None:
            self.alpn.append(tls.selected_alpn_protocol())
        back, forth = await asyncio.open_connection("127.0.0.1", self._broker_port)
        self._clients.append(client)
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(client.read(reader, forth))
                ways.create_task(client.pass_on(back))
        except* OSError:
            pass  # either of them has gone
        finally:
            self._clients.remove(client)
            for end in (writer, forth):
                end.transport.abort()
            self._tasks.discard(task)


class _Client:
    """One websocket."""

    def __init__(self, front: WebSocketFront, writer: asyncio.StreamWriter) -> None:
        # What clients say is not logged: tests look for secrets there.
        log = logging.Logger("front", logging.ERROR)
        subprotocols = [Subprotocol("mqtt")]
        self.protocol = ServerProtocol(subprotocols=subprotocols, max_size=None, logger=log)
        self._front = front
        self._writer = writer

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    def flush(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self._writer.write(data)
            else:
                self._writer.close()

    async def read(self, reader: asyncio.StreamReader, forth: asyncio.StreamWriter) -> None:
        """What the client sends, until it has left; then the broker is told so."""
        while data := await reader.read(CHUNK):
            await forth.drain()
            if self._front.is_plain:
                forth.write(data)
                continue
            self.protocol.receive_data(data)
            for event in self.protocol.events_received():
                if isinstance(event, Request):
                    self._front.requests.append(event)
                    self.protocol.send_response(self.protocol.accept(event))
                elif isinstance(event, Frame):
                    self._take(event, forth)
            self.flush()
        forth.close()

    def _take(self, frame: Frame, forth: asyncio.StreamWriter) -> None:
        if frame.opcode in (Opcode.BINARY, Opcode.CONT):
            forth.write(frame.data)
        elif frame.opcode is Opcode.PONG:
            self._front.pongs.append(bytes(frame.data))
        elif frame.opcode is Opcode.CLOSE:
            self._front.closes.append(self.protocol.close_rcvd and self.protocol.close_rcvd.code)

    async def pass_on(self, back: asyncio.StreamReader) -> None:
        """What the broker sends, cut as the front is told."""
        while data := await back.read(CHUNK):
            if self._front.is_plain:
                self._writer.write(data)
                continue
            for frame in self._frames(data):
                wire = frame.serialize(mask=False)
                for piece in _cut(wire, self._front.piece):
                    self._writer.write(piece)
                    await self._writer.drain()
                    if self._front.piece:
                        await asyncio.sleep(0)  # so that they are sent one by one
        if self.protocol.state is State.OPEN and not self._front.is_plain:
            self.protocol.send_close(1001, "the broker has gone")
            self.flush()
        self._writer.close()

    def _frames(self, stream: bytes) -> Iterator[Frame]:
        for message in _cut(stream, self._front.frame):
            fragments = list(_cut(message, self._front.fragment))
            for number, fragment in enumerate(fragments, 1):
                opcode = Opcode.BINARY if number == 1 else Opcode.CONT
                yield Frame(opcode, fragment, fin=number == len(fragments))
                if self._front.ping:
                    yield Frame(Opcode.PING, b"ping")


def _cut(data: bytes, size: int) -> Iterator[bytes]:
    size = size or len(data)
    for at in range(0, len(data), size):
        yield data[at : at + size]
