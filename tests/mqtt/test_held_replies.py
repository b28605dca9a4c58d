"""Replies that wait for further ones, on a connection to Mosquitto."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from brokers import MosquittoServer
from collected import DEADLINE, Collected
from commlib._packet import Packet
from commlib._request_lane import HoldingLane
from commlib.node import Node
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
            assert replies.transport.publish("inbox/topic", Packet(b"published", qos=1))
            replies.hold(b"replied")
            replies.transport.let_go()

        thread = threading.Thread(target=serve)
        thread.start()
        thread.join(DEADLINE)  # on the loop, which writes nothing meanwhile
        assert await replies.first(2) == [b"published", b"replied"]


def test_a_reply_that_comes_in_the_next_life_of_its_node_leaves_by_that(
    mqtt_server: MosquittoServer,
) -> None:
    entered, gate = Collected(), threading.Event()

    def handle(request: Any) -> Any:
        entered(request)
        gate.wait(DEADLINE)
        return request

    with Node("client", connection_params=mqtt_server.url) as client:
        node = Node("server", connection_params=mqtt_server.url)
        service = node.create_rpc("slow", handle, grace=0.1)
        node.run()
        assert isinstance(service.core._lane, HoldingLane)
        future = client.create_rpc_client("slow").call_async({"n": 1})
        entered.wait(1)
        node.stop()
        node.run()
        gate.set()
        assert future.result(DEADLINE) == {"n": 1}
        node.stop()
