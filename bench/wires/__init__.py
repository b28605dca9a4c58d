"""The protocols of the brokers as the limit speaks them: by codecs in C or by hand, on one socket.

A `Wire` publishes, subscribes and serves on an ``asyncio.Protocol``; an exchange calls by a
blocking socket. A further broker is a module of this package and an entry in `WIRES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol
from urllib.parse import urlsplit

from bench.wires.link import Exchange, Link, OnMessage, Reply
from bench.wires.mqtt import MqttWire
from bench.wires.redis import RedisWire


class Wire(Protocol):
    """What a broker's protocol must say for itself."""

    link: Link

    def __init__(self, url: str, on_message: OnMessage = ...) -> None: ...

    def framer(self, topic: str) -> Callable[[bytes], bytes]:
        """Makes the bytes that publish a payload on this topic."""
        ...

    def flush(self, published: int) -> None:
        """Return when the broker has taken so many messages in all."""

    def subscribe(self, topics: Sequence[str]) -> None:
        """Return when the broker has confirmed all of them."""

    @staticmethod
    def serve(url: str, name: str, reply: Reply) -> None:
        """Answer requests on the loop, on a connection of their own."""

    @staticmethod
    def exchange(url: str, name: str) -> Exchange:
        """Calls that service by a blocking socket, in the caller's own thread."""
        ...


WIRES: dict[str, type[Wire]] = {"redis": RedisWire, "mqtt": MqttWire}


def wire_of(url: str) -> type[Wire]:
    """The protocol of this broker."""
    return WIRES[urlsplit(url).scheme]
