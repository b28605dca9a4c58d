"""FastStream on Redis channels or MQTT topics, typed by pydantic, on uvloop.

Its callbacks are coroutine functions: that is its best face, it hands plain ones to threads. Each
message is published by itself, as with everybody else; on Redis, a program that collects messages
itself and sends a hundred in one pipeline gets five times the rate, and their delay. On MQTT it
speaks version 5, as it comes and as its calls need; with 3.1.1 it publishes half as fast again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
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


# The class, and what it needs. On Redis it takes a connection per subscription and per call, and
# fails beyond a hundred.
BROKERS: dict[str, tuple[str, dict[str, int]]] = {
    "redis": ("RedisBroker", {"max_connections": 1000}),
    "mqtt": ("MQTTBroker", {}),
}


class FastStream:
    """All endpoints are those of one broker object."""

    def __init__(self, url: str) -> None:
        scheme = urlsplit(url).scheme
        name, options = BROKERS[scheme]
        kind = getattr(import_module(f"faststream.{scheme}"), name)
        self._broker = kind(url, logger=None, **options)
        self._asks = scheme == "mqtt"
        self._is_running = False

    async def start(self) -> None:
        await self._broker.start()
        self._is_running = True

    def message(self, blob: bytes | None) -> Any:
        return Sonar() if blob is None else blob

    def publisher(self, topic: str, *, blob: bool) -> Callable[[Any], Awaitable[object]]:
        publisher = self._broker.publisher(topic)
        return publisher.publish

    async def flush(self) -> None:
        """On Redis publish() waits for the broker's answer; on MQTT at QoS 1 alone."""
        if self._asks:
            await self._broker.publish(b"", "bench_asked", qos=1)

    async def subscribe(
        self, topics: Sequence[str], on_message: Callable[[Any], None], *, blob: bool
    ) -> None:
        async def note(msg: Sonar) -> None:
            on_message(msg)

        async def note_blob(msg: bytes) -> None:
            on_message(msg)

        for topic in topics:
            subscriber = self._broker.subscriber(topic)
            subscriber(note_blob if blob else note)
            if self._is_running:
                await subscriber.start()

    def serve(self, name: str) -> None:
        self._broker.subscriber(name)(add)

    def caller(self, name: str) -> Callable[[int, int], Awaitable[int]]:
        request = self._broker.request

        async def call(a: int, b: int) -> int:
            reply = await request(Request(a=a, b=b), name, timeout=CALL_TIMEOUT)
            return Response.model_validate(await reply.decode()).c

        return call


if __name__ == "__main__":
    main(FastStream)
