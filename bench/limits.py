"""How fast Python can go on this machine, with this broker, today: what every rate is a share of.

A bare ``asyncio.Protocol`` with the codecs that are written in C or Rust and the envelope of
commlib-py, or what it has instead, and nothing else: no reconnect, no lanes, no API. `bench.wires`
has the protocols, `bench.messages` the messages.

The roles are those of a contender. Two more serve the measurements of all of them: ``record`` takes
down what a contender publishes, and ``feed`` publishes it again, as fast as it goes.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter, process_time

from bench.child import Command, Ledger, Tally, answer, order
from bench.messages import Sonar
from bench.roles import BLOB, GLANCE, topics_of
from bench.wires import wire_of
from bench.wires.link import reply_address

FEED_BYTES = 1_000_000  # handed to the socket at once


# -- publish and subscribe ------------------------------------------------------------------------


def publish(url: str, *, topic: str, count: int, seconds: int, blob: int = 0) -> None:
    """Publish so many messages, for no longer than so many seconds."""
    wire, msg = wire_of(url)(url), Sonar()
    raw = bytes(BLOB) if blob else b""
    answer(ready=True)
    order()
    send, frame, write = wire.link.send, wire.framer(topic), wire.form.write
    begin, cpu = perf_counter(), process_time()
    end, sent = begin + seconds, 0
    while sent < count and (sent % GLANCE or perf_counter() < end):
        msg.distance = float(sent)
        send(frame(raw or write(msg)))
        sent += 1
    wire.flush(sent)
    wall, cpu = perf_counter() - begin, process_time() - cpu
    answer(count=sent, rate=sent / wall, cpu_us=cpu / sent * 1e6)


def receive(url: str, *, topic: str, topics: int = 1, blob: int = 0) -> None:
    """Receive on so many topics; the order is how many messages to expect."""
    tally, kind = Tally(), wire_of(url)
    note, read = tally.note, kind.form.read

    def note_decoded(data: bytes) -> None:
        note(read(data))

    kind(url, note if blob else note_decoded).subscribe(topics_of(topic, topics))
    answer(ready=True)
    sent = int(order()[0])
    tally.settle(sent)
    answer(**tally.figures(sent))


def record(url: str, *, topic: str, file: str) -> None:
    """Write down what is published; the order is how many messages to expect."""
    tally, payloads = Tally(), list[bytes]()

    def take(data: bytes) -> None:
        payloads.append(data)
        tally.note(data)

    wire_of(url)(url, take, whole=True).subscribe([topic])
    answer(ready=True)
    tally.settle(int(order()[0]))
    with Path(file).open("wb") as out:
        for data in payloads:
            out.write(struct.pack("!I", len(data)) + data)
    answer(count=len(payloads))


def feed(url: str, *, topic: str, file: str, count: int, topics: int = 1, busy: int = 1) -> None:
    """Publish so many of the recorded messages, on the last ``busy`` of so many topics in turn."""
    wire = wire_of(url)(url)
    framers = [wire.framer(name, whole=True) for name in topics_of(topic, topics)[-busy:]]
    recorded = zip(cycle(framers), cycle(_recorded(Path(file))), strict=False)
    frames = [frame(data) for frame, data in islice(recorded, count)]
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


# -- calls ----------------------------------------------------------------------------------------


def serve(url: str, *, name: str) -> None:
    """Answer requests with themselves, on the loop."""
    wire_of(url).serve(url, name)
    answer(ready=True)
    order()


def call(url: str, *, name: str, at_once: int, count: int, seconds: int) -> None:
    """Call by a blocking socket in the caller's own thread: the floor of a call's latency."""
    assert at_once == 1, "there is one socket"
    wire, reply_to = wire_of(url), reply_address()
    exchange, (write, read) = wire.exchange(url, name), wire.form
    answer(ready=True)
    order()
    ledger = Ledger(seconds, count)
    msg = Sonar()
    while ledger.is_open:
        msg.distance += 1.0
        sent = perf_counter()
        reply = read(exchange(write(msg, reply_to)))
        ledger.note(sent, int(msg.distance), int(reply.distance))
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
