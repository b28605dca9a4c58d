"""The methods of AMQP 0-9-1 that set up connections, channels, queues and consumers. Pure.

Each function writes one whole frame. Source: AMQP 0-9-1, section 1 of the reference and sections
4.2.2 to 4.2.4 of the specification; RabbitMQ's extensions (rabbitmq.com/extensions).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from msgspec import Struct

from commlib.transports._amqp_bytes import (
    Malformed,
    long,
    read_long,
    read_short,
    read_table,
    short,
    table,
    u16,
    u32,
    u64,
)

PUBLISHING, REPLIES, CALLS, TOPICS, SETUP, CONFIRMED, LASTING = range(1, 8)
"""The channels. A channel is closed for an error on it, so each purpose has one of its own.

Services have those that follow, and the last one where there are no lasting subscriptions.
"""
PROTOCOL = b"AMQP\x00\x00\x09\x01"
"""What a client says first, and a broker that speaks another version answers."""
METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
"""Types of frames."""
END = 0xCE
AROUND = 8
"""Bytes of a frame around its payload: type, channel, size, end."""
MIN_FRAME = 4096
"""Frames of this size every broker takes."""
BEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"


def _id(klass: int, method: int) -> bytes:
    return u16.pack(klass) + u16.pack(method)


START, START_OK = _id(10, 10), _id(10, 11)
TUNE, TUNE_OK = _id(10, 30), _id(10, 31)
OPEN, OPEN_OK = _id(10, 40), _id(10, 41)
CLOSE, CLOSE_OK = _id(10, 50), _id(10, 51)
BLOCKED, UNBLOCKED = _id(10, 60), _id(10, 61)
CHANNEL_OPEN, CHANNEL_OPEN_OK = _id(20, 10), _id(20, 11)
CHANNEL_FLOW, CHANNEL_FLOW_OK = _id(20, 20), _id(20, 21)
CHANNEL_CLOSE, CHANNEL_CLOSE_OK = _id(20, 40), _id(20, 41)
EXCHANGE_DECLARE = _id(40, 10)
QUEUE_DECLARE, QUEUE_DECLARE_OK, QUEUE_BIND = _id(50, 10), _id(50, 11), _id(50, 20)
QUEUE_DELETE, QUEUE_UNBIND = _id(50, 40), _id(50, 50)
QOS, CONSUME = _id(60, 10), _id(60, 20)
CANCEL = _id(60, 30)
PUBLISH, RETURN, DELIVER = _id(60, 40), _id(60, 50), _id(60, 60)
ACK, NACK = _id(60, 80), _id(60, 120)
SELECT = _id(85, 10)

PLAIN, EXTERNAL = "PLAIN", "EXTERNAL"
"""Ways to log in: with a password, and with the certificate of the TLS connection."""

CAPABILITIES = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "publisher_confirms": True,
}


def method(channel: int, kind: bytes, arguments: bytes = b"") -> bytes:
    """A method as a frame."""
    return b"\x01%b%b%b%b\xce" % (
        *(u16.pack(channel), u32.pack(len(kind) + len(arguments))),
        *(kind, arguments),
    )


# ---- the connection ----


def read_mechanisms(arguments: bytes) -> list[str]:
    """The ways to log in that the broker knows, from what it says first. Raises Malformed."""
    _, at = read_table(arguments, 2)
    mechanisms, _ = read_long(arguments, at)
    return str(mechanisms, "utf8", "replace").split()


def start_ok(mechanism: str, user: str, password: str, client: Mapping[str, Any]) -> bytes:
    """Log in; ``client`` says who we are."""
    response = b"\0%b\0%b" % (user.encode(), password.encode()) if mechanism == PLAIN else b""
    properties = table({**client, "capabilities": CAPABILITIES})
    return method(
        0, START_OK, b"%b%b%b%b" % (properties, short(mechanism), long(response), short("en_US"))
    )


class Tuning(Struct):
    """The bounds of a connection; 0 is none. ``heartbeat`` in seconds."""

    channels: int
    frame: int
    heartbeat: int


def read_tune(arguments: bytes) -> Tuning:
    """What the broker asks for."""
    if len(arguments) < 8:
        raise Malformed("a tuning that is cut off")
    channels, frame = u16.unpack_from(arguments)[0], u32.unpack_from(arguments, 2)[0]
    return Tuning(channels, frame, u16.unpack_from(arguments, 6)[0])


def tune_ok(tuning: Tuning) -> bytes:
    """What holds."""
    bounds = u16.pack(tuning.channels) + u32.pack(tuning.frame) + u16.pack(tuning.heartbeat)
    return method(0, TUNE_OK, bounds)


def open_vhost(vhost: str) -> bytes:
    """Choose the virtual host."""
    return method(0, OPEN, short(vhost) + b"\0\0")


class Closing(Struct):
    """Why the broker closes a channel or the connection, and for which method of ours."""

    code: int
    text: str
    method: bytes


def read_close(arguments: bytes) -> Closing:
    """Raises Malformed."""
    if len(arguments) < 3:
        raise Malformed("a goodbye that is cut off")
    text, at = read_short(arguments, 2)
    return Closing(u16.unpack_from(arguments)[0], text, arguments[at : at + 4])


def is_answer(kind: bytes, question: bytes) -> bool:
    """Whether a method is what a broker answers to a frame of ours."""
    return kind[:3] == question[7:10] and kind[3] == question[10] + 1


def is_consume(question: bytes) -> bool:
    """Whether a frame of ours is one that ``consume`` makes."""
    return question[7:11] == CONSUME


def consumed(question: bytes) -> str:
    """The name of the queue in a frame that ``consume`` has made."""
    return read_short(question, 13)[0]


def is_consumer_of(arguments: bytes, question: bytes) -> bool:
    """Whether Consume-Ok with these arguments is about the consumer that a frame of ours began."""
    tag = 14 + question[13]  # behind two bytes that mean nothing, and the name of the queue
    return arguments == question[tag : tag + 1 + question[tag]]


FAREWELL = method(0, CLOSE, u16.pack(200) + short("") + b"\0\0\0\0")


# ---- channels, queues, consumers ----


def open_channel(channel: int) -> bytes:
    """Open a channel."""
    return method(channel, CHANNEL_OPEN, b"\0")


PASSIVE, DURABLE, EXCLUSIVE, AUTO_DELETE = 1, 2, 4, 8
"""Of a queue: only look whether it is there; survives a restart; is for this connection alone;
is deleted with its last consumer. An exchange has the first two."""


def declare_exchange(channel: int, name: str, kind: str, flags: int) -> bytes:
    """Make an exchange, or look whether it is there."""
    what = b"\0\0%b%b%c%b" % (short(name), short(kind), flags, table({}))
    return method(channel, EXCHANGE_DECLARE, what)


def declare_queue(channel: int, name: str, flags: int, arguments: Mapping[str, Any]) -> bytes:
    """Make a queue; without a name the broker gives it one, which it tells."""
    what = b"\0\0%b%c%b" % (short(name), flags, table(arguments))
    return method(channel, QUEUE_DECLARE, what)


class Declared(NamedTuple):
    """A queue that was made: its name, how many messages wait there, and how many consumers."""

    queue: str
    waiting: int
    consumers: int


def read_declared(arguments: bytes) -> Declared:
    """What the broker says of a queue. Raises Malformed."""
    queue, at = read_short(arguments, 0)
    if len(arguments) < at + 8:
        raise Malformed("a queue that is cut off")
    waiting, consumers = u32.unpack_from(arguments, at)[0], u32.unpack_from(arguments, at + 4)[0]
    return Declared(queue, waiting, consumers)


def read_routing_key(where: bytes) -> str:
    """The key of a delivery: ``where`` is its exchange and that."""
    _, at = read_short(where, 0)
    return read_short(where, at)[0]


def bind(channel: int, queue: str, exchange: str, key: str) -> bytes:
    """Let messages of an exchange come to a queue."""
    what = b"\0\0%b%b%b\0%b" % (short(queue), short(exchange), short(key), table({}))
    return method(channel, QUEUE_BIND, what)


def unbind(channel: int, queue: str, exchange: str, key: str) -> bytes:
    """End that."""
    what = b"\0\0%b%b%b%b" % (short(queue), short(exchange), short(key), table({}))
    return method(channel, QUEUE_UNBIND, what)


def qos(channel: int, prefetch: int) -> bytes:
    """So many unacknowledged messages may the next consumers of this channel have; 0: any."""
    return method(channel, QOS, u32.pack(0) + u16.pack(min(prefetch, 0xFFFF)) + b"\0")


def delete_queue(channel: int, name: str) -> bytes:
    """Delete a queue that has neither consumers nor messages; else that is an error."""
    return method(channel, QUEUE_DELETE, b"\0\0%b\x03" % short(name))


def delete_whole(channel: int, name: str) -> bytes:
    """Delete a queue with all that is in it; no error if there is none."""
    return method(channel, QUEUE_DELETE, b"\0\0%b\0" % short(name))


NO_ACK, ALONE = 2, 4
"""Of a consumer: what is handed over counts as done; no other one may be there beside it."""


def consume(channel: int, queue: str, tag: str, flags: int) -> bytes:
    """Be handed what comes to a queue, marked with this tag."""
    what = b"\0\0%b%b%c%b" % (short(queue), short(tag), flags, table({}))
    return method(channel, CONSUME, what)


def cancel(channel: int, tag: str) -> bytes:
    """Be handed nothing more."""
    return method(channel, CANCEL, short(tag) + b"\0")


def ack(channel: int, tag: int) -> bytes:
    """A message was worked off."""
    return method(channel, ACK, u64.pack(tag) + b"\0")


def ack_all(channel: int, tag: int) -> bytes:
    """All messages up to this one were worked off."""
    return method(channel, ACK, u64.pack(tag) + b"\1")


def give_back(channel: int, tag: int) -> bytes:
    """A message was not worked off: it goes back to where it was in its queue."""
    return method(channel, NACK, u64.pack(tag) + b"\2")


def select(channel: int) -> bytes:
    """Ask for confirmations of what is published on this channel."""
    return method(channel, SELECT, b"\0")
