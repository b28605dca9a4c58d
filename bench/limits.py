"""How fast Python can go on this machine, with this broker, today: what every rate is a share of.

A bare ``asyncio.Protocol`` with the codecs that are written in C or Rust and the envelope of
commlib-py, and nothing else: no reconnect, no lanes, no API. Per broker it is a `Wire`, which later
ones join in `WIRES`.

The roles are those of a contender. Two more serve the measurements of all of them: ``record`` takes
down what a contender publishes, and ``feed`` publishes it again, as fast as it goes.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Protocol
from urllib.parse import urlsplit

import hiredis
import msgspec

from bench.child import Command, Ledger, Tally, address_of, answer, order
from bench.roles import BLOB, CALL_TIMEOUT, GLANCE, topics_of

OnMessage = Callable[[bytes], object]
PATIENCE = 60.0  # s for the broker to take everything
FEED_BYTES = 1_000_000  # handed to the socket at once
pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command


# -- messages -------------------------------------------------------------------------------------


class Properties(msgspec.Struct):
    """How the data is written."""

    content_type: str = "application/json"
    content_encoding: str = "utf8"


class Header(msgspec.Struct):
    """The envelope's header."""

    timestamp: int
    properties: Properties
    reply_to: str = ""


class Sonar(msgspec.Struct):
    """Three floats."""

    distance: float = 0.001
    horizontal_fov: float = 30.0
    vertical_fov: float = 14.0


class Envelope(msgspec.Struct):
    """What travels."""

    header: Header
    data: Sonar


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Envelope).decode
PROPERTIES = Properties()


def payload(msg: Sonar, reply_to: str = "") -> bytes:
    """A message in its envelope, as bytes."""
    return encode(Envelope(Header(int(time.time() * 1000), PROPERTIES, reply_to), msg))


# -- the connection -------------------------------------------------------------------------------


class Link(asyncio.Protocol):
    """One socket on a loop thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, feed: Callable[[bytes], None]) -> None:
        self._loop = loop
        self._feed = feed
        self._out: deque[bytes] = deque()
        self._is_awake = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport), "it is that of a socket"
        self._transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self._feed(data)

    def send(self, data: bytes) -> None:
        """Append, and wake the loop once per burst; from any thread."""
        self._out.append(data)
        if not self._is_awake:
            self._is_awake = True
            self._loop.call_soon_threadsafe(self._flush)

    def _flush(self) -> None:
        self._is_awake = False  # first: what is appended from now on wakes the loop again
        chunks = []
        while self._out:
            chunks.append(self._out.popleft())
        self._transport.write(b"".join(chunks))


def open_link(url: str, feed: Callable[[bytes], None]) -> Link:
    """A connection to the broker, with a loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    async def connect() -> Link:
        return (await loop.create_connection(lambda: Link(loop, feed), *address_of(url)))[1]

    return asyncio.run_coroutine_threadsafe(connect(), loop).result(5)


class Wire(Protocol):
    """What a broker's protocol must say for itself."""

    link: Link

    def __init__(self, url: str, on_message: OnMessage = ...) -> None: ...

    def frame(self, topic: bytes, data: bytes) -> bytes:
        """The bytes that publish this."""
        ...

    def flush(self, published: int) -> None:
        """Return when the broker has taken so many messages in all."""

    def subscribe(self, topics: Sequence[str]) -> None:
        """Return when the broker has confirmed all of them."""


def _ignore(data: bytes) -> None: ...


class RedisWire:
    """RESP2 by hiredis."""

    def __init__(self, url: str, on_message: OnMessage = _ignore) -> None:
        self._on_message = on_message
        self._reader = hiredis.Reader()
        self._answers = 0
        self._goal = -1
        self._reached = threading.Event()
        self.link = open_link(url, self._feed)

    def _feed(self, data: bytes) -> None:
        reader, on_message = self._reader, self._on_message
        reader.feed(data)
        while (item := reader.gets()) is not False:
            if type(item) is list and item[0] == b"message":
                on_message(item[2])
                continue
            self._answers += 1
            if self._answers == self._goal:
                self._reached.set()

    def frame(self, topic: bytes, data: bytes) -> bytes:
        return pack((b"PUBLISH", topic, data))

    def flush(self, published: int) -> None:
        self._await(published)

    def subscribe(self, topics: Sequence[str]) -> None:
        self.link.send(pack(("SUBSCRIBE", *topics)))
        self._await(len(topics))

    def _await(self, answers: int) -> None:
        self._goal = answers
        if self._answers < answers and not self._reached.wait(PATIENCE):
            raise TimeoutError(f"the broker answered {self._answers} of {answers}")


class MQTTWire:
    """MQTT 3.1.1 at QoS 0, by hand."""

    def __init__(self, url: str, on_message: OnMessage = _ignore) -> None:
        self._on_message = on_message
        self._buffer = bytearray()
        self._answered = threading.Event()
        self.link = open_link(url, self._feed)
        body = _field(b"MQTT") + bytes((4, 2, 0, 60)) + _field(b"limit%d" % os.getpid())
        self._ask(b"\x10" + _varint(len(body)) + body)

    def _feed(self, data: bytes) -> None:
        buffer = self._buffer
        buffer.extend(data)
        pos, end = 0, len(buffer)
        view = memoryview(buffer)
        while end - pos >= 2:
            head, at, shift, length = buffer[pos], pos + 1, 0, 0
            while at < end:
                byte = buffer[at]
                at += 1
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            else:
                break  # the length itself is not all there
            if at + length > end:
                break
            if head & 0xF0 == 0x30:
                size = buffer[at] << 8 | buffer[at + 1]
                self._on_message(view[at + 2 + size : at + length])  # type: ignore[arg-type]
            else:
                self._answered.set()
            pos = at + length
        view.release()
        del buffer[:pos]

    def frame(self, topic: bytes, data: bytes) -> bytes:
        # Dots stand between the words of a topic for Redis, slashes for MQTT.
        name = topic.replace(b".", b"/")
        return b"\x30" + _varint(len(name) + 2 + len(data)) + _field(name) + data

    def flush(self, published: int) -> None:
        self._ask(b"\xc0\x00")  # the broker has read everything before it answers the ping

    def subscribe(self, topics: Sequence[str]) -> None:
        for topic in topics:
            body = b"\x00\x01" + _field(topic.replace(".", "/").encode()) + b"\x00"
            self._ask(b"\x82" + _varint(len(body)) + body)

    def _ask(self, packet: bytes) -> None:
        self._answered.clear()
        self.link.send(packet)
        if not self._answered.wait(PATIENCE):
            raise TimeoutError("the broker does not answer")


def _varint(number: int) -> bytes:
    out = bytearray()
    while True:
        number, byte = number >> 7, number & 127
        out.append(byte | 128 if number else byte)
        if not number:
            return bytes(out)


def _field(text: bytes) -> bytes:
    return len(text).to_bytes(2, "big") + text


WIRES: dict[str, type[Wire]] = {"redis": RedisWire, "mqtt": MQTTWire}


def wire_of(url: str, on_message: OnMessage = _ignore) -> Wire:
    """A connection to this broker."""
    return WIRES[urlsplit(url).scheme](url, on_message)


# -- publish and subscribe ------------------------------------------------------------------------


def publish(url: str, *, topic: str, count: int, seconds: int, blob: int = 0) -> None:
    """Publish so many messages, for no longer than so many seconds."""
    wire, name, msg = wire_of(url), topic.encode(), Sonar()
    raw = bytes(BLOB) if blob else b""
    answer(ready=True)
    order()
    send, frame = wire.link.send, wire.frame
    begin, cpu = perf_counter(), process_time()
    end, sent = begin + seconds, 0
    while sent < count and (sent % GLANCE or perf_counter() < end):
        msg.distance = float(sent)
        send(frame(name, raw or payload(msg)))
        sent += 1
    wire.flush(sent)
    wall, cpu = perf_counter() - begin, process_time() - cpu
    answer(count=sent, rate=sent / wall, cpu_us=cpu / sent * 1e6)


def receive(url: str, *, topic: str, topics: int = 1, blob: int = 0) -> None:
    """Receive on so many topics; the order is how many messages to expect."""
    tally = Tally()
    note = tally.note

    def note_decoded(data: bytes) -> None:
        note(decode(data).data)

    wire_of(url, note if blob else note_decoded).subscribe(topics_of(topic, topics))
    answer(ready=True)
    sent = int(order()[0])
    tally.settle(sent)
    answer(**tally.figures(sent))


def record(url: str, *, topic: str, file: str) -> None:
    """Write down what is published; the order is how many messages to expect."""
    tally, payloads = Tally(), []

    def take(data: bytes) -> None:
        payloads.append(bytes(data))
        tally.note(data)

    wire_of(url, take).subscribe([topic])
    answer(ready=True)
    tally.settle(int(order()[0]))
    with Path(file).open("wb") as out:
        for data in payloads:
            out.write(struct.pack("!I", len(data)) + data)
    answer(count=len(payloads))


def feed(url: str, *, topic: str, file: str, count: int, topics: int = 1, busy: int = 1) -> None:
    """Publish so many of the recorded messages, on the last ``busy`` of so many topics in turn."""
    wire = wire_of(url)
    names = [name.encode() for name in topics_of(topic, topics)[-busy:]]
    recorded = zip(cycle(names), cycle(_recorded(Path(file))), strict=False)
    frames = [wire.frame(name, data) for name, data in islice(recorded, count)]
    bursts = _joined(frames)
    answer(ready=True)
    order()
    begin = perf_counter()
    for burst in bursts:
        wire.link.send(burst)
    wire.flush(count)
    answer(count=count, rate=count / (perf_counter() - begin))


def _recorded(file: Path) -> Iterator[bytes]:
    data, pos = file.read_bytes(), 0
    while pos < len(data):
        (size,) = struct.unpack_from("!I", data, pos)
        yield data[pos + 4 : pos + 4 + size]
        pos += 4 + size


def _joined(frames: list[bytes]) -> list[bytes]:
    """The same in fewer pieces."""
    per_burst = max(1, FEED_BYTES // len(frames[0]))
    return [
        b"".join(frames[begin : begin + per_burst]) for begin in range(0, len(frames), per_burst)
    ]


# -- calls, on Redis ------------------------------------------------------------------------------


def serve(url: str, *, name: str) -> None:
    """Answer requests on the loop, one at a time."""
    reader, take = hiredis.Reader(), pack(("BLPOP", name, 0))

    def feed(data: bytes) -> None:
        reader.feed(data)
        while (item := reader.gets()) is not False:
            if isinstance(item, list):
                link.send(pack((b"RPUSH", decode(item[1]).header.reply_to, item[1])) + take)

    link = open_link(url, feed)
    link.send(pack(("DEL", name)) + take)
    answer(ready=True)
    order()


def call(url: str, *, name: str, at_once: int, count: int, seconds: int) -> None:
    """Call by a blocking socket in the caller's own thread: the floor of a call's latency."""
    assert at_once == 1, "there is one socket"
    sock = socket.create_connection(address_of(url), timeout=CALL_TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reader, reply_to = hiredis.Reader(), f"rpc-{os.getpid()}"
    take = pack((b"BLPOP", reply_to, int(CALL_TIMEOUT)))
    answer(ready=True)
    order()
    ledger = Ledger(seconds, count)
    msg = Sonar()
    while ledger.is_open:
        msg.distance += 1.0
        sent = perf_counter()
        sock.sendall(pack((b"RPUSH", name, payload(msg, reply_to))) + take)
        while not isinstance(item := reader.gets(), list):
            if item is None:
                raise TimeoutError("no reply")
            if item is False:
                reader.feed(sock.recv(65536))
        ledger.note(sent, int(msg.distance), int(decode(item[1]).data.distance))
    answer(**ledger.figures())


ROLES: dict[str, Callable[..., None]] = {
    role.__name__: role for role in (publish, receive, record, feed, serve, call)
}


def main() -> None:
    """Play the role that the command line names."""
    command = Command(sys.argv[1:])
    ROLES[command.role](command.url, **command.options)


if __name__ == "__main__":
    main()
