"""Answers of the server that nobody waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from brokers import RedisServer
from collected import DEADLINE, eventually
from commlib import aio
from commlib.exceptions import ConnectionLost
from commlib.node import Node
from commlib.transports import _redis_answers
from commlib.transports._redis_link import RedisLink

MakeRedis = Callable[..., RedisServer]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[RedisLink]:
    """The links that are not read at the moment, which lasts for long here."""
    paused: list[RedisLink] = []
    pause, go_on = RedisLink.pause, RedisLink.go_on

    def note_pause(link: RedisLink) -> None:
        pause(link)
        paused.append(link)

    def note_end(link: RedisLink) -> None:
        paused.remove(link)
        go_on(link)

    monkeypatch.setattr(RedisLink, "pause", note_pause)
    monkeypatch.setattr(RedisLink, "go_on", note_end)
    monkeypatch.setattr(_redis_answers, "LATER", 0.5)
    return paused


def test_calls_go_on_while_their_answers_are_not_read(
    make_redis: MakeRedis, pauses: list[RedisLink]
) -> None:
    with Node("n", connection_params=make_redis().url, heartbeats=False) as node:
        node.create_rpc("double", lambda n: 2 * n)
        client = node.create_rpc_client("double")
        while not pauses:
            assert client.call(21, timeout=DEADLINE) == 42
        assert [client.call(n, timeout=DEADLINE) for n in range(20)] == list(range(0, 40, 2))
        eventually(lambda: not pauses)


async def test_who_waits_for_an_answer_has_it_read(
    make_redis: MakeRedis, pauses: list[RedisLink]
) -> None:
    async with aio.Node("n", make_redis().url, heartbeats=False) as node:
        node.create_rpc("double", lambda n: 2 * n)
        client = node.create_rpc_client("double")
        for ask in (node.hub.transport.flush, lambda: pauses[0].ask("PING")):
            while not pauses:
                assert await client.call(21, timeout=DEADLINE) == 42
            asking = asyncio.ensure_future(ask())
            await asyncio.sleep(0)
            assert not pauses
            await asking


def test_a_refusal_that_ends_the_connection_reaches_its_caller_though_it_is_not_read(
    make_redis: MakeRedis, pauses: list[RedisLink]
) -> None:
    server = make_redis(config=["proto-max-bulk-len 1mb"])
    with Node("n", connection_params=server.url, heartbeats=False) as node:
        node.create_rpc("double", lambda n: 2 * n)
        client = node.create_rpc_client("double")
        while not pauses:
            assert client.call(21, timeout=DEADLINE) == 42
        with pytest.raises(ConnectionLost, match="Protocol error"):
            client.call("x" * 1_100_000, timeout=DEADLINE)
