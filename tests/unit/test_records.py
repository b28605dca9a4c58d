"""What log records about messages say beside their text."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from collected import DEADLINE, Collected, eventually
from commlib._lanes import Bounds
from commlib._packet import PROPERTIES, Header
from commlib.node import Node
from commlib.pubsub import Subscriber
from messages import Sonar
from raw_peer import RawPeer

URL = "memory://records"


@pytest.fixture
def node() -> Iterator[Node]:
    """A running node."""
    with Node("robot", URL) as node:
        yield node


def fields(record: logging.LogRecord) -> tuple[str, str, str]:
    """Node, topic and message."""
    found: Any = record
    return found.commlib_node, found.commlib_topic, found.commlib_message_id


def logged(caplog: pytest.LogCaptureFixture, text: str) -> logging.LogRecord:
    """The one record that says this, as soon as it is there."""
    eventually(lambda: any(text in record.getMessage() for record in caplog.records))
    (found,) = (record for record in caplog.records if text in record.getMessage())
    return found


def fail(msg: Any) -> None:
    raise ValueError("too far")


def send(topic: str, data: Any, origin: str = "abcdefgh", seq: int = 7) -> None:
    """Publish as somebody of this origin."""
    peer = RawPeer(URL)
    peer.publish_message(topic, data, Header(1, PROPERTIES, origin, seq))
    peer.close()


def test_a_callback_that_fails_is_logged_with_node_topic_and_message(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.create_subscriber("a.*", fail)
    send("a.b", 1)
    assert fields(logged(caplog, "too far")) == ("robot", "a.b", "abcdefgh:7")


def test_so_is_a_message_that_is_refused(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    node.create_subscriber("a.b", print, Sonar)
    send("a.b", {"distance": "far"})
    assert fields(logged(caplog, "refused a message")) == ("robot", "a.b", "abcdefgh:7")


def test_what_is_not_known_is_empty(caplog: pytest.LogCaptureFixture) -> None:
    with Subscriber("a.b", fail, conn_params=URL):
        peer = RawPeer(URL)
        peer.publish("a.b", b"1")
        peer.close()
        assert fields(logged(caplog, "too far")) == ("", "a.b", "")


def test_a_service_of_many_names_its_node_too(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    node.create_rpc_server("calculator", {"add": fail})
    future = node.create_rpc_client("calculator.add").call_async({})
    assert future.exception() is not None
    found = fields(logged(caplog, "too far"))
    assert found[:2] == ("robot", "calculator.add")
    origin, _, seq = found[2].partition(":")
    assert origin
    assert seq == "0"


def test_nodes_that_share_a_connection_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    with Node("one", URL, share_connection=True), Node("two", URL, share_connection=True) as two:
        topics = two.create_wsubscriber()
        topics.subscribe("a.b", fail)
        send("a.b", 1)
        assert fields(logged(caplog, "too far"))[0] == "two"


def test_what_is_dropped_is_logged_with_its_topic(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    gate, began = threading.Event(), Collected()

    def hold(msg: Any) -> None:
        began(msg)
        gate.wait(DEADLINE)

    node.create_subscriber("a.b", hold, bounds=Bounds(max_messages=1))
    publisher = node.create_publisher("a.b")
    publisher.publish(0)
    assert began.first == 0
    for number in (1, 2):
        publisher.publish(number)
    record = logged(caplog, "too slow")
    gate.set()
    assert fields(record)[1] == "a.b"
