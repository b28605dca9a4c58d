"""A peer that takes itself for an AMQP broker, or does not: what it sends is up to the test."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from pika import frame as pika_frame
from pika import spec

from amqp_wire import START, Broker, said
from commlib.transports._amqp_methods import PROTOCOL

GREETING = said(0, START)


class FakeBroker:
    """Lets everybody in and says yes to all that it is asked, but passes no message on.

    ``greeting`` is what it answers to a client's first word; ``closes_at_once`` behind that.
    ``once_consumed`` are bytes that it sends behind the first yes to a consumer, to one client
    after the other as long as there are some, and with ``closes_then`` it closes. ``fragments``:
    how many bytes it sends at a time.
    """

    def __init__(self) -> None:
        self.connects = 0
        self.greeting = GREETING
        self.closes_at_once = False
        self.once_consumed: list[bytes] = []
        self.closes_then = False
        self.fragments = 1 << 20
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._server.close()
        self.hang_up()

    @property
    def url(self) -> str:
        return f"amqp://127.0.0.1:{self.port}?connect_timeout=0.2"

    def hang_up(self) -> None:
        """End all connections."""
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._talk(reader, writer)
        except (OSError, EOFError):
            pass  # the client has gone
        finally:
            writer.close()
            self._writers.discard(writer)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(PROTOCOL))
        self.connects += 1
        await self._send(writer, self.greeting)
        broker = Broker()
        has_babbled = False
        while not self.closes_at_once:
            frame = await _read_frame(reader)
            await self._send(writer, broker.takes(frame))
            method = getattr(frame, "method", None)
            if isinstance(method, spec.Basic.Consume) and self.once_consumed and not has_babbled:
                has_babbled = True
                await self._send(writer, self.once_consumed.pop(0))
                if self.closes_then:
                    return

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        for at in range(0, len(data), self.fragments):
            writer.write(data[at : at + self.fragments])
            await writer.drain()
            await asyncio.sleep(0)


async def _read_frame(reader: asyncio.StreamReader) -> Any:
    head = await reader.readexactly(7)
    rest = await reader.readexactly(int.from_bytes(head[3:]) + 1)
    return pika_frame.decode_frame(head + rest)[1]
