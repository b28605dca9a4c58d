"""The life of a connection: blocked, cut, stopped under load; and what is left behind."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop

from brokers import RabbitServer, running
from collected import BUSY_SECONDS, DEADLINE, Collected, eventually, met
from commlib import _portal, _session, aio
from commlib.exceptions import (
    CommlibError,
    ConnectionLost,
    RPCRemoteError,
    RPCTimeout,
    ServiceNotFound,
)
from commlib.node import Node
from commlib.transports import _amqp_methods as methods
from commlib.transports import _main_transport, resolve
from commlib.transports.amqp import Offline

MAX_SIZE = 3_000_000
"""Of a message, for the broker of these tests."""
STOP_SECONDS = 1.0 + BUSY_SECONDS


@pytest.fixture(scope="module")
def server() -> Iterator[RabbitServer]:
    """One of our own: what is blocked is blocked for all."""

    class SmallServer(RabbitServer):
        def __init__(self) -> None:
            super().__init__(config=[f"max_message_size = {MAX_SIZE}"])

    with running(SmallServer) as server:
        yield server


@pytest.fixture
def topic() -> str:
    return f"l{os.urandom(4).hex()}"


@pytest.fixture
def blocked(server: RabbitServer) -> Iterator[None]:
    server.block()
    yield
    server.unblock()


def cut(node: Node) -> None:
    """Let the connection of a node break."""
    hub = node._core.hub

    async def abort() -> None:
        hub.transport._link.abort(ConnectionLost("cut by the test"))  # type: ignore[attr-defined]

    _portal.enter(hub).run(abort)


# ---- a broker that takes no messages ----


@pytest.mark.timeout(120)
@pytest.mark.parametrize("qos", [0, 1])
def test_what_is_published_to_a_broker_that_blocks_waits_and_nothing_is_lost(
    server: RabbitServer, topic: str, qos: int, caplog: pytest.LogCaptureFixture
) -> None:
    got = Collected()
    # With this keepalive it would be given up for its silence within the time that this takes.
    params = dataclasses.replace(
        resolve(server.url_with(keepalive=1)),
        # On a busy machine the broker's tool takes long to unblock it.
        offline=Offline(timeout=50, max_age=100),
    )
    with Node("sub", connection_params=server.url, heartbeats=False) as other:
        other.create_subscriber(topic, got, bytes)
        with Node("pub", connection_params=params, heartbeats=False) as node:
            publisher = node.create_publisher(topic, bytes, qos=qos)
            publisher.publish(b"0")
            assert got.first == b"0"
            server.block()
            try:
                _publish_until_it_is_told(node)
                for number in range(1, 500):
                    publisher.publish(b"%d" % number)
                # More than there is room for in the queue, and at QoS 1 behind it.
                big = [b"%d" % number + bytes(1_000_000) for number in range(16)]
                thread = threading.Thread(target=lambda: [publisher.publish(b) for b in big])
                thread.start()
                thread.join(2.2)
                assert thread.is_alive(), "it waits for room"
            finally:
                server.unblock()
            thread.join(50)
            assert got.wait(500 + len(big)) == [b"%d" % number for number in range(500)] + big
            assert "takes messages again" in caplog.text
            assert publisher.stats.reconnects == publisher.stats.unconfirmed == 0


@pytest.mark.parametrize("qos", [0, 1])
def test_what_is_too_old_when_the_broker_takes_messages_again_is_dropped_and_counted(
    server: RabbitServer, topic: str, qos: int
) -> None:
    got, max_age = Collected(), 0.5
    params = dataclasses.replace(resolve(server.url), offline=Offline(max_age=max_age))
    with (
        Node("sub", connection_params=server.url, heartbeats=False) as other,
        Node("pub", connection_params=params, heartbeats=False, discovery=False) as node,
    ):
        other.create_subscriber(topic, got)
        publisher = node.create_publisher(topic, qos=qos)
        publisher.publish("before")
        assert got.first == "before"
        server.block()
        try:
            _publish_until_it_is_told(node)
            before = publisher.stats.discarded
            for number in range(20):
                publisher.publish(number)
            time.sleep(max_age * 2)
        finally:
            server.unblock()
        eventually(lambda: publisher.stats.discarded - before >= 20, lambda: publisher.stats)
        publisher.publish("after")
        assert got.wait(2) == ["before", "after"]


def test_that_the_broker_takes_no_messages_is_said_to_who_waits_for_it(
    server: RabbitServer, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    params = dataclasses.replace(resolve(server.url), connect_timeout=0.5)
    with Node("n", connection_params=server.url, heartbeats=False) as other:
        other.create_rpc(topic, lambda request: request)
        with Node("caller", connection_params=server.url, heartbeats=False) as node:
            client = node.create_rpc_client(topic)
            assert client.call(1, timeout=DEADLINE) == 1
            server.block()
            try:
                _publish_until_it_is_told(node)
                with pytest.raises(RPCTimeout, match="takes no messages now"):
                    client.call(2, timeout=0.2)
                with Node("slow", connection_params=params, heartbeats=False) as slow:
                    slow.wait_connected(DEADLINE)
                    _publish_until_it_is_told(slow)
                    slow.create_subscriber(topic, print)
                    assert "takes no messages now, for 0.5 s; still trying" in caplog.text
            finally:
                server.unblock()
            assert client.call(3, timeout=DEADLINE) == 3


def test_a_broker_that_blocks_for_too_long_is_given_up_and_tried_again(
    server: RabbitServer, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    got = Collected()
    url = server.url_with(blocked_connection_timeout=0.3)
    with Node("sub", connection_params=server.url, heartbeats=False) as other:
        other.create_subscriber(topic, got)
        with Node("pub", connection_params=url, heartbeats=False) as node:
            publisher = node.create_publisher(topic, qos=1)
            publisher.publish(0)
            assert got.first == 0
            server.block()
            try:
                publisher.publish(1)
                eventually(lambda: publisher.stats.reconnects >= 1)
                assert "has been blocked by the broker for 0.3 s" in caplog.text
            finally:
                server.unblock()
            eventually(lambda: {0, 1} <= set(got.items), lambda: publisher.stats)
            publisher.publish(2)
            eventually(lambda: {0, 1, 2} <= set(got.items), lambda: publisher.stats)


def test_a_node_of_a_broker_that_blocks_stops_in_time(server: RabbitServer, topic: str) -> None:
    node = Node("n", connection_params=server.url, heartbeats=False, discovery=False)
    node.run()
    publisher = node.create_publisher(topic)
    node.create_subscriber(topic, print)
    server.block()
    try:
        _publish_until_it_is_told(node)
        before = _waiting(node)
        publisher.publish(2)
        waiting = _waiting(node)
        begun = time.monotonic()
        node.stop()
        assert time.monotonic() - begun < STOP_SECONDS
    finally:
        server.unblock()
    assert (waiting - before, publisher.stats.discarded) == (1, waiting)


def _waiting(node: Node) -> int:
    """How many messages have not been written."""
    outbox = node._core.hub.transport._outbox  # type: ignore[attr-defined]
    return len(outbox._of_main) + len(outbox._frames)


def _publish_until_it_is_told(node: Node) -> None:
    """Publish what nobody wants until the broker has said that it takes nothing more."""
    publisher = node.create_publisher("poke")

    def is_told() -> bool:
        publisher.publish(1)
        return bool(node._core.hub.transport._link.is_held)  # type: ignore[attr-defined]

    eventually(is_told)


# ---- a message that the broker finds too long ----


@pytest.mark.parametrize("qos", [0, 1])
def test_what_is_too_long_for_the_broker_is_counted_and_told_once(
    server: RabbitServer, topic: str, qos: int, caplog: pytest.LogCaptureFixture
) -> None:
    got = Collected()
    with (
        Node("sub", connection_params=server.url, heartbeats=False) as other,
        Node("pub", connection_params=server.url, heartbeats=False) as node,
    ):
        other.create_subscriber(topic, got)
        publisher = node.create_publisher(topic, qos=qos)
        for number in range(3):
            publisher.publish("x" * (MAX_SIZE + 1))
            eventually(lambda number=number: publisher.stats.rejected == number + 1)
        publisher.publish("small")
        assert got.first == "small"
        assert publisher.stats.reconnects == 0
    assert caplog.text.count("larger than configured max size") == 1


def test_a_call_that_is_too_long_for_the_broker_fails_at_once(
    server: RabbitServer, topic: str
) -> None:
    with Node("n", connection_params=server.url, heartbeats=False) as node:
        service = node.create_rpc(topic, lambda text: len(text))
        client = node.create_rpc_client(topic)
        with pytest.raises(CommlibError, match="larger than configured max size"):
            client.call("x" * (MAX_SIZE + 1), timeout=DEADLINE)
        assert client.call("x" * 1000, timeout=DEADLINE) == 1000
        assert service.stats.reconnects == 0


def test_an_answer_that_is_too_long_for_the_broker_costs_no_other(
    server: RabbitServer, topic: str
) -> None:
    with Node("n", connection_params=server.url, heartbeats=False) as node:
        service = node.create_rpc(topic, lambda size: "x" * size)
        client = node.create_rpc_client(topic)
        with pytest.raises(TimeoutError):
            client.call(MAX_SIZE + 1, timeout=0.5)
        assert client.call(1000, timeout=DEADLINE) == "x" * 1000
        eventually(lambda: service.stats.rejected == 1)
        assert service.stats.reconnects == 0


# ---- many at once ----


def test_more_services_than_there_are_channels_are_all_served(
    server: RabbitServer, topic: str
) -> None:
    url = server.url_with(channel_max=12)
    with Node("n", connection_params=url, heartbeats=False) as node:
        services = [node.create_rpc(f"{topic}.{n}", lambda _, n=n: n) for n in range(40)]
        clients = [node.create_rpc_client(f"{topic}.{n}") for n in range(40)]
        assert [client.call({}, timeout=DEADLINE) for client in clients] == list(range(40))
        cut(node)
        assert [client.call({}, timeout=DEADLINE) for client in clients] == list(range(40))
        for service in services[::2]:
            service.stop()
        assert [client.call({}, timeout=DEADLINE) for client in clients[1::2]] == [*range(1, 40, 2)]


# ---- a connection that breaks ----


def test_a_request_that_is_worked_on_when_the_connection_breaks_is_worked_on_once(
    server: RabbitServer, topic: str
) -> None:
    begun, gate = Collected(), threading.Event()

    def work(n: int) -> int:
        begun(n)
        gate.wait(DEADLINE)
        return n * 2

    with (
        Node("client", connection_params=server.url, heartbeats=False) as caller,
        Node("service", connection_params=server.url, heartbeats=False) as node,
    ):
        service = node.create_rpc(topic, work)
        client = caller.create_rpc_client(topic)
        calling = client.call_async(5, timeout=DEADLINE)
        assert begun.first == 5
        cut(node)
        eventually(lambda: service.stats.reconnects == 1)
        gate.set()
        assert calling.result(DEADLINE) == 10
        assert client.call(6, timeout=DEADLINE) == 12
        assert begun.items == [5, 6]


def test_a_call_to_a_service_that_comes_back_a_little_later_is_answered(
    server: RabbitServer, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_session, "SETTLING_SECONDS", DEADLINE)
    with Node("client", connection_params=server.url, heartbeats=False) as caller:
        client = caller.create_rpc_client(topic)
        with pytest.raises(ServiceNotFound):
            client.call(1, timeout=DEADLINE)
        cut(caller)
        eventually(lambda: client.stats.reconnects == 1)
        calling = [client.call_async(n, timeout=DEADLINE) for n in range(20)]
        with pytest.raises(RPCTimeout) as found:
            client.call(1, timeout=0.3)
        assert not isinstance(found.value, ServiceNotFound)
        with Node("service", connection_params=server.url, heartbeats=False) as node:
            service = node.create_rpc(topic, lambda n: n * 2)
            assert [each.result(DEADLINE) for each in calling] == [n * 2 for n in range(20)]
            assert service.stats.received == 20


def test_nobody_waits_for_a_service_longer_than_others_need_to_come_back(
    server: RabbitServer, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_session, "SETTLING_SECONDS", 600.0)
    with Node("client", connection_params=server.url, heartbeats=False) as caller:
        client = caller.create_rpc_client(topic)
        with pytest.raises(ServiceNotFound):
            client.call(1, timeout=DEADLINE)
        cut(caller)
        eventually(lambda: client.stats.reconnects == 1)
        calling = client.call_async(1, timeout=600)
        calls = caller._core.hub.caller._calls
        eventually(lambda: any(call.returned_at for call, _ in [*calls._under_way.values()]))
        assert not calling.done()
        monkeypatch.setattr(_session, "SETTLING_SECONDS", 0.0)
        with pytest.raises(ServiceNotFound):
            calling.result(DEADLINE)


def test_one_that_ends_while_there_is_no_connection_is_answered_on_the_next(
    server: RabbitServer, topic: str
) -> None:
    begun, gate, ended = Collected(), threading.Event(), Collected()

    def work(n: int) -> int:
        begun(n)
        gate.wait(DEADLINE)
        ended(n)
        return n * 2

    with (
        Node("client", connection_params=server.url, heartbeats=False) as caller,
        Node("service", connection_params=server.url, heartbeats=False) as node,
    ):
        node.create_rpc(topic, work)
        client = caller.create_rpc_client(topic)
        calling = client.call_async(5, timeout=DEADLINE)
        assert begun.first == 5
        cut(node)
        gate.set()
        assert calling.result(DEADLINE) == 10
        assert client.call(6, timeout=DEADLINE) == 12
        assert ended.items == [5, 6]


def test_a_reply_that_waits_while_its_service_loses_its_channel_is_written_whole(
    server: RabbitServer, topic: str
) -> None:
    """What would acknowledge its request is taken from it, and that only once."""
    begun, gate = Collected(), threading.Event()

    def work(n: int) -> int:
        begun(n)
        gate.wait(DEADLINE)
        return n * 2

    with (
        Node("client", connection_params=server.url, heartbeats=False) as caller,
        Node("service", connection_params=server.url, heartbeats=False) as node,
    ):
        service = node.create_rpc(topic, work)
        client = caller.create_rpc_client(topic)
        calling = client.call_async(5, timeout=DEADLINE)
        assert begun.first == 5
        link = node._core.hub.transport._link  # type: ignore[attr-defined]
        loop = node._core.hub.loop
        assert loop is not None
        loop.call_soon_threadsafe(link.hold, "the test")
        eventually(lambda: link.is_held)
        gate.set()
        eventually(lambda: _waiting(node) == 1)
        number = service._core._consumer.number  # type: ignore[union-attr]
        channel = link.channels[number]
        for life in (2, 3):
            bad = methods.ack(number, 99)
            loop.call_soon_threadsafe(link.write, [bad], [])
            eventually(lambda life=life: channel.life == life and service._core.ready)
        loop.call_soon_threadsafe(link.release, "the test")
        assert calling.result(DEADLINE) == 10
        assert client.call(6, timeout=DEADLINE) == 12
        assert begun.items == [5, 6]
        assert service.stats.reconnects == 0


def test_another_service_does_not_work_on_it_again_but_says_so(
    server: RabbitServer, topic: str
) -> None:
    begun, gate, others = Collected(), threading.Event(), Collected()
    once = server.url_with(reconnect=False)  # back in time, it could be handed its own again

    def work(n: int) -> int:
        begun(n)
        gate.wait(DEADLINE)
        return n

    with (
        Node("client", connection_params=server.url, heartbeats=False) as caller,
        Node("first", connection_params=once, heartbeats=False) as node,
        Node("second", connection_params=server.url, heartbeats=False) as other,
    ):
        node.create_rpc(topic, work)
        client = caller.create_rpc_client(topic)
        calling = client.call_async(5, timeout=DEADLINE)
        assert begun.first == 5
        other.create_rpc(topic, lambda n: others(n) or n)
        cut(node)
        with pytest.raises(RPCRemoteError, match="may have handled it") as caught:
            calling.result(DEADLINE)
        gate.set()
        assert caught.value.type == "ConnectionLost"
        assert begun.items == [5]
        assert others.items == []


def test_what_waits_for_a_service_whose_connection_breaks_goes_to_another(
    server: RabbitServer, topic: str
) -> None:
    """What the broker had handed over is not known not to have begun; all else is handled."""
    gate, done = threading.Event(), Collected()

    def work(n: int) -> int:
        gate.wait(DEADLINE)
        return n

    with (
        Node("client", connection_params=server.url, heartbeats=False) as caller,
        Node("first", connection_params=server.url, heartbeats=False) as node,
        Node("second", connection_params=server.url, heartbeats=False) as other,
    ):
        node.create_rpc(topic, work, workers=2)
        client = caller.create_rpc_client(topic)
        calls = [client.call_async(n, timeout=DEADLINE) for n in range(10)]
        eventually(lambda: node._core.hub.transport._services._in_hand.__len__() == 2)  # type: ignore[attr-defined]
        other.create_rpc(topic, lambda n: done(n) or n)
        done.wait(8)
        cut(node)
        gate.set()
        outcomes = [_outcome(call) for call in calls]
        assert outcomes[2:] == list(range(2, 10))
        assert set(outcomes[:2]) <= {0, 1, "ConnectionLost"}
        assert sorted(done.items) == list(range(2, 10))


def _outcome(call: Any) -> Any:
    try:
        return call.result(DEADLINE)
    except RPCRemoteError as exc:
        return exc.type


@pytest.mark.parametrize("times", [3])
def test_calls_publishers_and_subscribers_go_on_after_each_break(
    server: RabbitServer, topic: str, times: int
) -> None:
    got = Collected()
    with Node("n", connection_params=server.url, heartbeats=False) as node:
        node.create_subscriber(f"{topic}.*", got)
        node.create_rpc(topic, lambda n: n)
        client, publisher = node.create_rpc_client(topic), node.create_publisher(f"{topic}.a")
        reliable = node.create_publisher(f"{topic}.b", qos=1)
        for number in range(times):
            cut(node)
            reliable.publish(f"reliable {number}")
            publisher.publish(number)
            assert client.call(number, timeout=DEADLINE) == number
            eventually(lambda number=number: number in got.items)
            eventually(lambda number=number: f"reliable {number}" in got.items)
        assert client.stats.reconnects == times


# ---- stop under load ----


@pytest.mark.parametrize("is_async", [False, True])
async def test_who_stops_under_load_loses_no_request(
    server: RabbitServer, topic: str, is_async: bool
) -> None:
    handled = Collected()
    first, second, caller = (
        aio.Node(name, server.url, heartbeats=False) for name in ("first", "second", "caller")
    )

    def work(n: int) -> int:
        time.sleep(0.001)
        handled(n)
        return n

    async def work_async(n: int) -> int:
        await asyncio.sleep(0.001)
        handled(n)
        return n

    for node in (first, second):
        node.create_rpc(topic, work_async if is_async else work)
    client = caller.create_rpc_client(topic)
    for node in (first, second, caller):
        await node.run()
    calls = [asyncio.ensure_future(client.call(n, timeout=DEADLINE)) for n in range(300)]
    await asyncio.to_thread(handled.wait, 50)
    await first.stop()
    assert await asyncio.gather(*calls) == list(range(300))
    assert sorted(handled.items) == list(range(300)), "each once"
    await second.stop()
    await caller.stop()


async def test_a_service_that_stops_alone_under_load_loses_none_either(
    server: RabbitServer, topic: str
) -> None:
    """Its connection goes on, so the broker would not hand over to others what it still has."""
    handled = Collected()
    first, second, caller = (
        aio.Node(name, server.url, heartbeats=False) for name in ("first", "second", "caller")
    )

    async def work(n: int) -> int:
        await asyncio.sleep(0.001)
        handled(n)
        return n

    services = [node.create_rpc(topic, work) for node in (first, second)]
    client = caller.create_rpc_client(topic)
    for node in (first, second, caller):
        await node.run()
    calls = [asyncio.ensure_future(client.call(n, timeout=DEADLINE)) for n in range(300)]
    await asyncio.to_thread(handled.wait, 50)
    await services[0].stop()
    assert await asyncio.gather(*calls) == list(range(300))
    assert sorted(handled.items) == list(range(300)), "each once"
    for node in (first, second, caller):
        await node.stop()


@pytest.mark.parametrize(
    "make_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def test_what_was_published_last_has_arrived_when_a_node_is_stopped(
    server: RabbitServer, topic: str, make_loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_main_transport, "FLUSH_SECONDS", DEADLINE)
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(_publish_and_stop(server, topic))


async def _publish_and_stop(server: RabbitServer, topic: str) -> None:
    got = Collected()
    other = aio.Node("sub", server.url, heartbeats=False)
    other.create_subscriber(topic, got)
    await other.run()
    for qos in (0, 1):
        node = aio.Node("pub", server.url, heartbeats=False)
        publisher = node.create_publisher(topic, qos=qos)
        await node.run()
        for number in range(2000):
            await publisher.publish(number)
        await node.stop()
        await met(lambda: len(got.items) >= 2000)
        assert got.items == list(range(2000))
        got.items.clear()
    await other.stop()


# ---- what is left behind ----

LEFT = "[length(rabbit_amqqueue:list()), length(rabbit_networking:connections())]."


def left(server: RabbitServer) -> str:
    """How many queues and connections the broker has."""
    return server.ctl("eval", LEFT).strip()


def test_nothing_of_ours_is_left_on_the_broker(server: RabbitServer, topic: str) -> None:
    eventually(lambda: left(server) == "[0,0]", lambda: server.ctl("list_queues", "name"))
    with Node("n", connection_params=server.url) as node:
        node.create_subscriber("*", print)
        node.create_psubscriber(f"{topic}.*", print)
        node.create_rpc(topic, lambda n: n)
        node.create_rpc(f"{topic}.other", lambda n: n)
        node.create_publisher(topic, qos=1).publish(1)
        assert node.create_rpc_client(topic).call(1, timeout=DEADLINE) == 1
        queues, connections = map(int, left(server).strip("[]").split(","))
        assert queues >= 3
        assert connections == 1
    eventually(lambda: left(server) == "[0,0]", lambda: server.ctl("list_queues", "name"))


def test_endpoints_that_stop_alone_leave_nothing_behind_either(
    server: RabbitServer, topic: str
) -> None:
    with Node("n", connection_params=server.url, heartbeats=False) as node:
        subscriber = node.create_subscriber(topic, print)
        service = node.create_rpc(topic, lambda n: n)
        before = left(server)
        for _ in range(3):
            service.stop()
            service = node.create_rpc(topic, lambda n: n)
            subscriber.stop()
            subscriber = node.create_subscriber(topic, print)
        assert left(server) == before
        bindings = server.ctl("list_bindings", "source_name", "routing_key")
        assert bindings.count(f"amq.topic\t{topic}\n") == 1
        subscriber.stop()
        service.stop()
        listed = server.ctl("list_queues", "name")
        assert topic not in listed.split()
        assert f"\t{topic}\n" not in server.ctl("list_bindings", "source_name", "routing_key")
