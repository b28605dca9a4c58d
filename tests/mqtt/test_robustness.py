"""What a peer or a broker does to a node that would cost it its connection, or its messages."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator

import pytest

from brokers import MosquittoServer, PlainPeer
from collected import DEADLINE, Collected, eventually
from commlib._packet import Header
from commlib.exceptions import AuthError, PayloadTooBig, RPCTimeout, SerializationError
from commlib.node import Node
from commlib.transports.mqtt import ConnectionParameters, Will
from mqtt.fake_broker import FakeBroker
from raw_peer import RawPeer

MakeMosquitto = Callable[..., MosquittoServer]
VERSIONS = pytest.mark.parametrize("protocol", ["MQTTv5", "MQTTv311"])


@pytest.fixture
def topic() -> str:
    return f"robust_{os.urandom(4).hex()}"


@pytest.fixture
def plain(mqtt_server: MosquittoServer) -> Iterator[PlainPeer]:
    peer = PlainPeer(mqtt_server.url)
    yield peer
    peer.close()


def params(server: MosquittoServer, protocol: str, **options: object) -> ConnectionParameters:
    return ConnectionParameters("127.0.0.1", server.port, protocol, **options)  # type: ignore[arg-type]


@VERSIONS
@pytest.mark.parametrize(
    "reply_to", ["#", "$SYS/x", "$share/g/x", "a/+/b", "a.*", "x\u0000y", "x" * 70_000]
)
def test_a_reply_to_an_address_that_is_none_costs_nothing_else(
    mqtt_server: MosquittoServer, topic: str, protocol: str, reply_to: str
) -> None:
    peer = RawPeer(mqtt_server.url)
    with Node("n", connection_params=params(mqtt_server, protocol)) as node:
        service = node.create_rpc(topic, lambda n: n)
        peer.send_message(topic, 1, Header(reply_to=reply_to))
        eventually(lambda: service.stats.errors == 1)
        assert node.create_rpc_client(topic).call(2, timeout=DEADLINE) == 2
        assert service.stats.reconnects == 0
    peer.close()


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1])
def test_a_name_with_a_wildcard_of_mqtt_is_refused_where_it_is_published(
    mqtt_server: MosquittoServer, topic: str, protocol: str, qos: int
) -> None:
    with Node("n", connection_params=params(mqtt_server, protocol)) as node:
        publisher = node.create_mpublisher(qos=qos)
        with pytest.raises(SerializationError, match="wildcard of MQTT"):
            publisher.publish(1, f"{topic}/#")


@VERSIONS
def test_a_request_that_the_broker_has_stored_is_carried_out_by_nobody(
    mqtt_server: MosquittoServer, plain: PlainPeer, topic: str, protocol: str
) -> None:
    request = '{"header":{"reply_to":""},"data":5}'
    plain.publish(topic, request, retain=True)
    asked = Collected()
    with Node("n", connection_params=params(mqtt_server, protocol)) as node:
        node.create_rpc(topic, lambda n: asked(n))
        node.create_rpc_client(topic).call(1, timeout=DEADLINE)
        assert asked.wait(1) == [1]
    plain.publish(topic, "", retain=True)


@pytest.mark.parametrize("name", ["traceparent", "timestamp", "id"])
def test_the_user_properties_of_others_are_not_taken_for_ours(
    mqtt_server: MosquittoServer, plain: PlainPeer, topic: str, name: str
) -> None:
    got = Collected()
    with Node("n", connection_params=params(mqtt_server, "MQTTv5")) as node:
        node.create_subscriber(topic, got)
        message = '{"header":{"properties":{}},"data":{"d":1}}'
        plain.publish(topic, message, "-V", "5", "-D", "publish", "user-property", name, "1")
        assert got.first == {"d": 1}


@VERSIONS
def test_what_the_broker_cannot_take_does_not_cost_what_waits_behind_it(
    make_mosquitto: MakeMosquitto, topic: str, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    server = make_mosquitto(config=["max_packet_size 1000"])
    got = Collected()
    with Node("sub", connection_params=params(server, "MQTTv5")) as node:
        node.create_subscriber(topic, got)
        # Published before it is known what the broker takes.
        with Node("pub", connection_params=params(server, protocol)) as other:
            publisher = other.create_publisher(topic)
            if protocol == "MQTTv5":
                with pytest.raises(PayloadTooBig):
                    publisher.publish("x" * 2000)
            publisher.publish("small")
            assert got.first == "small"
            assert publisher.stats.reconnects == 0


def test_a_message_at_qos_1_that_ends_the_connection_is_given_up(
    make_mosquitto: MakeMosquitto, topic: str
) -> None:
    server = make_mosquitto(config=["max_packet_size 1000"])
    # On 3.1.1 a broker has no way to say what it takes.
    with Node("n", connection_params=params(server, "MQTTv311")) as node:
        publisher = node.create_publisher(topic, qos=1)
        publisher.publish("x" * 2000)
        eventually(lambda: publisher.stats.unconfirmed == 1)
        got = Collected()
        node.create_subscriber(topic, got)
        publisher.publish("small")
        assert got.first == "small"


@VERSIONS
def test_a_birth_that_the_broker_cannot_take_is_refused_and_the_rest_works(
    make_mosquitto: MakeMosquitto, topic: str, protocol: str
) -> None:
    server = make_mosquitto(config=["max_packet_size 1000"])
    birth = Will(topic, "x" * (2000 if protocol == "MQTTv5" else 10))
    got = Collected()
    with Node("n", connection_params=params(server, protocol, birth=birth)) as node:
        node.create_subscriber(f"{topic}.other", got)
        publisher = node.create_publisher(f"{topic}.other")
        publisher.publish(1)
        assert got.first == 1
        assert publisher.stats.rejected == (1 if protocol == "MQTTv5" else 0)


def test_two_connections_of_one_client_id_are_not_made(mqtt_server: MosquittoServer) -> None:
    name = f"id-{os.urandom(4).hex()}"
    first = params(mqtt_server, "MQTTv5", client_id=name)
    with Node("one", connection_params=first):
        other = Node("two", connection_params=params(mqtt_server, "MQTTv5", client_id=name))
        for _ in range(2):
            with pytest.raises(AuthError, match=f"'{name}'; give each its own"):
                other.run()
            other.stop()  # which leaves the other's client id alone
    with Node("three", connection_params=first) as node:
        node.create_publisher("a").publish(1)  # it is free again


@VERSIONS
def test_services_of_one_node_share_their_requests(
    mqtt_server: MosquittoServer, topic: str, protocol: str
) -> None:
    first, second = Collected(), Collected()
    with Node("n", connection_params=params(mqtt_server, protocol)) as node:
        node.create_rpc(topic, lambda n: first(n))
        node.create_rpc(topic, lambda n: second(n))
        client = node.create_rpc_client(topic)
        for n in range(10):
            client.call(n, timeout=DEADLINE)
    assert sorted(first.wait(0) + second.wait(0)) == list(range(10))


async def test_what_was_published_at_qos_1_is_sent_before_the_call_that_follows() -> None:
    def publish_and_call(url: str) -> None:
        with Node("n", connection_params=url, heartbeats=False, discovery=False) as node:
            publisher = node.create_publisher("parameter", qos=1)
            client = node.create_rpc_client("act")
            for number in range(20):
                publisher.publish(number)
                with pytest.raises(RPCTimeout):
                    client.call({}, timeout=0.01)

    async with FakeBroker() as broker:
        await asyncio.to_thread(publish_and_call, broker.url)
        messages = [kind for kind in broker.heard if kind & 0xF0 == 0x30]
    assert messages == [0x32, 0x30] * 20
