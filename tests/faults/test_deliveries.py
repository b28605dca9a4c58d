"""Messages at each delivery level while a broker is away, or does not want them."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

import pytest

from brokers import MosquittoServer, Server
from collected import DEADLINE, Collected, eventually
from commlib.exceptions import CommlibError, ConnectionLost, OutboxFull, PayloadTooBig
from commlib.node import Node
from commlib.transports import resolve
from commlib.transports.base import Traits
from commlib.transports.mqtt import Offline

MakeServer = Callable[..., Server]

pytestmark = pytest.mark.main_kinds
MakeMosquitto = Callable[..., MosquittoServer]

LIMIT = 1_000_000


@pytest.fixture(params=[0, 1])
def qos(request: pytest.FixtureRequest, traits: Traits) -> int:
    """A delivery level; a test is skipped where the broker does not have it."""
    level: int = request.param
    if level not in traits.delivery_levels:
        pytest.skip(f"the broker does not deliver at QoS {level}")
    return level


@pytest.fixture(params=[False, True], ids=["passing", "retained"])
def retain(request: pytest.FixtureRequest, traits: Traits) -> bool:
    """Whether the broker is to keep the message; a test is skipped where it keeps none."""
    if request.param and not traits.retained:
        pytest.skip("the broker keeps no messages for those who subscribe later")
    return bool(request.param)


def test_the_newest_within_the_bound_arrive_when_the_broker_is_back(
    make_server: MakeServer, qos: int
) -> None:
    server = make_server()
    seen = Collected()
    with (
        Node("late", connection_params=server.url) as late,
        Node("early", connection_params=server.url) as early,
    ):
        late.create_subscriber("numbers", seen)
        publisher = early.create_publisher("numbers", qos=qos)
        # Nobody confirms it: what arrives at QoS 1 may wait to be sent again all the same.
        early.create_publisher("numbers").publish(-1)
        seen.wait(1)
        server.kill()
        eventually(lambda: not late.connected and not early.connected)
        for number in range(1500):  # the default bound is 1000
            publisher.publish(number)
        # The loop drops what the main thread has put beyond the bound, when it is its turn.
        eventually(lambda: publisher.stats.discarded == 500, lambda: publisher.stats)
        server.start()
        eventually(lambda: late.connected and early.connected)
        publisher.publish(1500)
        arrived = seen.until(1500)[1:]
        # The subscriber may be back a moment after the publisher: what it saw is a gapless rest.
        assert arrived == list(range(1500 - len(arrived), 1500))


def test_what_is_too_old_when_the_broker_is_back_is_dropped_and_counted(
    make_server: MakeServer, qos: int
) -> None:
    server = make_server()
    seen = Collected()
    params = dataclasses.replace(resolve(server.url), offline=Offline(max_age=0.3))
    with (
        Node("late", connection_params=server.url) as late,
        Node("early", connection_params=params) as early,
    ):
        late.create_subscriber("numbers", seen)
        publisher = early.create_publisher("numbers", qos=qos)
        server.kill()
        eventually(lambda: not late.connected and not early.connected)
        publisher.publish("old")
        threading.Event().wait(0.4)  # its age is what is tested
        server.start()
        eventually(lambda: late.connected and early.connected)
        publisher.publish("new")
        assert seen.first == "new"
        assert publisher.stats.discarded == 1


def test_the_policy_raise_raises_at_once_while_the_broker_is_away(
    make_server: MakeServer, qos: int
) -> None:
    server = make_server()
    with Node("n", connection_params=server.url_with(offline="raise")) as node:
        publisher = node.create_publisher("numbers", qos=qos)
        client = node.create_rpc_client("add")
        server.kill()

        # A node of several connections loses them one after the other: this is about their last.
        def refused() -> bool:
            try:
                publisher.publish(1)
            except ConnectionLost as exc:
                return "offline='raise'" in str(exc)
            return False

        eventually(refused)
        with pytest.raises(ConnectionLost):
            client.call({}, timeout=5)


def test_the_policy_wait_waits_until_the_broker_is_back(make_server: MakeServer, qos: int) -> None:
    server = make_server()
    # Some brokers take seconds to start, longer than a publisher waits as it comes.
    params = dataclasses.replace(resolve(server.url), offline=Offline("wait", timeout=60))
    with Node("n", connection_params=params) as node:
        publisher = node.create_publisher("numbers", qos=qos)
        server.kill()
        eventually(lambda: not node.connected)
        thread = threading.Thread(target=publisher.publish, args=(1,))
        thread.start()
        server.start()
        thread.join(DEADLINE)
        assert not thread.is_alive()
        assert publisher.stats.sent == 1


def test_the_policy_wait_gives_up_after_its_time(make_server: MakeServer, qos: int) -> None:
    server = make_server()
    params = dataclasses.replace(resolve(server.url), offline=Offline("wait", timeout=0.2))
    with Node("n", connection_params=params) as node:
        publisher = node.create_publisher("numbers", qos=qos)
        server.kill()
        eventually(lambda: not node.connected)
        with pytest.raises(OutboxFull, match="no room"):
            publisher.publish(1)
        assert publisher.stats.sent == 0


@pytest.mark.parametrize("qos", [1], indirect=True)
def test_what_was_not_confirmed_at_qos_1_arrives_after_the_restart(
    make_server: MakeServer, qos: int
) -> None:
    server = make_server()
    seen, sent = Collected(), 0
    done = threading.Event()
    # Some brokers take seconds to start, in which nothing is to be dropped here.
    patient = Offline(max_messages=1_000_000, max_bytes=100_000_000, max_age=60)
    params = dataclasses.replace(resolve(server.url), offline=patient)
    with (
        Node("late", connection_params=server.url) as late,
        Node("early", connection_params=params) as early,
    ):
        late.create_subscriber("numbers", seen)
        publisher = early.create_publisher("numbers", qos=qos)

        def publish_for_ever() -> None:
            nonlocal sent
            while not done.wait(0.001):
                publisher.publish(sent)
                sent += 1

        thread = threading.Thread(target=publish_for_ever)
        thread.start()
        seen.wait(100)
        server.kill()
        eventually(lambda: not (late.connected or early.connected))
        server.start()
        mark = len(seen.items)
        seen.wait(mark + 200)
        done.set()
        thread.join()
        assert seen.until(sent - 1) is not None
        assert publisher.stats.unconfirmed == publisher.stats.discarded == 0
        assert publisher.stats.sent == sent


# ---- too big for us ----


@pytest.mark.parametrize("size", [LIMIT + 1, 3 * LIMIT])
def test_a_packet_over_the_limit_is_refused_and_the_connection_survives(
    make_server: MakeServer,
    caplog: pytest.LogCaptureFixture,
    qos: int,
    retain: bool,
    size: int,
) -> None:
    server = make_server()
    seen = Collected()
    small = server.url_with(max_payload=LIMIT)
    with (
        Node("far", connection_params=server.url) as far,
        Node("near", connection_params=small, heartbeats=False) as near,
    ):
        image = far.create_publisher("image", bytes, qos=qos, retain=retain)
        if retain:
            image.publish(b"x" * size)  # it is there before anybody wants it
        subscriber = near.create_subscriber("image", seen, bytes)
        image.publish(b"y" * size)
        image.publish(b"small")

        assert seen.first == b"small"
        # A retained one may be overtaken by the subscription.
        assert subscriber.stats.refused >= 1 + retain
        assert subscriber.stats.reconnects == 0
        assert near.connected
    assert sum(f"limit of {LIMIT}" in record.getMessage() for record in caplog.records) == 1


def test_nor_does_a_request_over_the_limit_end_the_service(make_server: MakeServer) -> None:
    server = make_server()
    small = server.url_with(max_payload=LIMIT)
    with (
        Node("far", connection_params=server.url) as far,
        Node("near", connection_params=small) as near,
    ):
        service = near.create_rpc("echo", lambda request: request)
        client = far.create_rpc_client("echo")
        future = client.call_async("x" * (3 * LIMIT), timeout=1)
        assert client.call("small", timeout=5) == "small"
        eventually(lambda: service.stats.refused == 1)
        assert service.stats.reconnects == 0
        with pytest.raises(CommlibError):
            future.result(10)


# ---- too big for a broker of MQTT ----


def test_a_message_that_makes_the_broker_hang_up_does_not_so_for_ever(
    make_mosquitto: MakeMosquitto,
) -> None:
    # On MQTT 3.1.1 it cannot say how long a packet may be.
    server = make_mosquitto(config=["max_packet_size 2000"], protocol="MQTTv311")
    seen = Collected()
    with (
        Node("n", connection_params=server.url) as node,
        Node("m", connection_params=server.url) as other,
    ):
        other.create_subscriber("numbers", seen)
        publisher = node.create_publisher("numbers", qos=1)
        publisher.publish("x" * 5000)
        publisher.publish("small")
        assert seen.first == "small"
        stats = publisher.stats
        assert stats.unconfirmed + stats.rejected + stats.discarded == 1
        assert stats.reconnects < 10


def test_what_the_broker_does_not_take_is_refused_before_it_is_sent(
    make_mosquitto: MakeMosquitto,
) -> None:
    server = make_mosquitto(config=["max_packet_size 2000"])
    seen = Collected()
    with Node("n", connection_params=server.url) as node:
        node.create_subscriber("numbers", seen)
        for qos in (0, 1):
            publisher = node.create_publisher("numbers", qos=qos)
            with pytest.raises(PayloadTooBig):
                publisher.publish("x" * 5000)
            publisher.publish("small")
        assert seen.wait(2) == ["small", "small"]
        assert node.create_publisher("numbers").stats.reconnects == 0
