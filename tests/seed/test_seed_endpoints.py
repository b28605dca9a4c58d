"""The classes that the README of commlib-py 0.6.3 names, used on Redis as it uses them."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import pytest

from brokers import RedisServer
from collected import Collected
from commlib.endpoints import EndpointType, TransportType, endpoint_factory
from commlib.msg import DataClass, PubSubMessage, RPCMessage
from commlib.node import Node
from commlib.transports import redis as rcomm
from commlib.transports.redis import (
    ConnectionParameters,
    MPublisher,
    PSubscriber,
    Publisher,
    RPCClient,
    RPCService,
    Subscriber,
)

THERE = (
    *("Publisher", "MPublisher", "Subscriber", "PSubscriber", "RPCService", "RPCClient"),
    *("ActionService", "ActionClient"),
)


@DataClass
class SonarMessage(PubSubMessage):
    distance: float = 0.001
    horizontal_fov: float = 30.0
    vertical_fov: float = 14.0


class AddTwoIntMessage(RPCMessage):
    @DataClass
    class Request(RPCMessage.Request):
        a: int = 0
        b: int = 0

    @DataClass
    class Response(RPCMessage.Response):
        c: int = 0


@pytest.fixture
def name() -> str:
    """A name that no other test has."""
    return f"seed_{os.urandom(4).hex()}"


@pytest.fixture
def conn_params(redis_server: RedisServer) -> ConnectionParameters:
    return ConnectionParameters(host="localhost", port=redis_server.port)


@pytest.fixture
def by_environment(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoints without parameters find the broker of this run."""
    monkeypatch.setenv("COMMLIB_URL", redis_server.url)


def add_two_ints(msg: AddTwoIntMessage.Request) -> AddTwoIntMessage.Response:
    return AddTwoIntMessage.Response(c=msg.a + msg.b)


# -- the factory ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", THERE)
def test_the_factory_gives_the_class_of_the_transport(kind: str) -> None:
    assert endpoint_factory(EndpointType[kind], TransportType.REDIS) is getattr(rcomm, kind)


def test_the_kinds_have_the_numbers_of_the_seed() -> None:
    seed = {
        "RPCService": 1,
        "RPCClient": 2,
        "Publisher": 3,
        "Subscriber": 4,
        "ActionService": 5,
        "ActionClient": 6,
        "MPublisher": 7,
        "PSubscriber": 8,
    }
    assert {name: EndpointType[name].value for name in seed} == seed


def test_the_transports_have_the_numbers_of_the_seed() -> None:
    assert (TransportType.AMQP, TransportType.REDIS, TransportType.MQTT) == (1, 2, 3)


def test_the_factory_refuses_what_is_no_kind_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"EndpointType\.PSubscriber"):
        endpoint_factory("Publisher", TransportType.REDIS)  # type: ignore[arg-type]


def test_plain_data_goes_from_a_factory_publisher_to_a_factory_subscriber(
    by_environment: None, name: str
) -> None:
    callback = Collected()
    sub = endpoint_factory(EndpointType.Subscriber, TransportType.REDIS)(
        topic=name, on_message=callback
    )
    sub.run()
    pub = endpoint_factory(EndpointType.Publisher, TransportType.REDIS)(topic=name, debug=True)
    try:
        data = {"a": 1, "b": 2}
        pub.publish(data)
        data["a"] = 2
        pub.publish(data)
        assert callback.wait(2) == [{"a": 1, "b": 2}, {"a": 2, "b": 2}]
    finally:
        sub.stop()
        pub.stop()


# -- endpoints without a node ---------------------------------------------------------------------


def test_a_service_and_a_client_need_no_node(conn_params: ConnectionParameters, name: str) -> None:
    service = RPCService(
        rpc_name=name, msg_type=AddTwoIntMessage, on_request=add_two_ints, conn_params=conn_params
    )
    service.run()
    client = RPCClient(rpc_name=name, msg_type=AddTwoIntMessage, conn_params=conn_params)
    try:
        msg = AddTwoIntMessage.Request()
        responses = []
        for _ in range(3):
            responses.append(client.call(msg))
            msg.a += 1
            msg.b += 1
        assert responses == [AddTwoIntMessage.Response(c=c) for c in (0, 2, 4)]
        future = client.call_async(msg, on_response=(on_response := Collected()))
        assert future.result() == on_response.first == AddTwoIntMessage.Response(c=6)
    finally:
        client.stop()
        service.stop()


def test_a_message_changed_after_publish_arrives_as_it_was(
    conn_params: ConnectionParameters, name: str
) -> None:
    callback = Collected()
    sub = Subscriber(topic=name, on_message=callback, conn_params=conn_params)
    sub.run()
    pub = Publisher(topic=name, msg_type=SonarMessage, conn_params=conn_params)
    try:
        msg = SonarMessage(distance=2.0)
        for _ in range(100):
            pub.publish(msg)
            msg.distance += 1
        received = callback.wait(100)
        assert [data["distance"] for data in received] == [2.0 + n for n in range(100)]
        assert received[0] == {"distance": 2.0, "horizontal_fov": 30.0, "vertical_fov": 14.0}
    finally:
        pub.stop()
        sub.stop()


def test_a_pattern_subscriber_hears_what_a_multi_topic_publisher_says(
    conn_params: ConnectionParameters, name: str
) -> None:
    topic = f"{name}.*"
    p1_topic = topic.split("*")[0] + "sonar.front"
    p2_topic = topic.split("*")[0] + "ir.rear"
    callback = Collected()
    sub = PSubscriber(
        topic=topic, msg_type=SonarMessage, on_message=callback, conn_params=conn_params
    )
    sub.run()
    pub = MPublisher(msg_type=SonarMessage, conn_params=conn_params)
    try:
        msg = SonarMessage()
        pub.publish(msg, p1_topic)
        pub.publish(msg, p2_topic)
        assert callback.wait(2) == [(SonarMessage(), p1_topic), (SonarMessage(), p2_topic)]
    finally:
        pub.stop()
        sub.stop()


@pytest.mark.parametrize("kind", THERE)
def test_parameters_may_come_first_as_released_or_by_keyword(
    conn_params: ConnectionParameters, name: str, kind: str
) -> None:
    options: dict[str, dict[str, Any]] = {
        "Publisher": {"topic": name},
        "MPublisher": {},
        "Subscriber": {"topic": name, "on_message": print},
        "PSubscriber": {"topic": f"{name}.*", "on_message": print},
        "RPCService": {"rpc_name": name, "on_request": print},
        "RPCClient": {"rpc_name": name},
        "ActionService": {"action_uri": name, "on_goal": print},
        "ActionClient": {"action_uri": name},
    }
    make = getattr(import_module("commlib.transports.redis"), kind)
    endpoints = [
        make(conn_params, **options[kind]),
        make(conn_params=conn_params, **options[kind]),
        make(connection_params=conn_params, **options[kind]),
    ]
    try:
        for endpoint in endpoints:
            endpoint.run()
            assert endpoint.connected
    finally:
        for endpoint in endpoints:
            endpoint.stop()


# -- nodes ----------------------------------------------------------------------------------------


def test_several_nodes_of_one_process_use_every_kind_of_port(
    conn_params: ConnectionParameters, name: str
) -> None:
    callback = Collected()
    server = Node(node_name="server", connection_params=conn_params)
    server.create_rpc(msg_type=AddTwoIntMessage, rpc_name=f"{name}.add", on_request=add_two_ints)
    server.create_subscriber(topic=f"{name}.sonar", msg_type=SonarMessage, on_message=callback)
    client = Node(node_name="client", transport_connection_params=conn_params)
    pub = client.create_publisher(topic=f"{name}.sonar", msg_type=SonarMessage)
    rpc = client.create_rpc_client(rpc_name=f"{name}.add", msg_type=AddTwoIntMessage)
    server.run()
    client.run()
    try:
        pub.publish(SonarMessage(distance=5.0))
        assert callback.first == SonarMessage(distance=5.0)
        assert rpc.call(AddTwoIntMessage.Request(a=1, b=1)).c == 2
    finally:
        client.stop()
        server.stop()


def test_a_node_without_parameters_uses_its_transport_type(by_environment: None, name: str) -> None:
    node = Node(node_name="example-node", transport_type=TransportType.REDIS)
    node.create_rpc(rpc_name=name, on_request=lambda data: {"got": data})
    client = node.create_rpc_client(rpc_name=name)
    node.run()
    try:
        assert client.call({"x": 1}) == {"got": {"x": 1}}
    finally:
        node.stop()
