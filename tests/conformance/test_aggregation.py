"""Topics that are made from other topics, on each broker."""

from __future__ import annotations

from typing import Any

import pytest

from brokers import Broker
from collected import Collected
from commlib.aggregation import TopicMessageProcessor
from commlib.node import Node


def counted(data: dict[str, Any]) -> dict[str, Any]:
    """How often it went through here."""
    return {"n": data["n"] + 1}


@pytest.mark.parametrize(
    ("pattern", "topic", "output"),
    [
        ("{}.*", "{}.in", "{}.out"),
        ("{}/*", "{}/in", "{}/out"),
        ("{}/*", "{}/in", "{}.out"),
        ("{}.*", "{}.in", "{}/out"),
    ],
)
def test_what_is_published_is_not_received_again_whatever_its_notation(
    broker: Broker, node: Node, topic: str, pattern: str, output: str
) -> None:
    name = broker.unique("topic")
    got = Collected()
    node.create_subscriber(output.format(name), got)
    node.run()
    processor = TopicMessageProcessor(
        broker.url, pattern.format(name), output.format(name), [counted]
    )
    processor.run()
    try:
        publisher = node.create_publisher(topic.format(name))
        for n in (0, 10, 20):
            publisher.publish({"n": n})
        assert got.wait(3) == [{"n": 1}, {"n": 11}, {"n": 21}]
    finally:
        processor.stop()
    assert processor.pub is not None
    assert processor.pub.stats.sent == 3
