"""pika by itself, by its BlockingConnection: messages by msgspec, nothing confirmed.

Such a connection belongs to one thread, so what is received has a thread and a connection of its
own, and so has each thread that calls.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import count
from time import monotonic
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic, BasicProperties

from bench.contenders.bare_amqp import ANSWERS, TOPICS, told
from bench.messages import (
    Sonar,
    Sum,
    Terms,
    bare,
    read_bare_sonar,
    read_bare_sum,
    read_bare_terms,
)
from bench.roles import CALL_TIMEOUT, main

OnMessage = Callable[[BlockingChannel, Basic.Deliver, BasicProperties, bytes], object]


class Pika:
    """A connection to publish by, and one for each that consumes."""

    def __init__(self, url: str) -> None:
        self._parameters = pika.URLParameters(url)
        self._own: BlockingChannel | None = None

    def start(self) -> None:
        """Nothing to do: everything works as soon as it is made."""

    def message(self, blob: bytes | None) -> Any:
        return Sonar() if blob is None else blob

    def publisher(self, topic: str, *, blob: bool) -> Callable[[Any], object]:
        if self._own is None:
            self._own = self._channel()
        publish = self._own.basic_publish
        if blob:
            return lambda msg: publish(TOPICS, topic, msg, told(BasicProperties))
        return lambda msg: publish(TOPICS, topic, bare(msg), told(BasicProperties))

    def flush(self) -> None:
        """What the broker answers on the channel, it does after all that was published there."""
        assert self._own is not None, "it has published"
        self._own.basic_qos()

    def subscribe(
        self, topics: Sequence[str], on_message: Callable[[Any], None], *, blob: bool
    ) -> None:
        channel = self._channel()
        queue = channel.queue_declare("", exclusive=True, auto_delete=True).method.queue
        for topic in topics:
            channel.queue_bind(queue, TOPICS, topic)

        def take(_c: object, _m: object, _p: object, body: bytes) -> None:
            on_message(body if blob else read_bare_sonar(body))

        _consume(channel, queue, take)

    def serve(self, name: str) -> None:
        channel = self._channel()
        channel.queue_declare(name, exclusive=True, auto_delete=True)

        def add(_c: object, _m: object, request: BasicProperties, body: bytes) -> None:
            terms = read_bare_terms(body)
            answer = told(BasicProperties, correlation_id=request.correlation_id)
            channel.basic_publish("", request.reply_to, bare(Sum(terms.a + terms.b)), answer)

        _consume(channel, name, add)

    def caller(self, name: str) -> Callable[[int, int], int]:
        place = threading.local()

        def call(a: int, b: int) -> int:
            if not hasattr(place, "client"):
                place.client = Client(self._channel(), name)
            return place.client.call(a, b)

        return call

    def _channel(self) -> BlockingChannel:
        return pika.BlockingConnection(self._parameters).channel()


class Client:
    """What a thread calls by; it waits in the connection itself."""

    def __init__(self, channel: BlockingChannel, name: str) -> None:
        self._channel = channel
        self._name = name
        self._numbers = count()
        self._replies: dict[str, bytes] = {}
        channel.basic_consume(ANSWERS, self._take, auto_ack=True)

    def call(self, a: int, b: int) -> int:
        """Call, and wait for that reply alone."""
        number = str(next(self._numbers))
        request = told(BasicProperties, reply_to=ANSWERS, correlation_id=number)
        self._replies.clear()
        self._channel.basic_publish("", self._name, bare(Terms(a, b)), request)
        deadline = monotonic() + CALL_TIMEOUT
        while number not in self._replies:
            if (left := deadline - monotonic()) <= 0:
                raise TimeoutError(f"no reply within {CALL_TIMEOUT} s")
            self._channel.connection.process_data_events(left)
        return read_bare_sum(self._replies[number]).c

    def _take(self, _c: object, _m: object, reply: BasicProperties, body: bytes) -> None:
        self._replies[reply.correlation_id] = body


def _consume(channel: BlockingChannel, queue: str, take: OnMessage) -> None:
    """On a thread to which the channel belongs from now on."""
    channel.basic_consume(queue, take, auto_ack=True)
    threading.Thread(target=channel.start_consuming, daemon=True).start()


if __name__ == "__main__":
    main(Pika)
