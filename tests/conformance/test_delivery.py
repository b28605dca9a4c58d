"""How hard a message is tried to be delivered, and what is kept for those who come later."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from brokers import Broker
from collected import DEADLINE, Collected, eventually
from commlib import aio
from commlib.node import Node
from commlib.pubsub import MPublisher, Publisher
from commlib.transports import _main_transport
from messages import DataclassSonar, Sonar
from raw_peer import RawPeer

MakeNode = Callable[..., Node]
UntilKept = Callable[[str, Any], None]

LEVELS = (0, 1, 2)
HIGHER_LEVELS = (1, 2)
ORDERS = [*itertools.permutations(range(3))]


@pytest.fixture
def qos(request: pytest.FixtureRequest, broker: Broker) -> int:
    """A delivery level; a test is skipped where the broker does not have it."""
    level: int = request.param
    if level not in broker.traits.delivery_levels:
        pytest.skip(f"the broker does not deliver at QoS {level}")
    return level


@pytest.fixture
def _keeps(broker: Broker) -> None:
    """Skips a test where the broker keeps nothing."""
    if not broker.traits.retained:
        pytest.skip("the broker keeps no messages for those who subscribe later")


at_every_level = pytest.mark.parametrize("qos", LEVELS, indirect=True)
at_the_higher_levels = pytest.mark.parametrize("qos", HIGHER_LEVELS, indirect=True)
where_messages_are_kept = pytest.mark.usefixtures("_keeps")


@pytest.fixture
def until_kept(make_node: MakeNode, broker: Broker) -> UntilKept:
    """Waits until the broker keeps a message: some do so a moment after they have passed it on."""
    watcher = make_node()
    fence = broker.unique("fence")

    def is_kept(topic: str, msg: Any) -> bool:
        got, passed = Collected(), Collected()
        subscribers = [watcher.create_subscriber(topic, got)]
        subscribers += [watcher.create_subscriber(fence, passed)]
        watcher.create_publisher(fence).publish("behind what is kept")
        passed.wait(1)
        for subscriber in subscribers:
            subscriber.stop()
        return msg in got.items

    return lambda topic, msg: eventually(lambda: is_kept(topic, msg))


def counted(subscriber: Any) -> tuple[int, int, int]:
    """The gaps, duplicates and late comers that a subscriber has seen."""
    stats = subscriber.stats
    return stats.gaps, stats.duplicates, stats.reordered


# ---- what a broker cannot do ----


@pytest.mark.parametrize("qos", [*LEVELS, -1, 3])
def test_a_level_that_the_broker_does_not_have_is_refused_where_the_publisher_is_made(
    node: Node, broker: Broker, topic: str, qos: int
) -> None:
    made = []
    for make in (
        lambda: node.create_publisher(topic, qos=qos),
        lambda: node.create_mpublisher(qos=qos),
        lambda: Publisher(topic, conn_params=broker.url, qos=qos),
        lambda: MPublisher(conn_params=broker.url, qos=qos),
    ):
        if qos in broker.traits.delivery_levels:
            made.append(make())
        else:
            with pytest.raises(ValueError, match=rf"qos={qos}: .* delivers at QoS 0"):
                make()

    assert node.endpoints == made[:2], "what was refused is not there"
    for publisher in made:
        publisher.stop()


def test_to_keep_messages_is_refused_where_the_broker_cannot(
    node: Node, broker: Broker, topic: str
) -> None:
    for make in (
        lambda: node.create_publisher(topic, retain=True),
        lambda: node.create_mpublisher(retain=True),
        lambda: aio.Publisher(topic, conn_params=broker.url, retain=True),
    ):
        if broker.traits.retained:
            make()
        else:
            with pytest.raises(ValueError, match=r"retain=True: .* keeps no messages"):
                make()


# ---- levels ----


@at_the_higher_levels
def test_each_message_arrives_once_and_in_order(
    node: Node, make_node: MakeNode, topic: str, qos: int
) -> None:
    here, there = Collected(), Collected()
    subscribers = [
        node.create_subscriber(topic, here),
        make_node().create_subscriber(topic, there),
    ]
    publisher = node.create_publisher(topic, qos=qos)

    for n in range(3000):
        publisher.publish(n)
    publisher.publish("end")

    assert here.until("end") == there.until("end") == list(range(3000))
    assert publisher.stats.sent == 3001
    assert [counted(subscriber) for subscriber in subscribers] == [(0, 0, 0)] * 2
    assert (publisher.stats.unconfirmed, publisher.stats.discarded) == (0, 0)


@at_the_higher_levels
def test_what_was_published_before_the_node_was_stopped_arrives(
    node: Node, make_node: MakeNode, topic: str, qos: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_main_transport, "FLUSH_SECONDS", DEADLINE)
    got = Collected()
    node.create_subscriber(topic, got)
    leaving = make_node()
    publisher = leaving.create_publisher(topic, qos=qos)

    for n in range(500):
        publisher.publish(n)
    leaving.stop()

    assert got.wait(500) == list(range(500))


@at_the_higher_levels
def test_a_large_message_arrives_whole(node: Node, topic: str, qos: int) -> None:
    got = Collected()
    node.create_subscriber(topic, got, bytes)
    large = random.Random(1).randbytes(2_000_000)

    node.create_publisher(topic, bytes, qos=qos).publish(large)

    assert got.first == large


@at_the_higher_levels
def test_publishers_at_different_levels_each_keep_their_order(
    node: Node, make_node: MakeNode, topic: str, qos: int
) -> None:
    got = Collected()
    make_node().create_subscriber(topic, got)
    publishers = [node.create_publisher(topic, qos=level) for level in (0, qos)]

    for n in range(500):
        for level, publisher in enumerate(publishers):
            publisher.publish([level, n])

    received = got.wait(1000)
    for level in range(2):
        assert [n for found, n in received if found == level] == list(range(500))


@at_the_higher_levels
def test_a_publisher_of_many_topics_sends_each_at_its_level(
    node: Node, topic: str, qos: int
) -> None:
    got = Collected()
    node.create_psubscriber(f"{topic}.*", got, Sonar)
    publisher = node.create_mpublisher(Sonar, qos=qos)
    part = node.create_wpublisher(publisher, f"{topic}.part", Sonar, qos=qos)

    for n in range(100):
        publisher.publish(Sonar(float(n)), f"{topic}.{n % 10}")
    part.publish(Sonar(-1.0))

    received = got.until((Sonar(-1.0), f"{topic}.part"))
    assert received == [(Sonar(float(n)), f"{topic}.{n % 10}") for n in range(100)]


@at_every_level
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_subscribers_that_overlap_get_one_call_each(
    node: Node, make_node: MakeNode, topic: str, qos: int, order: tuple[int, ...]
) -> None:
    patterns = [f"{topic}.*", f"{topic}.a.b", f"{topic}.*.b"]
    collected = [Collected() for _ in patterns]
    for number in order:
        node.create_subscriber(patterns[number], collected[number])
    publisher = make_node().create_publisher(f"{topic}.a.b", qos=qos)

    for n in range(20):
        publisher.publish(n)
    publisher.publish("end")

    for got in collected:
        assert got.until("end") == list(range(20))
        assert got.items.count("end") == 1


# ---- what is kept ----


@where_messages_are_kept
@at_every_level
def test_who_subscribes_later_gets_the_last_message_once(
    make_node: MakeNode, until_kept: UntilKept, topic: str, qos: int
) -> None:
    there_before, later = Collected(), Collected()
    make_node().create_subscriber(topic, there_before)
    publisher = make_node().create_publisher(topic, qos=qos, retain=True)
    for word in ("first", "second", "third"):
        publisher.publish(word)
    until_kept(topic, "third")

    subscriber = make_node().create_subscriber(topic, later)
    assert later.first == "third"
    publisher.publish("end")

    assert later.until("end") == ["third"]
    assert there_before.until("end") == ["first", "second", "third"]
    assert counted(subscriber) == (0, 0, 0)


@where_messages_are_kept
@at_every_level
def test_a_second_subscriber_of_a_node_gets_it_too_and_the_first_not_again(
    node: Node, make_node: MakeNode, until_kept: UntilKept, topic: str, qos: int
) -> None:
    collected = [Collected() for _ in range(3)]
    publisher = make_node().create_publisher(topic, qos=qos, retain=True)
    node.create_subscriber(topic, collected[0])
    publisher.publish("kept")
    collected[0].until("kept")
    until_kept(topic, "kept")

    for got in collected[1:]:
        node.create_subscriber(topic, got)
        assert got.first == "kept"
    publisher.publish("end")

    assert [got.until("end") for got in collected] == [["kept"]] * 3


@where_messages_are_kept
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_subscribers_that_overlap_get_what_is_kept_once_each(
    node: Node,
    make_node: MakeNode,
    until_kept: UntilKept,
    topic: str,
    order: tuple[int, ...],
) -> None:
    patterns = [f"{topic}.*", f"{topic}.a.b", f"{topic}.*.b"]
    collected = [Collected() for _ in patterns]
    publisher = make_node().create_publisher(f"{topic}.a.b", retain=True)
    publisher.publish("kept")
    until_kept(f"{topic}.a.b", "kept")

    for number in order:
        node.create_subscriber(patterns[number], collected[number])
        assert collected[number].first == "kept"
    publisher.publish("end")

    assert [got.until("end") for got in collected] == [["kept"]] * 3


@where_messages_are_kept
async def test_subscribers_that_come_at_the_same_moment_get_what_is_kept_once_each(
    broker: Broker, until_kept: UntilKept, topic: str
) -> None:
    patterns = [topic, topic, f"{topic}.*", topic, f"{topic}.*", f"{topic}.a"]
    async with aio.Node("robot", broker.url) as node:
        publisher = node.create_mpublisher(retain=True)
        for name in (topic, f"{topic}.a"):
            await publisher.publish("kept", name)
            await asyncio.to_thread(until_kept, name, "kept")
        collected = [Collected() for _ in patterns]
        subscribers = [
            node.create_subscriber(pattern, got)
            for pattern, got in zip(patterns, collected, strict=True)
        ]

        await asyncio.gather(*(subscriber.run() for subscriber in subscribers))
        for name in (topic, f"{topic}.a"):
            await publisher.publish("end", name)

        for got in collected:
            assert await asyncio.to_thread(got.until, "end") == ["kept"]


@where_messages_are_kept
def test_a_pattern_gets_the_last_message_of_each_topic(
    node: Node, make_node: MakeNode, until_kept: UntilKept, topic: str
) -> None:
    later, narrow = Collected(), Collected()
    names = [f"{topic}.{word}" for word in ("front", "back", "left.far")]
    publisher = make_node().create_mpublisher(retain=True)
    for n in range(3):
        for name in names:
            publisher.publish(n, name)
    for name in names:
        until_kept(name, 2)

    node.create_psubscriber(f"{topic}.*", later)
    assert sorted(later.wait(3)) == sorted((2, name) for name in names)
    node.create_psubscriber(names[0], narrow)
    assert narrow.first == (2, names[0])
    publisher.publish("end", names[0])

    assert sorted(later.until(("end", names[0]))) == sorted((2, name) for name in names)
    assert narrow.until(("end", names[0])) == [(2, names[0])]


@where_messages_are_kept
def test_a_subscriber_that_is_run_again_gets_what_is_kept_again(
    node: Node, make_node: MakeNode, until_kept: UntilKept, topic: str
) -> None:
    got, other = Collected(), Collected()
    subscriber = node.create_subscriber(topic, got)
    node.create_subscriber(topic, other)
    publisher = make_node().create_publisher(topic, retain=True)
    publisher.publish("kept")
    got.until("kept")
    until_kept(topic, "kept")

    subscriber.stop()
    subscriber.run()
    got.wait(2)
    publisher.publish("end")

    assert got.until("end") == ["kept", "kept"]
    assert other.until("end") == ["kept"]


@where_messages_are_kept
@at_every_level
def test_who_subscribes_in_the_middle_of_a_stream_gets_what_is_kept_first_or_not_at_all(
    node: Node, make_node: MakeNode, topic: str, qos: int
) -> None:
    collected = [Collected() for _ in range(5)]
    publisher = make_node().create_publisher(topic, qos=qos, retain=True)
    for number, got in enumerate(collected):
        for n in range(200):
            publisher.publish(number * 200 + n)
        node.create_subscriber(topic, got)
    publisher.publish(1000)

    for got in collected:
        # How old the first one is, is up to the broker; what is the last one, too, came alone.
        _, *live = [*got.until(1000), 1000]
        assert live == list(range(1001 - len(live), 1001))


@where_messages_are_kept
def test_without_being_told_to_the_broker_keeps_nothing(
    node: Node, make_node: MakeNode, topic: str
) -> None:
    there_before, later = Collected(), Collected()
    make_node().create_subscriber(topic, there_before)
    publisher = make_node().create_publisher(topic)
    publisher.publish("passes")
    there_before.until("passes")

    node.create_subscriber(topic, later)
    publisher.publish("end")

    assert later.until("end") == []


# ---- without an envelope ----


def test_a_bare_message_is_its_data_on_the_wire_and_its_header_goes_beside_it_if_at_all(
    node: Node, broker: Broker, topic: str, raw: RawPeer
) -> None:
    got = raw.subscribe(topic)

    node.create_publisher(topic, envelope=False).publish({"distance": 2.0})

    traits = broker.traits
    assert got.first.payload == b'{"distance":2.0}'
    has_header = traits.native_headers or traits.header_beside_bare
    assert (got.first.header is not None) == has_header
    if has_header:
        assert (got.first.header.origin, got.first.header.seq) != ("", -1)


@at_every_level
def test_bare_messages_arrive_at_each_level_and_are_kept_if_they_shall(
    node: Node,
    make_node: MakeNode,
    broker: Broker,
    until_kept: UntilKept,
    topic: str,
    qos: int,
) -> None:
    got, plain, later = Collected(), Collected(), Collected()
    retain = broker.traits.retained
    node.create_subscriber(topic, got, DataclassSonar)
    subscriber = node.create_subscriber(topic, plain)
    publisher = make_node().create_publisher(
        topic, DataclassSonar, envelope=False, qos=qos, retain=retain
    )

    for n in range(100):
        publisher.publish(DataclassSonar(float(n), label="bare"))

    assert [msg.distance for msg in got.wait(100)] == list(range(100))
    assert [msg["label"] for msg in plain.wait(100)] == ["bare"] * 100
    assert counted(subscriber) == (0, 0, 0)
    if retain:
        until_kept(topic, {"distance": 99.0, "label": "bare"})
        make_node().create_subscriber(topic, later, DataclassSonar)
        assert later.first == DataclassSonar(99.0, label="bare")


def test_bare_data_that_looks_like_an_envelope_arrives_as_it_was_where_a_header_goes_beside_it(
    node: Node, broker: Broker, topic: str
) -> None:
    if not (broker.traits.native_headers or broker.traits.header_beside_bare):
        pytest.skip("nothing tells such data from an envelope there")
    got = Collected()
    node.create_subscriber(topic, got)
    data = {"header": {"properties": {}}, "data": {"n": 1}}

    node.create_publisher(topic, envelope=False).publish(data)

    assert got.first == data


def test_gaps_between_bare_messages_are_counted_where_a_header_goes_beside_them(
    node: Node, make_node: MakeNode, broker: Broker, topic: str
) -> None:
    if not (broker.traits.native_headers or broker.traits.header_beside_bare):
        pytest.skip("bare messages have no numbers there")
    got = Collected()
    subscriber = node.create_subscriber(topic, got)
    publisher = make_node().create_publisher(topic, envelope=False)
    publisher.publish(0)
    got.wait(1)
    publisher.core.pack("lost on the way", topic)
    publisher.publish(2)

    assert got.wait(2) == [0, 2]
    eventually(lambda: counted(subscriber) == (1, 0, 0), lambda: subscriber.stats)
