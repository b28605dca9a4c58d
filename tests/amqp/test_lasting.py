"""Subscriptions that outlive the connection, on RabbitMQ."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pika.exceptions
import pytest

from brokers import RabbitServer, running
from collected import DEADLINE, Collected, eventually
from commlib import _portal
from commlib.exceptions import CommlibError, ConnectionLost
from commlib.node import Node
from commlib.transports import _amqp_lasting, _main_transport

from .pika_peer import PikaPeer

QUORUM = "quorum"
TYPES = pytest.mark.parametrize("queue_type", ["classic", QUORUM])


class KeepingServer(RabbitServer):
    """A RabbitMQ that still has what it had when it is started again."""

    def _prepare(self) -> None:
        if not (self.folder / "data").exists():
            super()._prepare()


@pytest.fixture
def topic() -> str:
    return f"l{os.urandom(4).hex()}"


@pytest.fixture
def plain(amqp_server: RabbitServer) -> Iterator[PikaPeer]:
    with PikaPeer(amqp_server.url) as peer:
        yield peer


@pytest.fixture
def client_id(amqp_server: RabbitServer) -> Iterator[str]:
    """One that no other test has; nothing of it is left behind."""
    name = f"robot-{os.urandom(4).hex()}"
    yield name
    with PikaPeer(amqp_server.url) as peer:
        for queue in queues(amqp_server):
            if queue.startswith(f"{name}:"):
                peer.channel.queue_delete(queue)


class Robots:
    """Nodes that are the same robot, one life after the other."""

    def __init__(self, server: RabbitServer, client_id: str, topic: str, **options: Any) -> None:
        self.url = server.url_with(**{"client_id": client_id, "session_expiry": 60, **options})
        self.topic = topic
        self.queue = f"{client_id}:{topic}:1"

    def node(self, **options: Any) -> Node:
        return Node("robot", connection_params=self.url, heartbeats=False, **options)

    def receives(self, count: int, topic: str = "") -> list[Any]:
        """What waits for the robot: one life of it, until so many have come."""
        got = Collected()
        with self.node() as node:
            node.create_subscriber(topic or self.topic, got, inline=True)
            got.wait(count)
        return got.items

    def life(self) -> None:
        """One life, for the queue to be there."""
        self.receives(0)


def queues(server: RabbitServer) -> list[str]:
    """The names of all."""
    return server.ctl("list_queues", "name", "--no-table-headers").splitlines()


def has_queue(peer: PikaPeer, queue: str) -> bool:
    channel = peer.connection.channel()
    try:
        channel.queue_declare(queue, passive=True)
    except pika.exceptions.ChannelClosedByBroker:
        return False
    channel.close()
    return True


def waiting(peer: PikaPeer, queue: str) -> int:
    """How many messages wait there."""
    return int(peer.channel.queue_declare(queue, passive=True).method.message_count)


def cut(node: Node) -> None:
    """Let the connection of a node break."""
    hub = node._core.hub

    async def abort() -> None:
        assert await hub.wait_connected(DEADLINE)
        hub.transport._link.abort(ConnectionLost("cut by the test"))  # type: ignore[attr-defined]

    _portal.enter(hub).run(abort)


# ---- the queue ----


@TYPES
def test_the_broker_is_asked_for_a_queue_that_stays(
    amqp_server: RabbitServer, client_id: str, topic: str, queue_type: str
) -> None:
    options = {"queue_size": 50, "message_ttl": 60_000, "queue_type": queue_type}
    robots = Robots(amqp_server, client_id, topic, **options)
    robots.life()
    listed = amqp_server.ctl("list_queues", "name", "durable", "auto_delete", "type", "arguments")
    (line,) = (line for line in listed.splitlines() if line.startswith(robots.queue))
    assert line.split("\t")[1:4] == ["true", "false", queue_type]
    for argument in (
        *('"x-expires",60000', '"x-message-ttl",60000', '"x-max-length",50'),
        *('"x-overflow","drop-head"', f'"x-queue-type","{queue_type}"'),
    ):
        assert argument in line
    assert ("x-single-active-consumer" in line) == (queue_type == QUORUM)


@TYPES
def test_what_comes_meanwhile_arrives_in_order_and_once(
    amqp_server: RabbitServer, plain: PikaPeer, client_id: str, topic: str, queue_type: str
) -> None:
    robots = Robots(amqp_server, client_id, topic, queue_type=queue_type)
    robots.life()
    for number in range(20):
        plain.publish(topic, b"%d" % number)
    assert robots.receives(20) == list(range(20))
    assert waiting(plain, robots.queue) == 0


def test_two_subscribers_of_a_topic_both_find_all_of_it(
    amqp_server: RabbitServer, plain: PikaPeer, client_id: str, topic: str
) -> None:
    robots = Robots(amqp_server, client_id, topic)
    for is_first in (True, False):
        got, also = Collected(), Collected()
        with robots.node() as node:
            node.create_subscriber(topic, got)
            node.create_subscriber(topic, also)
            if not is_first:
                assert got.wait(3) == also.wait(3) == [0, 1, 2]
        if is_first:
            for number in range(3):
                plain.publish(topic, b"%d" % number)


def test_the_queues_of_one_that_stays_away_go(
    amqp_server: RabbitServer, client_id: str, topic: str
) -> None:
    names = []
    for queue_type in ("classic", QUORUM):
        options = {"session_expiry": 0.5, "queue_type": queue_type}
        robots = Robots(amqp_server, client_id, f"{topic}.{queue_type}", **options)
        robots.life()
        names.append(robots.queue)

    def gone() -> bool:  # to look by AMQP is to use them
        return not set(names) & {*queues(amqp_server)}

    eventually(gone)


def test_what_is_for_the_program_alone_is_not_kept(
    amqp_server: RabbitServer, client_id: str, topic: str
) -> None:
    """Services, calls, heartbeats and discovery have the queues that they always have."""
    robots = Robots(amqp_server, client_id, topic)
    with Node("robot", connection_params=robots.url) as node:
        node.create_rpc(topic, lambda n: n)
        assert node.create_rpc_client(topic).call(3, timeout=DEADLINE) == 3
        node.create_action(f"{topic}.turn", on_goal=lambda goal: {})
        node.create_action_client(f"{topic}.turn")
        assert not [name for name in queues(amqp_server) if name.startswith(f"{client_id}:")]


@pytest.mark.parametrize("options", [{"channel_max": 8}, {"channel_max": 7, "session_expiry": 0}])
def test_a_broker_may_allow_no_more_channels_than_one_service_needs(
    amqp_server: RabbitServer, client_id: str, topic: str, options: dict[str, Any]
) -> None:
    robots = Robots(amqp_server, client_id, topic, **options)
    got = Collected()
    with robots.node() as node:
        node.create_subscriber(topic, got)
        for number in range(3):
            node.create_rpc(f"{topic}.{number}", lambda n: n + 1)
            assert node.create_rpc_client(f"{topic}.{number}").call(3, timeout=DEADLINE) == 4
        node.create_publisher(topic, qos=1).publish("x")
        assert got.first == "x"
        assert node._core.hub.link_stats.reconnects == 0


# ---- the end of a subscription ----


@TYPES
def test_one_subscriber_that_stops_takes_its_queue_along_and_the_others_go_on(
    amqp_server: RabbitServer,
    plain: PikaPeer,
    client_id: str,
    topic: str,
    queue_type: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_amqp_lasting, "DELETE_SECONDS", DEADLINE)
    robots = Robots(amqp_server, client_id, topic, queue_type=queue_type)
    got, other = Collected(), Collected()
    other_topic = f"{topic}.other"
    with robots.node() as node:
        subscriber = node.create_subscriber(topic, got)
        node.create_subscriber(other_topic, other)
        publisher = node.create_publisher(topic, qos=1)
        for number in range(3000):  # some are on their way when it stops
            publisher.publish(number)
        subscriber.stop()
        assert not has_queue(plain, robots.queue)
        plain.publish(other_topic, b'"go on"')
        assert other.first == "go on"
        subscriber.run()
        assert has_queue(plain, robots.queue)
        plain.publish(topic, b'"again"')
        got.until("again")
        assert node._core.hub.link_stats.reconnects == 0
    assert has_queue(plain, robots.queue)
    assert "PRECONDITION_FAILED - unknown delivery tag" not in amqp_server.log


def test_one_that_stops_while_the_broker_is_away_takes_its_queue_along_later(topic: str) -> None:
    with running(KeepingServer) as server:
        robots = Robots(server, "robot", topic)
        got = Collected()
        with robots.node() as node:
            subscriber = node.create_subscriber(topic, got)
            kept = node.create_subscriber(f"{topic}.kept", got)
            server.kill()  # the queues are still there when it is started again
            eventually(lambda: not node.connected)
            subscriber.stop()
            server.start()
            eventually(lambda: kept._core.ready)
            with PikaPeer(server.url) as plain:
                assert not has_queue(plain, robots.queue)
                assert has_queue(plain, f"robot:{topic}.kept:1")


@TYPES
def test_what_comes_for_a_node_that_was_stopped_waits_while_its_connection_goes_on(
    amqp_server: RabbitServer,
    plain: PikaPeer,
    client_id: str,
    topic: str,
    queue_type: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_amqp_lasting, "KEPT_SECONDS", 1.0)
    robots = Robots(amqp_server, client_id, topic, queue_type=queue_type)
    got, other = Collected(), Collected()

    def waits_for_anybody() -> bool:
        told = plain.channel.queue_declare(robots.queue, passive=True).method
        return bool((told.message_count, told.consumer_count) == (5, 0))

    with robots.node(share_connection=True) as stays:
        stays.create_subscriber(f"{topic}.other", other)
        node = robots.node(share_connection=True)
        node.create_subscriber(topic, got)
        node.run()
        node.stop()
        for number in range(5):
            plain.publish(topic, b"%d" % number)
        eventually(waits_for_anybody)
        plain.publish(f"{topic}.other", b'"go on"')
        assert other.first == "go on"
        node.run()
        assert got.wait(5) == list(range(5))
        node.stop()
    assert waiting(plain, robots.queue) == 0


@TYPES
def test_a_node_that_stops_and_starts_again_and_again_misses_nothing(
    amqp_server: RabbitServer, client_id: str, topic: str, queue_type: str
) -> None:
    robots = Robots(amqp_server, client_id, topic, queue_type=queue_type)
    robots.life()
    count, got = 3000, Collected()
    with Node("pub", connection_params=amqp_server.url, heartbeats=False) as node:
        publisher = node.create_publisher(topic, qos=1)
        thread = threading.Thread(
            target=lambda: [publisher.publish(number) for number in range(count)]
        )
        thread.start()
        enough = 0
        while enough < count:
            enough = min(enough + 400, count)
            with robots.node() as robot:
                robot.create_subscriber(topic, got, inline=True)
                got.until(enough - 1)
        thread.join()
    # A quorum queue may lose acknowledgements when the channel is closed right behind them.
    assert queue_type == QUORUM or len(got.items) == count
    assert [*dict.fromkeys(got.items)] == [*range(count)], "in order, but for what came twice"


@TYPES
def test_what_was_under_way_when_the_connection_broke_comes_again(
    amqp_server: RabbitServer, client_id: str, topic: str, queue_type: str
) -> None:
    robots = Robots(amqp_server, client_id, topic, queue_type=queue_type)
    count, got = 4000, Collected()
    with (
        robots.node() as robot,
        Node("pub", connection_params=amqp_server.url, heartbeats=False) as node,
    ):
        robot.create_subscriber(topic, got, inline=True)
        publisher = node.create_publisher(topic, qos=1)
        thread = threading.Thread(
            target=lambda: [publisher.publish(number) for number in range(count)]
        )
        thread.start()
        for part in range(1, 5):
            got.wait(part * 800)
            cut(robot)
        thread.join()
        got.until(count - 1)
        assert [*dict.fromkeys(got.items)] == [*range(count)], "in order, but for what came twice"


# ---- two of one name ----


@TYPES
def test_a_second_program_is_told_and_takes_over(
    amqp_server: RabbitServer,
    plain: PikaPeer,
    client_id: str,
    topic: str,
    queue_type: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    robots = Robots(amqp_server, client_id, topic, queue_type=queue_type)
    got, taken_over = Collected(), Collected()
    first, second = robots.node(), robots.node()
    first.create_subscriber(topic, got)
    second.create_subscriber(topic, taken_over)
    first.run()
    try:
        second.run(wait=False)
        text = f"'{robots.queue}' is consumed by another connection: end the other program"
        eventually(lambda: text in caplog.text)
        plain.publish(topic, b"1")
        assert got.first == 1
        assert not second.health
        first.stop()
        plain.publish(topic, b"2")
        assert taken_over.first == 2
        eventually(lambda: f"{topic} is subscribed now" in caplog.text)
        eventually(lambda: second.health)
    finally:
        first.stop()
        second.stop()
    assert (got.items, taken_over.items) == ([1], [2])


# ---- other parameters than before ----


@pytest.mark.parametrize(
    ("before", "now", "parameter"),
    [
        ({}, {"session_expiry": 70}, "session_expiry"),
        ({}, {"queue_type": QUORUM}, "queue_type"),
        ({"queue_type": QUORUM}, {"queue_type": "classic"}, "queue_type"),
        ({"queue_size": 5}, {}, "queue_size"),
        ({}, {"message_ttl": 1000}, "message_ttl"),
    ],
)
def test_a_queue_that_was_made_in_another_way_is_refused_by_name(
    amqp_server: RabbitServer,
    client_id: str,
    topic: str,
    before: dict[str, Any],
    now: dict[str, Any],
    parameter: str,
) -> None:
    Robots(amqp_server, client_id, topic, **before).life()
    robots = Robots(amqp_server, client_id, topic, **now)
    with robots.node() as node:
        text = f"the queue '{robots.queue}' was made with another {parameter}: keep to that"
        with pytest.raises(CommlibError, match=text):
            node.create_subscriber(topic, print)
    robots = Robots(amqp_server, client_id, topic, **before)
    robots.life()  # it is still there


# ---- what becomes of it at the broker ----


@pytest.mark.parametrize(
    ("queue_type", "end"),
    # RabbitMQ 3.10 elects no leader for a quorum queue when it was killed and was alone.
    [("classic", RabbitServer.kill), (QUORUM, RabbitServer.stop)],
)
def test_what_was_published_at_qos_1_survives_the_end_of_the_broker(
    topic: str,
    queue_type: str,
    end: Callable[[RabbitServer], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # With the node stopped, the broker has confirmed all.
    monkeypatch.setattr(_main_transport, "FLUSH_SECONDS", DEADLINE)
    with running(KeepingServer) as server:
        robots = Robots(server, "robot", topic, queue_type=queue_type)
        robots.life()
        with Node("pub", connection_params=server.url, heartbeats=False) as node:
            publisher = node.create_publisher(topic, qos=1)
            for number in range(5):
                publisher.publish(number)
        end(server)
        server.start()
        assert robots.receives(5) == list(range(5))


@TYPES
def test_a_broker_that_comes_back_empty_is_told_all_again(
    make_rabbitmq: Any, topic: str, queue_type: str
) -> None:
    server = make_rabbitmq()
    got = Collected()
    robots = Robots(server, "robot", topic, queue_type=queue_type)
    with robots.node() as node:
        subscriber = node.create_subscriber(topic, got)
        server.kill()
        eventually(lambda: not node.connected)
        server.start()
        eventually(lambda: subscriber._core.ready)
        with PikaPeer(server.url) as plain:
            plain.publish(topic, b"1")
            assert got.first == 1
            assert has_queue(plain, robots.queue)


@TYPES
def test_a_queue_that_somebody_deletes_is_made_again(
    amqp_server: RabbitServer, plain: PikaPeer, client_id: str, topic: str, queue_type: str
) -> None:
    robots = Robots(amqp_server, client_id, topic, queue_type=queue_type)
    got = Collected()
    with robots.node() as node:
        subscriber = node.create_subscriber(topic, got)
        plain.channel.queue_delete(robots.queue)

        def came() -> bool:
            plain.publish(topic, b"1")
            return 1 in got.items

        eventually(came)
        assert subscriber.stats.reconnects == 0


def test_an_exchange_that_somebody_deletes_is_heard_again(
    amqp_server: RabbitServer, plain: PikaPeer, client_id: str, topic: str
) -> None:
    robots = Robots(amqp_server, client_id, topic, exchange=f"{topic}.x")
    got = Collected()
    with robots.node() as node:
        node.create_subscriber(topic, got)
        publisher = node.create_publisher(topic)
        publisher.publish("before")
        assert got.first == "before"
        plain.channel.exchange_delete(f"{topic}.x")

        def came() -> bool:
            publisher.publish("after")
            return "after" in got.items

        eventually(came, lambda: publisher.stats)
    plain.channel.exchange_delete(f"{topic}.x")
