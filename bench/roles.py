"""The roles of a contender with a synchronous face, each written once.

A contender gives a `Face`; `main` plays the role that the command line names. `roles_aio` has the
same for asyncio.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from itertools import count as counting
from struct import Struct
from time import perf_counter, process_time
from typing import Any, Protocol

from bench.child import (
    NUMBER_BYTES,
    Command,
    Delays,
    Ledger,
    Tally,
    answer,
    expected,
    order,
    rest,
)

GLANCE = 64  # messages between two looks at the clock
PROBE_SECONDS = 0.005  # between two messages to a subscriber of which nothing was seen yet
QUIET_SECONDS = 0.3  # after which no more of those are on their way
CALL_TIMEOUT = 2.0  # s
FLUSH_TIMEOUT = 30.0  # s for the broker to take what was published

# s, 50 ms in all: the worker on a slow goal sleeps so long, with feedback in between. Whole ms,
# for an event loop sleeps in those; none comes at once, for released clients need the goal's id.
PAUSES = (0.015, 0.01, 0.01, 0.015)
FEEDBACKS = len(PAUSES) - 1

as_bytes = Struct("=d").pack  # the number of a message, with which a payload begins


class Face(Protocol):
    """What a contender can do. Endpoints made before `start` begin with it, later ones at once."""

    def __init__(self, url: str) -> None: ...

    def start(self) -> None:
        """Return when all endpoints made so far work, as far as the contender can tell."""

    def message(self, blob: bytes | None) -> Any:
        """A message of three floats, the first of which is ``distance``; or of these bytes."""

    def publisher(self, topic: str, *, blob: bool) -> Callable[[Any], object]:
        """Publishes such a message."""
        ...

    def flush(self) -> None:
        """Return when the broker has all that was published."""

    def subscribe(
        self, topics: Sequence[str], on_message: Callable[[Any], None], *, blob: bool
    ) -> None:
        """Have a plain function called with every message, an instance of its class."""

    def serve(self, name: str) -> None:
        """Answer requests with the sum of their two numbers."""

    def caller(self, name: str) -> Callable[[int, int], int]:
        """Calls that service; raises whatever went wrong."""
        ...


class Worker(Face, Protocol):
    """A contender that has actions and bridges as well."""

    def work(self, name: str) -> None:
        """Reach goals at once, with the sum of their two numbers as the result."""

    def sender(self, name: str) -> Callable[[int, int], int]:
        """Sends such a goal and waits for its result; raises whatever went wrong."""
        ...

    def work_slowly(self, name: str) -> None:
        """As `work`, but each goal takes `take_steps`, which gives feedback."""

    def slow_sender(self, name: str) -> Callable[[int, int], tuple[int, int]]:
        """As `sender`, for goals of `work_slowly`; how much feedback came by then as well."""
        ...

    def bridge(self, topic: str, to: str) -> None:
        """Pass messages on to another topic, through a bridge; returns when it works."""


def topics_of(topic: str, many: int) -> list[str]:
    """The names of so many topics; of the only one, the name itself."""
    return [topic] if many == 1 else [f"{topic}_{number}" for number in range(many)]


# -- publish and subscribe ------------------------------------------------------------------------


def publish(
    face: Face, *, topic: str, count: int, seconds: float, blob: int = 0, begin_at: int = 0
) -> None:
    """Publish so many messages, for no longer than so many seconds.

    They are numbered from ``begin_at`` on. ``blob``: payloads of so many bytes instead.
    """
    publish = face.publisher(topic, blob=bool(blob))
    open_connection = face.publisher(f"{topic}_unheard", blob=bool(blob))
    face.start()
    msg = face.message(bytes(blob) if blob else None)
    rest = bytes(blob - NUMBER_BYTES) if blob else b""
    open_connection(msg)
    face.flush()
    answer(ready=True)
    order()
    begin, cpu = perf_counter(), process_time()
    end, sent = begin + seconds, 0
    while sent < count and (sent % GLANCE or perf_counter() < end):
        if blob:
            msg = as_bytes(begin_at + sent) + rest
        else:
            msg.distance = float(begin_at + sent)
        publish(msg)
        sent += 1
    face.flush()
    wall, cpu = perf_counter() - begin, process_time() - cpu
    answer(count=sent, rate=sent / wall, cpu_us=cpu / sent * 1e6)


def receive(face: Face, *, topic: str, topics: int = 1, again: int = 1, blob: int = 0) -> None:
    """Receive on so many topics, each subscribed so often.

    The order is how many messages to expect, and how often each number is among them. Before it
    may come ``anew``: nothing that has come so far counts.
    """
    tally, names = Tally(), topics_of(topic, topics)
    note = tally.note_blob if blob else tally.note
    face.subscribe(names * again, note, blob=bool(blob))
    publish = face.publisher(names[-1], blob=bool(blob))
    face.start()
    _probe(tally, publish, face.message(b"" if blob else None))
    if topics > 1:
        rest()  # there is much to begin
    answer(ready=True)
    sent, copies = expected(tally)
    tally.settle(sent)
    answer(**tally.figures(sent, copies))


def pace(face: Face, *, topic: str) -> None:
    """Publish at a fixed rate, whatever comes of it; an order is that rate, and how many."""
    from bench.metronome import Metronome  # what it needs, no other role has to load

    publish = face.publisher(topic, blob=False)
    open_connection = face.publisher(f"{topic}_unheard", blob=False)
    face.start()
    msg = face.message(None)
    open_connection(msg)
    face.flush()
    answer(ready=True)
    while True:
        rate, count = (int(word) for word in order())
        sent = 0
        for number, due in Metronome(rate).ticks(count):
            msg.distance, msg.horizontal_fov = float(number), due
            publish(msg)
            sent += 1
        face.flush()
        answer(count=sent)


def delays(face: Face, *, topic: str, file: str) -> None:
    """Receive what is published by `pace`; an order is how many messages to expect."""
    tally = Delays()
    face.subscribe([topic], tally.note, blob=False)
    publish = face.publisher(topic, blob=False)
    face.start()
    _probe(tally, publish, face.message(None))
    answer(ready=True)
    while True:
        sent = int(order()[0])
        tally.settle(sent)
        tally.write(file)
        figures = tally.figures(sent, copies=1)
        tally.reset()
        answer(**figures)


def _probe(tally: Tally, publish: Callable[[Any], object], msg: Any) -> None:
    """Return when the subscription works: not every contender says when the broker has it."""
    while not tally.begun.wait(PROBE_SECONDS):
        publish(msg)
    tally.settle(sys.maxsize, QUIET_SECONDS)
    tally.reset()


def first(face: Face, *, topic: str) -> None:
    """Report when the first message was received, by the clock all processes share."""
    arrived, times = threading.Event(), []

    def note(msg: object) -> None:
        times.append(time.monotonic())
        arrived.set()

    face.subscribe([topic], note, blob=False)
    publish, msg = face.publisher(topic, blob=False), face.message(None)
    face.start()
    publish(msg)
    while not arrived.wait(PROBE_SECONDS):
        publish(msg)
    answer(first=times[0])


# -- calls ----------------------------------------------------------------------------------------


def serve(face: Face, *, name: str) -> None:
    """Serve until the end."""
    face.serve(name)
    _stay(face)


def call(face: Face, *, name: str, at_once: int, count: int, seconds: float) -> None:
    """Call from so many threads, all on one client."""
    call = face.caller(name)
    face.start()
    served, go = threading.Barrier(at_once + 1), threading.Event()
    ledgers: list[Ledger] = []

    def work(caller: int) -> None:
        _until_served(call)
        served.wait()
        go.wait()
        _call(call, ledgers[0], caller)

    threads = [
        threading.Thread(target=work, args=(number,), daemon=True) for number in range(at_once)
    ]
    for thread in threads:
        thread.start()
    served.wait()
    answer(ready=True)
    order()
    ledgers.append(Ledger(seconds, count))
    go.set()
    for thread in threads:
        thread.join()
    answer(**ledgers[0].figures())


def _until_served(call: Callable[[int, int], int]) -> None:
    while True:
        try:
            call(0, 0)
        except Exception:  # each contender has its own for a service that is not there yet
            continue
        return


def _call(call: Callable[[int, int], int], ledger: Ledger, caller: int) -> None:
    for number in counting():
        if not ledger.is_open:
            return
        sent = perf_counter()
        try:
            ledger.note(sent, caller * 1_000_000 - number, call(caller * 1_000_000, -number))
        except Exception as exc:  # whatever it raises is a call that failed
            ledger.note_failure(exc)


# -- actions and bridges --------------------------------------------------------------------------


def work(face: Worker, *, name: str) -> None:
    """Work on goals until the end."""
    face.work(name)
    _stay(face)


def goals(face: Worker, *, name: str, count: int, seconds: float) -> None:
    """Send goals one after another, each when the one before is reached."""
    _send(face, face.sender(name), count, seconds)


def work_slowly(face: Worker, *, name: str) -> None:
    """Work on goals that take a while, until the end."""
    face.work_slowly(name)
    _stay(face)


def slow_goals(face: Worker, *, name: str, count: int, seconds: float) -> None:
    """As `goals`, with those that take a while and give feedback."""
    send_one, missed = face.slow_sender(name), list[int]()

    def send(a: int, b: int) -> int:
        result, came = send_one(a, b)
        missed.append(FEEDBACKS - came)
        return result

    _send(face, send, count, seconds, missed)


def take_steps(tell: Callable[[int], object]) -> None:
    """Sleep through all `PAUSES`, and tell of each but the last."""
    *steps, last = PAUSES
    for number, pause in enumerate(steps):
        time.sleep(pause)
        tell(number)
    time.sleep(last)


def wrong(missed: Sequence[int]) -> dict[str, int]:
    """What is wrong with the feedback of goals of which so many did not come, or came too often."""
    lost = sum(max(0, count) for count in missed)
    return {"lost": lost, "duplicates": lost - sum(missed)}


def _stay(face: Face) -> None:
    face.start()
    answer(ready=True)
    order()


def _send(
    face: Worker,
    send: Callable[[int, int], int],
    count: int,
    seconds: float,
    missed: Sequence[int] = (),
) -> None:
    face.start()
    _until_served(send)
    answer(ready=True)
    order()
    ledger, before = Ledger(seconds, count), len(missed)
    _call(send, ledger, 0)
    answer(**ledger.figures(), **wrong(missed[before:]))


def bridge(face: Worker, *, topic: str, to: str) -> None:
    """Pass messages on until the end."""
    face.bridge(topic, to)
    answer(ready=True)
    order()


# -- a node ---------------------------------------------------------------------------------------


def node(face: Face, *, topic: str, settle: int, idle: int) -> None:
    """A node with ten endpoints: used once, at rest, and with a hundred further subscriptions."""
    publishers = [face.publisher(f"{topic}_{number}", blob=False) for number in range(3)]
    face.subscribe([f"{topic}_{number}" for number in range(3)], lambda msg: None, blob=False)
    for number in range(2):
        face.serve(f"{topic}_service{number}")
    callers = [face.caller(f"{topic}_service{number}") for number in range(2)]
    face.start()
    msg = face.message(None)
    for publish in publishers:
        publish(msg)
    for call in callers:
        _until_served(call)
    time.sleep(settle)
    begin, cpu = perf_counter(), process_time()
    time.sleep(idle)
    # First the figure, then the answer: that imports what a node does not.
    share = (process_time() - cpu) / (perf_counter() - begin)
    _show_at_rest()
    answer(idle_percent=share * 100)
    order()
    more = [f"{topic}_more{number}" for number in range(100)]
    face.subscribe(more, lambda msg: None, blob=False)
    _show_at_rest()


def _show_at_rest() -> None:
    """Let the parent look at this process, from outside."""
    print("{}", flush=True)
    order()


def main(face: type[Face]) -> None:
    """Play the role that the command line names."""
    command = Command(sys.argv[1:])
    ROLES[command.role](face(command.url), **command.options)


ROLES: dict[str, Callable[..., None]] = {
    role.__name__: role
    for role in (
        *(publish, receive, pace, delays, first, serve, call, node),
        *(work, goals, work_slowly, slow_goals, bridge),
    )
}
