"""What is too much, too slow or too late: bounded, counted and told, on every broker."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from collected import DEADLINE, Collected, eventually
from commlib.exceptions import RPCRemoteError, SlowConsumer
from commlib.node import Node
from commlib.pubsub import Bounds


class Gate:
    """A callback that waits until it is opened."""

    def __init__(self) -> None:
        self.entered = Collected()
        self.left = Collected()
        self._open = threading.Event()

    def __call__(self, msg: Any) -> None:
        self.entered(msg)
        assert self._open.wait(DEADLINE)
        self.left(msg)

    def open(self) -> None:
        self._open.set()


# ---- too slow ----


def test_a_slow_callback_is_told_of_once_an_episode(
    node: Node, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    gate, errors = Gate(), Collected()
    subscriber = node.create_subscriber(
        topic, gate, bounds=Bounds(max_messages=3), on_error=lambda error, name: errors(error)
    )
    publisher = node.create_publisher(topic)
    publisher.publish(0)
    gate.entered.wait(1)
    for number in range(1, 11):
        publisher.publish(number)
    eventually(lambda: subscriber.stats.dropped == 7)
    gate.open()
    assert gate.left.wait(4) == [0, 8, 9, 10]
    assert [type(error) for error in errors.items] == [SlowConsumer]
    assert topic in str(errors.items[0])
    warnings = [r for r in caplog.records if "too slow" in r.message]
    assert [r.levelno for r in warnings] == [logging.WARNING]


# ---- too many ----


def test_messages_beyond_the_rate_are_refused_and_counted(node: Node, topic: str) -> None:
    got, errors = Collected(), Collected()
    subscriber = node.create_subscriber(
        topic, got, max_rate=0.001, on_error=lambda error, name: errors(str(error))
    )
    publisher = node.create_publisher(topic)
    for number in range(5):
        publisher.publish(number)
    eventually(lambda: subscriber.stats.refused == 4)
    assert got.items == [0]
    assert errors.wait(4) == ["more than 0.001 messages a second"] * 4


def test_requests_beyond_the_rate_are_refused_and_who_asks_is_told(node: Node, topic: str) -> None:
    asked = Collected()
    service = node.create_rpc(topic, asked, max_rate=0.001)
    client = node.create_rpc_client(topic)
    client.call({"n": 1}, timeout=DEADLINE)
    with pytest.raises(RPCRemoteError, match="more than") as caught:
        client.call({"n": 2}, timeout=DEADLINE)
    assert caught.value.type == "TooManyMessages"
    assert asked.items == [{"n": 1}]
    assert service.stats.refused == 1


def test_the_parts_of_a_group_have_their_bounds(node: Node, topic: str) -> None:
    got, errors = Collected(), Collected()
    group = node.create_wsubscriber(max_rate=0.001, on_error=lambda error, name: errors(name))
    group.subscribe(topic, got)
    node.create_rpc_server(topic, {"echo": lambda n: n}, max_rate=0.001)
    publisher = node.create_publisher(topic)
    client = node.create_rpc_client(f"{topic}.echo")
    publisher.publish(1)
    publisher.publish(2)
    assert errors.wait(1) == [topic]
    assert got.items == [1]
    assert client.call(1, timeout=DEADLINE) == 1
    with pytest.raises(RPCRemoteError, match="more than"):
        client.call(2, timeout=DEADLINE)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), "much"])
def test_what_is_no_rate_is_refused_at_once(node: Node, topic: str, rate: Any) -> None:
    with pytest.raises(ValueError, match="max_rate="):
        node.create_subscriber(topic, print, max_rate=rate)
    with pytest.raises(ValueError, match="max_rate="):
        node.create_rpc_server(topic, {"echo": print}, max_rate=rate)


# ---- too late ----


def test_a_callback_is_given_as_much_time_as_its_owner_says(node: Node, topic: str) -> None:
    gate = Gate()
    subscriber = node.create_subscriber(topic, gate, grace=DEADLINE)
    publisher = node.create_publisher(topic)
    for number in range(3):
        publisher.publish(number)
    gate.entered.wait(1)
    eventually(lambda: subscriber.stats.received == 3)
    stopping = threading.Thread(target=subscriber.stop)
    stopping.start()
    gate.open()
    stopping.join(DEADLINE)
    assert gate.left.items == [0, 1, 2]
    assert subscriber.stats.dropped == 0


def test_what_is_left_over_at_the_end_is_counted_and_told(
    make_node: Callable[..., Node], topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    gate, node = Gate(), make_node(grace=0)
    subscriber = node.create_subscriber(topic, gate)
    publisher = node.create_publisher(topic)
    for number in range(3):
        publisher.publish(number)
    gate.entered.wait(1)
    eventually(lambda: subscriber.stats.received == 3)
    subscriber.stop()
    gate.open()
    assert subscriber.stats.dropped == 2
    assert f"{topic}: 2 messages were still waiting when it was stopped" in caplog.text


def test_a_grace_that_is_none_is_refused_at_once(make_node: Callable[..., Node]) -> None:
    with pytest.raises(ValueError, match="grace=-1"):
        make_node(grace=-1)
    with pytest.raises(ValueError, match="grace=nan"):
        make_node().create_subscriber("topic", print, grace=float("nan"))


def test_callbacks_that_come_to_their_end_may_still_publish_and_call(
    node: Node, make_node: Callable[..., Node], topic: str
) -> None:
    gate, got = Gate(), Collected()
    node.create_subscriber(f"{topic}.out", got)
    node.create_rpc(f"{topic}.double", lambda number: 2 * number)
    robot = make_node(grace=DEADLINE)
    publisher = robot.create_publisher(f"{topic}.out")
    client = robot.create_rpc_client(f"{topic}.double")

    def work(number: int) -> None:
        gate(number)
        publisher.publish(client.call(number, timeout=DEADLINE))

    subscriber = robot.create_subscriber(topic, work)
    feed = node.create_publisher(topic)
    for number in range(3):
        feed.publish(number)
    gate.entered.wait(1)
    eventually(lambda: subscriber.stats.received == 3)
    stopping = threading.Thread(target=robot.stop)
    stopping.start()
    gate.open()
    stopping.join(DEADLINE)
    assert got.wait(3) == [0, 2, 4]
    assert subscriber.stats.errors == 0
