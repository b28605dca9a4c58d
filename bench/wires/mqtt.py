"""MQTT 3.1.1, as the limit speaks it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import ClassVar

from bench.messages import ENVELOPED, Form, read_sonar
from bench.wires.link import (
    Exchange,
    OnMessage,
    Questions,
    ignore,
    open_link,
    open_socket,
    received,
    reply_address,
)

# MQTT 3.1.1, section 2.2.1. CONNECT has a clean session and 60 s to live (section 3.1).
CONNECT, PUBLISH, SUBSCRIBE, PINGREQ = 0x10, 0x30, 0x82, 0xC0
CONNECT_HEAD = b"\x00\x04MQTT\x04\x02\x00\x3c"
QOS_0 = b"\x00"
PACKET_ID = b"\x00\x01"  # any will do, for one question is asked at a time

_clients = count()  # of this process: a name of its own for each


class MqttReader:
    """Cuts packets out of the stream: messages at QoS 0, and what the broker answers."""

    def __init__(self, on_message: OnMessage, on_answer: OnMessage) -> None:
        self._on_message = on_message
        self._on_answer = on_answer
        self._parts: list[bytes] = []  # of a packet that is not all there
        self._missing = 0

    def feed(self, data: bytes) -> None:
        """Take what was received."""
        if self._parts:
            self._parts.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = b"".join(self._parts)
            self._parts = []
        at, end, on_message = 0, len(data), self._on_message
        while end - at >= 2:
            size, start = data[at + 1], at + 2
            if size > 0x7F:
                size, start = _read_length(data, at + 1)
            stop = start + size
            if stop > end:
                self._missing = stop - end
                break
            if data[at] == PUBLISH:
                on_message(data[start + 2 + (data[start] << 8 | data[start + 1]) : stop])
            else:
                self._on_answer(data[at:stop])
            at = stop
        else:
            self._missing = 1
        if at < end:
            self._parts.append(data[at:])


def _read_length(data: bytes, at: int) -> tuple[int, int]:
    """A variable byte integer, and where it ends; if it is cut off, as if more were missing."""
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return 1, at


def _length(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def _text(value: str) -> bytes:
    raw = value.encode()
    return len(raw).to_bytes(2, "big") + raw


def _packet(kind: int, body: bytes = b"") -> bytes:
    return bytes((kind,)) + _length(len(body)) + body


def _connect() -> bytes:
    return _packet(CONNECT, CONNECT_HEAD + _text(f"limit{os.getpid()}-{next(_clients)}"))


def _subscribe(topic: str) -> bytes:
    return _packet(SUBSCRIBE, PACKET_ID + _text(topic) + QOS_0)


def _framer(topic: str) -> Callable[[bytes], bytes]:
    name = _text(topic)

    def frame(data: bytes) -> bytes:
        size = len(name) + len(data)
        if 0x7F < size < 0x4000:  # two bytes of length, as nearly all have
            return b"\x30%c%c%b%b" % (size & 0x7F | 0x80, size >> 7, name, data)
        return b"\x30%b%b%b" % (_length(size), name, data)

    return frame


class MqttWire:
    """MQTT 3.1.1 at QoS 0, by hand. A message has nothing beside its payload."""

    form: ClassVar[Form] = ENVELOPED

    def __init__(self, url: str, on_message: OnMessage = ignore, *, whole: bool = False) -> None:
        self._questions = Questions()
        self._asked = 0
        self.link = open_link(url, MqttReader(on_message, self._questions.note).feed)
        self._ask(_connect())

    def framer(self, topic: str, *, whole: bool = False) -> Callable[[bytes], bytes]:
        return _framer(topic)

    def flush(self, published: int) -> None:
        self._ask(_packet(PINGREQ))  # the broker has read everything before it answers

    def subscribe(self, topics: Sequence[str]) -> None:
        for topic in topics:
            self._ask(_subscribe(topic))

    def _ask(self, packet: bytes) -> None:
        self._asked += 1
        self.link.send(packet)
        self._questions.wait(self._asked)

    @staticmethod
    def serve(url: str, name: str) -> None:
        def take(request: bytes) -> None:
            wire.link.send(_framer(read_sonar(request).header.reply_to)(request))

        wire = MqttWire(url, take)
        wire.subscribe([name])

    @staticmethod
    def exchange(url: str, name: str) -> Exchange:
        sock, heard = open_socket(url), deque[bytes]()
        reader = MqttReader(heard.append, heard.append)

        def ask(packet: bytes) -> bytes:
            sock.sendall(packet)
            while not heard:
                reader.feed(received(sock))
            return heard.popleft()

        ask(_connect())
        ask(_subscribe(reply_address()))
        frame = _framer(name)
        return lambda request: ask(frame(request))

    @staticmethod
    def pipe(url: str, name: str, on_reply: OnMessage) -> Callable[[bytes], None]:
        wire, frame = MqttWire(url, on_reply), _framer(name)
        wire.subscribe([reply_address()])
        return lambda request: wire.link.send(frame(request))
