"""Requests that the server does not take: who has called is told why, at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from brokers import RedisServer
from collected import DEADLINE, eventually
from commlib.exceptions import AuthError, ConnectionLost
from commlib.node import Node

MakeRedis = Callable[..., RedisServer]

LONG = 3600.0
"""s that a call is given: far more than a test."""


@pytest.mark.parametrize("call", ["call", "call_async"])
def test_a_call_whose_request_is_refused_ends_at_once_with_the_words_of_the_server(
    make_redis: MakeRedis, call: str
) -> None:
    server = make_redis(users={"robot": "on >secret ~rpc-* ~good ~occupied &* +@all"})
    server.cli("SET", "occupied", "by a text")
    url = server.url_as("robot", "secret")

    def outcome(client: Any) -> Any:
        if call == "call":
            return client.call(1, timeout=LONG)
        return client.call_async(1, timeout=LONG).result(DEADLINE)

    with Node("n", connection_params=url, heartbeats=False, discovery=False) as node:
        node.create_rpc("good", lambda request: 2 * request)
        good, occupied, forbidden = map(node.create_rpc_client, ("good", "occupied", "forbidden"))
        for _ in range(3):
            assert outcome(good) == 2
            with pytest.raises(ConnectionLost, match=r"occupied: the server says: WRONGTYPE"):
                outcome(occupied)
            with pytest.raises(AuthError, match=r"forbidden: the server says: NOPERM"):
                outcome(forbidden)
        assert good.stats.late == 0


def test_a_call_that_may_be_repeated_goes_on_until_its_request_is_taken(
    make_redis: MakeRedis,
) -> None:
    server = make_redis()
    server.cli("SET", "double", "a text")
    with Node("n", connection_params=server.url, heartbeats=False, discovery=False) as node:
        client = node.create_rpc_client("double", idempotent=True)
        future = client.call_async(1, timeout=LONG)
        eventually(lambda: client.stats.rejected >= 2)
        server.cli("DEL", "double")
        node.create_rpc("double", lambda request: 2 * request)
        assert future.result(DEADLINE) == 2


def test_a_thread_that_waits_for_the_reply_is_told_too(make_redis: MakeRedis) -> None:
    server = make_redis()
    server.cli("SET", "occupied", "by a text")
    url = f"{server.url}?keepalive={LONG:.0f}"  # nothing else comes to wake it
    errors: list[Exception] = []
    with Node("n", connection_params=url, heartbeats=False, discovery=False) as node:
        node.create_rpc("good", lambda request: 2 * request)
        good, occupied = map(node.create_rpc_client, ("good", "occupied"))

        def call() -> None:
            for _ in range(3):
                assert good.call(1, timeout=DEADLINE) == 2
            try:
                occupied.call(1, timeout=LONG)
            except ConnectionLost as exc:
                errors.append(exc)

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        thread.join(DEADLINE)
        assert len(errors) == 1
        assert good.call(1, timeout=DEADLINE) == 2
