"""The protocols of the brokers as the limit speaks them: by codecs in C or by hand, on one socket.

A `Wire` publishes, subscribes and serves on an ``asyncio.Protocol``; a pipe calls by the same, an
exchange by a blocking socket. A further broker is a module of this package and an entry in `WIRES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol
from urllib.parse import urlsplit

from bench.messages import Form
from bench.wires.amqp import AmqpWire
from bench.wires.link import Exchange, Link, OnMessage
from bench.wires.mqtt import MqttWire
from bench.wires.redis import RedisWire


class Wire(Protocol):
    """What a broker's protocol must say for itself."""

    link: Link
    form: ClassVar[Form]

    def __init__(self, url: str, on_message: OnMessage = ..., *, whole: bool = False) -> None:
        """Connect; ``on_message`` is given payloads, or ``whole`` messages."""

    def framer(self, topic: str, *, whole: bool = False) -> Callable[[bytes], bytes]:
        """Makes the bytes that publish a payload on this topic, or again a ``whole`` message."""
        ...

    def flush(self, published: int) -> None:
        """Return when the broker has taken so many messages in all."""

    def subscribe(self, topics: Sequence[str]) -> None:
        """Return when the broker has confirmed all of them."""

    @staticmethod
    def serve(url: str, name: str) -> None:
        """Answer requests with themselves on the loop, on a connection of their own."""

    @staticmethod
    def exchange(url: str, name: str) -> Exchange:
        """Calls that service by a blocking socket, in the caller's own thread."""
        ...

    @staticmethod
    def pipe(url: str, name: str, on_reply: OnMessage) -> Callable[[bytes], None]:
        """Sends it requests that need not wait for each other; replies are taken on the loop."""
        ...


WIRES: dict[str, type[Wire]] = {
    "redis": RedisWire,
    "mqtt": MqttWire,
    "amqp": AmqpWire,
}


def wire_of(url: str) -> type[Wire]:
    """The protocol of this broker."""
    return WIRES[urlsplit(url).scheme]
