"""A peer that never heard of commlib: it publishes, subscribes, calls and serves with pika."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, Self
from urllib.parse import unquote, urlsplit

import pika

from collected import DEADLINE, Collected

Properties = pika.BasicProperties


class Heard(NamedTuple):
    """What a plain peer was sent."""

    topic: str
    body: bytes
    properties: Any


def connect(url: str) -> Any:
    """A connection of pika's."""
    place = urlsplit(url)
    user = pika.PlainCredentials(
        unquote(place.username or "guest"), unquote(place.password or "guest")
    )
    vhost = unquote(place.path[1:]) or "/"
    return pika.BlockingConnection(
        pika.ConnectionParameters(place.hostname, place.port, vhost, user)
    )


class PikaPeer:
    """One connection, for the thread of the test, and some more that wait; ``close`` ends all."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._started = ExitStack()
        self.connection = connect(url)
        self.channel = self.connection.channel()

    def publish(
        self,
        topic: str,
        body: bytes | str,
        properties: Any = None,
        *,
        exchange: str = "amq.topic",
    ) -> None:
        """Publish; returns when the broker has it."""
        channel = self.connection.channel()
        channel.confirm_delivery()
        channel.basic_publish(exchange, topic, body, properties)
        channel.close()

    def call(self, queue: str, body: bytes | str, **properties: Any) -> Heard:
        """A call as the tutorial of RabbitMQ makes it, with a queue of its own for the answer."""
        channel = self.connection.channel()
        answers = channel.queue_declare("", exclusive=True).method.queue
        about = Properties(**{"reply_to": answers, "correlation_id": "c7", **properties})
        channel.basic_publish("", queue, body, about)
        try:
            return next(_arrivals(channel, answers))
        finally:
            channel.cancel()
            channel.close()

    def subscribe(self, *keys: str, exchange: str = "amq.topic") -> Collected:
        """Collect what is published from now on, as ``Heard``."""
        return self._started.enter_context(self._subscribed(keys, exchange))

    @contextmanager
    def _subscribed(self, keys: tuple[str, ...], exchange: str) -> Iterator[Collected]:
        collected = Collected()

        def prepare(channel: Any) -> None:
            queue = channel.queue_declare("", exclusive=True).method.queue
            for key in keys:
                channel.queue_bind(queue, exchange, key)
            channel.basic_consume(
                queue, lambda _, how, about, body: collected(Heard(how.routing_key, body, about))
            )

        with self._consuming(prepare):
            yield collected

    def serve(self, queue: str, answer: Callable[[bytes, Any], bytes], **options: Any) -> Collected:
        """A service as the tutorial has it; what it is asked, as ``Heard``."""
        asked = Collected()

        def serve(channel: Any, how: Any, about: Any, body: bytes) -> None:
            asked(Heard(queue, body, about))
            reply = answer(body, about)  # it may change what is beside it
            said = Properties(correlation_id=about.correlation_id)
            channel.basic_publish("", about.reply_to, reply, said)
            channel.basic_ack(how.delivery_tag)

        def prepare(channel: Any) -> None:
            channel.queue_declare(queue, **options)
            channel.basic_qos(prefetch_count=1)
            channel.basic_consume(queue, serve)

        self._started.enter_context(self._consuming(prepare))
        return asked

    @contextmanager
    def _consuming(self, prepare: Callable[[Any], None]) -> Iterator[None]:
        connection = connect(self.url)
        channel = connection.channel()
        prepare(channel)
        thread = threading.Thread(target=channel.start_consuming, daemon=True)
        thread.start()
        try:
            yield
        finally:
            connection.add_callback_threadsafe(channel.stop_consuming)
            thread.join(DEADLINE)
            connection.close()

    def close(self) -> None:
        self._started.close()
        if self.connection.is_open:
            self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _arrivals(channel: Any, queue: str) -> Iterator[Heard]:
    for how, about, body in channel.consume(queue, auto_ack=True, inactivity_timeout=DEADLINE):
        assert how is not None, "nothing came"
        yield Heard(how.routing_key, body, about)
