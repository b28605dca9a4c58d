"""Replies that wait for further ones, on brokers to which many go as one."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from brokers import Broker
from collected import DEADLINE, Collected
from commlib._packet import Packet
from commlib._request_lane import HoldingLane
from commlib.node import Node
from commlib.transports import resolve
from commlib.transports.base import Address, HoldingTransport


class Replies:
    """A transport, and what comes to one address."""

    def __init__(self, broker: Broker) -> None:
        self.transport: Any = resolve(broker.url).make_transport()
        if not isinstance(self.transport, HoldingTransport):
            pytest.skip("each reply is sent by itself")
        self.to = Address(broker.unique("inbox"))
        self.came = Collected()

    async def __aenter__(self) -> Replies:
        await self.transport.connect()
        self._consumer = await self.transport.consume(self.to.reply_to, self._take, 100)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._consumer.close()
        await self.transport.close()

    def _take(self, packet: Packet) -> None:
        self.came(packet.payload)
        self._consumer.done(packet)

    def hold(self, *payloads: bytes) -> None:
        for payload in payloads:
            assert self.transport.hold(self.to, Packet(payload))

    async def first(self, count: int) -> list[bytes]:
        await asyncio.to_thread(self.came.wait, count)
        return list(self.came.items[:count])


async def test_held_replies_leave_in_order_when_they_are_let_go(broker: Broker) -> None:
    async with Replies(broker) as replies:
        await asyncio.to_thread(replies.hold, b"1", b"2", b"3")
        assert not replies.transport._outbox.is_written
        await asyncio.to_thread(replies.transport.let_go)
        assert replies.transport._outbox.is_written
        assert await replies.first(3) == [b"1", b"2", b"3"]


async def test_held_replies_leave_before_the_next_one_that_is_sent(broker: Broker) -> None:
    async with Replies(broker) as replies:

        def send() -> None:
            replies.hold(b"1", b"2")
            assert replies.transport.send(replies.to, Packet(b"3"))

        await asyncio.to_thread(send)
        assert await replies.first(3) == [b"1", b"2", b"3"]


async def test_held_replies_leave_with_what_is_flushed(broker: Broker) -> None:
    async with Replies(broker) as replies:
        await asyncio.to_thread(replies.hold, b"1", b"2")
        async with asyncio.timeout(DEADLINE):
            await replies.transport.flush()
        assert await replies.first(2) == [b"1", b"2"]


def test_a_reply_that_comes_in_the_next_life_of_its_node_leaves_by_that(broker: Broker) -> None:
    entered, gate = Collected(), threading.Event()

    def handle(request: Any) -> Any:
        entered(request)
        gate.wait(DEADLINE)
        return request

    with Node("client", connection_params=broker.url) as client:
        node = Node("server", connection_params=broker.url)
        service = node.create_rpc(broker.unique("slow"), handle, grace=0.1)
        node.run()
        if not isinstance(service.core._lane, HoldingLane):
            node.stop()
            pytest.skip("each reply is sent by itself")
        future = client.create_rpc_client(service.core.rpc_name).call_async({"n": 1})
        entered.wait(1)
        node.stop()
        node.run()
        gate.set()
        assert future.result(DEADLINE) == {"n": 1}
        node.stop()
