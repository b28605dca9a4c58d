"""A peer that takes itself for an MQTT broker, or does not: what it sends is up to the test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from commlib.transports import _mqtt_bytes as wire
from fake_peer import FakePeer

Say = Callable[[bytes], Awaitable[None]]

CONNACK = b"\x20\x03\x00\x00\x00"
"""MQTT 5: success, and nothing to be said of what it can do."""


class FakeBroker(FakePeer):
    """Lets clients of MQTT 5 in and confirms what they ask for, but passes no message on.

    ``refuses`` is how many of the next clients it hangs up on without a word.
    ``greeting`` is what it answers to CONNECT; ``closes_at_once`` behind that. ``once_subscribed``
    are bytes that it sends behind its first SUBACK, to one client after the other as long as there
    are some, and with ``closes_then`` it closes. ``fragments``: how many bytes it sends at a time.
    """

    scheme = "mqtt"

    def __init__(self) -> None:
        super().__init__()
        self.refuses = 0
        self.refuses_wills = False
        self.wills: list[bool] = []
        """Of each client whether it had one."""
        self.greeting = CONNACK
        self.closes_at_once = False
        self.once_subscribed: list[bytes] = []
        self.closes_then = False
        self.heard: list[int] = []
        """The first byte of each packet behind CONNECT."""

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, connect = await _read_packet(reader)
        self.connects += 1
        has_will = bool(connect[7] & 0x04)  # section 3.1.2.3, behind the name and the version
        self.wills.append(has_will)
        if has_will and self.refuses_wills:
            await self._send(writer, b"\x20\x03\x00\x87\x00")  # not authorized
            return
        if self.refuses:
            self.refuses -= 1
            return
        await self._send(writer, self.greeting)
        while not self.closes_at_once:
            kind, body = await _read_packet(reader)
            self.heard.append(kind)
            if kind == 0xC0:
                await self._send(writer, b"\xd0\x00")
            elif kind == 0x82:
                await self._send(writer, b"\x90\x04" + body[:2] + b"\x00\x00")
                if self.once_subscribed:
                    await self._send(writer, self.once_subscribed.pop(0))
                    if self.closes_then:
                        return
            elif kind == 0xA2:
                await self._send(writer, b"\xb0\x04" + body[:2] + b"\x00\x00")
            elif kind == 0xE0:
                return


async def _read_packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readexactly(2)
    while head[-1] & 0x80:
        head += await reader.readexactly(1)
    size, _ = wire.read_length(head, 1)
    return head[0], await reader.readexactly(size)
