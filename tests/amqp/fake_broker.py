"""A peer that takes itself for an AMQP broker, or does not: what it sends is up to the test."""

from __future__ import annotations

import asyncio
from typing import Any

from pika import frame as pika_frame
from pika import spec

from amqp_wire import START, Broker, said
from commlib.transports._amqp_methods import PROTOCOL
from fake_peer import FakePeer

GREETING = said(0, START)


class FakeBroker(FakePeer):
    """Lets everybody in and says yes to all that it is asked, but passes no message on.

    ``greeting`` is what it answers to a client's first word; ``closes_at_once`` behind that.
    ``once_consumed`` are bytes that it sends behind the first yes to a consumer, to one client
    after the other as long as there are some, and with ``closes_then`` it closes. ``fragments``:
    how many bytes it sends at a time.
    """

    scheme = "amqp"

    def __init__(self) -> None:
        super().__init__()
        self.greeting = GREETING
        self.closes_at_once = False
        self.once_consumed: list[bytes] = []
        self.closes_then = False

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


async def _read_frame(reader: asyncio.StreamReader) -> Any:
    head = await reader.readexactly(7)
    rest = await reader.readexactly(int.from_bytes(head[3:]) + 1)
    return pika_frame.decode_frame(head + rest)[1]
