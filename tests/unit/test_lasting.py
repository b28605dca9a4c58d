"""Which subscriptions outlive their connection, and which way of stopping ends them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from collected import met
from commlib.aio import Node, PSubscriber, Subscriber, WSubscriber
from commlib.transports import memory
from commlib.transports.base import Handler


class Broker:
    """What became of the subscriptions that were to last; while it ``hangs`` it confirms none."""

    def __init__(self) -> None:
        self.hangs = False
        self.asked = 0
        self.given_up = 0
        self.ended: list[str] = []
        self.kept: list[str] = []
        self.answer = asyncio.Event()


class Kept:
    working = True

    def __init__(self, broker: Broker, topic: str, subscription: Any) -> None:
        self._broker = broker
        self._topic = topic
        self._subscription = subscription
        self._is_kept = False

    def keep(self) -> None:
        self._is_kept = True

    async def close(self) -> None:
        (self._broker.kept if self._is_kept else self._broker.ended).append(self._topic)
        await self._subscription.close()


class LastingMemory(memory.MemoryTransport):
    traits = msgspec.structs.replace(memory.MemoryTransport.traits, lasting=True)
    params: Parameters

    async def subscribe_lasting(self, topic: str, handler: Handler) -> Kept:
        broker = self.params.kept_by
        broker.asked += 1
        try:
            while broker.hangs:
                await broker.answer.wait()
        except asyncio.CancelledError:
            broker.given_up += 1
            raise
        return Kept(broker, topic, await self.subscribe(topic, handler))


@dataclass
class Parameters(memory.ConnectionParameters):
    kept_by: Any = None

    def make_transport(self) -> LastingMemory:
        return LastingMemory(self)


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def params(broker: Broker) -> Parameters:
    return Parameters(name="lasting", kept_by=broker)


def with_all_kinds(params: Parameters) -> Node:
    """A node with subscribers of each kind, and with much that is none."""
    node = Node("robot", params, ctrl_services=True)
    node.create_subscriber("a", print)
    node.create_psubscriber("b.*", print)
    parts = node.create_wsubscriber()
    parts.new_subscriber("c", print, None)
    node.create_rpc("service", print)
    node.create_rpc_client("service")
    node.create_action("turn", on_goal=print)
    node.create_action_client("turn")
    return node


async def test_those_of_the_user_are_to_last_and_the_end_of_the_node_keeps_them(
    broker: Broker, params: Parameters
) -> None:
    async with with_all_kinds(params):
        pass
    assert (sorted(broker.kept), broker.ended, broker.asked) == (["a", "b.*", "c"], [], 3)


async def test_what_is_stopped_alone_is_ended(broker: Broker, params: Parameters) -> None:
    async with with_all_kinds(params) as node:
        await asyncio.gather(*(port.stop() for port in node.endpoints))
        assert (broker.kept, sorted(broker.ended)) == ([], ["a", "b.*", "c"])
    assert broker.kept == []


@pytest.mark.parametrize("kind", [Subscriber, PSubscriber, WSubscriber])
async def test_the_end_of_one_that_stands_alone_is_that_of_its_connection(
    broker: Broker, params: Parameters, kind: Any
) -> None:
    if kind is WSubscriber:
        subscriber = WSubscriber(params)
        subscriber.new_subscriber("a", print, None)
    else:
        subscriber = kind("a", print, conn_params=params)
    async with subscriber:
        pass
    assert (broker.kept, broker.ended) == (["a"], [])


async def test_what_is_not_confirmed_when_its_node_is_stopped_is_not_ended(
    broker: Broker, params: Parameters
) -> None:
    broker.hangs = True
    node = Node("robot", params, ctrl_services=True)
    node.create_subscriber("a", print)
    await node.run(wait=False)
    await met(lambda: broker.asked == 1)
    stopping = asyncio.create_task(node.stop())
    await asyncio.sleep(0)  # it has begun to stop its control services
    broker.hangs = False
    broker.answer.set()
    await stopping
    assert (broker.given_up, broker.ended) == (1, [])
