"""A master that becomes a replica of another one, which takes its place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from brokers import RedisServer
from collected import DEADLINE, Collected, eventually
from commlib.exceptions import AuthError, ConnectError
from commlib.node import Node
from commlib.transports import resolve
from commlib.transports._redis_link import is_replica
from commlib.transports.redis import ConnectionParameters

MakeRedis = Callable[..., RedisServer]

USER = "on >secret ~* &* +@all"


def follow(server: RedisServer, master: RedisServer) -> None:
    server.cli("REPLICAOF", "127.0.0.1", master.port)


@contextmanager
def killed(*servers: RedisServer) -> Iterator[None]:
    """A master that is asked to end waits for its replicas; it is killed instead."""
    try:
        yield
    finally:
        for server in servers:
            server.kill()


def fail_over(old: RedisServer, new: RedisServer) -> None:
    new.cli("REPLICAOF", "NO", "ONE")
    follow(old, new)


async def test_what_a_replica_refuses_twice_at_once_makes_one_leave_once() -> None:
    params = resolve(["redis://127.0.0.1:1", "redis://127.0.0.1:2", "redis://127.0.0.1:3"])
    assert isinstance(params, ConnectionParameters)
    transport = params.make_transport()
    for _ in range(3):
        transport._note_replica()
    assert transport._sessions.params.port == 2


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ([b"slave", b"127.0.0.1", 1], True),
        ([b"master", 0, []], False),
        (AuthError("NOPERM"), None),
        (ConnectError("BUSY Redis is busy running a script"), False),
    ],
)
async def test_a_server_that_is_busy_may_become_a_replica_yet(answer: Any, found: Any) -> None:
    role: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    if isinstance(answer, Exception):
        role.set_exception(answer)
    else:
        role.set_result(answer)
    assert await is_replica(role) is found


@pytest.mark.parametrize("rules", ["", " -role"])
def test_calls_and_services_follow_to_the_new_master(make_redis: MakeRedis, rules: str) -> None:
    servers = [make_redis(users={"robot": USER + rules}) for _ in range(2)]
    first, second = servers
    urls = [server.url_as("robot", "secret") for server in servers]
    with killed(*servers), Node("n", connection_params=urls, heartbeats=False) as node:
        node.create_rpc("double", lambda request: 2 * request)
        client = node.create_rpc_client("double", idempotent=True)
        assert client.call(1, timeout=DEADLINE) == 2
        fail_over(first, second)
        assert client.call(2, timeout=DEADLINE) == 4
        assert b"user=robot" in second.cli("CLIENT", "LIST")
        assert b"user=robot" not in first.cli("CLIENT", "LIST")


def test_who_only_publishes_follows_too(make_redis: MakeRedis) -> None:
    first, second = make_redis(), make_redis()
    urls = [f"{server.url}?keepalive=1" for server in (first, second)]
    got = Collected()
    with (
        killed(first, second),
        Node("near", connection_params=urls, heartbeats=False, discovery=False) as near,
        Node("far", connection_params=second.url, heartbeats=False, discovery=False) as far,
    ):
        publisher = near.create_publisher("number")
        publisher.publish(1)
        far.create_subscriber("number", got)
        fail_over(first, second)

        def arrives() -> bool:
            publisher.publish(2)
            return 2 in got.items

        eventually(arrives)


def test_a_replica_is_passed_over(make_redis: MakeRedis) -> None:
    replica, master = make_redis(), make_redis()
    follow(replica, master)
    urls = [replica.url, master.url]
    with killed(replica, master), Node("n", connection_params=urls) as node:
        node.create_rpc("double", lambda request: 2 * request)
        assert node.create_rpc_client("double").call(1, timeout=DEADLINE) == 2


def test_a_replica_that_nobody_stands_in_for_is_told_of_once(
    make_redis: MakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    master, replica = make_redis(), make_redis()
    follow(replica, master)
    with killed(replica, master), Node("n", connection_params=replica.url) as node:
        services = [node.create_rpc(f"double{n}", lambda request: request) for n in range(3)]
        eventually(lambda: services[0].stats.rejected >= 3)
        assert node.connected
    assert caplog.text.count("is a replica") == 1
