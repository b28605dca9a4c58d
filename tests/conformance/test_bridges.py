"""Bridges, in every ordered pair of brokers. Nothing here knows which brokers they are."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from brokers import Broker
from collected import Collected, eventually
from commlib import aio
from commlib._hops import MAX_HOPS
from commlib._packet import PROPERTIES, Envelope, Header, Packet
from commlib._routes import spelled
from commlib._wire import Reader
from commlib.action import GoalHandler, GoalStatus
from commlib.aio import bridges as aio_bridges
from commlib.bridges import (
    ActionBridge,
    Bridge,
    Keep,
    PTopicBridge,
    RPCBridge,
    TopicBridge,
    TopicBridgeType,
)
from commlib.exceptions import CommlibError, RPCRemoteError, RPCTimeout
from commlib.msg import ActionMessage
from commlib.node import Node
from commlib.serializer import BytesSerializer, MessagePackSerializer, TextSerializer
from commlib.testing import MemoryBroker
from messages import AddTwoInts, Pose, Sonar
from raw_peer import RawPeer

PAIRS = [
    # Two separate Redis servers, one of them Valkey, and two brokers in this process.
    *itertools.permutations(("memory", "second_memory", "redis", "valkey"), 2),
    *(("redis", "mqtt"), ("mqtt", "memory"), ("mqtt", "second_mqtt")),
    *(("redis", "amqp"), ("amqp", "memory"), ("amqp", "second_amqp")),
]
"""Each kind of broker is a source and a sink here, and there are two of each kind."""
EVERY_PAIR = [
    *PAIRS,
    *(("mqtt", "redis"), ("memory", "mqtt"), ("second_mqtt", "mqtt")),
    *(("mqtt311", "redis"), ("redis", "mqtt311"), ("mqtt311", "second_mqtt")),
    *(("nats", "mqtt"), ("mqtt", "nats")),
    *(("amqp", "redis"), ("memory", "amqp"), ("second_amqp", "amqp")),
    *(("amqp", "mqtt"), ("mqtt", "amqp")),
]
in_every_pair = pytest.mark.parametrize("pair", EVERY_PAIR, ids="-".join, indirect=True)
"""For what bridges are there for; the other tests are content with ``PAIRS``."""
FAR = Sonar(-1.5, -3, "σ", [1.0, math.inf], Pose(1.0), [Pose()], {"a": -1}, b"\xff\x00", None)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Pair:
    """Two brokers, and whoever is on them in a test."""

    def __init__(self, source: Broker, sink: Broker) -> None:
        self.source = source
        self.sink = sink
        self.topic = source.unique("topic")
        self.far_topic = sink.unique("far")
        self._closers: list[Callable[[], None]] = []

    def near(self, **options: Any) -> Node:
        """A running node on the source."""
        return self._node(self.source, options)

    def far(self, **options: Any) -> Node:
        """A running node on the sink."""
        return self._node(self.sink, options)

    def _node(self, broker: Broker, options: dict[str, Any]) -> Node:
        node = Node("", connection_params=broker.url, **options)
        self._closers.append(node.stop)
        node.run()
        return node

    def near_peer(self) -> RawPeer:
        """A peer on the source that sends and takes bytes."""
        return self._peer(self.source)

    def far_peer(self) -> RawPeer:
        """The same on the sink."""
        return self._peer(self.sink)

    def _peer(self, broker: Broker) -> RawPeer:
        peer = RawPeer(broker.url)
        self._closers.append(peer.close)
        return peer

    def run(self, bridge: Bridge) -> Any:
        """Run a bridge for the rest of the test."""
        self._closers.append(bridge.stop)
        bridge.run()
        return bridge

    def bridge(self, msg_type: Any = None, **options: Any) -> Bridge:
        """A running bridge from ``topic`` to ``far_topic``."""
        return self.run(
            TopicBridge(
                *(None, self.topic, self.far_topic, self.source.url, self.sink.url, msg_type),
                **options,
            )
        )

    def back(self, **options: Any) -> Bridge:
        """A running bridge the other way round."""
        return self.run(
            TopicBridge(
                *(None, self.far_topic, self.topic, self.sink.url, self.source.url), **options
            )
        )

    def rpc_bridge(self, msg_type: Any = None, **options: Any) -> Bridge:
        """A running bridge for calls from ``topic`` to ``far_topic``."""
        return self.run(
            RPCBridge(
                *(None, self.topic, self.far_topic, self.source.url, self.sink.url, msg_type),
                **options,
            )
        )

    def close(self) -> None:
        for close in reversed(self._closers):
            close()


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Two brokers: each pair in turn."""
    source, sink = (Broker.named(name, request.getfixturevalue) for name in request.param)
    pair = Pair(source, sink)
    yield pair
    pair.close()


reader: Reader[Any] = Reader(None)


def read(packet: Packet) -> Envelope:
    return reader.read(packet)


# ---- topics: what arrives ----


@in_every_pair
def test_a_message_arrives_on_the_other_broker_as_what_it_was(pair: Pair) -> None:
    got = Collected()
    pair.far().create_subscriber(pair.far_topic, got, Sonar)
    bridge = pair.bridge()

    pair.near().create_publisher(pair.topic, Sonar).publish(FAR)

    assert got.first == FAR
    assert bridge.connected
    assert bridge.stats.received == bridge.stats.forwarded == 1


@in_every_pair
def test_a_burst_arrives_in_order_and_nothing_is_lost(pair: Pair) -> None:
    got = Collected()
    subscriber = pair.far().create_subscriber(pair.far_topic, got)
    bridge = pair.bridge()
    publisher = pair.near().create_publisher(pair.topic)

    for n in range(5000):
        publisher.publish(n)

    assert got.wait(5000) == list(range(5000))
    stats = subscriber.stats
    assert (stats.gaps, stats.duplicates, stats.reordered) == (0, 0, 0)
    assert bridge.stats.dropped == bridge.stats.errors == bridge.stats.looped == 0


@in_every_pair
def test_the_header_is_kept_and_says_where_the_message_has_been(pair: Pair) -> None:
    got = pair.far_peer().subscribe(pair.far_topic)
    pair.bridge()
    header = Header(
        *(1700000000123, PROPERTIES, "abcdefgh", 7),
        id="goal-1",
        traceparent=TRACE,
        tracestate="vendor=x",
    )

    pair.near_peer().publish_message(pair.topic, {"a": [1, None]}, header)

    envelope = read(got.first)
    assert envelope.data == {"a": [1, None]}
    assert len(envelope.header.hops) == 1
    assert len(bytes.fromhex(envelope.header.hops[0])) == 4
    envelope.header.hops = ()
    assert envelope.header == header


def test_further_keys_of_a_header_are_kept_where_both_sides_use_envelopes(pair: Pair) -> None:
    got = pair.far_peer().subscribe(pair.far_topic)
    pair.bridge()
    payload = (
        b'{ "data": {"a": 1.50}, "header": {"properties": {"content_type": "application/json"}, '
        b'"level": "INFO", "timestamp": null, "seq": 5 } }'
    )

    pair.near_peer().publish(pair.topic, payload)

    envelope = read(got.first)
    assert envelope.data == {"a": 1.5}
    assert envelope.header.seq == 5
    if not (pair.source.traits.native_headers or pair.sink.traits.native_headers):
        assert json.loads(got.first.payload)["header"]["level"] == "INFO"
        assert b"1.50" in got.first.payload, "the data is not decoded"


@in_every_pair
@pytest.mark.parametrize("payload", [b'{"distance":2.0}', b"21.5", b"ON", b"x", b"\x00\xff", b""])
def test_what_comes_bare_stays_bare(pair: Pair, payload: bytes) -> None:
    got = pair.far_peer().subscribe(pair.far_topic)
    pair.bridge()

    pair.near_peer().publish(pair.topic, payload)

    assert got.first.payload == payload


@pytest.mark.parametrize(
    ("payload", "data"),
    [
        (b'{"distance":2.0}', {"distance": 2.0}),
        (b"21.5", 21.5),
        (b"ON", "ON"),
        (b"\x00\xff", b"\x00\xff"),
        (b'{"far":Infinity}', {"far": math.inf}),
        (msgspec.msgpack.encode({"a": b"\xff"}), {"a": b"\xff"}),
    ],
)
def test_what_comes_bare_is_wrapped_on_request(pair: Pair, payload: bytes, data: Any) -> None:
    got = pair.far_peer().subscribe(pair.far_topic)
    pair.bridge(envelope=True)

    pair.near_peer().publish(pair.topic, payload)

    envelope = read(got.first)
    assert envelope.data == data
    assert len(envelope.header.hops) == 1


def test_the_sink_gets_bare_data_on_request(pair: Pair) -> None:
    got = pair.far_peer().subscribe(pair.far_topic)
    pair.bridge(envelope=False)

    pair.near().create_publisher(pair.topic, Sonar).publish(Sonar(2.0, label="bare"))

    assert json.loads(got.first.payload)["label"] == "bare"


SERIALIZERS = [None, MessagePackSerializer, BytesSerializer, TextSerializer]


@pytest.mark.parametrize("compression", [None, "zlib", "zstd"])
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_every_form_of_a_message_passes(pair: Pair, serializer: Any, compression: Any) -> None:
    got, raw = Collected(), pair.far_peer().subscribe(pair.far_topic)
    pair.far().create_subscriber(pair.far_topic, got, Sonar)
    pair.bridge()
    near = pair.near(serializer=serializer, compression=compression)

    near.create_publisher(pair.topic, Sonar).publish(FAR)

    assert got.first == FAR
    starts = {None: (b"{", b"\x82", b"\x89"), "zlib": (b"\x78",), "zstd": (b"\x28\xb5\x2f\xfd",)}
    assert raw.first.payload.startswith(starts[compression]), "compressed as it came"


@pytest.mark.parametrize("serializer", [None, MessagePackSerializer])
def test_a_bare_form_may_be_wrapped(pair: Pair, serializer: Any) -> None:
    got, raw = Collected(), pair.far_peer().subscribe(pair.far_topic)
    pair.far().create_subscriber(pair.far_topic, got, Sonar)
    pair.bridge(envelope=True)
    near = pair.near(serializer=serializer, compression="zlib", envelope=False)

    near.create_publisher(pair.topic, Sonar).publish(FAR)

    assert got.first == FAR
    assert len(read(raw.first).header.hops) == 1


@in_every_pair
def test_bytes_pass_as_they_are(pair: Pair) -> None:
    got = Collected()
    pair.far().create_subscriber(pair.far_topic, got, bytes)
    pair.bridge()
    image = pair.near().create_publisher(pair.topic, bytes, serializer=BytesSerializer)
    images = [b"", b"\x00\xff" * 1000, b"123", b'{"a":1}', zlib.compress(b"as it is")]

    for data in images:
        image.publish(data)

    assert got.wait(5) == images


# ---- topics: what does not ----


@in_every_pair
def test_a_typed_bridge_refuses_what_is_no_such_message(pair: Pair) -> None:
    got, refused = Collected(), Collected()
    pair.far().create_subscriber(pair.far_topic, got)
    bridge = pair.bridge(Sonar, on_error=lambda error, topic: refused(str(error), topic))
    publisher = pair.near().create_publisher(pair.topic)

    publisher.publish({"distance": "far"})
    publisher.publish({"distance": 2.0, "more": 1})

    assert got.first == {"distance": 2.0, "more": 1}, "what it holds beside the message stays"
    assert bridge.stats.refused == 1
    assert bridge.stats.forwarded == 1
    assert "Sonar" in refused.first[0]
    assert refused.first[1] == pair.topic


@in_every_pair
def test_what_is_too_big_for_the_sink_is_refused_and_counted(pair: Pair) -> None:
    got, errors = Collected(), Collected()
    pair.far().create_subscriber(pair.far_topic, got)
    small = pair.sink.with_options(max_payload=1000)
    bridge = pair.run(
        TopicBridge(
            *(None, pair.topic, pair.far_topic, pair.source.url, small),
            on_error=lambda error, topic: errors(type(error).__name__),
        )
    )
    publisher = pair.near().create_publisher(pair.topic)

    publisher.publish("x" * 2000)
    publisher.publish("y")

    assert got.first == "y"
    assert errors.items == ["PayloadTooBig"]
    assert bridge.stats.errors == 1


@in_every_pair
def test_what_is_too_big_for_the_source_is_refused_and_counted(pair: Pair) -> None:
    got = Collected()
    pair.far().create_subscriber(pair.far_topic, got)
    small = pair.source.with_options(max_payload=1000)
    bridge = pair.run(TopicBridge(None, pair.topic, pair.far_topic, small, pair.sink.url))
    publisher = pair.near().create_publisher(pair.topic)

    publisher.publish("x" * 2000)
    publisher.publish("y")

    assert got.first == "y"
    assert bridge.stats.refused == 1


def test_what_expands_beyond_the_bound_is_refused(pair: Pair) -> None:
    got = Collected()
    pair.far().create_subscriber(pair.far_topic, got)
    small = pair.source.with_options(max_payload=10_000)
    bridge = pair.run(TopicBridge(None, pair.topic, pair.far_topic, small, pair.sink.url))
    peer = pair.near_peer()

    peer.publish(pair.topic, zlib.compress(b'{"data":"%b","header":{}}' % (b"x" * 1_000_000)))
    peer.publish(pair.topic, b'{"data":"small","header":{}}')

    assert got.first == "small"
    assert bridge.stats.refused == 1


# ---- topics: loops ----


@in_every_pair
def test_two_bridges_that_form_a_loop_give_every_subscriber_each_message_once(pair: Pair) -> None:
    near, far = Collected(), Collected()
    here, there = pair.near(), pair.far()
    here.create_subscriber(pair.topic, near)
    there.create_subscriber(pair.far_topic, far)
    bridge, back = pair.bridge(), pair.back()
    publisher, far_publisher = (
        here.create_publisher(pair.topic),
        there.create_publisher(pair.far_topic),
    )

    for n in range(100):
        publisher.publish(n)
        far_publisher.publish(-n)
    eventually(lambda: bridge.stats.looped == back.stats.looped == 100)

    assert sorted(near.wait(200)) == sorted(far.wait(200)) == sorted([*range(100), *range(-99, 1)])
    assert bridge.stats.forwarded == back.stats.forwarded == 100


def test_bare_messages_do_not_loop_where_the_bridges_wrap_them(pair: Pair) -> None:
    near, far = Collected(), Collected()
    here = pair.near(envelope=False)
    here.create_subscriber(pair.topic, near)
    pair.far().create_subscriber(pair.far_topic, far)
    pair.bridge(envelope=True)
    back = pair.back(envelope=True)

    here.create_publisher(pair.topic).publish("bare")
    eventually(lambda: back.stats.looped == 1)

    assert near.wait() == far.wait() == ["bare"]


def test_bare_messages_do_not_loop_where_a_header_travels_beside_them(pair: Pair) -> None:
    near, far = Collected(), Collected()
    pair.near().create_subscriber(pair.topic, near)
    pair.far().create_subscriber(pair.far_topic, far)
    has_room = all(broker.traits.header_beside_bare for broker in (pair.source, pair.sink))
    envelope = None if has_room else True
    pair.bridge(envelope=envelope)
    back = pair.back(envelope=envelope)

    pair.near_peer().publish(pair.topic, b"21.5")
    eventually(lambda: back.stats.looped == 1)

    assert near.wait() == far.wait() == [21.5]


def test_a_message_goes_over_sixteen_bridges_and_no_further(pair: Pair) -> None:
    brokers = (pair.source, pair.sink)
    topics = [f"{pair.topic}.{n}" for n in range(MAX_HOPS + 2)]
    reached = [Collected() for _ in topics]
    nodes = (pair.near(), pair.far())
    for n, topic in enumerate(topics):
        nodes[n % 2].create_subscriber(topic, reached[n])
    chain = [
        pair.run(
            TopicBridge(
                *(None, topics[n], topics[n + 1], brokers[n % 2].url, brokers[(n + 1) % 2].url)
            )
        )
        for n in range(MAX_HOPS + 1)
    ]

    nodes[0].create_publisher(topics[0]).publish("far")
    eventually(lambda: chain[-1].stats.looped == 1)

    assert [got.wait() for got in reached[:-1]] == [["far"]] * (MAX_HOPS + 1)
    assert reached[-1].items == []


def test_a_topic_that_is_bridged_to_itself_is_refused(pair: Pair) -> None:
    url = pair.source.url
    with pytest.raises(ValueError, match="the same topic"):
        TopicBridge(None, pair.topic, pair.topic, url, url)
    with pytest.raises(ValueError, match="the same service"):
        RPCBridge(None, pair.topic, pair.topic, url, url)
    with pytest.raises(ValueError, match="would feed itself"):
        PTopicBridge(None, f"{pair.topic}.*", f"{pair.topic}.far", url, url)
    with pytest.raises(ValueError, match="would feed itself"):
        PTopicBridge(None, f"{pair.topic}.*", "", url, url)
    with pytest.raises(ValueError, match="the same"):
        ActionBridge(None, pair.topic, pair.topic, url, url)


def test_a_service_is_bridged_to_itself_where_its_broker_takes_two_names_for_one(
    pair: Pair,
) -> None:
    url, separator = pair.source.url, pair.source.traits.separator
    dotted, slashed = f"{pair.topic}.x", f"{pair.topic}/x".replace(".", "/")
    if spelled(dotted, separator) == spelled(slashed, separator):
        with pytest.raises(ValueError, match="the same service"):
            RPCBridge(None, dotted, slashed, url, url)
    else:
        pair.run(RPCBridge(None, dotted, slashed, url, url))


def test_two_topics_of_one_broker_may_be_bridged(pair: Pair) -> None:
    got = Collected()
    near = pair.near()
    near.create_subscriber(f"{pair.topic}.copy", got)
    pair.run(TopicBridge(None, pair.topic, f"{pair.topic}.copy", pair.source.url, pair.source.url))
    near.create_publisher(pair.topic).publish("twice")
    assert got.first == "twice"


# ---- patterns ----


@in_every_pair
def test_a_pattern_is_bridged_into_a_namespace(pair: Pair) -> None:
    got = Collected()
    pair.far().create_psubscriber(f"{pair.far_topic}.*", got, Sonar)
    bridge = pair.run(
        PTopicBridge(
            *(None, f"{pair.topic}.*", pair.far_topic, pair.source.url, pair.sink.url, Sonar)
        )
    )
    publisher = pair.near().create_mpublisher(Sonar)

    publisher.publish(Sonar(1.0), f"{pair.topic}.front")
    publisher.publish(Sonar(2.0), f"{pair.topic}.rear.left")

    assert got.wait(2) == [
        (Sonar(1.0), f"{pair.far_topic}.{pair.topic}.front"),
        (Sonar(2.0), f"{pair.far_topic}.{pair.topic}.rear.left"),
    ]
    assert bridge.stats.forwarded == 2


@in_every_pair
def test_texts_in_the_topic_are_replaced_in_order(pair: Pair) -> None:
    got = Collected()
    pair.far().create_psubscriber(f"{pair.far_topic}.*", got)
    pair.run(
        PTopicBridge(
            *(None, f"{pair.topic}.*", pair.far_topic, pair.source.url, pair.sink.url),
            uri_transform=[(f"{pair.topic}.", ""), ["sonar", "ir"], ("ir", "lidar")],
        )
    )
    pair.near().create_mpublisher().publish("x", f"{pair.topic}.sonar.front")
    assert got.first == ("x", f"{pair.far_topic}.lidar.front")


@in_every_pair
def test_without_a_namespace_topics_stay_as_they_are(pair: Pair) -> None:
    got = Collected()
    pair.far().create_psubscriber(f"{pair.topic}.*", got)
    pair.run(PTopicBridge(None, f"{pair.topic}.*", "", pair.source.url, pair.sink.url))
    pair.near().create_mpublisher().publish("x", f"{pair.topic}.a")
    assert got.first == ("x", f"{pair.topic}.a")


@in_every_pair
def test_slash_notation_stays_slash_notation(pair: Pair) -> None:
    got, exact = Collected(), Collected()
    far = pair.far()
    far.create_psubscriber(f"{pair.far_topic}/*", got)
    far.create_subscriber(f"{pair.far_topic}/b/c.d", exact)
    near = pair.near()
    pair.run(PTopicBridge(None, f"{pair.topic}/*", pair.far_topic, pair.source.url, pair.sink.url))
    pair.run(
        TopicBridge(
            *(None, f"{pair.topic}.x/b.c", f"{pair.far_topic}/b/c.d"),
            *(pair.source.url, pair.sink.url),
        )
    )
    near.create_mpublisher().publish("x", f"{pair.topic}/0x00.1/state")
    near.create_publisher(f"{pair.topic}.x/b.c").publish("y")

    assert exact.first == "y"
    assert sorted(got.wait(2)) == [
        ("x", f"{pair.far_topic}/{pair.topic}/0x00.1/state"),
        ("y", f"{pair.far_topic}/b/c.d"),
    ]


@in_every_pair
def test_two_patterns_that_form_a_loop_deliver_once(pair: Pair) -> None:
    near, far = Collected(), Collected()
    here = pair.near()
    here.create_psubscriber(f"{pair.topic}.*", near)
    pair.far().create_psubscriber(f"{pair.topic}.*", far)
    there = pair.run(PTopicBridge(None, f"{pair.topic}.*", "", pair.source.url, pair.sink.url))
    back = pair.run(PTopicBridge(None, f"{pair.topic}.*", "", pair.sink.url, pair.source.url))

    publisher = here.create_mpublisher()
    for n in range(10):
        publisher.publish(n, f"{pair.topic}.{n}")
    eventually(lambda: back.stats.looped == 10)

    assert near.wait(10) == far.wait(10) == [(n, f"{pair.topic}.{n}") for n in range(10)]
    assert there.stats.forwarded == 10


def test_a_topic_that_transforms_into_its_own_pattern_is_not_sent_round(pair: Pair) -> None:
    got = Collected()
    near = pair.near()
    near.create_psubscriber(f"{pair.topic}.*", got)
    bridge = pair.run(
        PTopicBridge(
            *(None, f"{pair.topic}.*", pair.far_topic, pair.source.url, pair.source.url),
            uri_transform=[(f"{pair.far_topic}.{pair.topic}.odd", f"{pair.topic}.even")],
        )
    )
    near.create_mpublisher().publish("x", f"{pair.topic}.odd")
    eventually(lambda: bridge.stats.looped == 1)
    assert got.wait() == [("x", f"{pair.topic}.odd")]


@pytest.mark.parametrize("from_uri", ["sensors.front", "a*c", ""])
def test_a_pattern_bridge_needs_a_pattern(from_uri: str) -> None:
    with pytest.raises(ValueError, match=r"from_uri|instead of|at least one word"):
        PTopicBridge(None, from_uri, "far", "memory://a", "memory://b")


def test_a_topic_bridge_needs_topics() -> None:
    with pytest.raises(ValueError, match="PTopicBridge"):
        TopicBridge(None, "sensors.*", "far", "memory://a", "memory://b")
    with pytest.raises(ValueError, match="pattern"):
        TopicBridge(None, "sensors", "far.*", "memory://a", "memory://b")
    with pytest.raises(ValueError, match="no pair"):
        PTopicBridge(None, "a.*", "b", "memory://a", "memory://b", uri_transform=[("a",)])  # type: ignore[list-item]


# ---- what bridges are told ----


@pytest.mark.parametrize("pair", [("memory", "second_memory")], indirect=True)
@pytest.mark.parametrize("btype", [TopicBridgeType.REDIS_TO_MQTT, ("amqp", "mqtt")])
def test_the_parameters_win_over_the_type_with_one_log_record(
    pair: Pair, btype: Any, caplog: pytest.LogCaptureFixture
) -> None:
    got = Collected()
    pair.far().create_subscriber(pair.far_topic, got)
    pair.run(TopicBridge(btype, pair.topic, pair.far_topic, pair.source.url, pair.sink.url))
    pair.near().create_publisher(pair.topic).publish("x")
    assert got.first == "x"
    assert [r.name for r in caplog.records if "bridge type" in r.message] == ["commlib.bridges"]


def test_a_type_that_agrees_with_the_parameters_is_nothing_to_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    TopicBridge(("memory", "memory"), "a", "b", "memory://a", "memory://b")
    TopicBridge(TopicBridgeType.REDIS_TO_REDIS, "a", "b", "redis://a", "rediss://b")
    assert caplog.records == []


def test_the_type_may_be_left_out_as_in_later_releases(pair: Pair) -> None:
    got = Collected()
    pair.far().create_subscriber(pair.far_topic, got)
    pair.run(TopicBridge(pair.topic, pair.far_topic, pair.source.url, pair.sink.url))  # type: ignore[arg-type]
    pair.near().create_publisher(pair.topic).publish("x")
    assert got.first == "x"


def test_a_type_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match="REDIS_TO_MQTT or the like"):
        TopicBridge(5, "a", "b", "memory://a", "memory://b")  # type: ignore[arg-type]


@in_every_pair
def test_a_bridge_can_be_stopped_and_run_again(pair: Pair) -> None:
    got = Collected()
    pair.far().create_subscriber(pair.far_topic, got)
    bridge = pair.bridge()
    publisher = pair.near().create_publisher(pair.topic)
    publisher.publish("before")
    got.wait(1)
    bridge.stop()
    assert not bridge.connected
    publisher.publish("between")
    bridge.run()
    bridge.run()
    publisher.publish("after")
    assert got.wait(2) == ["before", "after"]
    bridge.stop()
    bridge.stop()


def test_run_forever_ends_with_stop(pair: Pair) -> None:
    got = Collected()
    pair.far().create_subscriber(pair.far_topic, got)
    bridge = TopicBridge(None, pair.topic, pair.far_topic, pair.source.url, pair.sink.url)
    thread = threading.Thread(target=bridge.run_forever)
    thread.start()
    publisher = pair.near().create_publisher(pair.topic)

    def arrives() -> bool:
        publisher.publish("x")
        return bool(got.items)

    eventually(arrives)
    bridge.stop()
    thread.join(5)
    assert not thread.is_alive()


# ---- calls ----

Request, Response = AddTwoInts.Request, AddTwoInts.Response


def add(request: AddTwoInts.Request) -> AddTwoInts.Response:
    return Response(c=request.a + request.b)


@in_every_pair
def test_a_call_is_answered_from_the_other_broker(pair: Pair) -> None:
    pair.far().create_rpc(pair.far_topic, add, AddTwoInts)
    bridge = pair.rpc_bridge()
    client = pair.near().create_rpc_client(pair.topic, AddTwoInts)

    assert client.wait_for_service(5)
    assert client.call(Request(a=2, b=-5), timeout=5) == Response(c=-3)
    assert bridge.stats.received == bridge.stats.forwarded == bridge.stats.sent == 1


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_calls_pass_in_every_form(pair: Pair, serializer: Any, compression: Any) -> None:
    far = pair.far(serializer=serializer, compression=compression)
    far.create_rpc(pair.far_topic, add, AddTwoInts)
    pair.rpc_bridge()
    plain = pair.near().create_rpc_client(pair.topic, AddTwoInts)
    other = pair.near(serializer=serializer, compression=compression)

    assert plain.call(Request(a=1, b=2), timeout=5) == Response(c=3)
    client = other.create_rpc_client(pair.topic, AddTwoInts)
    assert client.call(Request(a=1, b=2), timeout=5) == Response(c=3)


@in_every_pair
def test_two_hundred_calls_at_once_are_answered_each_with_its_own(pair: Pair) -> None:
    pair.far().create_rpc(pair.far_topic, lambda request: request["n"])
    bridge = pair.rpc_bridge()
    client = pair.near().create_rpc_client(pair.topic)

    futures = [client.call_async({"n": n}, timeout=20) for n in range(200)]

    assert [future.result(20) for future in futures] == list(range(200))
    eventually(lambda: bridge.stats.sent == 200)


def test_no_more_calls_are_under_way_than_the_bridge_was_told(pair: Pair) -> None:
    lock, under_way, most = threading.Lock(), 0, 0

    def handle(request: Any) -> Any:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        threading.Event().wait(0.01)  # long enough for others to come in, were they let in
        with lock:
            under_way -= 1
        return request

    pair.far().create_rpc(pair.far_topic, handle, workers=16)
    pair.rpc_bridge(concurrency=3)
    client = pair.near().create_rpc_client(pair.topic)
    futures = [client.call_async(n, timeout=20) for n in range(30)]
    assert [future.result(20) for future in futures] == list(range(30))
    assert most == 3


@in_every_pair
def test_what_the_service_raises_reaches_the_caller_as_itself(pair: Pair) -> None:
    def fail(request: Any) -> None:
        raise LookupError("no such room")

    pair.far().create_rpc(pair.far_topic, fail)
    bridge = pair.rpc_bridge()
    client = pair.near().create_rpc_client(pair.topic)

    with pytest.raises(RPCRemoteError) as caught:
        client.call({}, timeout=5)

    assert (caught.value.type, caught.value.message) == ("LookupError", "no such room")
    assert bridge.stats.errors == 0


@in_every_pair
def test_a_call_that_nobody_answers_ends_with_the_callers_own_timeout(pair: Pair) -> None:
    bridge = pair.rpc_bridge(timeout=1.0)  # for brokers on which callers do not say how long
    client = pair.near().create_rpc_client(pair.topic)

    begun = time.monotonic()
    with pytest.raises(RPCTimeout, match=pair.topic):
        client.call({}, timeout=0.3)

    assert time.monotonic() - begun < 5
    eventually(lambda: bridge.stats.expired == 1)
    assert bridge.stats.sent == 0


def test_the_time_that_the_caller_has_left_bounds_the_call(pair: Pair) -> None:
    told = pair.far_peer().consume(pair.far_topic)
    bridge = pair.rpc_bridge(timeout=1000.0)
    client = pair.near().create_rpc_client(pair.topic)
    before = time.time()

    with pytest.raises(RPCTimeout):
        client.call({}, timeout=1.0)

    # Bounded by the caller's second, not by the bridge's thousand.
    eventually(lambda: bridge.stats.expired == 1)
    if (deadline := told.first.header.deadline) != 0:
        assert before < deadline / 1000 < time.time() + 0.1


@in_every_pair
def test_a_call_keeps_its_id_and_its_trace(pair: Pair) -> None:
    requests = pair.far_peer().consume(pair.far_topic)
    pair.rpc_bridge()
    header = Header(
        *(1700000000123, PROPERTIES, "abcdefgh", 7),
        reply_to=pair.source.unique("reply"),
        id="0123456789abcdef",
        traceparent=TRACE,
    )

    pair.near_peer().send_message(pair.topic, {"goal": 1}, header)

    passed = requests.first.header
    assert (passed.id, passed.traceparent) == (header.id, TRACE)
    assert (passed.origin, passed.seq, passed.timestamp) == ("abcdefgh", 7, 1700000000123)
    assert passed.reply_to not in ("", header.reply_to)
    assert len(passed.hops) == 1


@in_every_pair
@pytest.mark.parametrize("call_id", ["chosen-by-the-caller", ""])
def test_the_reply_goes_where_the_caller_wants_it_with_the_id_of_the_call(
    pair: Pair, call_id: str
) -> None:
    pair.far().create_rpc(pair.far_topic, lambda request: {"got": request})
    pair.rpc_bridge()
    peer, address = pair.near_peer(), pair.source.unique("reply")
    replies = peer.consume(address)

    for n in range(3):
        header = Header(0, PROPERTIES, reply_to=address, id=call_id)
        peer.send_message(pair.topic, n, header)

    assert sorted(reply.data["got"] for reply in replies.wait(3)) == [0, 1, 2]
    assert {reply.header.id for reply in replies.items} == {call_id}


def test_the_least_that_is_a_request_is_passed_on(pair: Pair) -> None:
    got = Collected()
    pair.far().create_rpc(pair.far_topic, lambda request: got(request))
    pair.rpc_bridge()
    pair.near_peer().send(pair.topic, b'{"header":{"reply_to":""},"data":{"a":NaN}}')
    assert got.first == {"a": None}


def test_a_request_that_is_none_is_refused(pair: Pair) -> None:
    if pair.source.traits.native_headers:
        pytest.skip("where headers travel beside it, any payload may be a request")
    pair.far().create_rpc(pair.far_topic, lambda request: request)
    bridge = pair.rpc_bridge()
    peer = pair.near_peer()
    for payload in (b"", b"garbage", b"[1]", b'{"data":{}}'):
        peer.send(pair.topic, payload)
    assert pair.near().create_rpc_client(pair.topic).call("good", timeout=5) == "good"
    eventually(lambda: bridge.stats.refused == 4)


@in_every_pair
def test_a_typed_bridge_refuses_wrong_requests_and_wrong_responses(pair: Pair) -> None:
    calls = Collected()

    def wrong(request: Any) -> Any:
        calls(request)
        return {"c": "no number"} if request["a"] else {"c": 1}

    pair.far().create_rpc(pair.far_topic, wrong)
    bridge = pair.rpc_bridge(AddTwoInts)
    client = pair.near().create_rpc_client(pair.topic)

    with pytest.raises(RPCRemoteError, match=r"AddTwoInts\.Request"):
        client.call({"a": "x"}, timeout=5)
    with pytest.raises(RPCRemoteError, match=r"AddTwoInts\.Response"):
        client.call({"a": 1, "b": 1}, timeout=5)
    assert client.call({"a": 0, "b": 1}, timeout=5) == {"c": 1}
    assert len(calls.items) == 2
    assert bridge.stats.refused == 2


def test_a_request_too_big_for_the_sink_fails_at_once(pair: Pair) -> None:
    pair.far().create_rpc(pair.far_topic, lambda request: request)
    small = pair.sink.with_options(max_payload=1000)
    pair.run(RPCBridge(None, pair.topic, pair.far_topic, pair.source.url, small))
    client = pair.near().create_rpc_client(pair.topic)
    with pytest.raises(RPCRemoteError, match="over the limit of 1000"):
        client.call("x" * 2000, timeout=10)
    assert client.call("y", timeout=5) == "y"


@in_every_pair
def test_calls_do_not_go_round_in_circles(pair: Pair) -> None:
    there = pair.rpc_bridge()
    back = pair.run(
        RPCBridge(None, pair.far_topic, pair.topic, pair.sink.url, pair.source.url, timeout=1.0)
    )
    client = pair.near().create_rpc_client(pair.topic)
    with pytest.raises(RPCTimeout):
        client.call({}, timeout=1.5)
    eventually(lambda: there.stats.looped + back.stats.looped == 1)


# ---- actions, part by part ----


@in_every_pair
def test_an_action_is_three_services_there_and_two_topics_back(pair: Pair) -> None:
    feedback, status = Collected(), Collected()
    near, far = pair.near(), pair.far()
    near.create_subscriber(f"{pair.topic}.feedback", feedback)
    near.create_subscriber(f"{pair.topic}.status", status)
    for part in ("send_goal", "cancel_goal", "get_result"):
        far.create_rpc(f"{pair.far_topic}.{part}", lambda data, part=part: {part: data})
    bridge = pair.run(
        ActionBridge(None, pair.topic, pair.far_topic, pair.source.url, pair.sink.url)
    )

    for part in ("send_goal", "cancel_goal", "get_result"):
        client = near.create_rpc_client(f"{pair.topic}.{part}")
        assert client.call({"goal_id": "g"}, timeout=5) == {part: {"goal_id": "g"}}
    far.create_publisher(f"{pair.far_topic}.feedback").publish({"goal_id": "g", "at": 1})
    far.create_publisher(f"{pair.far_topic}.status").publish({"goal_id": "g", "status": 4})

    assert feedback.first == {"goal_id": "g", "at": 1}
    assert status.first == {"goal_id": "g", "status": 4}
    assert bridge.stats.received == bridge.stats.forwarded == 5
    assert bridge.stats.sent == 3


class Drive(ActionMessage):
    class Goal(ActionMessage.Goal):
        metres: int = 0

    class Result(ActionMessage.Result):
        reached: int = 0

    class Feedback(ActionMessage.Feedback):
        at: int = 0


def drive(goal: GoalHandler) -> Drive.Result:
    if goal.data.metres < 0:
        raise LookupError("no way back")
    for at in range(goal.data.metres):
        goal.send_feedback(Drive.Feedback(at=at))
    return Drive.Result(reached=goal.data.metres)


@in_every_pair
def test_a_goal_is_pursued_on_the_other_broker_and_its_feedback_comes_back(pair: Pair) -> None:
    got = Collected()
    pair.far().create_action(pair.far_topic, Drive, drive)
    pair.run(ActionBridge(None, pair.topic, pair.far_topic, pair.source.url, pair.sink.url))
    client = pair.near().create_action_client(pair.topic, Drive, on_feedback=got)

    goal = client.send_goal(Drive.Goal(metres=5), timeout=5)

    assert goal.result(timeout=5) == Drive.Result(reached=5)
    assert [feedback.at for feedback in got.wait(5)] == [0, 1, 2, 3, 4]


def test_actions_with_slashed_names_are_bridged_too(pair: Pair) -> None:
    names = f"{pair.topic}/arm", f"{pair.far_topic}/arm"
    pair.far().create_action(names[1], Drive, drive)
    pair.run(ActionBridge(None, *names, pair.source.url, pair.sink.url))
    goal = pair.near().create_action_client(names[0], Drive).send_goal(Drive.Goal(metres=2))
    assert goal.result(timeout=5) == Drive.Result(reached=2)


def test_many_goals_at_once_keep_their_ids(pair: Pair) -> None:
    pair.far().create_action(pair.far_topic, Drive, drive, concurrency=20)
    pair.run(ActionBridge(None, pair.topic, pair.far_topic, pair.source.url, pair.sink.url))
    client = pair.near().create_action_client(pair.topic, Drive)

    goals = [client.send_goal(Drive.Goal(metres=n), timeout=10) for n in range(20)]

    assert [goal.result(timeout=10).reached for goal in goals] == list(range(20))


def test_a_goal_that_fails_is_aborted_with_its_error_on_the_other_side(pair: Pair) -> None:
    pair.far().create_action(pair.far_topic, Drive, drive)
    pair.run(ActionBridge(None, pair.topic, pair.far_topic, pair.source.url, pair.sink.url))
    client = pair.near().create_action_client(pair.topic, Drive)

    goal = client.send_goal(Drive.Goal(metres=-1), timeout=5)

    with pytest.raises(CommlibError, match="no way back"):
        goal.result(timeout=5)


@in_every_pair
def test_a_goal_is_cancelled_from_the_other_side(pair: Pair) -> None:
    cancelled = threading.Event()

    def wait(goal: GoalHandler) -> Drive.Result:
        if goal.cancel_event.wait(10):
            cancelled.set()
        return Drive.Result(reached=1)

    pair.far().create_action(pair.far_topic, Drive, wait)
    pair.run(ActionBridge(None, pair.topic, pair.far_topic, pair.source.url, pair.sink.url))
    goal = pair.near().create_action_client(pair.topic, Drive).send_goal(Drive.Goal(), timeout=5)

    goal.cancel(timeout=5)

    assert cancelled.wait(5)
    eventually(lambda: goal.status == GoalStatus.CANCELED)


# ---- nodes ----


@in_every_pair
@pytest.mark.parametrize("is_running", [True, False])
def test_a_node_has_bridges_to_and_from_another_broker(pair: Pair, is_running: bool) -> None:
    got, back = Collected(), Collected()
    far = pair.far()
    far.create_psubscriber(f"{pair.far_topic}.*", got)
    far.create_rpc(f"{pair.far_topic}.echo", lambda request: request)
    node = pair.near()
    if not is_running:
        node.stop()
    bridge = node.create_bridge("pattern", f"{pair.topic}.*", pair.far_topic, pair.sink.url)
    node.create_bridge(
        "topic", f"{pair.far_topic}.x", f"{pair.topic}x", from_broker_params=pair.sink.url
    )
    node.create_bridge("rpc", f"{pair.topic}.echo", f"{pair.far_topic}.echo", pair.sink.url)
    node.create_subscriber(f"{pair.topic}x", back)
    node.run()
    eventually(lambda: node.health)

    node.create_mpublisher().publish("there", f"{pair.topic}.a")
    far.create_publisher(f"{pair.far_topic}.x").publish("back")

    assert node.create_rpc_client(f"{pair.topic}.echo").call(5, timeout=5) == 5
    assert back.first == "back"
    got.until(("there", f"{pair.far_topic}.{pair.topic}.a"))
    node.stop()
    assert not bridge.connected


def test_a_bridge_of_a_node_needs_one_other_broker(pair: Pair) -> None:
    node = pair.near()
    with pytest.raises(ValueError, match="of the other broker alone"):
        node.create_bridge("topic", "a", "b")
    with pytest.raises(ValueError, match="did you mean topic"):
        node.create_bridge("topics", "a", "b", pair.sink.url)


def test_a_bridge_of_a_running_node_loses_nothing_while_it_looks_for_the_other_broker(
    broker: Broker,
) -> None:
    topic = broker.unique("early")
    with (
        MemoryBroker() as elsewhere,
        Node("near", connection_params=broker.url, heartbeats=False) as node,
        elsewhere.capture(topic) as seen,
    ):
        publisher = node.create_publisher(topic)
        elsewhere.cut()
        bridge = node.create_bridge("topic", topic, topic, elsewhere.url)
        publisher.publish("at once")
        assert not bridge.connected
        elsewhere.mend()
        assert seen.wait() == ["at once"]


async def test_a_node_for_asyncio_has_bridges(pair: Pair) -> None:
    async with aio.Node("near", pair.source.url) as near, aio.Node("far", pair.sink.url) as far:
        got = far.create_subscriber(pair.far_topic)
        await got.run()
        bridge = near.create_bridge("topic", pair.topic, pair.far_topic, pair.sink.url)
        await bridge.run()
        await near.create_publisher(pair.topic).publish("x")
        assert await anext(aiter(got)) == "x"


# ---- asyncio ----


@in_every_pair
async def test_bridges_for_asyncio_run_on_the_loop_of_the_program(pair: Pair) -> None:
    async with (
        aio.Node("near", pair.source.url) as near,
        aio.Node("far", pair.sink.url) as far,
        aio_bridges.TopicBridge(
            None, pair.topic, pair.far_topic, pair.source.url, pair.sink.url
        ) as bridge,
        aio_bridges.RPCBridge(
            None, f"{pair.topic}.echo", f"{pair.far_topic}.echo", pair.source.url, pair.sink.url
        ) as calls,
    ):
        positions = far.create_subscriber(pair.far_topic)
        await positions.run()

        async def echo(request: Any) -> Any:
            return request

        await far.create_rpc(f"{pair.far_topic}.echo", echo).run()
        client = near.create_rpc_client(f"{pair.topic}.echo")
        assert await client.wait_for_service(5)
        await near.create_publisher(pair.topic).publish("x")
        assert await anext(aiter(positions)) == "x"
        assert await asyncio.gather(*(client.call(n, timeout=5) for n in range(50))) == [*range(50)]
        assert bridge.connected
        assert calls.connected
    assert bridge.stats.forwarded == 1
    assert not bridge.connected


async def test_a_bridge_that_is_run_while_it_is_being_stopped_works_after_that(pair: Pair) -> None:
    async with aio.Node("near", pair.source.url) as near, aio.Node("far", pair.sink.url) as far:
        positions = far.create_subscriber(pair.far_topic)
        await positions.run()
        publisher = near.create_publisher(pair.topic)
        bridge = aio_bridges.TopicBridge(
            None, pair.topic, pair.far_topic, pair.source.url, pair.sink.url
        )
        await bridge.run()
        for number in range(5):
            await asyncio.gather(bridge.stop(), bridge.run())
            assert bridge.ready
            await publisher.publish(number)
            assert await anext(aiter(positions)) == number
        stopping = asyncio.create_task(bridge.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        await asyncio.wait([stopping])
        await bridge.stop()
        assert (bridge.hub.loop, bridge.sink.loop) == (None, None)


async def test_a_node_forgets_no_bridge_that_had_no_time_to_begin(pair: Pair) -> None:
    node = aio.Node("near", pair.source.url)
    bridge = node.create_bridge("topic", pair.topic, pair.far_topic, to_broker_params=pair.sink.url)
    for _ in range(2):
        running = asyncio.create_task(node.run())
        await asyncio.sleep(0)
        await node.stop()
        await running
    assert bridge in node.endpoints
    assert (bridge.hub.loop, bridge.sink.loop) == (None, None)


def test_what_may_wait_is_bounded_by_sense() -> None:
    with pytest.raises(ValueError, match="room for one"):
        Keep(max_messages=0)
    with pytest.raises(ValueError, match="max_age"):
        Keep(max_age=0)
