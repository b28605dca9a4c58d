"""Nodes are known again after their broker has died, and are known to be gone when they have."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from brokers import MosquittoServer, Server
from collected import DEADLINE, Collected, eventually
from commlib import aio
from commlib._discovery import LEASE
from commlib.discovery import Discovery, NodeInfo
from commlib.exceptions import ConnectionLost
from commlib.node import Node

MakeServer = Callable[..., Server]

NAME = "robot_of_another_process"
ROBOT = f"""
import sys, time
from commlib.aio import _beacon
from commlib.node import Node
_beacon.LEASE = float(sys.argv[2])
node = Node("{NAME}", connection_params=sys.argv[1])
node.run()
beacon = lambda: node._core._beacon
while beacon() is None or not beacon()._known():
    time.sleep(0.01)
time.sleep(float(sys.argv[3]))
"""
BORN, GONE = ("birth", NAME), ("death", NAME)


@contextmanager
def robot(url: str, lease: float, life: float = 60) -> Iterator[subprocess.Popen[bytes]]:
    """A process with a node that it does not stop; it ends so many seconds after it was told of."""
    command = [sys.executable, "-c", ROBOT, url, str(lease), str(life)]
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def listening(url: str) -> Iterator[tuple[Discovery, Collected]]:
    changes = Collected()
    with Discovery(url, lambda event, info: changes((event, info.name))) as found:
        yield found, changes


@pytest.fixture(params=["redis", "mqtt", "amqp"])
def url(request: pytest.FixtureRequest) -> str:
    """Where the broker of this run is."""
    server: Server = request.getfixturevalue(f"{request.param}_server")
    return server.url


@pytest.mark.restarts
def test_nodes_are_known_again_when_the_broker_is_back(make_server: MakeServer) -> None:
    server = make_server()
    with (
        listening(server.url) as (found, changes),
        Node("one", connection_params=server.url),
        Node("two", connection_params=server.url),
    ):
        changes.wait(2)
        before = {info.name: info.id for info in found.nodes}
        server.kill()
        server.start()
        with Discovery(server.url) as other:  # which has not heard of them before
            eventually(lambda: {info.name: info.id for info in other.nodes} == before)
        eventually(lambda: {info.name: info.id for info in found.nodes} == before)


def test_a_process_that_is_killed_is_gone_with_its_lease_at_the_latest(url: str) -> None:
    with (
        listening(url) as (found, changes),
        Node("stays", connection_params=url),
        robot(url, lease=1.0) as process,
    ):
        changes.until(BORN)
        changes.until(("birth", "stays"))
        process.kill()
        changes.until(GONE)
        assert "stays" in {info.name for info in found.nodes}


def test_a_program_that_ends_without_stopping_its_node_says_that_it_goes(url: str) -> None:
    assert LEASE > DEADLINE, "else it would be the lease"
    with listening(url) as (_, changes), robot(url, LEASE, life=0):
        changes.until(BORN)
        changes.until(GONE)


@pytest.mark.parametrize("protocol", ["MQTTv5", "MQTTv311"])
def test_of_a_killed_process_mqtt_tells_at_once(
    mosquitto_server: MosquittoServer, protocol: str
) -> None:
    url = mosquitto_server.url_with(protocol=protocol)
    with listening(url) as (_, changes), robot(url, LEASE) as process:
        changes.until(BORN)
        process.kill()
        changes.until(GONE)


async def test_a_node_that_the_broker_takes_for_gone_is_known_again_when_it_is_back(
    make_mosquitto: Callable[..., MosquittoServer],
) -> None:
    server = make_mosquitto()
    seen: asyncio.Queue[tuple[str, NodeInfo]] = asyncio.Queue()

    async def on_change(event: str, info: NodeInfo) -> None:
        seen.put_nowait((event, info))

    async def next_event() -> tuple[str, NodeInfo]:
        async with asyncio.timeout(DEADLINE):
            return await seen.get()

    async with (
        aio.discovery.Discovery(server.url, on_change),
        aio.Node("robot", server.url) as node,
    ):
        event, first = await next_event()
        assert event == "birth"
        transport: Any = node.hub.transport
        transport._link.abort(ConnectionLost("cut"))  # without a DISCONNECT
        assert await next_event() == ("death", first)
        assert await next_event() == ("birth", first)
