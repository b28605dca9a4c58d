"""Requests to services that are not there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from brokers import RedisServer
from collected import DEADLINE, eventually
from commlib import aio
from commlib.exceptions import ConnectionLost, RPCTimeout
from commlib.node import Node

MakeRedis = Callable[..., RedisServer]

LONG_PAYLOAD = "x" * 100_000
"""Longer than what is copied on its way."""


@pytest.mark.parametrize("idempotent", [False, True])
def test_requests_to_a_service_that_is_not_there_do_not_stay(
    make_redis: MakeRedis, idempotent: bool
) -> None:
    server = make_redis()
    server.cli("RPUSH", "absent", "of somebody else")
    with Node("n", connection_params=server.url, heartbeats=False) as node:
        client = node.create_rpc_client("absent", idempotent=idempotent)
        for request in [1, 1, LONG_PAYLOAD]:
            with pytest.raises(RPCTimeout):
                client.call(request, timeout=0.05)
        futures = [client.call_async(n, timeout=0.05) for n in range(100)]
        for future in futures:
            with pytest.raises(RPCTimeout):
                future.result(DEADLINE)
        eventually(lambda: server.cli("LRANGE", "absent", 0, -1) == [b"of somebody else"])
        node.create_rpc("double", lambda request: 2 * request)
        assert node.create_rpc_client("double").call(1, timeout=DEADLINE) == 2


async def test_nor_does_one_that_is_cancelled(make_redis: MakeRedis) -> None:
    server = make_redis()

    async def length(expected: int) -> None:
        await asyncio.to_thread(eventually, lambda: server.cli("LLEN", "absent") == expected)

    async with aio.Node("n", server.url, heartbeats=False) as node:
        client = node.create_rpc_client("absent")
        calling = asyncio.create_task(client.call(1, timeout=DEADLINE))
        await length(1)
        calling.cancel()
        await length(0)


def test_one_that_has_waited_for_the_server_in_vain_is_not_sent_later(
    make_redis: MakeRedis,
) -> None:
    server = make_redis()
    with Node("n", connection_params=server.url, heartbeats=False) as node:
        node.create_rpc("double", lambda request: 2 * request)
        double, absent = map(node.create_rpc_client, ("double", "absent"))
        assert double.call(1, timeout=DEADLINE) == 2
        server.kill()
        eventually(lambda: not node.connected)
        with pytest.raises((RPCTimeout, ConnectionLost)):
            absent.call(1, timeout=0.05)
        server.start()
        eventually(lambda: node.connected)
        assert double.call(2, timeout=DEADLINE) == 4
        assert server.cli("LLEN", "absent") == 0
