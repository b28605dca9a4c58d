"""Serializers and compression, from end to end, on every broker."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from collected import Collected, eventually
from commlib.node import Node
from commlib.serializer import (
    BytesSerializer,
    JSONSerializer,
    MessagePackSerializer,
    Serializer,
    TextSerializer,
)
from messages import AddTwoInts, Pose, Sonar

MakeNode = Callable[..., Node]
FAR = Sonar(-1.5, -3, "σ", [1.0, math.inf], Pose(1.0), [Pose()], {"a": -1}, b"\xff\x00", None)


class Own(Serializer):
    """A serializer of the program's own."""

    CONTENT_TYPE = "application/x-own"

    @staticmethod
    def serialize(data: Any) -> bytes:
        return b"own:" + json.dumps(data).encode()

    @staticmethod
    def deserialize(data: str | bytes) -> Any:
        assert isinstance(data, bytes)
        assert data.startswith(b"own:")
        return json.loads(data[4:])


SERIALIZERS = [
    *(JSONSerializer, MessagePackSerializer, BytesSerializer, TextSerializer),
    JSONSerializer(loads=json.loads, dumps=json.dumps),
]


@pytest.mark.parametrize("compression", [None, "zlib", 9, "zstd"])
@pytest.mark.parametrize("envelope", [True, False])
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_who_receives_need_not_know_how_a_message_is_written(
    node: Node, topic: str, serializer: Any, envelope: bool, compression: Any
) -> None:
    got = Collected()
    node.create_subscriber(topic, got, Sonar)
    publisher = node.create_publisher(
        topic, Sonar, serializer=serializer, compression=compression, envelope=envelope
    )

    publisher.publish(FAR)

    assert got.first == FAR


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_client_and_service_may_write_in_different_ways(
    node: Node, make_node: MakeNode, topic: str, serializer: Any, compression: Any
) -> None:
    def add(request: AddTwoInts.Request) -> AddTwoInts.Response:
        return AddTwoInts.Response(c=request.a + request.b)

    node.create_rpc(f"{topic}.plain", add, AddTwoInts)
    node.create_rpc(
        f"{topic}.other", add, AddTwoInts, serializer=serializer, compression=compression
    )
    peer = make_node(serializer=serializer, compression=compression)

    for caller, name in ((peer, "plain"), (peer, "other"), (node, "other")):
        client = caller.create_rpc_client(f"{topic}.{name}", AddTwoInts)
        futures = [client.call_async(AddTwoInts.Request(a=n, b=-2 * n)) for n in range(50)]
        assert [future.result(10).c for future in futures] == [-n for n in range(50)]


def test_a_serializer_of_the_programs_own_is_honoured_both_ways(
    node: Node, make_node: MakeNode, topic: str
) -> None:
    got, refused = Collected(), Collected()
    peer = make_node(serializer=Own)
    peer.create_subscriber(topic, got, Sonar)
    stranger = node.create_subscriber(topic, print, Sonar, on_error=refused)
    peer.create_rpc(f"{topic}.double", lambda request: {"c": request["a"] * 2})

    peer.create_publisher(topic, Sonar).publish(FAR)
    assert got.first == FAR
    node.create_publisher(topic, Sonar).publish(Sonar(2.0))
    assert got.wait(2) == [FAR, Sonar(2.0)]

    assert peer.create_rpc_client(f"{topic}.double").call({"a": 4}) == {"c": 8}
    error, where = refused.first
    assert "application/x-own" in str(error)
    assert where == topic
    eventually(lambda: stranger.stats.refused == 1)


@pytest.mark.parametrize("data", [b"", b"\x00\xff" * 1000, b"123", b'{"a":1}', b"text"])
def test_bytes_arrive_as_they_are(node: Node, topic: str, data: bytes) -> None:
    got, plain = Collected(), Collected()
    node.create_subscriber(topic, got, bytes)
    node.create_subscriber(topic, plain)
    node.create_publisher(topic, bytes, serializer=BytesSerializer).publish(data)
    node.create_publisher(topic, bytes, serializer=MessagePackSerializer).publish(data)
    assert got.wait(2) == plain.wait(2) == [data, data]


def test_text_arrives_as_it_is(node: Node, topic: str) -> None:
    got, plain = Collected(), Collected()
    node.create_subscriber(topic, got, str)
    node.create_subscriber(topic, plain)
    publisher = node.create_publisher(topic, str, serializer=TextSerializer)
    texts = ["", "x compressed?", "123", '{"a": 1}', "σόναρ"]
    for text in texts:
        publisher.publish(text)
    assert got.wait(5) == plain.wait(5) == texts


def test_a_node_says_for_all_its_endpoints_how_they_write(make_node: MakeNode, topic: str) -> None:
    got, raw = Collected(), Collected()
    node = make_node(serializer=MessagePackSerializer, compression="zlib", envelope=False)
    node.create_subscriber(topic, got, Sonar)
    node.create_subscriber(topic, raw)
    node.create_publisher(topic, Sonar).publish(FAR)
    node.create_publisher(topic, Sonar, serializer=JSONSerializer, compression=None).publish(FAR)
    assert got.wait(2) == [FAR, FAR]
    assert [
        bytes(msg["raw"], "ascii") if isinstance(msg["raw"], str) else msg["raw"]
        for msg in raw.wait(2)
    ] == [FAR.raw, b"/wA="]
