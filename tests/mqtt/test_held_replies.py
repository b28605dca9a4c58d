"""Replies that wait for further ones, on a connection to Mosquitto."""

from __future__ import annotations

import asyncio

from brokers import MosquittoServer
from collected import DEADLINE, Collected
from commlib._packet import Packet
from commlib.transports.base import Address
from commlib.transports.mqtt import ConnectionParameters, MqttTransport


class Replies:
    """A transport, and what comes to the addresses below ``inbox``."""

    def __init__(self, url: str) -> None:
        self.transport = MqttTransport(ConnectionParameters.from_url(url))
        self.came = Collected()

    async def __aenter__(self) -> Replies:
        await self.transport.connect()
        await self.transport.subscribe("inbox/*", lambda packet: self.came(packet.payload))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.transport.close()

    def hold(self, *payloads: bytes) -> None:
        for payload in payloads:
            assert self.transport.hold(Address("inbox/of-a-call"), Packet(payload))

    async def first(self, count: int) -> list[bytes]:
        await asyncio.to_thread(self.came.wait, count)
        return list(self.came.items[:count])


async def test_held_replies_leave_in_order_when_they_are_let_go(
    mqtt_server: MosquittoServer,
) -> None:
    async with Replies(mqtt_server.url) as replies:
        await asyncio.to_thread(replies.hold, b"1", b"2", b"3")
        assert not replies.transport._outbox.is_written
        await asyncio.to_thread(replies.transport.let_go)
        assert replies.transport._outbox.is_written
        assert await replies.first(3) == [b"1", b"2", b"3"]


async def test_held_replies_leave_before_the_next_one_that_is_sent(
    mqtt_server: MosquittoServer,
) -> None:
    async with Replies(mqtt_server.url) as replies:

        def send() -> None:
            replies.hold(b"1", b"2")
            assert replies.transport.send(Address("inbox/3"), Packet(b"3"))

        await asyncio.to_thread(send)
        assert await replies.first(3) == [b"1", b"2", b"3"]


async def test_held_replies_leave_with_what_is_flushed(mqtt_server: MosquittoServer) -> None:
    async with Replies(mqtt_server.url) as replies:
        await asyncio.to_thread(replies.hold, b"1", b"2")
        async with asyncio.timeout(DEADLINE):
            await replies.transport.flush()
        assert await replies.first(2) == [b"1", b"2"]


async def test_a_held_reply_does_not_overtake_what_was_published_before(
    mqtt_server: MosquittoServer,
) -> None:
    async with Replies(mqtt_server.url) as replies:

        def serve() -> None:
            for number in range(200):
                packet = Packet(b"%d published" % number, qos=1)
                assert replies.transport.publish(f"inbox/{number}", packet)
                replies.hold(b"%d replied" % number)
                replies.transport.let_go()

        await asyncio.to_thread(serve)
        came = await replies.first(400)
        for number in range(200):
            assert came.index(b"%d published" % number) < came.index(b"%d replied" % number)
