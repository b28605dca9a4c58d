"""Endpoints and transports by name, as the programs of released versions ask for them."""

from __future__ import annotations

import functools
import inspect
import logging
from typing import Any

import pytest

from collected import DEADLINE
from commlib import action, aio, endpoints, events, pubsub, rpc
from commlib.bridges import ActionBridge, TopicBridge
from commlib.endpoints import EndpointType, TransportType, endpoint_factory
from commlib.node import Node
from commlib.node import TransportType as NodeTransportType
from commlib.transports import memory, redis

BASES = {
    EndpointType.Publisher: pubsub.Publisher,
    EndpointType.MPublisher: pubsub.MPublisher,
    EndpointType.Subscriber: pubsub.Subscriber,
    EndpointType.PSubscriber: pubsub.PSubscriber,
    EndpointType.RPCService: rpc.RPCService,
    EndpointType.RPCClient: rpc.RPCClient,
    EndpointType.RPCServer: rpc.RPCServer,
    EndpointType.EventEmitter: events.EventEmitter,
    EndpointType.ActionService: action.ActionService,
    EndpointType.ActionClient: action.ActionClient,
}


def test_the_numbers_are_those_of_released_versions() -> None:
    assert {member.name: member.value for member in EndpointType} == {
        "RPCService": 1,
        "RPCClient": 2,
        "Publisher": 3,
        "Subscriber": 4,
        "ActionService": 5,
        "ActionClient": 6,
        "MPublisher": 7,
        "PSubscriber": 8,
        "EventEmitter": 9,
        "RPCServer": 10,
    }
    assert {member.name: member.value for member in TransportType} == {
        "AMQP": 1,
        "REDIS": 2,
        "MQTT": 3,
        "KAFKA": 4,
        "MEMORY": 5,
    }


def test_a_node_module_has_the_transport_types_too() -> None:
    assert NodeTransportType is TransportType


@pytest.mark.parametrize("etype", BASES)
@pytest.mark.parametrize(
    ("etransport", "module"), [(TransportType.REDIS, redis), (TransportType.MEMORY, memory)]
)
def test_a_kind_and_a_transport_give_the_class_of_that_transports_module(
    etype: EndpointType, etransport: TransportType, module: Any
) -> None:
    found = endpoint_factory(etype, etransport)
    assert found is getattr(module, etype.name)
    assert issubclass(found, BASES[etype])
    assert found.scheme == etransport.name.lower()


def test_the_class_makes_an_endpoint_with_parameters_of_that_transport() -> None:
    subscriber = endpoint_factory(EndpointType.Subscriber, TransportType.MEMORY)
    params = memory.ConnectionParameters("lab")
    made = subscriber(topic="sonar", on_message=print, conn_params=params)
    assert made.topic == "sonar"
    assert made.core.hub.params is params


@pytest.mark.parametrize(
    ("etype", "etransport", "text"),
    [
        ("Publisher", TransportType.REDIS, "'Publisher' is none of EndpointType.RPCService, "),
        (3, TransportType.REDIS, "3 is none of EndpointType.RPCService, "),
        (TransportType.REDIS, TransportType.REDIS, "is none of EndpointType"),
        (EndpointType.Publisher, "REDIS", "'REDIS' is none of TransportType.AMQP, "),
        (EndpointType.Publisher, 2, "2 is none of TransportType.AMQP, "),
        (EndpointType.Publisher, None, "None is none of TransportType.AMQP, "),
    ],
)
def test_what_is_none_of_the_two_is_refused_with_those_that_there_are(
    etype: Any, etransport: Any, text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        endpoint_factory(etype, etransport)


def test_there_is_no_kafka_in_this_version() -> None:
    with pytest.raises(ValueError, match="no transport for KAFKA"):
        endpoint_factory(EndpointType.Publisher, TransportType.KAFKA)
    with pytest.raises(ValueError, match="no transport for kafka"):
        Node("n", transport_type=TransportType.KAFKA)


def test_a_node_takes_a_kind_of_broker_by_its_number_and_no_other() -> None:
    assert Node("n", transport_type=3)._core.hub.params.schemes[0] == "mqtt"  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"object.* is none of TransportType\.AMQP, "):
        Node("n", transport_type=object, connection_params="memory://n")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"9 is none of TransportType\.AMQP, "):
        Node("n", transport_type=9)  # type: ignore[arg-type]


def test_a_kind_that_a_transport_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(memory, "Publisher")
    with pytest.raises(ValueError, match="this version has no Publisher for MEMORY"):
        endpoint_factory(EndpointType.Publisher, TransportType.MEMORY)


def _fail_with(error: ImportError, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr(endpoints, "import_module", fail)


def test_a_transport_that_is_not_there_is_refused_with_one_that_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _fail_with(ModuleNotFoundError("no module named commlib.transports.amqp"), monkeypatch)
    with pytest.raises(ValueError, match=r"no transport for AMQP; .*TransportType\.REDIS\?"):
        endpoint_factory(EndpointType.Publisher, TransportType.AMQP)


def test_a_fault_in_a_transports_module_is_not_taken_for_its_absence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _fail_with(ImportError("broken"), monkeypatch)
    with pytest.raises(ImportError, match="broken"):
        endpoint_factory(EndpointType.Publisher, TransportType.MEMORY)


# ---- options ----


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda node: node.create_subscriber("a", print, maxrate=1),
            "^Subscriber has no option 'maxrate'; did you mean max_rate",
        ),
        (
            lambda node: node.create_rpc_client("a", indempotent=True),
            "^RPCClient has no option 'indempotent'; did you mean idempotent",
        ),
        (
            lambda node: node.create_publisher("a", max_rate=1),
            "^Publisher has no option 'max_rate'; it has ",
        ),
        (lambda node: node.create_subscriber("a", None), "a: on_message=None cannot be called"),
        (
            lambda node: node.create_wsubscriber().subscribe("a", None),
            "a: callback=None cannot be called",
        ),
        (
            lambda node: node.create_wpublisher(node.create_publisher("a"), "b"),
            "^mpub=<.*Publisher .*>: give an MPublisher of commlib.pubsub; ",
        ),
        (
            lambda node: node.create_wpublisher(None, "b"),
            "^mpub=None: give an MPublisher of commlib.pubsub; ",
        ),
        (
            lambda node: aio.WPublisher(aio.Publisher("a", None, "memory://"), "b"),
            "^mpub=<.*Publisher .*>: give an MPublisher of commlib.aio.pubsub; ",
        ),
        (lambda node: node.create_subscriber("a", print, on_error="x"), "on_error='x': it is a"),
        (lambda node: node.create_subscriber("a", print, on_error=wait), "on_error=.*plain"),
        (lambda node: node.create_subscriber("a", print, on_state=wait), "on_state=.*plain"),
        (lambda node: node.create_rpc_server(on_state=wait), "on_state=.*plain"),
        (
            lambda node: Node("m", connection_params="memory://", on_state=wait),
            "on_state=.*plain",
        ),
        (lambda node: node.create_subscriber("a", print, bounds=5), "bounds=5: it is a Bounds"),
        (
            lambda node: node.create_subscriber("a", print, with_topic=True),
            "^Subscriber has no option 'with_topic'",
        ),
        (
            lambda node: node.create_publisher("a", conn_params="memory://other"),
            "a: an endpoint of a node is at the broker of the node, memory://;",
        ),
        (
            lambda node: TopicBridge(None, "a", "b", "memory://", "memory://b", enveloppe=True),
            "^TopicBridge has no option 'enveloppe'; did you mean envelope",
        ),
        (
            lambda node: ActionBridge(None, "a", "b", "memory://", "memory://b", from_params=1),
            "^ActionBridge has no option 'from_params'; did you mean from_broker_params",
        ),
    ],
)
def test_a_wrong_option_is_refused_where_it_is_given(make: Any, text: str) -> None:
    node = Node("n", connection_params="memory://")
    with pytest.raises(TypeError, match=text):
        make(node)
    node.stop()


def test_an_endpoint_of_a_node_may_be_told_the_nodes_own_broker() -> None:
    node = Node("n", connection_params="memory://lab")
    node.create_publisher("a", connection_params="memory://lab").publish(1)
    node.stop()


@pytest.mark.parametrize(
    "make",
    [
        lambda node, callback: node.create_subscriber("a", callback),
        lambda node, callback: node.create_psubscriber("a.*", callback),
        lambda node, callback: node.create_wsubscriber().subscribe("a", callback),
        lambda node, callback: node.create_rpc("a", callback),
        lambda node, callback: node.create_rpc_server(svc_map={"a": callback}),
        lambda node, callback: node.create_publisher("a", on_error=callback),
        lambda node, callback: Node("n", connection_params="memory://", on_state=callback),
    ],
)
def test_a_function_of_other_arguments_is_no_callback(make: Any) -> None:
    node = Node("n", connection_params="memory://")
    for wrong in (lambda: None, lambda a, b, c: None, lambda a, *, topic: None):
        with pytest.raises(TypeError, match=r"is called with .*<lambda>\("):
            make(node, wrong)


def test_what_wraps_a_callback_decides_what_that_is_called_with() -> None:
    node = Node("n", connection_params="memory://")

    def inner(database: str, request: Any) -> str:
        return f"{database} {request}"

    @functools.wraps(inner)
    def handler(request: Any) -> str:
        return inner("stock", request)

    def other(*args: Any) -> str:
        return inner("stock", *args)

    other.__signature__ = inspect.signature(inner)  # type: ignore[attr-defined]
    node.create_rpc("a", handler)
    node.create_rpc("b", other)
    with node:
        for name in ("a", "b"):
            assert node.create_rpc_client(name).call("nut", timeout=DEADLINE) == "stock nut"


async def wait(error: BaseException, topic: str) -> None:
    """No function of errors: nobody would await it."""


def test_with_debug_it_is_logged_when_endpoints_of_a_kind_begin_and_stop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("commlib.subscriber")
    level = logger.level
    try:
        subscriber = pubsub.Subscriber("a.b", print, conn_params="memory://debug", debug=True)
        subscriber.run()
        subscriber.stop()
    finally:
        logger.setLevel(level)
    found = [each.message for each in caplog.records if each.name == logger.name]
    assert found == ["a.b: begun", "a.b: stopped"]
