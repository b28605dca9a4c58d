"""AMQP as the limit speaks it, asking of RabbitMQ all that a call of ours asks.

A request is mandatory, ends with its time-out, and says in its headers who has sent it and which
one it is. The queue is there for whoever serves after this one, which is sent so many ahead, and
acknowledges each with its reply. What a call takes beyond the limit here, it takes RabbitMQ; what
one of ours takes beyond this, it takes the two programs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from struct import pack

from bench.messages import read_bare_sonar
from bench.roles import CALL_TIMEOUT
from bench.wires.amqp import (
    ANSWERS,
    BASIC,
    CONTENT_ENCODING,
    CONTENT_TYPE,
    REPLY_TO,
    TIMESTAMP,
    AmqpWire,
    consume,
    content,
    declare,
    method,
    parted,
    publishing,
    short,
)

# Section 4.2.6.1 of the specification, as those of `bench.wires.amqp`.
HEADERS, CORRELATION_ID, EXPIRATION = 1 << 13, 1 << 10, 1 << 8
MANDATORY = b"\x01"
NEEDS_ACK = b"\x00"
DURABLE_AND_AUTO_DELETE = b"\x0a"
EXPIRES_MS = 600_000  # that the queue stays without a consumer
PREFETCH = 64  # requests that are sent ahead; ours has as many as it has workers
ORIGIN = "8cfc34a9"
KINDS = short("application/json") + short("utf8")


def _table(*fields: bytes) -> bytes:
    raw = b"".join(fields)
    return pack("!I", len(raw)) + raw


def _timestamp() -> bytes:
    return pack("!Q", int(time.time() * 1000))


def _requests(name: str) -> Callable[[bytes], bytes]:
    publish, numbers = publishing("", name, MANDATORY), count()
    told = CONTENT_TYPE | CONTENT_ENCODING | HEADERS | CORRELATION_ID | REPLY_TO
    start = pack("!H", told | EXPIRATION | TIMESTAMP) + KINDS
    origin = short("origin") + b"S" + pack("!I", len(ORIGIN)) + ORIGIN.encode()
    way = short(ANSWERS) + short(str(int(CALL_TIMEOUT * 1000)))

    def frame(data: bytes) -> bytes:
        number = next(numbers)
        headers = _table(origin, short("seq") + b"l" + pack("!q", number))
        call = short(f"{ORIGIN}-{number:x}")
        return publish + content(start + headers + call + way + _timestamp(), data)

    return frame


def _reply(properties: bytes, data: bytes) -> bytes:
    """The frames of a reply to a request with these properties."""
    flags = CONTENT_TYPE | CONTENT_ENCODING | CORRELATION_ID | TIMESTAMP
    at = 2 + len(KINDS)
    at += 4 + int.from_bytes(properties[at : at + 4])
    begin, at = at, at + 1 + properties[at]
    call = properties[begin:at]
    reply_to = properties[at + 1 : at + 1 + properties[at]].decode()
    answer = content(pack("!H", flags) + KINDS + call + _timestamp(), data)
    return publishing("", reply_to) + answer


class AskingAmqpWire(AmqpWire):
    """The same, but for calls."""

    @staticmethod
    def requests(name: str) -> Callable[[bytes], bytes]:
        return _requests(name)

    @staticmethod
    def serve(url: str, name: str) -> None:
        tags = count(1)  # as the broker counts what it delivers on a channel

        def take(message: bytes) -> None:
            properties, request = parted(message)
            read_bare_sonar(request)
            acknowledged = method(BASIC, 80, pack("!QB", next(tags), 0))
            wire.link.send(acknowledged + _reply(properties, request))

        wire = AmqpWire(url, take, whole=True)
        expires = _table(short("x-expires") + b"l" + pack("!q", EXPIRES_MS))
        wire.ask(declare(name, DURABLE_AND_AUTO_DELETE, expires))
        wire.ask(method(BASIC, 10, pack("!IHB", 0, PREFETCH, 0)))
        wire.ask(consume(name, NEEDS_ACK))
