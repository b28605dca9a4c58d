"""Publish and subscribe, between ours and released peers, on every broker."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import pytest

from collected import Collected
from commlib.node import Node
from interop.cells import (
    AMQP,
    FROM_PEER,
    MQTT,
    REDIS,
    TO_PEER,
    VERSIONS,
    WRAPPING,
    Row,
    fault,
    limit,
    works,
)
from interop.released import PeerError, Received, Released
from interop.samples import NEGATIVE, SAMPLES, Reading, reading
from raw_peer import RawPeer

MakeNode = Callable[..., Node]

LAST = {"label": "last"}


def as_received(fields: dict[str, Any]) -> Received:
    return Received("Reading", reading(fields).as_dict(), None)


# ---- typed, untyped, patterns ----


@works(Row.PUBSUB_TYPED, TO_PEER)
def test_a_message_of_ours_reaches_a_typed_subscriber(
    peer: Released, node: Node, topic: str
) -> None:
    got = peer.subscribe(topic, typed=True)

    publisher = node.create_publisher(topic, Reading)

    for fields in SAMPLES:
        publisher.publish(reading(fields))

    assert got.wait(len(SAMPLES)) == [as_received(fields) for fields in SAMPLES]


@works(Row.PUBSUB_TYPED, FROM_PEER)
def test_a_message_of_the_peer_reaches_our_typed_subscriber(
    peer: Released, node: Node, topic: str
) -> None:
    got = Collected()
    node.create_subscriber(topic, got, Reading)

    for fields in SAMPLES:
        peer.ask("publish", topic=topic, data=reading(fields).as_dict(), typed=True)

    assert got.wait(len(SAMPLES)) == [reading(fields) for fields in SAMPLES]


@works(Row.PUBSUB_UNTYPED, TO_PEER)
def test_plain_data_of_ours_reaches_an_untyped_subscriber(
    peer: Released, node: Node, topic: str
) -> None:
    got = peer.subscribe(topic)

    publisher = node.create_publisher(topic)

    for fields in SAMPLES:
        publisher.publish(fields)

    assert got.wait(len(SAMPLES)) == [Received("dict", fields, None) for fields in SAMPLES]


@works(Row.PUBSUB_UNTYPED, FROM_PEER)
def test_plain_data_of_the_peer_reaches_our_untyped_subscriber(
    peer: Released, node: Node, topic: str
) -> None:
    got = Collected()
    node.create_subscriber(topic, got)

    for fields in SAMPLES:
        peer.ask("publish", topic=topic, data=fields)

    assert got.wait(len(SAMPLES)) == SAMPLES


def heard_by_pattern(peer: Released, node: Node, topic: str) -> list[tuple[int, str | None]]:
    """What a pattern subscriber of the peer is given: of each message a number, and the topic."""
    got = peer.subscribe(f"{topic}.*", by_pattern=True, typed=True)
    publisher = node.create_mpublisher(Reading)

    publisher.publish(Reading(count=0), f"other_{topic}.front")
    publisher.publish(Reading(count=1), f"{topic}.front")
    publisher.publish(Reading(count=2), f"{topic}.rear.left")

    return [(found.data["count"], found.topic) for found in got.wait(2)]


@works(Row.PUBSUB_PATTERN, TO_PEER, on=REDIS)
@works(Row.PUBSUB_PATTERN, TO_PEER, "0.6.3", on=AMQP)
def test_a_pattern_subscriber_of_the_peer_is_given_message_and_topic(
    peer: Released, node: Node, topic: str
) -> None:
    assert heard_by_pattern(peer, node, topic) == [(1, f"{topic}.front"), (2, f"{topic}.rear.left")]


@fault(Row.PUBSUB_PATTERN, TO_PEER, "0.6.3", "0.13.2", on=MQTT)
def test_a_pattern_subscriber_of_the_peer_is_given_the_topic_with_slashes(
    peer: Released, node: Node, topic: str
) -> None:
    """The callback is given the topic as MQTT spells it, with slashes, where the pattern and the
    publisher have dots."""
    assert heard_by_pattern(peer, node, topic) == [(1, f"{topic}/front"), (2, f"{topic}/rear/left")]


@fault(Row.PUBSUB_PATTERN, TO_PEER, "0.13.2", on=AMQP)
def test_a_pattern_subscriber_of_0_13_2_cannot_be_made(peer: Released, topic: str) -> None:
    """There are no pattern subscribers: the class writes `#` for `*`, and then refuses the `#`."""
    with pytest.raises(PeerError, match=f"Invalid topic: {topic}.#"):
        peer.subscribe(f"{topic}.*", by_pattern=True)


@works(Row.PUBSUB_PATTERN, FROM_PEER, on=WRAPPING)
@works(Row.PUBSUB_PATTERN, FROM_PEER, "0.6.3", on=AMQP)
def test_a_pattern_subscriber_of_ours_is_given_message_and_topic(
    peer: Released, node: Node, topic: str
) -> None:
    got = Collected()
    node.create_psubscriber(f"{topic}.*", got, Reading)

    for number, name in enumerate([f"other_{topic}.front", f"{topic}.front", f"{topic}.rear.left"]):
        peer.ask("publish_anywhere", topic=name, data={"count": number}, typed=True)

    assert got.wait(2) == [
        (Reading(count=1), f"{topic}.front"),
        (Reading(count=2), f"{topic}.rear.left"),
    ]


@works(Row.PUBSUB_PATTERN, FROM_PEER, "0.13.2", on=AMQP)
def test_a_pattern_subscriber_of_ours_hears_publishers_where_there_are_none_of_many_topics(
    peer: Released, node: Node, topic: str
) -> None:
    got = Collected()
    node.create_psubscriber(f"{topic}.*", got, Reading)

    with pytest.raises(PeerError, match=r"Invalid topic: \*"):
        peer.ask("publish_anywhere", topic=f"{topic}.front", data={}, typed=True)
    for number, name in enumerate([f"other_{topic}.front", f"{topic}.front", f"{topic}.rear.left"]):
        peer.ask("publish", topic=name, data={"count": number}, typed=True)

    assert sorted(got.wait(2), key=itemgetter(1)) == [
        (Reading(count=1), f"{topic}.front"),
        (Reading(count=2), f"{topic}.rear.left"),
    ]


# ---- numbers ----


@works(Row.PUBSUB_NEGATIVE, TO_PEER)
def test_negative_numbers_of_ours_arrive_as_they_are(
    peer: Released, node: Node, topic: str
) -> None:
    typed, plain = peer.subscribe(topic, typed=True), peer.subscribe(f"plain_{topic}")

    node.create_publisher(topic, Reading).publish(reading(NEGATIVE))
    node.create_publisher(f"plain_{topic}").publish(NEGATIVE)

    assert typed.first == as_received(NEGATIVE)
    assert plain.first == Received("dict", NEGATIVE, None)


@works(Row.PUBSUB_NEGATIVE, FROM_PEER)
def test_negative_numbers_of_the_peer_arrive_as_they_are(
    peer: Released, node: Node, topic: str
) -> None:
    typed, plain = Collected(), Collected()
    node.create_subscriber(topic, typed, Reading)
    node.create_subscriber(topic, plain)

    peer.ask("publish", topic=topic, data=reading(NEGATIVE).as_dict(), typed=True)

    assert typed.first == reading(NEGATIVE)
    assert plain.first == reading(NEGATIVE).as_dict()


INFINITE: dict[str, Any] = {"distance": math.inf, "limit": -math.inf}


@works(Row.PUBSUB_INFINITY, TO_PEER)
def test_infinities_of_ours_arrive_as_infinities(peer: Released, node: Node, topic: str) -> None:
    typed, plain = peer.subscribe(topic, typed=True), peer.subscribe(f"plain_{topic}")

    node.create_publisher(topic, Reading).publish(reading(INFINITE))
    node.create_publisher(f"plain_{topic}").publish(INFINITE)

    assert typed.first == as_received(INFINITE)
    assert plain.first == Received("dict", INFINITE, None)


@works(Row.PUBSUB_INFINITY, FROM_PEER)
def test_infinities_of_the_peer_arrive_as_infinities(
    peer: Released, node: Node, topic: str
) -> None:
    got = Collected()
    node.create_subscriber(topic, got, Reading)

    peer.ask("publish", topic=topic, data=INFINITE, typed=True)

    assert got.first == reading(INFINITE)


@works(Row.PUBSUB_NAN, FROM_PEER)
def test_not_a_number_of_the_peer_is_not_a_number_here(
    peer: Released, node: Node, topic: str
) -> None:
    got = Collected()
    node.create_subscriber(topic, got, Reading)

    peer.ask("publish", topic=topic, data={"distance": math.nan}, typed=True)

    assert math.isnan(got.first.distance)


@limit(Row.PUBSUB_NAN, TO_PEER, "0.6.3")
def test_0_6_3_takes_null_for_a_number(peer: Released, node: Node, topic: str) -> None:
    """A typed subscriber is given `None` for NaN, which JSON does not have and ours writes as
    `null`; releases write `NaN`, and read it."""
    got = peer.subscribe(topic, typed=True)

    node.create_publisher(topic, Reading).publish(Reading(distance=math.nan))
    assert got.first.data["distance"] is None

    peer.ask("publish", topic=topic, data={"distance": math.nan}, typed=True)
    assert math.isnan(got.wait(2)[1].data["distance"])


@limit(Row.PUBSUB_NAN, TO_PEER, "0.13.2")
def test_0_13_2_drops_null_for_a_number(peer: Released, node: Node, topic: str) -> None:
    """A typed subscriber drops a message with NaN, which JSON does not have and ours writes as
    `null`; releases write `NaN`, and read it."""
    got = peer.subscribe(topic, typed=True)

    node.create_publisher(topic, Reading).publish(Reading(distance=math.nan))
    peer.ask("publish", topic=topic, data={"distance": math.nan, **LAST}, typed=True)

    assert got.first.data["label"] == LAST["label"]
    assert math.isnan(got.first.data["distance"])


# ---- in an envelope, and without ----


@works(Row.PUBSUB_WRAPPED, TO_PEER, "0.6.3", on=WRAPPING)
def test_an_envelope_is_opened_by_0_6_3(peer: Released, make_node: MakeNode, topic: str) -> None:
    got = peer.subscribe(topic)

    make_node().create_publisher(topic).publish({"count": 1})

    assert got.first.data == {"count": 1}


@works(Row.PUBSUB_WRAPPED, FROM_PEER, "0.6.3", on=WRAPPING)
def test_an_envelope_of_0_6_3_is_opened(peer: Released, node: Node, topic: str) -> None:
    got = Collected()
    node.create_subscriber(topic, got)

    peer.ask("publish", topic=topic, data={"header": {}, "data": {"count": 1}})

    assert got.first == {"header": {}, "data": {"count": 1}}, "the outer one, and no other"


@fault(Row.PUBSUB_WRAPPED, TO_PEER, "0.13.2", on=WRAPPING)
def test_0_13_2_takes_the_envelope_for_the_message(
    peer: Released, make_node: MakeNode, topic: str
) -> None:
    """A typed subscriber gets a message of nothing but defaults, an untyped one the envelope:
    publish to 0.13.2 with `envelope=False`."""
    typed, plain = peer.subscribe(topic, typed=True), peer.subscribe(f"plain_{topic}")
    node = make_node()

    node.create_publisher(topic, Reading).publish(Reading(count=1))
    node.create_publisher(f"plain_{topic}").publish({"count": 1})

    assert typed.first == as_received({})
    assert plain.first.data.keys() == {"header", "data"}
    assert plain.first.data["data"] == {"count": 1}


@works(Row.PUBSUB_BARE, TO_PEER, "0.13.2")
@works(Row.PUBSUB_BARE, TO_PEER, "0.6.3", on=AMQP)
def test_bare_data_is_read_by_the_peer(peer: Released, make_node: MakeNode, topic: str) -> None:
    got = peer.subscribe(topic)

    make_node().create_publisher(topic, envelope=False).publish({"count": 1})

    assert got.first.data == {"count": 1}


@works(Row.PUBSUB_BARE, FROM_PEER, "0.13.2")
@works(Row.PUBSUB_BARE, FROM_PEER, "0.6.3", on=AMQP)
def test_bare_data_of_the_peer_is_read(peer: Released, node: Node, topic: str) -> None:
    got = Collected()
    node.create_subscriber(topic, got)

    for data in ({"count": 1}, {"header": 5, "data": 6}, {"data": {}}):
        peer.ask("publish", topic=topic, data=data)

    assert got.wait(3) == [{"count": 1}, {"header": 5, "data": 6}, {"data": {}}]


@fault(Row.PUBSUB_BARE, TO_PEER, "0.6.3", on=WRAPPING)
def test_0_6_3_drops_a_message_without_an_envelope(
    peer: Released, make_node: MakeNode, topic: str
) -> None:
    """A subscriber drops a message without an envelope, and goes on; ours writes one unless told
    otherwise."""
    got = peer.subscribe(topic, typed=True)
    node = make_node()

    node.create_publisher(topic, Reading, envelope=False).publish(Reading(count=1))
    node.create_publisher(topic, Reading).publish(reading(LAST))

    assert got.until(as_received(LAST)) == []


# ---- classes that are not the same on both sides ----


@works(Row.PUBSUB_NEW_FIELD, TO_PEER, "0.13.2")
def test_0_13_2_ignores_a_field_that_it_does_not_know(
    peer: Released, node: Node, topic: str
) -> None:
    got = peer.subscribe(topic, typed=True)

    node.create_publisher(topic).publish({"count": 1, "new": 2})

    assert got.first == as_received({"count": 1})


@fault(Row.PUBSUB_NEW_FIELD, TO_PEER, "0.6.3")
def test_0_6_3_drops_a_message_with_a_field_that_it_does_not_know(
    peer: Released, node: Node, topic: str
) -> None:
    """A typed subscriber drops a message with a field that it does not know: add new fields to
    subscribers first."""
    got = peer.subscribe(topic, typed=True)
    publisher = node.create_publisher(topic)

    publisher.publish({"count": 1, "new": 2})
    publisher.publish(LAST)

    assert got.until(as_received(LAST)) == []


@works(Row.PUBSUB_NEW_FIELD, FROM_PEER)
def test_a_field_of_the_peer_that_ours_does_not_know_is_ignored(
    peer: Released, node: Node, topic: str
) -> None:
    got = Collected()
    node.create_subscriber(topic, got, Reading)

    peer.ask("publish", topic=topic, data={"count": 1, "new": 2})

    assert got.first == Reading(count=1)


# ---- peers of both kinds in one field ----


@pytest.mark.parametrize("broker", WRAPPING, indirect=True)
def test_0_6_3_drops_what_0_13_2_publishes_and_ours_reads_both(
    make_peer: Callable[[str], Released], make_node: MakeNode, topic: str
) -> None:
    old, new = make_peer("0.6.3"), make_peer("0.13.2")
    at_old, at_new = old.subscribe(topic, typed=True), new.subscribe(topic, typed=True)
    ours = Collected()
    make_node().create_subscriber(topic, ours, Reading)

    new.ask("publish", topic=topic, data={"count": 13}, typed=True)
    old.ask("publish", topic=topic, data={"count": 6}, typed=True)

    assert ours.wait(2) == [Reading(count=13), Reading(count=6)]
    assert at_old.first == as_received({"count": 6})
    assert at_new.wait(2) == [as_received({"count": 13}), as_received({})]


@pytest.mark.parametrize("broker", AMQP, indirect=True)
def test_where_nothing_is_wrapped_all_read_all(
    make_peer: Callable[[str], Released], make_node: MakeNode, topic: str
) -> None:
    old, new, node = make_peer("0.6.3"), make_peer("0.13.2"), make_node()
    at_old, at_new = old.subscribe(topic, typed=True), new.subscribe(topic, typed=True)
    ours = Collected()
    node.create_subscriber(topic, ours, Reading)
    readings = [Reading(count=6), Reading(count=13), Reading(count=1)]

    for number, peer in enumerate((old, new), 1):
        peer.ask("publish", topic=topic, data={"count": readings[number - 1].count}, typed=True)
        ours.wait(number)
    node.create_publisher(topic, Reading).publish(readings[-1])

    assert ours.wait(3) == readings
    assert at_old.wait(3) == at_new.wait(3) == [as_received(r.as_dict()) for r in readings]


@pytest.mark.parametrize("broker", AMQP, indirect=True)
@pytest.mark.parametrize("peer", VERSIONS, indirect=True)
def test_what_looks_like_an_envelope_is_none_where_there_are_none(
    peer: Released, node: Node, topic: str
) -> None:
    data = {"header": {"timestamp": 1, "properties": {}}, "data": {"count": 1}}
    got, at_peer = Collected(), peer.subscribe(f"other_{topic}")
    node.create_subscriber(topic, got)

    peer.ask("publish", topic=topic, data=data)
    node.create_publisher(f"other_{topic}").publish(data)

    assert got.first == at_peer.first.data == data


# ---- bytes ----


def test_0_13_2_writes_bare_json_with_negative_numbers_as_numbers(
    make_peer: Callable[[str], Released], raw: RawPeer, topic: str
) -> None:
    got = raw.subscribe(topic)

    make_peer("0.13.2").ask("publish", topic=topic, data=NEGATIVE)

    assert json.loads(got.first.payload) == NEGATIVE
