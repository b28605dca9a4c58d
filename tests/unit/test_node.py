"""A node whose connection breaks when the test says so: what it loses is counted."""

from __future__ import annotations

from commlib import aio
from commlib._stats import Stats
from fickle import Fickle, FickleTransport


def turn(node: aio.Node, connected: bool) -> None:
    """The connection of a node breaks, or comes back."""
    transport = node.hub.transport
    assert isinstance(transport, FickleTransport)
    transport.turn(connected)


async def test_records_that_still_wait_when_it_is_stopped_are_dropped_and_counted() -> None:
    params = Fickle(name="records-at-the-end")
    node = aio.Node("robot", params, remote_logger=True, heartbeats=False)
    async with node:
        turn(node, False)
        for number in range(3):
            node.log.warning(number)
        assert node.stats == Stats()
    assert node.stats == Stats(dropped=3)

    async with node:
        node.log.warning("again")
    assert node.stats == Stats(sent=1, dropped=3)


async def test_records_that_wait_are_sent_when_the_connection_is_back_before_the_stop() -> None:
    params = Fickle(name="records-in-time")
    async with aio.Node("robot", params, remote_logger=True, heartbeats=False) as node:
        turn(node, False)
        for number in range(3):
            node.log.warning(number)
        turn(node, True)
        assert node.stats == Stats(sent=3)
    assert node.stats == Stats(sent=3)


async def test_its_counters_are_those_of_all_it_does_beside_its_ports() -> None:
    params = Fickle(name="counters")
    async with aio.Node("robot", params, ctrl_services=True, remote_logger=True) as node:
        port = node.create_publisher("sonar")
        await port.publish(1.0)
        node.log.warning("one")
        assert node.stats.sent == 2, "a sign of life, and a record"
        assert port.stats.sent == 1
        await node.create_rpc_client(f"{node.namespace}.start").call({})
        assert (node.stats.received, node.stats.sent) == (1, 3)
