"""AMQP 0-9-1, as the limit speaks it: the frames that it needs, by hand, on one channel.

Sections are those of the specification, "Advanced Message Queuing Protocol 0-9-1". A whole message
is here its properties, with two bytes that tell their size, and its payload.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from struct import Struct, pack
from typing import ClassVar
from urllib.parse import urlsplit

from bench.messages import BARE, Form, read_bare_sonar
from bench.wires.link import (
    Exchange,
    OnMessage,
    Questions,
    ignore,
    open_link,
    open_socket,
    received,
)

# Section 4.2.3: a frame is its type, channel, size, payload and end. Section 4.2.6: that of a
# header says which class a message is of, an unused weight, the size of the body, and properties.
METHOD, HEADER, BODY = 1, 2, 3
CHANNEL, CONNECTION = 1, 0
END = b"\xce"
FRAME_HEAD = Struct("!BHI")
HEADER_HEAD = Struct("!HHQ")
SIZE = Struct("!I").unpack_from
BODY_SIZE = Struct("!Q").unpack_from
BASIC = 60
DELIVER = pack("!HH", BASIC, 60)

FRAME_MAX = 131_072  # bytes; what RabbitMQ offers, it takes no more
BODY_MAX = FRAME_MAX - FRAME_HEAD.size - len(END)

# Section 4.2.6.1: a bit for each property that is there, in their order from the highest on.
CONTENT_TYPE, CONTENT_ENCODING, REPLY_TO, TIMESTAMP = 1 << 15, 1 << 14, 1 << 9, 1 << 6
NO_TABLE = bytes(4)  # a table without entries
TOPICS = "amq.topic"  # the exchange
ANSWERS = "amq.rabbitmq.reply-to"  # as a queue, and as the address in a request
EXCLUSIVE_AND_AUTO_DELETE = b"\x0c"
NO_ACK = b"\x02"


def short(text: str) -> bytes:
    raw = text.encode()
    return bytes((len(raw),)) + raw


def _frame(kind: int, payload: bytes, channel: int = CHANNEL) -> bytes:
    return FRAME_HEAD.pack(kind, channel, len(payload)) + payload + END


def method(class_id: int, method_id: int, *arguments: bytes, channel: int = CHANNEL) -> bytes:
    return _frame(METHOD, pack("!HH", class_id, method_id) + b"".join(arguments), channel)


# -- questions: each of these has one answer ------------------------------------------------------


def _greetings(url: str) -> Iterator[bytes]:
    """All from a new connection to an open channel; without heartbeats."""
    parts = urlsplit(url)
    login = f"\0{parts.username or 'guest'}\0{parts.password or 'guest'}".encode()
    secret = pack("!I", len(login)) + login
    yield b"AMQP\x00\x00\x09\x01"
    yield method(10, 11, NO_TABLE, short("PLAIN"), secret, short("en_US"), channel=CONNECTION)
    tune_ok = method(10, 31, pack("!HIH", CHANNEL, FRAME_MAX, 0), channel=CONNECTION)
    yield tune_ok + method(10, 40, short("/"), b"\x00\x00", channel=CONNECTION)
    yield method(20, 10, b"\x00")


def declare(
    queue: str, flags: bytes = EXCLUSIVE_AND_AUTO_DELETE, arguments: bytes = NO_TABLE
) -> bytes:
    return method(50, 10, b"\x00\x00", short(queue), flags, arguments)


def _bind(queue: str, topic: str) -> bytes:
    names = short(queue) + short(TOPICS) + short(topic)
    return method(50, 20, b"\x00\x00", names, b"\x00", NO_TABLE)


def consume(queue: str, flags: bytes = NO_ACK) -> bytes:
    return method(BASIC, 20, b"\x00\x00", short(queue), b"\x00", flags, NO_TABLE)


def _limit_to_nothing() -> bytes:
    """Asks for no limit to what a consumer is sent ahead, which is as it was before."""
    return method(BASIC, 10, bytes(7))


# -- messages -------------------------------------------------------------------------------------


def publishing(exchange: str, routing_key: str, flags: bytes = b"\x00") -> bytes:
    return method(BASIC, 40, b"\x00\x00", short(exchange), short(routing_key), flags)


def _framer(exchange: str, routing_key: str, reply_to: str = "") -> Callable[[bytes], bytes]:
    """The frames of a message, with the properties that commlib-py gives it."""
    publish = publishing(exchange, routing_key)
    flags = CONTENT_TYPE | CONTENT_ENCODING | TIMESTAMP | (REPLY_TO if reply_to else 0)
    told = pack("!H", flags) + short("application/json") + short("utf8")
    if reply_to:
        told += short(reply_to)
    before = publish + FRAME_HEAD.pack(HEADER, CHANNEL, HEADER_HEAD.size + len(told) + 8)
    # All of them but the body's payload in one go: the header frame and the head of the next.
    joined = Struct(f"!{len(before)}sHHQ{len(told)}sQcBHI").pack
    now = time.time

    def frame(data: bytes) -> bytes:
        size, timestamp = len(data), int(now() * 1000)
        if 0 < size <= BODY_MAX:
            head = joined(before, BASIC, 0, size, told, timestamp, END, BODY, CHANNEL, size)
            return b"%b%b\xce" % (head, data)
        return publish + content(told + pack("!Q", timestamp), data)

    return frame


def _copier(exchange: str, routing_key: str) -> Callable[[bytes], bytes]:
    """The frames of a whole message, as somebody else has published it."""
    publish = publishing(exchange, routing_key)

    def frame(message: bytes) -> bytes:
        return publish + content(*parted(message))

    return frame


def content(properties: bytes, data: bytes) -> bytes:
    """The header and as many frames as the body needs."""
    frames = [_frame(HEADER, HEADER_HEAD.pack(BASIC, 0, len(data)) + properties)]
    frames += [
        _frame(BODY, data[begin : begin + BODY_MAX]) for begin in range(0, len(data), BODY_MAX)
    ]
    return b"".join(frames)


def _whole(properties: bytes, data: bytes) -> bytes:
    return pack("!H", len(properties)) + properties + data


def parted(message: bytes) -> tuple[bytes, bytes]:
    """The properties and the payload of a whole message."""
    end = 2 + (message[0] << 8 | message[1])
    return message[2:end], message[end:]


def _reply_to(properties: bytes) -> str:
    """Where a request of the limit wants its reply; it has no property before but these two."""
    at = 2
    for flag in (CONTENT_TYPE, CONTENT_ENCODING):
        if properties[0] << 8 & flag:
            at += 1 + properties[at]
    return properties[at + 1 : at + 1 + properties[at]].decode()


class AmqpReader:
    """Cuts messages out of the stream, and the methods by which the broker answers."""

    def __init__(self, on_message: OnMessage, on_answer: OnMessage, *, whole: bool) -> None:
        self._on_message = on_message
        self._on_answer = on_answer
        self._is_whole = whole
        self._cut = b""  # a frame that is not all there
        self._properties = b""
        self._size = 0  # of the body
        self._parts: list[bytes] = []  # of a body that has several frames
        self._missing = 0

    def feed(self, data: bytes) -> None:
        """Take what was received."""
        if self._cut:
            data = self._cut + data  # at most FRAME_MAX of it are old
        at, end, size_of = 0, len(data), SIZE
        take = self._take if self._is_whole else self._on_message
        while end - at >= 8:  # a frame without a payload has so many
            (size,) = size_of(data, at + 3)
            begin = at + 7
            stop = begin + size
            if stop >= end:
                break
            kind = data[at]
            if kind == METHOD:
                if data[begin : begin + 4] != DELIVER:
                    self._on_answer(data[begin:stop])
            elif kind == HEADER:
                (self._size,) = BODY_SIZE(data, begin + 4)
                if self._is_whole:
                    self._properties = data[begin + HEADER_HEAD.size : stop]
                if not self._size:
                    take(b"")
            elif size == self._size:
                take(data[begin:stop])
            else:
                self._gather(data[begin:stop], take)
            at = stop + 1
        self._cut = data[at:]

    def _gather(self, part: bytes, take: OnMessage) -> None:
        if not self._parts:
            self._missing = self._size
        self._parts.append(part)
        self._missing -= len(part)
        if not self._missing:
            parts, self._parts = self._parts, []
            take(b"".join(parts))

    def _take(self, data: bytes) -> None:
        self._on_message(_whole(self._properties, data))


class AmqpWire:
    """AMQP 0-9-1 as RabbitMQ has it, by hand; nothing is confirmed or acknowledged."""

    form: ClassVar[Form] = BARE

    def __init__(self, url: str, on_message: OnMessage = ignore, *, whole: bool = False) -> None:
        self._questions = Questions()
        self._asked = 0
        self.link = open_link(url, AmqpReader(on_message, self._questions.note, whole=whole).feed)
        for greeting in _greetings(url):
            self.ask(greeting)

    def framer(self, topic: str, *, whole: bool = False) -> Callable[[bytes], bytes]:
        return _copier(TOPICS, topic) if whole else _framer(TOPICS, topic)

    def flush(self, published: int) -> None:
        # The channel has routed everything before it answers, held back by flow control or not.
        self.ask(_limit_to_nothing())

    def subscribe(self, topics: Sequence[str]) -> None:
        queue = f"limit-{os.getpid()}"
        self.ask(declare(queue))
        for topic in topics:
            self.ask(_bind(queue, topic))
        self.ask(consume(queue))

    def ask(self, frames: bytes) -> None:
        self._asked += 1
        self.link.send(frames)
        self._questions.wait(self._asked)

    @staticmethod
    def serve(url: str, name: str) -> None:
        def take(message: bytes) -> None:
            properties, request = parted(message)
            read_bare_sonar(request)  # which it need not, but any service does
            wire.link.send(_framer("", _reply_to(properties))(request))

        wire = AmqpWire(url, take, whole=True)
        wire.ask(declare(name))
        wire.ask(consume(name))

    @staticmethod
    def requests(name: str) -> Callable[[bytes], bytes]:
        """Makes the frames of a request to this service."""
        return _framer("", name, ANSWERS)

    @classmethod
    def exchange(cls, url: str, name: str) -> Exchange:
        sock, heard = open_socket(url), deque[bytes]()
        reader = AmqpReader(heard.append, heard.append, whole=False)

        def ask(frames: bytes) -> bytes:
            sock.sendall(frames)
            while not heard:
                reader.feed(received(sock))
            return heard.popleft()

        for greeting in _greetings(url):
            ask(greeting)
        ask(consume(ANSWERS))
        frame = cls.requests(name)
        return lambda request: ask(frame(request))

    @classmethod
    def pipe(cls, url: str, name: str, on_reply: OnMessage) -> Callable[[bytes], None]:
        wire, frame = cls(url, on_reply), cls.requests(name)
        wire.ask(consume(ANSWERS))
        return lambda request: wire.link.send(frame(request))
