"""What a client does while its broker is away."""

from __future__ import annotations

import asyncio
import os

import pytest

from collected import DEADLINE
from commlib import aio
from commlib.aio import rpc
from commlib.exceptions import ConnectionLost
from fickle import Fickle, FickleTransport


def turn(node: aio.Node, connected: bool) -> None:
    transport = node.hub.transport
    assert isinstance(transport, FickleTransport)
    transport.turn(connected)


async def test_a_service_is_not_there_while_nothing_is_published() -> None:
    async with aio.Node("robot", Fickle(name=os.urandom(4).hex()), heartbeats=False) as node:
        client = node.create_rpc_client("nobody")
        turn(node, False)
        assert not await client.wait_for_service(0.05)


async def test_a_service_is_found_when_the_broker_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "ASK_SECONDS", 0.01)
    params = Fickle(name=os.urandom(4).hex())
    async with aio.Node("robot", params, heartbeats=False) as node:
        client = node.create_rpc_client("add")
        turn(node, False)
        waiting = asyncio.create_task(client.wait_for_service(DEADLINE))
        async with aio.Node("base", params, heartbeats=False) as base:
            await base.create_rpc("add", lambda n: n).run()
            assert not waiting.done()
            turn(node, True)
            assert await waiting


async def test_a_connection_that_does_not_come_back_ends_the_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rpc, "ASK_SECONDS", 0.01)
    params = Fickle(name=os.urandom(4).hex(), reconnect=False)
    async with aio.Node("robot", params, heartbeats=False) as node:
        waiting = asyncio.create_task(node.create_rpc_client("nobody").wait_for_service(DEADLINE))
        await asyncio.sleep(0)
        turn(node, False)
        with pytest.raises(ConnectionLost):
            await waiting
