"""What other people do to queues and exchanges under a running program."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from brokers import RabbitServer
from collected import DEADLINE, Collected, eventually
from commlib._packet import now_ms
from commlib.aio import _caller
from commlib.exceptions import CommlibError, RPCTimeout
from commlib.node import Node
from commlib.transports import _amqp_topics

from .pika_peer import PikaPeer, Properties


@pytest.fixture
def topic() -> str:
    return f"q{os.urandom(4).hex()}"


@pytest.fixture
def plain(amqp_server: RabbitServer) -> Iterator[PikaPeer]:
    with PikaPeer(amqp_server.url) as peer:
        yield peer


@pytest.fixture
def node(amqp_server: RabbitServer) -> Iterator[Node]:
    with Node("n", connection_params=amqp_server.url, heartbeats=False) as node:
        yield node


def answers(client: Any, n: int = 1) -> bool:
    """Whether a call is answered, and not by an error of the way there."""
    try:
        return bool(client.call(n, timeout=1) == n)
    except (RPCTimeout, CommlibError):
        return False


# ---- a queue that others hold ----


@pytest.mark.parametrize("running", [False, True])
def test_a_queue_that_another_program_holds_is_taken_over_when_it_goes(
    amqp_server: RabbitServer,
    plain: PikaPeer,
    topic: str,
    running: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain.channel.queue_declare(topic, exclusive=True, auto_delete=True)
    node = Node("n", connection_params=amqp_server.url, heartbeats=False)
    if not running:
        service = node.create_rpc(topic, lambda n: n)
        node.run()
    else:
        node.run()
        service = node.create_rpc(topic, lambda n: n)
    neighbour = node.create_rpc(f"{topic}.neighbour", lambda n: n)
    try:
        assert f"the queue '{topic}' is held by another program" in caplog.text
        assert not service._core.ready
        assert not node.health
        assert neighbour._core.ready
        client = node.create_rpc_client(f"{topic}.neighbour")
        assert client.call(3, timeout=DEADLINE) == 3
        plain.connection.close()
        eventually(lambda: service._core.ready)
        assert node.health
        assert node.create_rpc_client(topic).call(4, timeout=DEADLINE) == 4
        assert f"{topic} is served now" in caplog.text
        assert caplog.text.count("is held by another program") == 1
        assert service.stats.reconnects == 0
    finally:
        node.stop()


def test_a_queue_with_a_consumer_that_wants_to_be_alone_is_taken_over_as_well(
    node: Node, plain: PikaPeer, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    """RabbitMQ says 403 for that, though nobody lacks a right."""
    plain.channel.queue_declare(topic, durable=True)
    plain.channel.basic_consume(topic, lambda *arrival: None, exclusive=True)
    service = node.create_rpc(topic, lambda n: n)
    assert not service._core.ready
    plain.channel.close()
    eventually(lambda: service._core.ready)
    assert node.create_rpc_client(topic).call(4, timeout=DEADLINE) == 4
    peer = PikaPeer(plain.url)
    peer.channel.queue_delete(topic)
    peer.close()


def test_while_we_wait_for_a_queue_we_can_stop(
    amqp_server: RabbitServer, plain: PikaPeer, topic: str
) -> None:
    plain.channel.queue_declare(topic, exclusive=True)
    with Node("n", connection_params=amqp_server.url, heartbeats=False) as node:
        service = node.create_rpc(topic, lambda n: n)
        service.stop()
        plain.channel.queue_delete(topic)
        asked = Collected()
        node.create_rpc(topic, lambda n: asked(n) or n)
        assert node.create_rpc_client(topic).call(4, timeout=DEADLINE) == 4
        assert asked.items == [4]


# ---- a queue that is no more ----


def test_a_service_whose_queue_was_deleted_comes_back(
    node: Node, plain: PikaPeer, topic: str
) -> None:
    service = node.create_rpc(topic, lambda n: n)
    other = node.create_rpc(f"{topic}.other", lambda n: n)
    client = node.create_rpc_client(topic)
    for number in range(3):
        assert client.call(number, timeout=DEADLINE) == number
        plain.channel.queue_delete(topic)
        eventually(lambda: answers(client))
    assert service._core.ready
    assert other._core.ready
    assert service.stats.reconnects == 0


def test_a_request_that_is_worked_on_meanwhile_is_answered(
    node: Node, plain: PikaPeer, topic: str
) -> None:
    begun = Collected()

    def work(n: int) -> int:
        begun(n)
        if n == 1:
            plain.channel.queue_delete(topic)
        return n

    node.create_rpc(topic, work)
    client = node.create_rpc_client(topic)
    assert client.call(1, timeout=DEADLINE) == 1
    eventually(lambda: answers(client, 2))
    assert begun.items.count(1) == 1


def test_a_subscriber_whose_queue_was_deleted_comes_back(
    amqp_server: RabbitServer, node: Node, plain: PikaPeer, topic: str
) -> None:
    got, by_pattern = Collected(), Collected()
    subscriber = node.create_subscriber(topic, got)
    node.create_subscriber("*", by_pattern)
    queue = node._core.hub.transport._topics._queue  # type: ignore[attr-defined]
    amqp_server.ctl("delete_queue", queue)

    def came() -> bool:
        plain.publish(topic, b'"after"')
        return "after" in got.items and "after" in by_pattern.items

    eventually(came)
    assert subscriber.stats.reconnects == 0
    assert got.items.count("after") >= 1


@pytest.mark.parametrize("qos", [0, 1])
def test_an_exchange_that_was_deleted_is_made_again_and_heard_again(
    amqp_server: RabbitServer,
    plain: PikaPeer,
    topic: str,
    qos: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_amqp_topics, "AGAIN_SECONDS", 0.5)
    exchange = f"{topic}.x"
    url = amqp_server.url_with(exchange=exchange)
    with (
        Node("n", connection_params=url, heartbeats=False) as node,
        Node("other", connection_params=url, heartbeats=False) as other,
    ):
        got, heard = Collected(), Collected()
        node.create_subscriber(topic, got)
        other.create_subscriber(topic, heard)
        publisher = node.create_publisher(topic, qos=qos)
        publisher.publish("before")
        assert (got.first, heard.first) == ("before", "before")
        plain.channel.exchange_delete(exchange)

        def came() -> bool:
            publisher.publish("after")
            return "after" in got.items and "after" in heard.items

        eventually(came, lambda: publisher.stats)
        assert publisher.stats.rejected >= 1
        assert publisher.stats.reconnects == 0
    plain.channel.exchange_delete(exchange)


def test_one_that_others_have_made_again_is_heard_again(
    amqp_server: RabbitServer, plain: PikaPeer, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing tells a subscriber of that: who publishes there does so in vain, without an error."""
    monkeypatch.setattr(_amqp_topics, "AGAIN_SECONDS", 0.5)
    exchange = f"{topic}.x"
    url = amqp_server.url_with(exchange=exchange)
    with (
        Node("n", connection_params=url, heartbeats=False, discovery=False) as node,
        Node("other", connection_params=url, heartbeats=False, discovery=False) as other,
    ):
        got, everything = Collected(), Collected()
        node.create_subscriber(topic, got)
        other.create_psubscriber("#", lambda msg, name: everything(name))
        plain.channel.exchange_delete(exchange)
        plain.channel.exchange_declare(exchange, "topic", durable=True)

        def came() -> bool:
            plain.publish(topic, b'"after"', exchange=exchange)
            return bool(got.items and everything.items)

        eventually(came)
        assert {*everything.items} == {topic}
    plain.channel.exchange_delete(exchange)


def test_new_subscriptions_after_that_are_heard(
    amqp_server: RabbitServer, plain: PikaPeer, topic: str
) -> None:
    exchange = f"{topic}.x"
    url = amqp_server.url_with(exchange=exchange)
    with Node("n", connection_params=url, heartbeats=False) as node:
        first, second = Collected(), Collected()
        node.create_subscriber(f"{topic}.1", first)
        plain.channel.exchange_delete(exchange)
        node.create_subscriber(f"{topic}.2", second)
        plain.publish(f"{topic}.1", b"1", exchange=exchange)
        plain.publish(f"{topic}.2", b"2", exchange=exchange)
        assert (first.first, second.first) == (1, 2)
    plain.channel.exchange_delete(exchange)


def test_an_exchange_of_another_kind_is_used_as_it_is(
    amqp_server: RabbitServer, plain: PikaPeer, topic: str
) -> None:
    exchange = f"{topic}.x"
    plain.channel.exchange_declare(exchange, "fanout")
    with Node("n", connection_params=amqp_server.url_with(exchange=exchange)) as node:
        got = Collected()
        node.create_subscriber(topic, got)
        node.create_publisher(f"{topic}.not").publish(1)
        node.create_publisher(topic).publish(2)
        assert got.first == 2, "what comes is filtered again"
    plain.channel.exchange_delete(exchange)


# ---- bounds ----


def test_a_queue_has_the_bounds_that_were_asked_for(
    amqp_server: RabbitServer, plain: PikaPeer, topic: str
) -> None:
    url = amqp_server.url_with(queue_size=3, message_ttl=60_000)
    with Node("n", connection_params=url, heartbeats=False) as node:
        got = Collected()
        node.create_subscriber(topic, got)
        queue = node._core.hub.transport._topics._queue  # type: ignore[attr-defined]
        listed = amqp_server.ctl("list_queues", "name", "arguments", "exclusive", "auto_delete")
        (line,) = (line for line in listed.splitlines() if line.startswith(queue))
        for argument in ('"x-max-length",3', '"x-overflow","drop-head"', '"x-message-ttl",60000'):
            assert argument in line
        assert line.split()[-2:] == ["true", "true"]


def test_whose_clock_is_behind_is_answered_though_its_requests_had_to_wait(
    amqp_server: RabbitServer,
    node: Node,
    plain: PikaPeer,
    topic: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They say how long somebody waits, which the broker sees to by its own clock."""
    gate = threading.Event()
    node.create_rpc(topic, lambda number: gate.wait(DEADLINE) and number, workers=1)
    with Node("slow_clock", connection_params=amqp_server.url) as other:
        monkeypatch.setattr(_caller, "now_ms", lambda: now_ms() - 3_600_000)
        client = other.create_rpc_client(topic)
        calls = [client.call_async(number, timeout=DEADLINE) for number in range(10)]
        declare = plain.channel.queue_declare
        eventually(lambda: declare(topic, passive=True).method.message_count == 9)
        with Node("second", connection_params=amqp_server.url) as second:
            service = second.create_rpc(topic, lambda number: number)
            eventually(lambda: service.stats.sent == 9, lambda: service.stats)
            gate.set()
            assert [call.result(DEADLINE) for call in calls] == [*range(10)]


def test_a_call_expires_on_the_broker_when_nobody_waits_any_more(
    node: Node, plain: PikaPeer, topic: str
) -> None:
    declare, expired = plain.channel.queue_declare, f"{topic}.expired"
    declare(expired, exclusive=True)
    to_expired = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": expired}
    declare(topic, arguments=to_expired)
    client = node.create_rpc_client(topic)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            client.call({}, timeout=0.05)
    eventually(lambda: declare(expired, passive=True).method.message_count == 3)
    plain.publish(topic, b"1", Properties(content_type="application/json"), exchange="")
    asked = Collected()
    node.create_rpc(topic, lambda n: asked(n) or n)
    assert client.call(2, timeout=DEADLINE) == 2
    assert sorted(asked.items) == [1, 2]
    plain.channel.queue_delete(topic)
