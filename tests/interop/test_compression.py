"""Compressed messages between ours and released peers, on every broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from collected import Collected, eventually
from commlib.exceptions import RPCTimeout
from commlib.node import Node
from commlib.rpc import RPCClient
from commlib.serializer import MessagePackSerializer
from interop.cells import AMQP, FROM_PEER, MQTT, REDIS, TO_PEER, WRAPPING, Row, fault, works
from interop.released import Received, Released
from interop.samples import Echo, Reading, echo, reading, request

NewClient = Callable[..., RPCClient[Any, Any]]

SHORT = 0.5  # s, for calls that are never answered
FIELDS: dict[str, Any] = {"label": "long " * 1000, "count": -3}


@works(Row.PUBSUB_BOTH, TO_PEER, "0.13.2")
def test_a_compressed_message_is_read_by_the_peer(peer: Released, node: Node, topic: str) -> None:
    got = peer.subscribe(topic, typed=True, compressed=True)

    node.create_publisher(topic, Reading, compression="zlib").publish(reading(FIELDS))

    assert got.first == Received("Reading", reading(FIELDS).as_dict(), None)


@works(Row.PUBSUB_BOTH, FROM_PEER, "0.13.2")
def test_a_compressed_message_of_the_peer_is_read(peer: Released, node: Node, topic: str) -> None:
    got = Collected()
    node.create_subscriber(topic, got, Reading, compression="zlib")

    peer.ask("publish", topic=topic, data=FIELDS, typed=True, compressed=True)

    assert got.first == reading(FIELDS)


@works(Row.PUBSUB_SENDER, FROM_PEER, "0.13.2")
def test_a_compressed_message_of_the_peer_is_read_unexpected(
    peer: Released, node: Node, topic: str
) -> None:
    got = Collected()
    node.create_subscriber(topic, got, Reading)

    peer.ask("publish", topic=topic, data=FIELDS, typed=True, compressed=True)

    assert got.first == reading(FIELDS)


@works(Row.PUBSUB_READER, FROM_PEER)
def test_a_message_of_the_peer_is_read_where_a_compressed_one_is_expected(
    peer: Released, node: Node, topic: str
) -> None:
    got = Collected()
    node.create_subscriber(topic, got, Reading, compression="zlib")

    peer.ask("publish", topic=topic, data=FIELDS, typed=True)

    assert got.first == reading(FIELDS)


@works(Row.RPC_BOTH, TO_PEER, "0.13.2", on=WRAPPING)
def test_a_compressed_request_is_answered_by_the_peer(
    peer: Released, new_client: NewClient, topic: str
) -> None:
    asked = peer.serve(topic, typed=True, compressed=True)
    client = new_client(topic, Echo, compression="zlib")

    assert client.call(request(FIELDS)).as_dict() == request(FIELDS).as_dict()
    assert asked.first.data == request(FIELDS).as_dict()


@works(Row.RPC_BOTH, FROM_PEER, "0.13.2")
def test_a_compressed_request_of_the_peer_is_answered(
    peer: Released, node: Node, topic: str
) -> None:
    asked = Collected()
    node.create_rpc(topic, lambda request: asked(request) or echo(request), compression="zlib")

    assert peer.call(topic, FIELDS, compressed=True).data == FIELDS
    assert asked.first == FIELDS


@works(Row.RPC_CLIENT, FROM_PEER, "0.13.2")
def test_a_compressed_request_of_the_peer_is_answered_unexpected(
    peer: Released, node: Node, topic: str
) -> None:
    asked = Collected()
    node.create_rpc(topic, lambda request: asked(request) or echo(request))

    assert peer.call(topic, FIELDS, compressed=True).data == FIELDS
    assert asked.first == FIELDS


@works(Row.RPC_SERVICE, FROM_PEER)
def test_a_plain_request_of_the_peer_is_answered_plainly_whatever_the_service_writes_to_ours(
    peer: Released, node: Node, new_client: NewClient, topic: str
) -> None:
    asked = Collected()
    node.create_rpc(
        topic,
        lambda request: asked(request) or echo(request),
        compression="zlib",
        serializer=MessagePackSerializer,
    )

    assert peer.call(topic, FIELDS).data == FIELDS
    assert new_client(topic).call(FIELDS) == FIELDS
    assert asked.items == [FIELDS] * 2


# ---- the release is not set to it, or ours is not ----


@fault(Row.PUBSUB_SENDER, TO_PEER, "0.6.3", on=REDIS)
def test_a_compressed_message_ends_a_subscriber_of_0_6_3(
    peer: Released, node: Node, topic: str
) -> None:
    """A subscriber dies of a compressed message, and receives nothing any more."""
    got, others = peer.subscribe(topic), peer.subscribe(f"other_{topic}")

    node.create_publisher(topic, compression="zlib").publish({"count": 1})
    eventually(lambda: "UnicodeDecodeError" in peer.log, lambda: peer.log)
    node.create_publisher(topic).publish({"count": 2})
    node.create_publisher(f"other_{topic}").publish({"count": 3})

    assert others.first.data == {"count": 3}
    assert got.items == []


@fault(Row.PUBSUB_SENDER, TO_PEER, "0.6.3", on=MQTT)
@fault(Row.PUBSUB_SENDER, TO_PEER, "0.13.2", on=WRAPPING)
def test_a_compressed_message_is_dropped_that_the_peer_does_not_expect(
    peer: Released, node: Node, topic: str
) -> None:
    """A subscriber that expects no compressed message drops it, and goes on."""
    got = peer.subscribe(topic)

    node.create_publisher(topic, compression="zlib").publish({"count": 1})
    node.create_publisher(topic).publish({"count": 2})

    assert got.first == Received("dict", {"count": 2}, None)


@fault(Row.PUBSUB_SENDER, TO_PEER, "0.6.3", "0.13.2", on=AMQP)
def test_a_compressed_message_is_an_empty_one_to_the_peer_that_does_not_expect_it(
    peer: Released, node: Node, topic: str
) -> None:
    """A subscriber that expects no compressed message is given an empty one, or of nothing but
    defaults, and goes on."""
    typed, plain = peer.subscribe(topic, typed=True), peer.subscribe(topic)

    node.create_publisher(topic, compression="zlib").publish({"count": 1})
    node.create_publisher(topic).publish({"count": 2})

    assert plain.wait(2) == [Received("dict", data, None) for data in ({}, {"count": 2})]
    messages = [Reading(), Reading(count=2)]
    assert [found.data for found in typed.wait(2)] == [message.as_dict() for message in messages]


@fault(Row.PUBSUB_READER, TO_PEER, "0.13.2", on=REDIS)
def test_0_13_2_drops_a_message_where_it_expects_a_compressed_one(
    peer: Released, node: Node, topic: str
) -> None:
    """A subscriber that expects compressed messages drops any other together with its connection,
    and loses what comes until that is back."""
    got = peer.subscribe(topic, compressed=True)

    with peer.watch.subscribed(topic):
        node.create_publisher(topic).publish({"count": 1})
    node.create_publisher(topic, compression="zlib").publish({"count": 2})

    assert got.first == Received("dict", {"count": 2}, None)


@fault(Row.PUBSUB_READER, TO_PEER, "0.13.2", on=(*MQTT, *AMQP))
def test_a_message_ends_a_subscriber_of_0_13_2_that_expects_a_compressed_one(
    peer: Released, node: Node, topic: str
) -> None:
    """A subscriber that expects compressed messages dies of any other, and receives nothing any
    more."""
    got, others = peer.subscribe(topic, compressed=True), peer.subscribe(f"other_{topic}")

    node.create_publisher(topic).publish({"count": 1})
    eventually(lambda: "incorrect header check" in peer.log, lambda: peer.log)
    node.create_publisher(topic, compression="zlib").publish({"count": 2})
    node.create_publisher(f"other_{topic}").publish({"count": 3})

    assert others.first.data == {"count": 3}
    assert got.items == []


@fault(Row.RPC_CLIENT, TO_PEER, "0.6.3", on=WRAPPING)
def test_a_compressed_request_ends_a_service_of_0_6_3(
    peer: Released, new_client: NewClient, topic: str
) -> None:
    """A service dies of a compressed request, and answers nobody any more."""
    asked = peer.serve(topic)

    for compression in ("zlib", None):
        with pytest.raises(RPCTimeout):
            new_client(topic, compression=compression).call({}, timeout=SHORT)

    assert asked.items == []


@fault(Row.RPC_CLIENT, TO_PEER, "0.6.3", on=AMQP)
def test_a_compressed_request_is_an_empty_one_and_ends_a_service_of_0_6_3(
    peer: Released, new_client: NewClient, topic: str
) -> None:
    """A service answers a compressed request with an empty response, works on an empty request
    instead, and dies of answering that, too."""
    asked = peer.serve(topic)

    assert new_client(topic, compression="zlib").call({"count": 1}) == {}
    assert asked.first == Received("dict", {}, None)
    eventually(lambda: "unknown delivery tag" in peer.log, lambda: peer.log)


@fault(Row.RPC_CLIENT, TO_PEER, "0.13.2", on=WRAPPING)
def test_a_service_of_0_13_2_drops_a_compressed_request_that_it_does_not_expect(
    peer: Released, new_client: NewClient, topic: str
) -> None:
    """A service that expects no compressed request drops it, and goes on; the call times out."""
    peer.serve(topic)

    with pytest.raises(RPCTimeout):
        new_client(topic, compression="zlib").call({}, timeout=SHORT)

    assert new_client(topic).call({"count": 1}) == {"count": 1}


@fault(Row.RPC_BOTH, TO_PEER, "0.13.2", on=AMQP)
def test_a_service_of_0_13_2_cannot_read_the_compressed_requests_that_it_is_set_to(
    peer: Released, new_client: NewClient, topic: str
) -> None:
    """A service drops a compressed request, whatever it is set to, and the call times out; of five
    of them it dies."""
    assert_dies_of_five_compressed_requests(peer, new_client, topic, compressed=True)


@fault(Row.RPC_CLIENT, TO_PEER, "0.13.2", on=AMQP)
def test_a_service_of_0_13_2_cannot_read_compressed_requests(
    peer: Released, new_client: NewClient, topic: str
) -> None:
    """A service drops a compressed request, whatever it is set to, and the call times out; of five
    of them it dies."""
    assert_dies_of_five_compressed_requests(peer, new_client, topic, compressed=False)


def assert_dies_of_five_compressed_requests(
    peer: Released, new_client: NewClient, topic: str, *, compressed: bool
) -> None:
    asked = peer.serve(topic, compressed=compressed)
    packing, plain = (new_client(topic, compression=how) for how in ("zlib", None))

    for number in range(5):
        assert plain.call({"count": number}) == {"count": number}
        with pytest.raises(RPCTimeout):
            packing.call({}, timeout=SHORT)
    with pytest.raises(RPCTimeout):
        plain.call({"count": 5}, timeout=SHORT)

    assert [found.data for found in asked.items] == [{"count": number} for number in range(5)]


@works(Row.RPC_SERVICE, TO_PEER, "0.13.2", on=AMQP)
def test_a_service_of_0_13_2_answers_a_plain_request_with_a_compressed_response(
    peer: Released, new_client: NewClient, topic: str
) -> None:
    peer.serve(topic, compressed=True)

    assert new_client(topic).call(FIELDS) == FIELDS


@fault(Row.RPC_SERVICE, TO_PEER, "0.13.2", on=WRAPPING)
def test_a_request_ends_a_service_of_0_13_2_that_expects_a_compressed_one(
    peer: Released, new_client: NewClient, topic: str
) -> None:
    """A service that expects compressed requests dies of any other, and answers nobody any more."""
    asked = peer.serve(topic, compressed=True)

    for compression in (None, "zlib"):
        with pytest.raises(RPCTimeout):
            new_client(topic, compression=compression).call({}, timeout=SHORT)

    assert asked.items == []
