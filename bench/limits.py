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
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count as counting
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter, process_time

from bench import roles
from bench.child import NUMBER_BYTES, Command, Ledger, Tally, answer, expected, order
from bench.messages import Sonar
from bench.roles import GLANCE, as_bytes, topics_of
from bench.wires import wire_of
from bench.wires.link import reply_address

FEED_BYTES = 1_000_000  # handed to the socket at once
LONG = 100_000  # bytes of a payload
ANSWER_SECONDS = 10.0  # for all replies, when the time for calls is up as well


# -- publish and subscribe ------------------------------------------------------------------------


def publish(
    url: str, *, topic: str, count: int, seconds: float, blob: int = 0, begin_at: int = 0
) -> None:
    """Publish so many messages, for no longer than so many seconds."""
    wire, msg = wire_of(url)(url), Sonar()
    rest = bytes(blob - NUMBER_BYTES) if blob else b""
    answer(ready=True)
    order()
    # A long payload is not worth gathering with others.
    send = wire.link.send_at_once if blob >= LONG else wire.link.send
    frame, write = wire.framer(topic), wire.form.write
    begin, cpu = perf_counter(), process_time()
    end, sent = begin + seconds, 0
    while sent < count and (sent % GLANCE or perf_counter() < end):
        if blob:
            send(frame(as_bytes(begin_at + sent) + rest))
        else:
            msg.distance = float(begin_at + sent)
            send(frame(write(msg)))
        sent += 1
    wire.flush(sent)
    wall, cpu = perf_counter() - begin, process_time() - cpu
    answer(count=sent, rate=sent / wall, cpu_us=cpu / sent * 1e6)


def receive(url: str, *, topic: str, topics: int = 1, blob: int = 0) -> None:
    """Receive on so many topics; the order is how many messages, and how often each number."""
    tally, kind = Tally(), wire_of(url)
    note, read = tally.note, kind.form.read

    def note_decoded(data: bytes) -> None:
        note(read(data))

    kind(url, tally.note_blob if blob else note_decoded).subscribe(topics_of(topic, topics))
    answer(ready=True)
    sent, copies = expected(tally)
    tally.settle(sent)
    answer(**tally.figures(sent, copies))


class Paced:
    """As a face of a contender, for messages at a fixed rate: no thread waits for another."""

    def __init__(self, url: str) -> None:
        self._wire, self._url = wire_of(url)(url), url
        self._sent = 0

    def start(self) -> None:
        """Nothing to do: everything works as soon as it is made."""

    def message(self, blob: bytes | None) -> Sonar:
        return Sonar()

    def publisher(self, topic: str, *, blob: bool) -> Callable[[Sonar], object]:
        send, frame = self._wire.link.send_at_once, self._wire.framer(topic)
        write = self._wire.form.write

        def publish(msg: Sonar) -> None:
            self._sent += 1
            send(frame(write(msg)))

        return publish

    def flush(self) -> None:
        self._wire.flush(self._sent)

    def subscribe(
        self, topics: Sequence[str], on_message: Callable[[Sonar], object], *, blob: bool
    ) -> None:
        kind = wire_of(self._url)
        kind(self._url, lambda data: on_message(kind.form.read(data))).subscribe(topics)


def pace(url: str, *, topic: str) -> None:
    """Publish at a fixed rate."""
    roles.pace(Paced(url), topic=topic)


def delays(url: str, *, topic: str, file: str) -> None:
    """Receive what is published so."""
    roles.delays(Paced(url), topic=topic, file=file)


def record(url: str, *, topic: str, file: str) -> None:
    """Write down what is published; the order is how many messages to expect."""
    tally, payloads = Tally(), list[bytes]()

    def take(data: bytes) -> None:
        payloads.append(data)
        tally.count_one(data)

    wire_of(url)(url, take, whole=True).subscribe([topic])
    answer(ready=True)
    tally.settle(int(order()[0]))
    with Path(file).open("wb") as out:
        for data in payloads:
            out.write(struct.pack("!I", len(data)) + data)
    answer(count=len(payloads))


def feed(url: str, *, topic: str, file: str, count: int, topics: int = 1, busy: int = 1) -> None:
    """Publish so many messages on the last ``busy`` of so many topics: one on each, then the next.

    All of those get the same recorded ones, so their numbers count by topic, as a publisher's do.
    Where more are fed than were recorded the numbers begin anew, and count as duplicates.
    """
    wire = wire_of(url)(url)
    framers = [wire.framer(name, whole=True) for name in topics_of(topic, topics)[-busy:]]
    addressed = (frame(data) for data in cycle(_recorded(Path(file))) for frame in framers)
    frames = list(islice(addressed, count))
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


def call(url: str, *, name: str, at_once: int, count: int, seconds: float) -> None:
    """Call one after another, or with so many under way: in each case, as is quickest."""
    call = _one_after_another if at_once == 1 else partial(_at_once, at_once)
    answer(**call(url, name, lambda: Ledger(seconds, count)))


def _one_after_another(url: str, name: str, begin: Callable[[], Ledger]) -> dict[str, object]:
    """By a blocking socket in the caller's own thread: the floor of a call's latency."""
    wire, reply_to = wire_of(url), reply_address()
    exchange, (write, read) = wire.exchange(url, name), wire.form
    answer(ready=True)
    order()
    ledger, msg = begin(), Sonar()
    while ledger.is_open:
        msg.distance += 1.0
        sent = perf_counter()
        reply = read(exchange(write(msg, reply_to)))
        ledger.note(sent, int(msg.distance), int(reply.distance))
    return ledger.figures()


def _at_once(many: int, url: str, name: str, begin: Callable[[], Ledger]) -> dict[str, object]:
    """On the loop, each reply followed by the next request: no thread is woken for any of them."""
    wire, reply_to = wire_of(url), reply_address()
    write, read = wire.form
    numbers, sent, done = counting(1), dict[int, float](), threading.Event()

    def ask() -> None:
        number = next(numbers)
        sent[number] = perf_counter()
        send(write(Sonar(float(number)), reply_to))

    def take(data: bytes) -> None:
        number = int(read(data).distance)
        ledger.note(sent.pop(number), number, number)
        if ledger.is_open:
            ask()
        elif not sent:
            done.set()

    send = wire.pipe(url, name, take)
    answer(ready=True)
    order()
    ledger = begin()
    for _ in range(many):
        ask()
    if not done.wait(ANSWER_SECONDS):
        ledger.note_failure(TimeoutError(f"no reply to {len(sent)} calls"))
    return ledger.figures()


ROLES: dict[str, Callable[..., None]] = {
    role.__name__: role for role in (publish, receive, pace, delays, record, feed, serve, call)
}


def main() -> None:
    """Play the role that the command line names."""
    command = Command(sys.argv[1:])
    ROLES[command.role](command.url, **command.options)


if __name__ == "__main__":
    main()
