"""Mistakes of a program are told where they are made, and in words that help; on every broker."""

from __future__ import annotations

import dataclasses
import pickle
import re
import types
from collections.abc import Callable
from typing import Any

import pytest

from brokers import Broker
from collected import Collected
from commlib import aio, exceptions
from commlib._lanes import Bounds
from commlib.endpoints import EndpointType, TransportType, endpoint_factory
from commlib.exceptions import (
    AuthError,
    CommlibError,
    ConnectError,
    PayloadTooBig,
    RPCRemoteError,
    SerializationError,
)
from commlib.node import Node
from commlib.pubsub import PSubscriber, Publisher, Subscriber
from commlib.rpc import RPCClient, RPCService
from commlib.transports import resolve
from messages import AddTwoInts, Sonar

NO_NAMES = ["", " ", "line\nbreak", "nul\0", "x" * 70_000]
NO_TOPICS = [*NO_NAMES, "a.*", "*", "a/*/b"]
NO_PATTERNS = [*NO_NAMES, "a.b*", "a/*b/c", "**"]


def ids(value: Any) -> str:
    return repr(value)[:12]


# ---- names ----


@pytest.mark.parametrize("name", NO_TOPICS, ids=ids)
def test_a_name_that_is_none_is_refused_where_the_endpoint_is_made(node: Node, name: str) -> None:
    for make in (
        lambda: node.create_publisher(name),
        lambda: node.create_rpc(name, print),
        lambda: node.create_rpc_client(name),
        lambda: node.create_mpublisher().publish("hello", name),
    ):
        with pytest.raises(ValueError) as raised:
            make()
        assert len(str(raised.value)) < 300


@pytest.mark.parametrize("name", NO_PATTERNS, ids=ids)
def test_a_pattern_that_is_none_is_refused_where_the_endpoint_is_made(
    node: Node, name: str
) -> None:
    for make in (node.create_subscriber, node.create_psubscriber):
        with pytest.raises(ValueError):
            make(name, print)


@pytest.mark.parametrize("name", [None, 5, b"bytes"], ids=ids)
def test_a_name_that_is_no_text_is_refused(node: Node, name: Any) -> None:
    for make in (
        lambda: node.create_publisher(name),
        lambda: node.create_subscriber(name, print),
        lambda: node.create_rpc(name, print),
        lambda: node.create_rpc_client(name),
    ):
        with pytest.raises(TypeError):
            make()


def test_an_endpoint_that_was_refused_leaves_nothing_in_its_node(node: Node) -> None:
    with pytest.raises(ValueError):
        node.create_publisher("a.*")

    assert node.endpoints == []


@pytest.mark.parametrize("name", ["{}.b+c", "{}.+", "{}/#/b", "{}#"])
def test_a_name_that_the_broker_does_not_allow_is_refused_before_it_gets_there(
    make_node: Callable[..., Node], broker: Broker, topic: str, name: str
) -> None:
    name, states = name.format(topic), Collected()
    if broker.takes(name):
        pytest.skip("the broker takes every name")
    node = make_node(on_state=states)

    for make in (
        lambda: node.create_publisher(name),
        lambda: node.create_wpublisher(node.create_mpublisher(), name),
        lambda: node.create_rpc(name, print),
        lambda: node.create_rpc_client(name),
        lambda: node.create_rpc_server(svc_map={name: print}),
        lambda: node.create_action(name, on_goal=print),
        lambda: node.create_action_client(name),
        lambda: node.create_start_service(name),
        lambda: Node(name, connection_params=broker.url),
        lambda: Node(name, connection_params=broker.url, heartbeats=False),
        lambda: Node("robot", connection_params=broker.url, heartbeat_uri=name),
        lambda: Node("robot", connection_params=broker.url, remote_logger=True, device_id=name),
    ):
        with pytest.raises(ValueError, match=re.escape(name) + ".* names one thing"):
            make()
    with pytest.raises(ValueError, match=re.escape(name)):
        node.create_mpublisher().publish("hello", name)
    node.create_subscriber(topic, got := Collected())
    node.create_publisher(topic).publish("hello")

    assert got.first == "hello"
    assert states.items == [(True, None)]
    assert node.health


@pytest.mark.parametrize("name", ["{}.b+", "{}#", "{}/#/b", "{}/a#/*"])
def test_a_pattern_that_the_broker_does_not_allow_leaves_its_node_well(
    make_node: Callable[..., Node], broker: Broker, topic: str, name: str
) -> None:
    name = name.format(topic)
    if broker.takes(name):
        pytest.skip("the broker takes every name")
    node = make_node()

    for make in (
        node.create_subscriber,
        node.create_psubscriber,
        node.create_wsubscriber().subscribe,
    ):
        with pytest.raises(ValueError, match=r"whole words only|at the end only"):
            make(name, print)

    assert [type(endpoint).__name__ for endpoint in node.endpoints] == ["WSubscriber"]
    node.run()
    assert node.health


# ---- classes and options ----


class Opaque:
    """A class that nothing can be decoded into."""

    def __init__(self, value: int) -> None:
        self.value = value


def test_a_class_that_cannot_be_decoded_is_refused_where_the_endpoint_is_made(
    node: Node, topic: str
) -> None:
    local = dataclasses.make_dataclass("Local", [("value", "NoSuchType")])

    for kind in (Opaque, local):
        for make in (node.create_subscriber, node.create_psubscriber):
            with pytest.raises(TypeError, match=kind.__name__):
                make(topic, print, kind)
        with pytest.raises(TypeError, match=kind.__name__):
            node.create_rpc(topic, print, types.SimpleNamespace(Request=kind, Response=Sonar))


def test_an_rpc_class_without_request_and_response_is_refused(node: Node, topic: str) -> None:
    for make in (
        lambda: node.create_rpc(topic, print, Sonar),
        lambda: node.create_rpc_client(topic, Sonar),  # type: ignore[call-overload]
    ):
        with pytest.raises(TypeError, match="Request and Response"):
            make()


def test_options_that_make_no_sense_are_refused(node: Node, topic: str) -> None:
    with pytest.raises(ValueError, match="concurrency"):
        node.create_subscriber(topic, print, concurrency=0)
    with pytest.raises(ValueError, match="drop_oldest"):
        Bounds(overflow="drop_all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="room"):
        Bounds(max_messages=0)
    with pytest.raises(TypeError, match="no_such_option"):
        node.create_publisher(topic, no_such_option=1)  # type: ignore[call-arg]


# ---- connection parameters ----


def test_parameters_that_are_none_are_refused_with_the_reason(broker: Broker) -> None:
    for params, kind, text in (
        ("amqb://localhost", ValueError, "amqb"),
        ("reddis://localhost", ValueError, "redis"),
        (broker.with_options(no_such_option=1), ValueError, "no_such_option"),
        (broker.with_options(max_payload="many"), ValueError, "max_payload"),
        (broker.with_options(offline="never"), ValueError, "buffer"),
        (5, TypeError, "URL"),
    ):
        for make in (
            lambda p: Node("robot", connection_params=p),
            lambda p: Publisher("a", conn_params=p),
            lambda p: Subscriber("a", print, conn_params=p),
            lambda p: RPCService("a", print, conn_params=p),
            lambda p: RPCClient("a", conn_params=p),
            lambda p: aio.Node("robot", p),
        ):
            with pytest.raises(kind, match=text):
                make(params)


def test_parameters_of_another_broker_are_refused_by_a_class_of_one(broker: Broker) -> None:
    here = resolve(broker.url).schemes[0]
    for scheme, transport in (("memory", TransportType.MEMORY), ("redis", TransportType.REDIS)):
        publisher: Callable[..., Any] = endpoint_factory(EndpointType.Publisher, transport)
        if scheme == here:
            publisher("a", conn_params=broker.url).stop()
        else:
            with pytest.raises(TypeError, match=f"commlib.transports.{here}"):
                publisher("a", conn_params=broker.url)


def test_the_factory_has_the_class_of_each_endpoint(broker: Broker) -> None:
    transport = TransportType[resolve(broker.url).schemes[0].upper()]
    bases = {
        EndpointType.Publisher: Publisher,
        EndpointType.Subscriber: Subscriber,
        EndpointType.PSubscriber: PSubscriber,
        EndpointType.RPCService: RPCService,
        EndpointType.RPCClient: RPCClient,
    }
    for kind, base in bases.items():
        made = endpoint_factory(kind, transport)
        assert issubclass(made, base)
        assert made.__module__ == f"commlib.transports.{transport.name.lower()}"
    with pytest.raises(ValueError, match="TransportType"):
        endpoint_factory(EndpointType.Publisher, "redis")  # type: ignore[arg-type]


# ---- what is raised is what it says ----


def test_every_error_is_a_commlib_error_and_what_python_calls_it() -> None:
    errors = [getattr(exceptions, name) for name in dir(exceptions) if name[0].isupper()]
    for error in errors:
        assert issubclass(error, CommlibError)
    for error, builtin in (
        (exceptions.ConnectError, ConnectionError),
        (exceptions.AuthError, ConnectError),
        (exceptions.ConnectionLost, ConnectionError),
        (exceptions.OutboxFull, TimeoutError),
        (exceptions.SerializationError, ValueError),
        (exceptions.PayloadTooBig, SerializationError),
        (exceptions.RPCTimeout, TimeoutError),
        (exceptions.EndpointClosed, RuntimeError),
        (exceptions.BlockingCall, RuntimeError),
        (exceptions.MissingDriver, ImportError),
    ):
        assert issubclass(error, builtin)
    assert not issubclass(AuthError, exceptions.RPCError)
    assert exceptions.RPCClientTimeoutError is exceptions.RPCTimeout


@pytest.mark.parametrize(
    "error", [RPCRemoteError("ValueError", "no such arm"), PayloadTooBig(20, 10)], ids=ids
)
def test_errors_with_fields_survive_pickling(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))

    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert str(again) == str(error)


def test_an_error_in_a_message_names_its_class_and_the_field(node: Node, topic: str) -> None:
    publisher = node.create_publisher(topic, Sonar)
    client = node.create_rpc_client(topic, AddTwoInts)

    with pytest.raises(SerializationError, match=r"Sonar.*distance"):
        publisher.publish({"distance": []})  # type: ignore[arg-type]
    with pytest.raises(SerializationError, match=r"a Sonar was expected, not int"):
        publisher.publish(5)  # type: ignore[arg-type]
    with pytest.raises(SerializationError, match=r"Request.*`b`"):
        client.call({"a": 1})  # type: ignore[arg-type]
