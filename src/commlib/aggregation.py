"""Topics that are made from other topics: messages go through functions and are published again.

A function takes the data of a message, a dict, and returns another one. What it raises, or returns
instead, is logged, and the message goes to the next function as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from commlib._topics import check_pattern, check_topic
from commlib.aio._endpoint import Params
from commlib.node import Node
from commlib.pubsub import Publisher

__all__ = ["TopicAggregator", "TopicMessageProcessor"]

Processor = Callable[[dict[str, Any]], Any]

log = logging.getLogger("commlib.aggregation")


class _Processing:
    """A node that publishes on one topic what functions make of others.

    ``start()`` runs it until a signal or ``stop()``; ``run()`` returns at once.
    """

    def __init__(
        self, broker_params: Params, output_topic: str, topics: Mapping[str, Sequence[Processor]]
    ) -> None:
        self.broker_params = broker_params
        self.output_topic = check_topic(output_topic, "output_topic")
        for topic in topics:
            check_pattern(topic)
        name = type(self).__name__
        self.node = Node(name, connection_params=broker_params, heartbeats=False)
        self.pub: Publisher[dict[str, Any]] | None = None
        """Made when it is run: a publisher connects at once."""
        for topic, processors in topics.items():
            self.node.create_psubscriber(topic, partial(self._process, processors))

    @property
    def log(self) -> logging.Logger:
        return log

    def run(self) -> None:
        """Begin, and return when the broker has confirmed the topics."""
        self._make_publisher()
        self.node.run()

    def start(self) -> None:
        """Run until SIGINT, SIGTERM or ``stop()``."""
        self._make_publisher()
        self.node.run_forever()

    def _make_publisher(self) -> None:
        if self.pub is None:
            self.pub = self.node.create_publisher(self.output_topic, dict[str, Any])

    def stop(self) -> None:
        """Take nothing more and leave; idempotent."""
        self.node.stop()

    def _process(self, processors: Sequence[Processor], payload: Any, topic: str) -> None:
        assert self.pub is not None, "it is made before anything is received"
        if topic == self.output_topic:
            return  # a pattern may match that as well
        for processor in processors:
            try:
                result = processor(payload)
            except Exception as exc:  # it is the program's own function
                log.error("%s: a processor failed: %r", topic, exc)
                continue
            if not isinstance(result, dict):
                log.warning("%s: a processor returned %s, no dict", topic, type(result).__name__)
                continue
            payload = result
            self.pub.publish(payload)


class TopicMessageProcessor(_Processing):
    """Publishes on one topic what ``data_processors`` make of each message of another.

    ``input_topic`` may be a pattern. The functions are called one after another, each with what the
    one before has returned, and what each of them returns is published.
    """

    def __init__(
        self,
        broker_params: Params,
        input_topic: str,
        output_topic: str,
        data_processors: Sequence[Processor] | None = None,
    ) -> None:
        self.input_topic = input_topic
        self.data_processors = list(data_processors or ())
        super().__init__(broker_params, output_topic, {input_topic: self.data_processors})


class TopicAggregator(_Processing):
    """Publishes on one topic what ``data_processors`` make of the messages of many.

    They are given by topic, a topic or pattern as in ``input_topics``, and called as those of a
    ``TopicMessageProcessor``. Of a topic without any nothing is published.
    """

    def __init__(
        self,
        broker_params: Params,
        input_topics: Sequence[str],
        output_topic: str,
        data_processors: Mapping[str, Sequence[Processor]] | None = None,
    ) -> None:
        self.input_topics = list(input_topics)
        self.data_processors = dict(data_processors or {})
        topics = {topic: self.data_processors.get(topic, ()) for topic in input_topics}
        super().__init__(broker_params, output_topic, topics)
