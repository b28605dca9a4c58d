"""Signed messages, on every broker and across bridges."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from brokers import Broker
from collected import DEADLINE, Collected, eventually
from commlib._letter import open_letter
from commlib._packet import MAX_PAYLOAD, PROPERTIES, REPLY, Header, now_ms
from commlib._signatures import Signing
from commlib._wire import Writer
from commlib.action import GoalHandler
from commlib.aio import _repeat
from commlib.bridges import ActionBridge, Bridge, PTopicBridge, RPCBridge, TopicBridge
from commlib.events import Event
from commlib.exceptions import RPCRemoteError
from commlib.msg import HeartbeatMessage
from commlib.node import Node, NodeState, NodeStopMessage
from commlib.serializer import BytesSerializer, MessagePackSerializer, TextSerializer
from commlib.signing import SignatureError, SigningKey, TrustedKeys
from messages import AddTwoInts, Move, Pose, Sonar
from raw_peer import RawPeer

MakeNode = Callable[..., Node]
FAR = Sonar(-1.5, -3, "σ", [1.0, math.inf], Pose(1.0), [Pose()], {"a": -1}, b"\xff\x00", None)
KEY, OTHER = SigningKey.generate("station"), SigningKey.generate("other")
IMPOSTOR = SigningKey.generate("station")


def trusted(**options: Any) -> TrustedKeys:
    return TrustedKeys({"station": KEY.public_key}, **options)


@pytest.fixture
def station(make_node: MakeNode) -> Node:
    """A node that signs all that it sends, and takes only what it has signed itself."""
    return make_node(sign=KEY, verify=trusted())


def add(request: AddTwoInts.Request) -> AddTwoInts.Response:
    return AddTwoInts.Response(c=request.a + request.b)


# ---- topics ----


@pytest.mark.parametrize("serializer", [None, MessagePackSerializer, TextSerializer])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_what_a_trusted_key_has_signed_arrives_as_what_it_was(
    station: Node, topic: str, serializer: Any, compression: Any
) -> None:
    got = Collected()
    subscriber = station.create_subscriber(topic, got, Sonar)
    publisher = station.create_publisher(
        topic, Sonar, serializer=serializer, compression=compression
    )

    for _ in range(3):
        publisher.publish(FAR)

    assert got.wait(3) == [FAR] * 3
    stats = subscriber.stats
    assert (stats.refused, stats.gaps, stats.duplicates, stats.reordered) == (0, 0, 0, 0)


def test_who_does_not_verify_takes_signed_messages_as_any_other(
    station: Node, node: Node, topic: str
) -> None:
    got = Collected()
    node.create_subscriber(topic, got, Sonar)

    station.create_publisher(topic, Sonar).publish(FAR)

    assert got.first == FAR


def test_what_nobody_or_somebody_else_has_signed_never_reaches_the_callback(
    station: Node, node: Node, topic: str
) -> None:
    got, told = Collected(), Collected()
    subscriber = station.create_subscriber(topic, got, on_error=told)

    for key in (None, OTHER, IMPOSTOR):
        node.create_publisher(topic, sign=key).publish("not from the station")
    told.wait(3)
    station.create_publisher(topic).publish("from the station")

    assert got.wait() == ["from the station"]
    assert subscriber.stats.refused == 3
    assert all(isinstance(error, SignatureError) for error, _ in told.items)
    assert {name for _, name in told.items} == {topic}


def test_what_was_recorded_or_changed_never_reaches_the_callback(
    station: Node, raw: RawPeer, topic: str
) -> None:
    recorded = raw.subscribe(topic)
    got, told = Collected(), Collected()
    subscriber = station.create_subscriber(topic, got, on_error=told)
    other = station.create_subscriber(f"{topic}.other", got, on_error=told)
    publisher = station.create_publisher(topic)
    publisher.publish({"n": 1})
    header = open_letter(recorded.first, MAX_PAYLOAD).header
    got.wait(1)

    raw.publish_message(topic, {"n": 1}, header)
    raw.publish_message(topic, {"n": 2}, header)
    raw.publish_message(topic, {"n": 1}, msgspec.structs.replace(header, seq=1))
    raw.publish_message(f"{topic}.other", {"n": 1}, header)
    told.wait(4)
    publisher.publish("last")

    assert got.until("last") == [{"n": 1}]
    assert subscriber.stats.refused == 3
    assert other.stats.refused == 1


def test_a_pattern_has_windows_for_all_its_topics(station: Node, topic: str) -> None:
    got = Collected()
    subscriber = station.create_psubscriber(f"{topic}.*", lambda n, name: got((n, name)))
    publisher = station.create_mpublisher()

    names = [f"{topic}.{word}" for word in ("a", "b", "a", "a.b")]
    for n, name in enumerate(names):
        publisher.publish(n, name)

    assert got.wait(4) == list(enumerate(names))
    assert subscriber.stats.refused == 0


def test_one_node_signs_and_verifies_in_all_its_parts(
    station: Node, node: Node, topic: str
) -> None:
    got, told = Collected(), Collected()
    group = station.create_wsubscriber(on_error=told)
    group.subscribe(f"{topic}.event", got, Event)
    group.subscribe(f"{topic}.word", got)
    event = Event(name="open", uri=f"{topic}.event")

    node.create_event_emitter().send_event(event)
    node.create_publisher(f"{topic}.word").publish("unsigned")
    told.wait(2)
    station.create_event_emitter().send_event(event)
    mpub = station.create_mpublisher()
    station.create_wpublisher(mpub, f"{topic}.word").publish("signed")

    assert sorted(got.wait(2), key=str) == sorted([event, "signed"], key=str)
    assert group.stats.refused == 2


def test_bare_data_is_signed_where_a_header_has_room_beside_it(
    broker: Broker, make_node: MakeNode, topic: str
) -> None:
    station = make_node(verify=trusted())
    got = Collected()
    station.create_subscriber(topic, got, bytes)
    has_room = broker.traits.native_headers or broker.traits.header_beside_bare

    try:
        publisher = station.create_publisher(
            topic, bytes, envelope=False, serializer=BytesSerializer, sign=KEY
        )
    except ValueError:
        assert not has_room
    else:
        publisher.publish(b"\x00\xff")
        assert got.first == b"\x00\xff"


def test_the_signs_of_life_and_control_services_of_a_node_are_signed_as_well(
    make_node: MakeNode, topic: str
) -> None:
    got = Collected()
    watcher = make_node(verify=trusted(), sign=KEY)
    watcher.create_subscriber(f"{topic}.beat", got, HeartbeatMessage)
    stranger = make_node()
    node = make_node(
        sign=KEY,
        verify=trusted(),
        has_stop_rpc=True,
        heartbeats=True,
        heartbeat_uri=f"{topic}.beat",
    )
    got.wait(1)
    name = f"{node.namespace}.stop"

    with pytest.raises(RPCRemoteError, match="SignatureError: it is not signed"):
        stranger.create_rpc_client(name, NodeStopMessage).call(
            NodeStopMessage.Request(), timeout=DEADLINE
        )
    assert node.state is NodeState.RUNNING
    watcher.create_rpc_client(name, NodeStopMessage).call(
        NodeStopMessage.Request(), timeout=DEADLINE
    )
    assert node.state is NodeState.STOPPED


# ---- calls ----


def test_requests_and_replies_are_signed_and_verified(station: Node, topic: str) -> None:
    service = station.create_rpc(topic, add, AddTwoInts)
    client = station.create_rpc_client(topic, AddTwoInts)

    futures = [client.call_async(AddTwoInts.Request(n, 1), DEADLINE) for n in range(100)]

    assert [future.result(DEADLINE).c for future in futures] == [n + 1 for n in range(100)]
    assert service.stats.refused == client.stats.refused == 0


def test_a_call_of_a_service_that_fails_brings_its_error(station: Node, topic: str) -> None:
    def fail(request: Any) -> Any:
        raise RuntimeError("σ")

    station.create_rpc(topic, fail)

    with pytest.raises(RPCRemoteError, match="RuntimeError: σ"):
        station.create_rpc_client(topic).call({}, timeout=DEADLINE)


def test_a_call_may_be_repeated(station: Node, topic: str) -> None:
    station.create_rpc(topic, add, AddTwoInts)
    client = station.create_rpc_client(topic, AddTwoInts, idempotent=True)

    assert client.call(AddTwoInts.Request(1, 2), timeout=DEADLINE).c == 3


def test_a_request_that_is_not_signed_is_not_handled(station: Node, node: Node, topic: str) -> None:
    handled, told = Collected(), Collected()
    service = station.create_rpc(topic, handled, on_error=told)

    for key in (None, OTHER, IMPOSTOR):
        client = node.create_rpc_client(topic, sign=key)
        with pytest.raises(RPCRemoteError) as refused:
            client.call({}, timeout=DEADLINE)
        assert refused.value.type == "SignatureError"

    assert handled.items == []
    assert service.stats.refused == 3


def test_a_reply_that_is_not_signed_is_no_response(station: Node, node: Node, topic: str) -> None:
    node.create_rpc(topic, lambda request: "forged")
    client = station.create_rpc_client(topic)

    with pytest.raises(SignatureError, match="it is not signed"):
        client.call({}, timeout=DEADLINE)
    assert client.stats.refused == 1


def test_a_refusal_is_not_signed_for_an_id_that_anybody_may_have_made_up(
    station: Node, make_node: MakeNode, topic: str
) -> None:
    station.create_rpc(topic, print)
    stranger = make_node(sign=OTHER, verify=trusted())

    with pytest.raises(SignatureError, match=r"not signed \(it says: SignatureError: it is si"):
        stranger.create_rpc_client(topic).call({}, timeout=DEADLINE)


def test_a_request_is_handled_once_whoever_sends_it_again(
    station: Node, raw: RawPeer, topic: str
) -> None:
    requests = raw.consume(f"{topic}.recorder")
    future = station.create_rpc_client(f"{topic}.recorder").call_async("go", DEADLINE)
    raw.answer_message(requests.first, {}, requests.first.header)
    with pytest.raises(SignatureError):
        future.result(DEADLINE)
    handled, told = Collected(), Collected()
    keys = trusted(signed_for=[f"{topic}.recorder"])
    service = station.create_rpc(topic, handled, verify=keys, on_error=told, workers=1)

    header = msgspec.structs.replace(requests.first.header, reply_to=f"{topic}.answers")
    answers = raw.consume(header.reply_to)
    for _ in range(3):
        raw.send_message(topic, "go", header)
    told.wait(2)
    station.create_rpc_client(topic).call("last", timeout=DEADLINE)

    assert handled.items == ["go", "last"]
    assert len(answers.wait()) == 1, "who has recorded it does not end another's call with it"
    eventually(lambda: service.stats.sent >= 2)
    assert service.stats.sent == 2


def test_a_signed_reply_is_taken_for_whichever_attempt_it_comes(
    station: Node, raw: RawPeer, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_repeat, "FIRST_PAUSE", 0.01)
    requests = raw.consume(topic)
    client = station.create_rpc_client(topic, idempotent=True)
    future = client.call_async("go", DEADLINE)
    first, second, *_ = requests.wait(2)
    reply = Header(now_ms(), PROPERTIES, id=first.header.id)
    Signing(Writer[Any](None), KEY, REPLY).pack("done", reply, True, topic)

    raw.answer_message(second, "done", reply)

    assert future.result(DEADLINE) == "done"


def test_a_callback_that_gets_a_forged_reply_has_failed_and_was_not_refused(
    station: Node, node: Node, topic: str
) -> None:
    node.create_rpc(topic, lambda request: "forged")
    client = station.create_rpc_client(topic)
    subscriber = station.create_subscriber(
        f"{topic}.go", lambda message: client.call({}, timeout=DEADLINE)
    )
    station.create_rpc(f"{topic}.ask", lambda request: client.call({}, timeout=DEADLINE))

    station.create_publisher(f"{topic}.go").publish(1)
    eventually(lambda: subscriber.stats.errors == 1, lambda: subscriber.stats)
    with pytest.raises(
        RPCRemoteError, match=f"SignatureError: the reply of {topic}: it is not signed"
    ):
        station.create_rpc_client(f"{topic}.ask").call({}, timeout=DEADLINE)

    assert subscriber.stats.refused == 0


# ---- actions ----


def work(goal: GoalHandler[Any, Any, Any]) -> Move.Result:
    goal.send_feedback(Move.Feedback(cm=1))
    return Move.Result(cm=goal.data.cm)


def test_a_goal_is_signed_from_its_beginning_to_its_result(
    station: Node, node: Node, topic: str
) -> None:
    service = station.create_action(topic, Move, work)
    feedback = Collected()
    client = station.create_action_client(topic, Move, on_feedback=feedback)

    goal = client.send_goal(Move.Goal(cm=7))

    assert goal.result(DEADLINE) == Move.Result(cm=7)
    assert feedback.wait() == [Move.Feedback(cm=1)]
    assert client.stats.refused == service.stats.refused == 0
    with pytest.raises(RPCRemoteError, match="SignatureError"):
        node.create_rpc_client(f"{topic}.send_goal").call({}, timeout=DEADLINE)


# ---- bridges ----

PAIRS = [
    *(("memory", "redis"), ("redis", "mqtt"), ("redis", "valkey")),
    *(("mqtt", "amqp"), ("amqp", "mqtt311"), ("mqtt311", "memory")),
]


class Ends:
    """Two brokers with a bridge between them, and a signing node on each."""

    def __init__(self, source: Broker, sink: Broker) -> None:
        self.urls = source.url, sink.url
        self.topic, self.far_topic = source.unique("topic"), sink.unique("far")
        self._closers: list[Callable[[], None]] = []
        self.near = self.node(source.url)
        self.far = self.node(sink.url)

    def node(self, url: str) -> Node:
        node = Node(connection_params=url, sign=KEY, verify=trusted(), heartbeats=False)
        self._closers.append(node.stop)
        node.run()
        return node

    def bridge(self, kind: Any, *names: str, **options: Any) -> Bridge:
        """A running bridge, by default from ``topic`` to ``far_topic``."""
        names = names or (self.topic, self.far_topic)
        bridge: Bridge = kind(None, *names, *self.urls, **options)
        self._closers.append(bridge.stop)
        bridge.run()
        return bridge

    def close(self) -> None:
        for close in reversed(self._closers):
            close()


@pytest.fixture(params=PAIRS, ids="-".join)
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    ends = Ends(*(Broker.named(name, request.getfixturevalue) for name in request.param))
    yield ends
    ends.close()


@pytest.mark.parametrize("serializer", [None, MessagePackSerializer, TextSerializer])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_signature_holds_on_the_other_broker(
    ends: Ends, serializer: Any, compression: Any
) -> None:
    got, told = Collected(), Collected()
    keys = trusted(signed_for=[ends.topic])
    ends.far.create_subscriber(ends.far_topic, got, Sonar, verify=keys)
    ends.far.create_subscriber(ends.far_topic, got, Sonar, on_error=told)
    bridge = ends.bridge(TopicBridge)
    publisher = ends.near.create_publisher(
        ends.topic, Sonar, serializer=serializer, compression=compression
    )

    for _ in range(3):
        publisher.publish(FAR)

    assert got.wait(3) == [FAR] * 3
    assert [str(error)[:18] for error, _ in told.wait(3)] == ["it was signed for "] * 3
    assert bridge.stats.refused == 0


def test_a_pattern_that_keeps_the_names_needs_no_further_word(ends: Ends) -> None:
    got = Collected()
    name = f"{ends.topic}.a"
    ends.far.create_subscriber(name, got)
    ends.bridge(PTopicBridge, f"{ends.topic}.*", "")

    ends.near.create_publisher(name).publish({"n": 1})

    assert got.first == {"n": 1}


def test_a_call_is_signed_from_one_broker_to_the_other_and_back(ends: Ends) -> None:
    ends.far.create_rpc(ends.far_topic, add, AddTwoInts, verify=trusted(signed_for=[ends.topic]))
    bridge = ends.bridge(RPCBridge)
    client = ends.near.create_rpc_client(
        ends.topic, AddTwoInts, verify=trusted(signed_for=[ends.far_topic])
    )

    futures = [client.call_async(AddTwoInts.Request(n, 1), DEADLINE) for n in range(10)]

    assert [future.result(DEADLINE).c for future in futures] == [n + 1 for n in range(10)]
    assert bridge.stats.refused == 0


def test_a_goal_is_signed_from_one_broker_to_the_other_and_back(ends: Ends) -> None:
    near, far = f"{ends.topic}.*", f"{ends.far_topic}.*"
    ends.far.create_action(ends.far_topic, Move, work, verify=trusted(signed_for=[near]))
    bridge = ends.bridge(ActionBridge)
    client = ends.near.create_action_client(ends.topic, Move, verify=trusted(signed_for=[far]))

    goal = client.send_goal(Move.Goal(cm=7))

    assert goal.result(DEADLINE) == Move.Result(cm=7)
    assert client.stats.refused == bridge.stats.refused == 0


@pytest.mark.parametrize("ends", [("memory", "redis"), ("redis", "mqtt311")], indirect=True)
def test_a_bridge_refuses_what_it_would_rob_of_its_signature(ends: Ends) -> None:
    got, told = Collected(), Collected()
    stranger = Node(connection_params=ends.urls[0], heartbeats=False)
    far = Node(connection_params=ends.urls[1], heartbeats=False)
    with stranger, far:
        far.create_subscriber(ends.far_topic, got)
        bridge = ends.bridge(TopicBridge, envelope=False, on_error=told)

        ends.near.create_publisher(ends.topic).publish("signed")
        told.wait()
        stranger.create_publisher(ends.topic).publish("unsigned")

        assert got.wait() == ["unsigned"]
        assert bridge.stats.refused == 1
