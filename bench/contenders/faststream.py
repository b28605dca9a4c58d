"""FastStream on Redis channels, MQTT topics or AMQP's topic exchange, typed by pydantic, on uvloop.

Its callbacks are coroutine functions: that is its best face, it hands plain ones to threads. Each
message is published by itself, as with everybody else; on Redis, a program that collects messages
itself and sends a hundred in one pipeline gets five times the rate, and their delay. On MQTT it
speaks version 5, as it comes and as its calls need; with 3.1.1 it publishes half as fast again. On
AMQP nothing is confirmed, acknowledged or sent back, as elsewhere; as it comes, all of it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from os import urandom
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel

from bench.roles import CALL_TIMEOUT
from bench.roles_aio import main


class Sonar(BaseModel):
    """Three floats."""

    distance: float = 0.001
    horizontal_fov: float = 30.0
    vertical_fov: float = 14.0


class Request(BaseModel):
    """What to add."""

    a: int = 0
    b: int = 0


class Response(BaseModel):
    """What it makes."""

    c: int = 0


async def add(request: Request) -> Response:
    """The service."""
    return Response(c=request.a + request.b)


class FastStream(ABC):
    """All endpoints are those of one broker object."""

    def __init__(self, url: str) -> None:
        self._broker = self._new_broker(url)
        self._is_running = False

    @abstractmethod
    def _new_broker(self, url: str) -> Any: ...

    @abstractmethod
    async def flush(self) -> None: ...

    def _subscriber(self, topic: str) -> Any:
        return self._broker.subscriber(topic)

    def _service(self, name: str) -> Any:
        return self._broker.subscriber(name)

    async def start(self) -> None:
        await self._broker.start()
        self._is_running = True

    def message(self, blob: bytes | None) -> Any:
        return Sonar() if blob is None else blob

    def publisher(self, topic: str, *, blob: bool) -> Callable[[Any], Awaitable[object]]:
        publisher = self._broker.publisher(topic)
        return publisher.publish

    async def subscribe(
        self, topics: Sequence[str], on_message: Callable[[Any], None], *, blob: bool
    ) -> None:
        async def note(msg: Sonar) -> None:
            on_message(msg)

        async def note_blob(msg: bytes) -> None:
            on_message(msg)

        for topic in topics:
            subscriber = self._subscriber(topic)
            subscriber(note_blob if blob else note)
            if self._is_running:
                await subscriber.start()

    def serve(self, name: str) -> None:
        self._service(name)(add)

    def caller(self, name: str) -> Callable[[int, int], Awaitable[int]]:
        request = self._broker.request

        async def call(a: int, b: int) -> int:
            reply = await request(Request(a=a, b=b), name, timeout=CALL_TIMEOUT)
            return Response.model_validate(await reply.decode()).c

        return call


class OnRedis(FastStream):
    """It takes a connection per subscription and per call, and fails beyond a hundred."""

    def _new_broker(self, url: str) -> Any:
        from faststream.redis import RedisBroker  # what it imports is measured

        return RedisBroker(url, logger=None, max_connections=1000)

    async def flush(self) -> None:
        """Nothing to do: publish() waits for the broker's answer."""


class OnMqtt(FastStream):
    """publish() waits for the broker's answer at QoS 1 alone."""

    def _new_broker(self, url: str) -> Any:
        from faststream.mqtt import MQTTBroker

        return MQTTBroker(url, logger=None)

    async def flush(self) -> None:
        await self._broker.publish(b"", "bench_asked", qos=1)


class OnRabbit(FastStream):
    """A topic is a routing key here, and each subscription a queue; all is at most once."""

    def _new_broker(self, url: str) -> Any:
        from faststream import AckPolicy, rabbit

        self._queue = rabbit.RabbitQueue
        self._topics = rabbit.RabbitExchange("amq.topic", rabbit.ExchangeType.TOPIC, declare=False)
        return rabbit.RabbitBroker(
            url,
            logger=None,
            default_channel=rabbit.Channel(publisher_confirms=False),
            ack_policy=AckPolicy.ACK_FIRST,
        )

    def publisher(self, topic: str, *, blob: bool) -> Callable[[Any], Awaitable[object]]:
        publisher = self._broker.publisher(topic, self._topics, mandatory=False)
        return publisher.publish

    async def flush(self) -> None:
        exchange = await self._broker.declare_exchange(self._topics)
        await exchange.channel.set_qos()  # answered after all that was published there

    def _subscriber(self, topic: str) -> Any:
        name = f"{topic}_{urandom(4).hex()}"
        queue = self._queue(name, routing_key=topic, exclusive=True, auto_delete=True)
        return self._broker.subscriber(queue, self._topics)

    def _service(self, name: str) -> Any:
        return self._broker.subscriber(self._queue(name, exclusive=True, auto_delete=True))


KINDS = {"redis": OnRedis, "mqtt": OnMqtt, "amqp": OnRabbit}

if __name__ == "__main__":
    main(lambda url: KINDS[urlsplit(url).scheme](url))
