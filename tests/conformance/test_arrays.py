"""Arrays and other long payloads, on every broker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from zlib import crc32

import numpy as np
import pytest

from brokers import Broker
from collected import Collected, eventually
from commlib.bridges import TopicBridge
from commlib.msg import ActionMessage, NDArray, PubSubMessage, RPCMessage
from commlib.node import Node
from commlib.serializer import BytesSerializer, MessagePackSerializer, Serializer
from commlib.signing import SigningKey, TrustedKeys

MakeNode = Callable[..., Node]
IMAGE = (np.arange(480 * 640 * 3) % 251).astype("u1").reshape(480, 640, 3)
ARRAYS = [
    np.array(2.5),
    np.zeros((0, 4), ">i2"),
    np.asfortranarray(np.arange(12, dtype="<f4").reshape(3, 4)),
    np.arange(20, dtype=">u8")[::-3],
    np.array(["one", "two"]),
    np.array([np.nan, np.inf, -0.0]),
]


class Shot(PubSubMessage):
    camera: str = ""
    pixels: NDArray = NDArray()


class Blur(RPCMessage):
    Request = NDArray
    Response = NDArray


class Scan(ActionMessage):
    class Goal(ActionMessage.Goal):
        area: NDArray

    class Result(ActionMessage.Result):
        heights: NDArray

    class Feedback(ActionMessage.Feedback):
        row: NDArray


class Liar(Serializer):
    """Says that it has written an array which has other bytes."""

    CONTENT_TYPE = 'application/octet-stream; dtype="<f4"; shape="3"'

    @staticmethod
    def serialize(data: Any) -> bytes:
        return bytes(data)


def same(found: Any, array: Any) -> bool:
    """Whether it is this array, to the byte."""
    found = np.asarray(found)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    return bool(found.tobytes() == array.tobytes())


def test_arrays_of_all_kinds_arrive_as_they_were(node: Node, topic: str) -> None:
    got, plain, raw = Collected(), Collected(), Collected()
    node.create_subscriber(topic, got, NDArray)
    node.create_subscriber(topic, plain)
    node.create_subscriber(topic, raw, bytes)
    publisher = node.create_publisher(topic, NDArray)

    for array in [*ARRAYS, IMAGE]:
        publisher.publish(array)  # type: ignore[arg-type] # as ``NDArray.of`` makes one of it

    for found, array in zip(got.wait(7), [*ARRAYS, IMAGE], strict=True):
        assert same(found, array)
        assert not found.array.flags.writeable
    assert [each["shape"] for each in plain.wait(7)][-1] == [480, 640, 3]
    assert raw.wait(7) == [array.tobytes() for array in [*ARRAYS, IMAGE]]


def test_images_arrive_one_after_the_other_from_several_threads(
    node: Node, make_node: MakeNode, topic: str
) -> None:
    got = Collected()
    make_node().create_subscriber(topic, got, NDArray)
    publisher = node.create_publisher(topic, NDArray)

    def film(camera: int) -> None:
        image = IMAGE.copy()
        for number in range(8):
            image[0, 0, :2] = camera, number
            publisher.publish(NDArray.of(image))
            image[:] = 0  # it was taken as it was
            image[:] = IMAGE

    threads = [threading.Thread(target=film, args=(camera,)) for camera in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    found = [image.array for image in got.wait(24)]
    assert all(np.array_equal(image[1:], IMAGE[1:]) for image in found)
    for camera in range(3):
        assert [int(i[0, 0, 1]) for i in found if i[0, 0, 0] == camera] == list(range(8))


@pytest.mark.parametrize("size", [30_000, 70_000, 140_000, 1_000_000, 5_000_000])
def test_bytes_of_any_length_arrive_between_others(
    node: Node, make_node: MakeNode, topic: str, size: int
) -> None:
    got = Collected()
    make_node().create_subscriber(topic, lambda data: got((len(data), crc32(data))), bytes)
    publisher = node.create_publisher(topic, bytes, serializer=BytesSerializer)
    sent = [bytes([n]) * length for n in range(2) for length in (3, size, 0, size + 1)]

    for payload in sent:
        publisher.publish(payload)

    assert got.wait(8) == [(len(payload), crc32(payload)) for payload in sent]


@pytest.mark.parametrize("compression", [None, "zlib", "zstd"])
def test_a_signed_array_arrives_compressed_or_not(
    make_node: MakeNode, topic: str, compression: Any
) -> None:
    key = SigningKey.generate("camera")
    got = Collected()
    robot = make_node(verify=TrustedKeys({"camera": key.public_key}))
    subscriber = robot.create_subscriber(topic, got, NDArray)
    publisher = make_node(sign=key).create_publisher(topic, NDArray, compression=compression)

    publisher.publish(NDArray.of(IMAGE))

    assert same(got.first, IMAGE)
    assert subscriber.stats.refused == 0


def test_an_array_comes_through_bridges_in_both_directions(
    broker: Broker, node: Node, make_node: MakeNode, topic: str
) -> None:
    got, far, elsewhere = Collected(), Collected(), f"memory://{topic}"
    node.create_subscriber(f"{topic}.back", got, NDArray)
    make_node(elsewhere).create_subscriber("far", far, NDArray)
    out = TopicBridge(None, topic, "far", broker.url, elsewhere)
    back = TopicBridge(None, "far", f"{topic}.back", elsewhere, broker.url, NDArray)
    with back, out:
        node.create_publisher(topic, NDArray).publish(NDArray.of(IMAGE))
        assert same(far.first, IMAGE)
        assert same(got.first, IMAGE)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_arrays_may_be_called_with_and_answered(
    node: Node, make_node: MakeNode, topic: str, compression: Any
) -> None:
    def blur(request: NDArray) -> NDArray:
        return NDArray.of(request.array // 2)

    node.create_rpc(topic, blur, Blur, compression=compression)
    client = make_node().create_rpc_client(topic, Blur)

    for array in (IMAGE, np.arange(3)):
        assert same(client.call(NDArray.of(array)), array // 2)


@pytest.mark.parametrize("serializer", [None, MessagePackSerializer])
def test_messages_have_arrays_in_their_fields(
    node: Node, make_node: MakeNode, topic: str, serializer: Any
) -> None:
    got, pixels = Collected(), IMAGE[:50]
    node.create_subscriber(topic, got, Shot)
    publisher = make_node(serializer=serializer).create_publisher(topic, Shot)

    publisher.publish(Shot("front", NDArray.of(pixels)))

    assert got.first.camera == "front"
    assert same(got.first.pixels, pixels)


@pytest.mark.parametrize("serializer", [None, MessagePackSerializer])
def test_so_have_the_messages_of_an_action(
    make_node: MakeNode, topic: str, serializer: Any
) -> None:
    def scan(goal: Any) -> Scan.Result:
        area = goal.data.area.array
        goal.send_feedback(Scan.Feedback(NDArray.of(area[0])))
        return Scan.Result(NDArray.of(area * 2))

    area, rows = np.arange(6, dtype=">f4").reshape(2, 3), Collected()
    node = make_node(serializer=serializer)
    node.create_action(topic, Scan, scan)
    client = node.create_action_client(topic, Scan, on_feedback=rows)

    goal = client.send_goal(Scan.Goal(NDArray.of(area)))

    assert np.array_equal(goal.result(10).heights.array, area * 2)
    assert same(rows.first.row, area[0])


def test_what_is_not_the_array_that_it_says_is_refused_and_counted(node: Node, topic: str) -> None:
    got, refused = Collected(), Collected()
    subscriber = node.create_subscriber(topic, got, NDArray, on_error=refused)

    node.create_publisher(topic, bytes, serializer=Liar).publish(b"no floats")
    node.create_publisher(topic, NDArray).publish(NDArray.of(IMAGE))

    assert same(got.first, IMAGE)
    error, where = refused.first
    assert "has 12 bytes, not 9" in str(error)
    assert where == topic
    eventually(lambda: subscriber.stats.refused == 1)
