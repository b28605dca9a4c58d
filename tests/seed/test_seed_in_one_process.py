"""The programs of the README of commlib-py 0.6.3, section by section, on each kind of broker.

They make the calls of the README with its arguments; what it leaves undefined comes from here.
Those in ``programs/`` run in processes of their own, which only a broker that is a server can join.
"""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any

import pytest

from brokers import Broker
from collected import DEADLINE, Collected
from commlib._params import BaseParameters
from commlib._portal import Portal
from commlib.action import GoalStatus
from commlib.bridges import (
    PTopicBridge,
    RPCBridge,
    RPCBridgeType,
    TopicBridge,
    TopicBridgeType,
)
from commlib.endpoints import EndpointType, endpoint_factory
from commlib.events import Event
from commlib.exceptions import RPCTimeout
from commlib.msg import ActionMessage, DataClass, HeartbeatMessage, PubSubMessage, RPCMessage
from commlib.node import Node, TransportType
from commlib.transports import module_for, resolve

SECOND = {
    TransportType.MEMORY: "second_memory",
    TransportType.REDIS: "valkey",
    TransportType.MQTT: "second_mqtt",
    TransportType.AMQP: "second_amqp",
}
pytestmark = pytest.mark.parametrize(
    "broker", ["memory", "redis", "mqtt", "mqtt311", "amqp"], indirect=True
)


class AddTwoIntMessage(RPCMessage):
    @DataClass
    class Request(RPCMessage.Request):
        a: int = 0
        b: int = 0

    @DataClass
    class Response(RPCMessage.Response):
        c: int = 0


@DataClass
class SonarMessage(PubSubMessage):
    distance: float = 0.001
    horizontal_fov: float = 30.0
    vertical_fov: float = 14.0


class ExampleAction(ActionMessage):
    @DataClass
    class Goal(ActionMessage.Goal):
        target_cm: int = 0

    @DataClass
    class Result(ActionMessage.Result):
        dest_cm: int = 0

    @DataClass
    class Feedback(ActionMessage.Feedback):
        current_cm: int = 0


@pytest.fixture(autouse=True)
def _clean(portal: Portal) -> None:
    """No program leaves a task or a thread behind."""


@pytest.fixture(autouse=True)
def _by_environment(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoints without parameters find the broker of the test."""
    monkeypatch.setenv("COMMLIB_URL", broker.url)


@pytest.fixture
def kind(broker: Broker) -> TransportType:
    return TransportType[broker.url.partition("://")[0].upper()]


@pytest.fixture
def transport(kind: TransportType) -> ModuleType:
    """The module that the README imports the classes from."""
    return module_for(kind.name.lower())


@pytest.fixture
def conn_params(broker: Broker) -> BaseParameters:
    return resolve(broker.url)


@pytest.fixture
def bB_params(request: pytest.FixtureRequest, kind: TransportType) -> BaseParameters:
    """Another broker of the same kind: the broker B of the bridges."""
    return resolve(Broker.named(SECOND[kind], request.getfixturevalue).url)


@pytest.fixture
def name(broker: Broker) -> str:
    """A name that no other test has."""
    return broker.unique("seed")


def add_two_int_handler(msg: AddTwoIntMessage.Request) -> AddTwoIntMessage.Response:
    return AddTwoIntMessage.Response(c=msg.a + msg.b)


# -- Node -----------------------------------------------------------------------------------------


def test_a_node_serves_until_it_is_stopped_and_its_parameters_win_with_a_log_record(
    transport: ModuleType,
    kind: TransportType,
    conn_params: BaseParameters,
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = next(one for one in TransportType if one is not kind)
    node = Node(
        node_name="example-node",
        transport_type=other,
        transport_connection_params=conn_params,
        debug=True,
    )
    node.create_rpc(msg_type=AddTwoIntMessage, rpc_name=name, on_request=add_two_int_handler)
    running = threading.Thread(target=node.run_forever)
    running.start()
    with transport.RPCClient(
        rpc_name=name, msg_type=AddTwoIntMessage, conn_params=conn_params
    ) as client:
        assert client.wait_for_service(DEADLINE)
        assert client.call(AddTwoIntMessage.Request(a=3, b=4)) == AddTwoIntMessage.Response(c=7)
    node.stop()
    running.join(DEADLINE)
    assert not running.is_alive()
    assert f"transport_type={other.name} is not used" in caplog.text


# -- Node class -----------------------------------------------------------------------------------


def test_a_device_lives_obeys_and_tells_what_it_does(
    kind: TransportType, conn_params: BaseParameters, name: str
) -> None:
    beats, news = Collected(), Collected()
    namespace = f"thing.device0.{name}"
    device = Node(
        *(name, kind, conn_params, True, f"{name}.news", True, "device0"),
        heartbeat_uri=f"nodes.{name}.heartbeat",
        has_start_rpc=True,
        has_stop_rpc=True,
    )
    device.create_rpc(f"{namespace}.ring", lambda msg: device.log.info("somebody rings"))
    with Node("viewer", connection_params=conn_params) as viewer:
        viewer.create_subscriber(f"nodes.{name}.heartbeat", beats, HeartbeatMessage)
        viewer.create_subscriber(f"{name}.news", news)
        ring, start, stop = (
            viewer.create_rpc_client(f"{namespace}.{word}") for word in ("ring", "start", "stop")
        )
        with device:
            assert beats.first.ts > 0
            ring.call({})
            assert stop.call({}) == {"status": 0, "error": ""}
            with pytest.raises(RPCTimeout):
                ring.call({}, timeout=0.2)
            assert start.call({}) == {"status": 0, "error": ""}
            ring.call({})
            assert [msg["msg"].partition("]")[2] for msg in news.wait(4)] == [
                f"[{namespace}][INFO] - {text}"
                for text in (
                    "somebody rings",
                    f"{name}: stopped by a call",
                    f"{name}: started by a call",
                    "somebody rings",
                )
            ]


def test_a_node_makes_every_kind_of_endpoint(conn_params: BaseParameters, name: str) -> None:
    got = Collected()
    with Node(node_name="ports", connection_params=conn_params) as node:
        node.create_subscriber(topic=f"{name}.sonar", msg_type=SonarMessage, on_message=got)
        node.create_subscriber(topic=f"{name}.bell", on_message=lambda msg: got(msg["name"]))
        node.create_rpc(rpc_name=f"{name}.add", on_request=lambda data: {"c": data["a"] + 1})
        node.create_action(action_uri=f"{name}.go", on_goal=lambda goal_h: {"at": goal_h.data})
        pub = node.create_publisher(topic=f"{name}.sonar", msg_type=SonarMessage)
        emitter = node.create_event_emitter()
        rpc = node.create_rpc_client(rpc_name=f"{name}.add")
        action = node.create_action_client(action_uri=f"{name}.go")

        pub.publish(SonarMessage(distance=5.0))
        assert got.wait(1) == [SonarMessage(distance=5.0)]
        emitter.send_event(Event(name="Ring", uri=f"{name}.bell"))
        assert got.wait(2)[-1] == "Ring"
        assert rpc.call({"a": 1}) == {"c": 2}
        assert action.send_goal({"x": 1}).result(DEADLINE) == {"at": {"x": 1}}


# -- Endpoint (Low-level API) ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "options"),
    [
        ("RPCClient", {"rpc_name": "x"}),
        ("RPCServer", {"rpc_name": "x", "on_request": print}),
        ("RPCService", {"rpc_name": "x", "on_request": print}),
        ("Publisher", {"topic": "x"}),
        ("Subscriber", {"topic": "x", "on_message": print}),
        ("MPublisher", {}),
        ("PSubscriber", {"topic": "x.*", "on_message": print}),
        ("ActionService", {"action_uri": "x", "on_goal": print}),
        ("ActionClient", {"action_uri": "x"}),
        ("EventEmitter", {}),
    ],
)
def test_every_class_of_the_list_needs_no_node(
    transport: ModuleType,
    kind: TransportType,
    conn_params: BaseParameters,
    endpoint: str,
    options: dict[str, Any],
) -> None:
    make = getattr(transport, endpoint)
    assert endpoint_factory(EndpointType[endpoint], kind) is make
    for made in (
        make(conn_params=conn_params, **options),
        make(connection_params=conn_params, **options),
        make(conn_params, **options),
    ):
        with made:
            assert made.connected


def test_endpoints_out_of_the_factory_talk_to_each_other(kind: TransportType, name: str) -> None:
    callback = Collected()
    mqtt_sub = endpoint_factory(EndpointType.Subscriber, kind)(topic=name, on_message=callback)
    mqtt_sub.run()
    mqtt_pub = endpoint_factory(EndpointType.Publisher, kind)(topic=name, debug=True)
    data = {"a": 1, "b": 2}
    for _ in range(2):
        mqtt_pub.publish(data)
    assert callback.wait(2) == [data, data]
    mqtt_pub.stop()
    mqtt_sub.stop()


# -- Req/Resp (RPC) Communication -----------------------------------------------------------------


def test_a_client_calls_again_and_again_with_one_message_that_it_changes(
    kind: TransportType, conn_params: BaseParameters, name: str
) -> None:
    options: Any = {"transport_type": kind, "transport_connection_params": conn_params}
    node = Node(node_name="example_node", debug=True, **options)
    node.create_rpc(msg_type=AddTwoIntMessage, rpc_name=name, on_request=add_two_int_handler)
    client = Node(node_name="myclient", heartbeat_uri=f"{name}.heartbeat", debug=True, **options)
    rpc = client.create_rpc_client(msg_type=AddTwoIntMessage, rpc_name=name)
    with node, client:
        msg = AddTwoIntMessage.Request()
        for n in range(4):
            assert rpc.call(msg) == AddTwoIntMessage.Response(c=2 * n)
            msg.a += 1
            msg.b += 1


# -- PubSub Communication -------------------------------------------------------------------------


def test_two_subscribers_get_each_message_as_it_was_when_it_was_published(
    transport: ModuleType, conn_params: BaseParameters, name: str
) -> None:
    callbacks = [Collected(), Collected()]
    subscribers = [
        transport.Subscriber(topic=name, on_message=callback, conn_params=conn_params)
        for callback in callbacks
    ]
    for sub in subscribers:
        sub.run()
    pub = transport.Publisher(topic=name, msg_type=SonarMessage, conn_params=conn_params)
    msg = SonarMessage(distance=2.0)
    for _ in range(3):
        pub.publish(msg)
        msg.distance += 1
    for callback in callbacks:
        assert callback.wait(3) == [
            {"distance": distance, "horizontal_fov": 30.0, "vertical_fov": 14.0}
            for distance in (2.0, 3.0, 4.0)
        ]
    for endpoint in (pub, *subscribers):
        endpoint.stop()


# -- Pattern-based Topic Subscription -------------------------------------------------------------


def test_a_pattern_gives_messages_of_the_class_with_their_topics(
    transport: ModuleType, name: str
) -> None:
    topic = f"{name}.sensors.*"
    p1_topic = topic.split("*")[0] + "sonar.front"
    p2_topic = topic.split("*")[0] + "ir.rear"
    callback = Collected()
    sub = transport.PSubscriber(topic=topic, msg_type=SonarMessage, on_message=callback)
    sub.run()
    msg = SonarMessage()
    pub = transport.MPublisher(msg_type=SonarMessage)
    for _ in range(2):
        pub.publish(msg, p1_topic)
        pub.publish(msg, p2_topic)
        msg.distance += 1
    assert callback.wait(4) == [
        (SonarMessage(distance=distance), at)
        for distance in (0.001, 1.001)
        for at in (p1_topic, p2_topic)
    ]
    pub.stop()
    sub.stop()


# -- Preemptable Services with Feedback (Actions) -------------------------------------------------


def on_goal(goal_h: Any) -> ExampleAction.Result:
    c = 0
    res = ExampleAction.Result()
    while c < goal_h.data.target_cm:
        if goal_h.cancel_event.is_set():
            break
        goal_h.send_feedback(ExampleAction.Feedback(current_cm=c))
        c += 1
        goal_h.cancel_event.wait(0.001)
    res.dest_cm = c
    return res


def test_an_action_gives_feedback_is_reached_and_can_be_preempted(
    transport: ModuleType, conn_params: BaseParameters, name: str
) -> None:
    on_feedback, on_goal_reached = Collected(), Collected()
    action = transport.ActionService(
        msg_type=ExampleAction, conn_params=conn_params, action_uri=name, on_goal=on_goal
    )
    action.run()
    action_c = transport.ActionClient(
        msg_type=ExampleAction,
        conn_params=conn_params,
        action_uri=name,
        on_feedback=on_feedback,
        on_goal_reached=on_goal_reached,
    )
    action_c.send_goal(ExampleAction.Goal(target_cm=5))
    assert action_c.get_result(wait=True) == ExampleAction.Result(dest_cm=5)
    assert on_goal_reached.first == ExampleAction.Result(dest_cm=5)
    assert on_feedback.items == [ExampleAction.Feedback(current_cm=c) for c in range(5)]

    goal = action_c.send_goal(ExampleAction.Goal(target_cm=1_000_000))
    on_feedback.wait(6)
    assert action_c.cancel_goal(wait_for_result=True).dest_cm < 1_000_000
    assert goal.status == GoalStatus.CANCELED
    assert len(on_goal_reached.items) == 1
    action_c.stop()
    action.stop()


# -- EventEmitter ---------------------------------------------------------------------------------


def test_an_emitter_tells_two_events_at_their_addresses(
    transport: ModuleType, conn_params: BaseParameters, name: str
) -> None:
    got = Collected()
    eventA = Event(name="TurnOnBedroomLights", uri=f"{name}.bedroom.lights.on")
    eventB = Event(name="TurnOffBedroomLights", uri=f"{name}.bedroom.lights.off")
    with transport.PSubscriber(f"{name}.bedroom.*", got, Event, conn_params=conn_params):
        emitter = transport.EventEmitter(conn_params=conn_params, debug=True)
        emitter.send_event(eventA)
        emitter.send_event(eventB)
        assert got.wait(2) == [(event, event.uri) for event in (eventA, eventB)]
        emitter.stop()


# -- Broker-to-broker (B2B) bridges ---------------------------------------------------------------


def test_calls_and_messages_cross_from_broker_a_to_broker_b(
    conn_params: BaseParameters, bB_params: BaseParameters, name: str
) -> None:
    got = Collected()
    at: Any = {"from_broker_params": conn_params, "to_broker_params": bB_params, "debug": False}
    rpc_uris = f"{name}.ops.start_navigation", f"{name}.thing.robotA.ops.start_navigation"
    uris = f"{name}.sonar.front", f"{name}.thing.robotA.sensors.sonar.font"
    with (
        RPCBridge(RPCBridgeType.REDIS_TO_MQTT, from_uri=rpc_uris[0], to_uri=rpc_uris[1], **at),
        TopicBridge(TopicBridgeType.REDIS_TO_MQTT, from_uri=uris[0], to_uri=uris[1], **at),
        Node("consumer", connection_params=bB_params) as consumer,
        Node("producer", connection_params=conn_params) as producer,
    ):
        consumer.create_rpc(rpc_uris[1], lambda request: {"started": request["goal"]})
        consumer.create_subscriber(uris[1], got, SonarMessage)
        publisher = producer.create_publisher(uris[0], SonarMessage)

        assert producer.create_rpc_client(rpc_uris[0]).call({"goal": 5}) == {"started": 5}
        for n in range(10):
            publisher.publish(SonarMessage(distance=n))
        assert [msg.distance for msg in got.wait(10)] == list(range(10))


def test_a_pattern_of_broker_a_is_a_namespace_of_broker_b(
    conn_params: BaseParameters, bB_params: BaseParameters, name: str
) -> None:
    got = Collected()
    bA_uri, bB_namespace = f"{name}.sensors.*", f"{name}.myrobot"
    with (
        PTopicBridge(
            *(TopicBridgeType.REDIS_TO_MQTT, bA_uri, bB_namespace, conn_params, bB_params),
            msg_type=SonarMessage,
            debug=True,
        ),
        Node("consumer", connection_params=bB_params) as consumer,
        Node("producer", connection_params=conn_params) as producer,
    ):
        consumer.create_psubscriber(f"{bB_namespace}.*", got, SonarMessage)
        publisher = producer.create_mpublisher(SonarMessage)
        publisher.publish(SonarMessage(distance=1.5), f"{name}.sensors.sonar.front")
        assert got.first == (
            SonarMessage(distance=1.5),
            f"{bB_namespace}.{name}.sensors.sonar.front",
        )
