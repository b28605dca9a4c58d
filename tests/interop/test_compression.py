"""Compressed messages between ours and released peers, on every broker."""

from __future__ import annotations

from typing import Any

from collected import Collected
from commlib.node import Node
from commlib.serializer import MessagePackSerializer
from interop.cells import FROM_PEER, READS_ENVELOPES, TO_PEER, Row, works
from interop.released import Received, Released
from interop.samples import Echo, Reading, echo, reading, request

FIELDS: dict[str, Any] = {"label": "long " * 1000, "count": -3}


@works(Row.PUBSUB_BOTH, TO_PEER, "0.13.2")
def test_a_compressed_message_is_read_by_the_peer(peer: Released, node: Node, topic: str) -> None:
    got = peer.subscribe(topic, typed=True, compressed=True)
    envelope = READS_ENVELOPES[peer.version]

    node.create_publisher(topic, Reading, compression="zlib", envelope=envelope).publish(
        reading(FIELDS)
    )

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


@works(Row.RPC_BOTH, TO_PEER, "0.13.2")
def test_a_compressed_request_is_answered_by_the_peer(
    peer: Released, node: Node, topic: str
) -> None:
    asked = peer.serve(topic, typed=True, compressed=True)
    client = node.create_rpc_client(topic, Echo, compression="zlib")

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
    node.create_rpc(topic, echo)

    assert peer.call(topic, FIELDS, compressed=True).data == FIELDS


@works(Row.RPC_SERVICE, FROM_PEER)
def test_a_plain_request_of_the_peer_is_answered_plainly_whatever_the_service_writes_to_ours(
    peer: Released, node: Node, topic: str
) -> None:
    node.create_rpc(topic, echo, compression="zlib", serializer=MessagePackSerializer)

    assert peer.call(topic, FIELDS).data == FIELDS
    client = node.create_rpc_client(topic)
    assert client.call(FIELDS) == FIELDS
