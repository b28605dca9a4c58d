"""Topics that are made from other topics: messages go through functions and are published again.

A function takes the data of a message, a dict, and returns another one. What it raises, or returns
instead, is counted and logged once, and the message goes to the next function as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from commlib._params import nearest
from commlib._routes import spelled
from commlib._topics import check_list, check_pattern, check_topic
from commlib.aio._endpoint import Params
from commlib.node import Node
from commlib.pubsub import Publisher

__all__ = ["TopicAggregator", "TopicMessageProcessor"]

Processor = Callable[[dict[str, Any]], Any]

log = logging.getLogger("commlib.aggregation")


class _Processing:
    """A node that publishes on one topic what functions make of others.

    ``start()`` runs it until a signal or ``stop()``; ``run()`` returns at once. Raises ValueError
    for a topic that would be made from itself, TypeError for what are no functions.
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
        self._output = self._spelled(output_topic)
        if self._output in map(self._spelled, topics):
            raise ValueError(
                f"{name}: {output_topic!r} would be made from itself; give the output another topic"
            )
        self.pub: Publisher[dict[str, Any]] | None = None
        """Made when it is run: a publisher connects at once."""
        self._inputs = {
            topic: self.node.create_psubscriber(topic, partial(self._process, topic, processors))
            for topic, processors in topics.items()
        }

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

    def _spelled(self, topic: str) -> str:
        """A topic as the broker knows it, which may take two of ours for one."""
        return spelled(topic, self.node._core.hub.transport.traits.separator)

    def _process(
        self, wanted: str, processors: Sequence[Processor], payload: Any, topic: str
    ) -> None:
        assert self.pub is not None, "it is made before anything is received"
        if self._spelled(topic) == self._output:
            return  # a pattern may match that as well
        for processor in processors:
            try:
                result = processor(payload)
                if not isinstance(result, dict):
                    raise TypeError(f"{processor!r} has returned {type(result).__name__}, no dict")
            except Exception as exc:  # it is the program's own function
                self._inputs[wanted].core.note_failure(exc, topic, f"{processor!r} ")
                continue
            payload = result
            self.pub.publish(payload)


def _checked(topic: str, processors: Iterable[Processor]) -> list[Processor]:
    found = [] if callable(processors) else list(processors)
    if callable(processors) or not all(map(callable, found)):
        raise TypeError(f"the data_processors of {topic!r} are a list of functions")
    return found


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
        self.data_processors = _checked(input_topic, data_processors or ())
        super().__init__(broker_params, output_topic, {input_topic: self.data_processors})


class TopicAggregator(_Processing):
    """Publishes on one topic what ``data_processors`` make of the messages of many.

    They are given by topic, a topic or pattern as in ``input_topics``, and called as those of a
    ``TopicMessageProcessor``. Of a topic without any nothing is published. Raises ValueError for
    those of a topic that is not in ``input_topics``.
    """

    def __init__(
        self,
        broker_params: Params,
        input_topics: Sequence[str],
        output_topic: str,
        data_processors: Mapping[str, Sequence[Processor]] | None = None,
    ) -> None:
        self.input_topics = list(check_list(input_topics, "input_topics"))
        self.data_processors = dict[str, list[Processor]]()
        for topic, processors in (data_processors or {}).items():
            self.data_processors[topic] = _checked(topic, processors)
            if topic not in self.input_topics:
                known = nearest(topic, self.input_topics)
                raise ValueError(f"data_processors: {topic!r} is none of input_topics; {known}")
        topics = {topic: self.data_processors.get(topic, ()) for topic in self.input_topics}
        super().__init__(broker_params, output_topic, topics)
