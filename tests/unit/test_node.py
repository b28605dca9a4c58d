"""A node: what it is told, and what it loses when its connection breaks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from commlib import aio
from commlib._stats import Stats
from commlib.aio import bridges
from commlib.aio._hub import MAX_REASONS, MAX_REFUSED, shared_hub
from commlib.exceptions import ConnectError, RPCTimeout
from commlib.node import Node
from commlib.transports import memory, resolve
from fickle import Fickle, FickleTransport


def turn(node: aio.Node, connected: bool) -> None:
    """The connection of a node breaks, or comes back."""
    transport = node.hub.transport
    assert isinstance(transport, FickleTransport)
    transport.turn(connected)


async def test_each_topic_that_the_broker_refuses_is_told_once_and_of_many_some(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with aio.Node("robot", "memory://", discovery=False) as robot:
        refuse = robot.hub.transport.on_refused
        for topic in ("a", "b", "a", *(f"topic{number}" for number in range(30))):
            refuse(topic, PermissionError(f"{topic}: you have no right to publish"))
        refuse("a", PermissionError("a: out of memory"))
        for number in range(50):
            refuse("a", PermissionError(f"a: {number}"))
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    told = [text.rpartition("broker: ")[2] for text in errors]
    assert told[:2] == ["a: you have no right to publish", "b: you have no right to publish"]
    assert len([text for text in told if "no right" in text]) == MAX_REFUSED
    assert told[MAX_REFUSED] == "a: out of memory"
    assert len(told) <= MAX_REFUSED + MAX_REASONS


@pytest.mark.parametrize("scheme", ["redis", "mqtt", "amqp"])
def test_who_shall_not_try_again_is_told_so_by_a_peer_that_says_nothing(
    scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        node = Node(
            "n", connection_params=f"{scheme}://{place}?reconnect=false&connect_timeout=0.2"
        )
        with pytest.raises(ConnectError, match=r"no answer within 0\.2 s; is the machine on"):
            node.run()
        node.stop()
    assert "still trying" not in caplog.text


def test_a_url_in_the_place_of_the_name_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="a URL is given as connection_params=") as caught:
        Node("redis://:secret@robot")
    assert "secret" not in str(caught.value)


async def test_a_timeout_tells_of_the_connection_as_it_is_then() -> None:
    params = Fickle(name="timeouts")
    async with aio.Node("robot", params, heartbeats=False) as node:
        client = node.create_rpc_client("nobody")
        turn(node, False)
        with pytest.raises(RPCTimeout, match="there is no connection"):
            await client.call({}, timeout=0.1)
        call = asyncio.ensure_future(client.call({}, timeout=0.1))
        await asyncio.sleep(0)
        turn(node, True)
        with pytest.raises(RPCTimeout) as caught:
            await call
        assert "no connection" not in str(caught.value)


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


# ---- what it is told ----

BOTH = pytest.mark.parametrize("kind", [Node, aio.Node])


@BOTH
@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("conection_params", "connection_params"),
        ("heartbeat", "heartbeats"),
        ("serialiser", "serializer"),
        ("share_conection", "share_connection"),
    ],
)
def test_an_option_that_it_does_not_have_is_refused_with_the_one_that_was_meant(
    kind: Callable[..., Any], option: str, meant: str
) -> None:
    with pytest.raises(TypeError, match=f"^Node has no option '{option}'; did you mean {meant}\\?"):
        kind("robot", **{option: None})


@BOTH
def test_a_subclass_passes_its_options_on(kind: Any) -> None:
    class Robot(kind):  # type: ignore[misc]
        def __init__(self, wheels: int, **options: Any) -> None:
            super().__init__("robot", **options)
            self.wheels = wheels

    robot = Robot(4, connection_params="memory://", heartbeats=False, compression="zlib")
    assert (robot.node_name, robot.wheels) == ("robot", 4)
    with pytest.raises(TypeError, match="Node has no option 'wheel'"):
        Robot(4, wheel=5)


@BOTH
def test_a_form_that_there_is_not_is_refused_when_it_is_made(kind: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="serializer='json'"):
        kind("robot", connection_params="memory://", serializer="json")
    with pytest.raises(ValueError, match="compression='gzip'"):
        kind("robot", connection_params="memory://", compression="gzip")


def test_one_that_was_refused_does_not_keep_a_shared_connection() -> None:
    params = resolve("memory://refused")
    with pytest.raises(ValueError, match="heartbeat_interval"):
        Node("robot", params, share_connection=True, heartbeat_interval=0, on_state=print)
    hub = shared_hub(params, None)
    assert not hub.users
    assert not hub.listeners


def test_endpoints_that_are_made_while_it_runs_do_not_cost_a_look_at_all_of_them_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at = []
    forget = aio.Node._forget_stopped

    def counting(self: aio.Node) -> None:
        looked_at.append(len(self.endpoints))
        forget(self)

    monkeypatch.setattr(aio.Node, "_forget_stopped", counting)
    with Node("robot", connection_params="memory://many", heartbeats=False) as node:
        made = [node.create_publisher("t") for _ in range(300)]
        assert sum(looked_at) < 3 * len(made)
        made[0].stop()
        assert node.endpoints == made[1:]
        for _ in range(700):
            node.create_publisher("t").stop()
        assert len(node._core.endpoints) < 1000, "those that were stopped are not kept"


def test_what_was_stopped_alone_is_not_begun_by_the_next_run() -> None:
    node = Node("robot", connection_params="memory://next-run", heartbeats=False)
    with node:
        stopped, kept = node.create_publisher("a"), node.create_publisher("b")
        stopped.stop()
    with node:
        assert node.endpoints == [kept]


@pytest.mark.parametrize("turns", range(6))
async def test_one_that_was_stopped_while_it_began_is_told_to_nobody(turns: int) -> None:
    node = aio.Node("n", "memory://told-to-nobody")
    running = asyncio.create_task(node.run())
    for _ in range(turns):
        await asyncio.sleep(0)
    await node.stop()
    await asyncio.wait([running])
    is_told = node._appearing is not None or node._appears_on is not None
    assert is_told == node.running
    await node.stop()


@pytest.mark.parametrize("make", [aio.Node.create_subscriber, aio.Node.create_psubscriber])
async def test_a_node_is_not_well_while_the_broker_refuses_a_subscription(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with aio.Node("robot", "memory://", discovery=False, heartbeats=False) as robot:
        subscriber = make(robot, "a", print)
        await subscriber.run()
        assert robot.health
        monkeypatch.setattr(memory._Subscription, "working", False)
        assert not subscriber.ready
        assert not robot.health


async def test_nor_while_it_refuses_one_of_a_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    for make in (bridges.TopicBridge, bridges.RPCBridge):
        bridge = make(None, "a", "b", "memory://left", "memory://right")
        await bridge.run()
        assert bridge.ready
        with monkeypatch.context() as patch:
            patch.setattr(memory._Subscription, "working", False)
            if isinstance(bridge, bridges.RPCBridge):
                assert bridge._desk._consumer is not None
                bridge._desk._consumer.working = False
            assert not bridge.ready
        await bridge.stop()
