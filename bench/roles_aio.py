"""The roles of a contender that lives on asyncio; as `roles`, which tells more of each."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from time import perf_counter, process_time
from typing import Any, Protocol

from bench.child import NUMBER_BYTES, Command, Delays, Ledger, Tally, answer, order_on_loop, rest
from bench.roles import (
    FEEDBACKS,
    GLANCE,
    PAUSES,
    PROBE_SECONDS,
    QUIET_SECONDS,
    as_bytes,
    topics_of,
    wrong,
)


class Face(Protocol):
    """What a contender can do; made and used on a running loop."""

    def __init__(self, url: str) -> None: ...

    async def start(self) -> None:
        """Return when all endpoints made so far work, as far as the contender can tell."""

    def message(self, blob: bytes | None) -> Any:
        """A message of three floats, the first of which is ``distance``; or of these bytes."""

    def publisher(self, topic: str, *, blob: bool) -> Callable[[Any], Awaitable[object]]:
        """Publishes such a message."""
        ...

    async def flush(self) -> None:
        """Return when the broker has all that was published."""

    async def subscribe(
        self, topics: Sequence[str], on_message: Callable[[Any], None], *, blob: bool
    ) -> None:
        """Have a plain function called with every message, an instance of its class."""

    def serve(self, name: str) -> None:
        """Answer requests with the sum of their two numbers."""

    def caller(self, name: str) -> Callable[[int, int], Awaitable[int]]:
        """Calls that service; raises whatever went wrong."""
        ...


class Worker(Face, Protocol):
    """A contender that has actions and bridges as well."""

    def work(self, name: str) -> None:
        """Reach goals at once, with the sum of their two numbers as the result."""

    def sender(self, name: str) -> Callable[[int, int], Awaitable[int]]:
        """Sends such a goal and waits for its result; raises whatever went wrong."""
        ...

    def work_slowly(self, name: str) -> None:
        """As `work`, but each goal takes `take_steps`, which gives feedback."""

    def slow_sender(self, name: str) -> Callable[[int, int], Awaitable[tuple[int, int]]]:
        """As `sender`, for goals of `work_slowly`; how much feedback came by then as well."""
        ...

    async def bridge(self, topic: str, to: str) -> None:
        """Pass messages on to another topic, through a bridge; returns when it works."""


async def publish(
    face: Face, *, topic: str, count: int, seconds: float, blob: int = 0, begin_at: int = 0
) -> None:
    """Publish so many messages, for no longer than so many seconds."""
    publish = face.publisher(topic, blob=bool(blob))
    open_connection = face.publisher(f"{topic}_unheard", blob=bool(blob))
    await face.start()
    msg = face.message(bytes(blob) if blob else None)
    rest = bytes(blob - NUMBER_BYTES) if blob else b""
    await open_connection(msg)
    await face.flush()
    answer(ready=True)
    await order_on_loop()
    begin, cpu = perf_counter(), process_time()
    end, sent = begin + seconds, 0
    while sent < count and (sent % GLANCE or perf_counter() < end):
        if blob:
            msg = as_bytes(begin_at + sent) + rest
        else:
            msg.distance = float(begin_at + sent)
        await publish(msg)
        sent += 1
    await face.flush()
    wall, cpu = perf_counter() - begin, process_time() - cpu
    answer(count=sent, rate=sent / wall, cpu_us=cpu / sent * 1e6)


async def receive(
    face: Face, *, topic: str, topics: int = 1, again: int = 1, blob: int = 0
) -> None:
    """Receive on so many topics, each subscribed so often."""
    tally, names = Tally(), topics_of(topic, topics)
    note = tally.note_blob if blob else tally.note
    await face.subscribe(names * again, note, blob=bool(blob))
    publish = face.publisher(names[-1], blob=bool(blob))
    await face.start()
    await _probe(tally, publish, face.message(b"" if blob else None))
    if topics > 1:
        await asyncio.to_thread(rest)  # there is much to begin
    answer(ready=True)
    words = await order_on_loop()
    if words == ["anew"]:
        tally.reset()
        answer(ready=True)
        words = await order_on_loop()
    sent, copies = (int(word) for word in words)
    await asyncio.to_thread(tally.settle, sent)
    answer(**tally.figures(sent, copies))


async def _probe(tally: Tally, publish: Callable[[Any], Awaitable[object]], msg: Any) -> None:
    while not tally.begun.is_set():
        await publish(msg)
        await asyncio.sleep(PROBE_SECONDS)
    await asyncio.sleep(QUIET_SECONDS)
    tally.reset()


async def pace(face: Face, *, topic: str) -> None:
    """Publish at a fixed rate, whatever comes of it; an order is that rate, and how many."""
    from bench.metronome import Metronome  # what it needs, no other role has to load

    publish = face.publisher(topic, blob=False)
    open_connection = face.publisher(f"{topic}_unheard", blob=False)
    await face.start()
    msg = face.message(None)
    await open_connection(msg)
    await face.flush()
    answer(ready=True)
    while True:
        rate, count = (int(word) for word in await order_on_loop())
        sent = 0
        async for number, due in Metronome(rate).ticks_on_loop(count):
            msg.distance, msg.horizontal_fov = float(number), due
            await publish(msg)
            sent += 1
        await face.flush()
        answer(count=sent)


async def delays(face: Face, *, topic: str, file: str) -> None:
    """Receive what is published by `pace`; an order is how many messages to expect."""
    tally = Delays()
    await face.subscribe([topic], tally.note, blob=False)
    publish = face.publisher(topic, blob=False)
    await face.start()
    await _probe(tally, publish, face.message(None))
    answer(ready=True)
    while True:
        sent = int((await order_on_loop())[0])
        await asyncio.to_thread(tally.settle, sent)
        tally.write(file)
        figures = tally.figures(sent, copies=1)
        tally.reset()
        answer(**figures)


async def first(face: Face, *, topic: str) -> None:
    """Report when the first message was received, by the clock all processes share."""
    arrived: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def note(msg: object) -> None:
        if not arrived.done():
            arrived.set_result(time.monotonic())

    await face.subscribe([topic], note, blob=False)
    publish, msg = face.publisher(topic, blob=False), face.message(None)
    await face.start()
    await publish(msg)
    while not arrived.done():
        await asyncio.wait([arrived], timeout=PROBE_SECONDS)
        await publish(msg)
    answer(first=arrived.result())


async def serve(face: Face, *, name: str) -> None:
    """Serve until the end."""
    face.serve(name)
    await _stay(face)


async def call(face: Face, *, name: str, at_once: int, count: int, seconds: float) -> None:
    """Have so many calls under way, all on one client."""
    call = face.caller(name)
    await face.start()
    await _until_served(call)
    answer(ready=True)
    await order_on_loop()
    ledger = Ledger(seconds, count)
    await asyncio.gather(*(_call(call, ledger, number) for number in range(at_once)))
    answer(**ledger.figures())


async def _until_served(call: Callable[[int, int], Awaitable[int]]) -> None:
    while True:
        try:
            await call(0, 0)
        except Exception:  # each contender has its own for a service that is not there yet
            await asyncio.sleep(PROBE_SECONDS)
            continue
        return


async def _call(call: Callable[[int, int], Awaitable[int]], ledger: Ledger, caller: int) -> None:
    number = 0
    while ledger.is_open:
        number -= 1
        sent = perf_counter()
        try:
            reply = await call(caller * 1_000_000, number)
            ledger.note(sent, caller * 1_000_000 + number, reply)
        except Exception as exc:  # whatever it raises is a call that failed
            ledger.note_failure(exc)


async def work(face: Worker, *, name: str) -> None:
    """Work on goals until the end."""
    face.work(name)
    await _stay(face)


async def goals(face: Worker, *, name: str, count: int, seconds: float) -> None:
    """Send goals one after another, each when the one before is reached."""
    await _send(face, face.sender(name), count, seconds)


async def work_slowly(face: Worker, *, name: str) -> None:
    """Work on goals that take a while, until the end."""
    face.work_slowly(name)
    await _stay(face)


async def slow_goals(face: Worker, *, name: str, count: int, seconds: float) -> None:
    """As `goals`, with those that take a while and give feedback."""
    send_one, missed = face.slow_sender(name), list[int]()

    async def send(a: int, b: int) -> int:
        result, came = await send_one(a, b)
        missed.append(FEEDBACKS - came)
        return result

    await _send(face, send, count, seconds, missed)


async def take_steps(tell: Callable[[int], Awaitable[object]]) -> None:
    """Sleep through all `PAUSES`, and tell of each but the last."""
    *steps, last = PAUSES
    for number, pause in enumerate(steps):
        await asyncio.sleep(pause)
        await tell(number)
    await asyncio.sleep(last)


async def _stay(face: Face) -> None:
    await face.start()
    answer(ready=True)
    await order_on_loop()


async def _send(
    face: Worker,
    send: Callable[[int, int], Awaitable[int]],
    count: int,
    seconds: float,
    missed: Sequence[int] = (),
) -> None:
    await face.start()
    await _until_served(send)
    answer(ready=True)
    await order_on_loop()
    ledger, before = Ledger(seconds, count), len(missed)
    await _call(send, ledger, 0)
    answer(**ledger.figures(), **wrong(missed[before:]))


async def bridge(face: Worker, *, topic: str, to: str) -> None:
    """Pass messages on until the end."""
    await face.bridge(topic, to)
    answer(ready=True)
    await order_on_loop()


async def node(face: Face, *, topic: str, settle: int, idle: int) -> None:
    """Ten endpoints: used once, at rest, and with a hundred further subscriptions."""
    publishers = [face.publisher(f"{topic}_{number}", blob=False) for number in range(3)]
    names = [f"{topic}_{number}" for number in range(3)]
    await face.subscribe(names, lambda msg: None, blob=False)
    for number in range(2):
        face.serve(f"{topic}_service{number}")
    callers = [face.caller(f"{topic}_service{number}") for number in range(2)]
    await face.start()
    msg = face.message(None)
    for publish in publishers:
        await publish(msg)
    for call in callers:
        await _until_served(call)
    await asyncio.sleep(settle)
    begin, cpu = perf_counter(), process_time()
    await asyncio.sleep(idle)
    share = (process_time() - cpu) / (perf_counter() - begin)
    await _show_at_rest()
    answer(idle_percent=share * 100)
    await order_on_loop()
    more = [f"{topic}_more{number}" for number in range(100)]
    await face.subscribe(more, lambda msg: None, blob=False)
    await _show_at_rest()


async def _show_at_rest() -> None:
    """Let the parent look at this process, from outside."""
    print("{}", flush=True)
    await order_on_loop()


def main(face: Callable[[str], Face]) -> None:
    """Play the role that the command line names, on uvloop where there is one."""
    command = Command(sys.argv[1:])

    async def play() -> None:
        await ROLES[command.role](face(command.url), **command.options)

    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(play())


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


ROLES: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    role.__name__: role
    for role in (
        *(publish, receive, pace, delays, first, serve, call, node),
        *(work, goals, work_slowly, slow_goals, bridge),
    )
}
