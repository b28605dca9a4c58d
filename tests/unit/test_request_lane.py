"""The lane of a service that is a plain function: left to one worker while that is quick."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from queue import SimpleQueue
from typing import Any

import pytest

from collected import DEADLINE, eventually
from commlib import _request_lane, _workers
from commlib._lanes import ThreadLane
from commlib._packet import Packet
from commlib._request_lane import MOST_HELD, PROVEN, QUICK_CALLS, HoldingLane, RequestLane
from commlib._stats import Stats
from commlib._workers import Workers
from commlib.transports.base import Address, HoldingTransport, ReadingConsumer
from commlib.transports.memory import ConnectionParameters, MemoryTransport

NEVER = 3600.0  # s until the first look


@pytest.fixture
def workers() -> Iterator[Workers]:
    """Workers who have all gone when the test has ended."""
    workers = Workers("test")
    yield workers
    for thread in workers.close():
        thread.join(DEADLINE)
        assert not thread.is_alive()


async def reached(holds: Callable[[], bool]) -> None:
    """Let the loop go on until something holds."""
    await soon(asyncio.to_thread(eventually, holds))


async def soon(awaitable: Awaitable[Any]) -> Any:
    """What it gives, before the test is given up."""
    async with asyncio.timeout(DEADLINE):
        return await awaitable


class Replies(MemoryTransport):
    """A transport that keeps what is sent, and apart from it what is held."""

    def __init__(self) -> None:
        super().__init__(ConnectionParameters())
        self.held: list[bytes] = []
        self.sent: list[bytes] = []
        self.before_hold: Callable[[], None] = lambda: None

    def send(self, to: str | Address, packet: Packet) -> bool:
        """Send it, behind what is held."""
        self.let_go()
        self.sent.append(packet.payload)
        return True

    def hold(self, to: Address, packet: Packet) -> bool:
        self.before_hold()
        self.held.append(packet.payload)
        return True

    def let_go(self) -> None:
        while self.held:
            self.sent.append(self.held.pop(0))


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


class Clock:
    """By which the lane measures; real time would make a slow function of one that is held up."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Service:
    """A lane and its function, which answers each request with what it was given.

    One whose payload has a gate stops there.
    """

    def __init__(self, workers: Workers, clock: Clock, concurrency: int) -> None:
        self._clock = clock
        workers.loop = asyncio.get_running_loop()
        self.replies = Replies()
        assert isinstance(self.replies, HoldingTransport)
        self.threads: list[int] = []
        self.entered: list[bytes] = []
        self.errors: list[BaseException] = []
        self.gates: dict[bytes, threading.Event] = {}
        self.seconds = 0.0
        """How long the function takes."""
        self.lane = HoldingLane(
            *(self.replies, workers, "lane", self._handle, Stats()),
            lambda packet, error: self.errors.append(error),
            concurrency=concurrency,
        )

    def _handle(self, packet: Packet) -> None:
        payload = self.lane.call(self._function, packet.payload)
        if payload is not None:
            self.lane.send(Address(""), packet)

    def _function(self, payload: bytes) -> bytes | None:
        self.entered.append(payload)
        self.threads.append(threading.get_ident())
        gate = self.gates.get(payload)
        assert gate is None or gate.wait(DEADLINE)
        self._clock.now += 1.0 if payload.startswith(b"slow ") else self.seconds
        if payload == b"raise":
            raise ValueError(payload)
        return None if payload == b"silent" else payload

    def put(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.lane.put(Packet(payload))

    def gate(self, payload: bytes) -> threading.Event:
        """What the function waits for when it comes to this request."""
        gate = self.gates[payload] = threading.Event()
        return gate

    async def at_the_second(self) -> threading.Event:
        """Answer "first", and come to "silent"; what that waits for."""
        gate, first = self.gate(b"silent"), self.gate(b"first")
        self.put(b"first", b"silent")
        first.set()
        await reached(lambda: self.entered == [b"first", b"silent"])
        return gate

    async def warm(self) -> None:
        """Be quick for as long as it takes to be known for that."""
        for number in range(QUICK_CALLS):
            self.put(b"%d" % number)
            await reached(lambda: self.lane._active == 0)
        assert self.replies.sent == numbered(QUICK_CALLS)
        self.replies.sent.clear()
        self.entered.clear()
        self.threads.clear()


class Source:
    """A consumer at which one worker at a time can wait for the next requests."""

    working = True

    def __init__(self, reads_bursts: bool) -> None:
        self.reads_bursts = reads_bursts
        self.is_read = False
        self.is_kept = False
        """Whether nobody but a worker would read now."""
        self.before_return: Callable[[], None] = lambda: None
        self._came: SimpleQueue[tuple[Packet, ...]] = SimpleQueue()

    def read(self, is_wanted: Callable[[], bool], seconds: float, keep: bool) -> tuple[Packet, ...]:
        self.is_kept = False
        if not is_wanted():
            return ()
        self.is_read = True
        packets = self._came.get()  # for as long as it takes: who reads has to be sent away
        self.is_kept = keep and bool(packets)
        self.before_return()
        return packets

    def resume_reading(self) -> None:
        self.is_kept = False

    def send_reader_away(self) -> None:
        if self.is_read:
            self.is_read = False
            self._came.put(())

    def bring(self, *payloads: bytes) -> None:
        """What comes is for the one who reads."""
        assert self.is_read
        self.is_read = False
        self._came.put(tuple(map(Packet, payloads)))

    def done(self, packet: Packet) -> None: ...

    async def close(self) -> None: ...


Serve = Callable[..., Service]


@pytest.fixture
def serve(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Makes a service whose function takes the time that the test says."""
    clock = Clock()
    monkeypatch.setattr(_request_lane, "perf_counter", clock)
    return lambda concurrency=2: Service(workers, clock, concurrency)


@pytest.fixture
def unwatched(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """The same, and nobody looks whether its workers get on."""
    monkeypatch.setattr(_request_lane, "PATIENCE", NEVER)
    return serve


async def test_a_function_that_is_not_known_has_all_its_workers_at_once(serve: Serve) -> None:
    service = serve(concurrency=4)
    gates = [service.gate(payload) for payload in numbered(5)]
    service.put(*numbered(5))
    await reached(lambda: len(service.entered) == 4)
    for gate in gates:
        gate.set()
    await reached(lambda: sorted(service.replies.sent) == numbered(5))
    assert len(set(service.threads)) == 4


async def test_a_quick_function_is_left_to_the_worker_that_is_at_it(unwatched: Serve) -> None:
    service = unwatched()
    await service.warm()
    first = service.gate(b"first")
    service.put(b"first", *numbered(50))
    first.set()
    await reached(lambda: service.lane._active == 0)
    assert service.replies.sent == [b"first", *numbered(50)]
    assert len(set(service.threads)) == 1


async def test_a_function_that_was_slow_once_has_all_its_workers(unwatched: Serve) -> None:
    service = unwatched(concurrency=4)
    await service.warm()
    service.seconds = _request_lane.QUICK_SECONDS
    service.put(b"slow")
    await reached(lambda: service.replies.sent == [b"slow"] and service.lane._active == 0)
    gates = [service.gate(payload) for payload in numbered(4)]
    service.put(*numbered(4))
    await reached(lambda: len(service.entered) == 1 + 4)
    for gate in gates:
        gate.set()


async def test_a_function_that_fails_slowly_is_slow(unwatched: Serve) -> None:
    service = unwatched()
    await service.warm()
    service.seconds = _request_lane.QUICK_SECONDS
    service.put(b"raise")
    await reached(lambda: len(service.errors) == 1 and service.lane._active == 0)
    gates = [service.gate(payload) for payload in numbered(2)]
    service.put(*numbered(2))
    await reached(lambda: len(service.entered) == 1 + 2)
    for gate in gates:
        gate.set()


async def test_when_a_quick_function_becomes_slow_the_others_join_for_what_waits(
    unwatched: Serve,
) -> None:
    service = unwatched(concurrency=4)
    await service.warm()
    gates = [service.gate(payload) for payload in numbered(10)]
    service.put(*numbered(10))
    before = service.lane._called
    service.seconds = _request_lane.QUICK_SECONDS
    gates[0].set()
    await reached(lambda: service.entered == numbered(2))
    service.lane._look(before)  # it has got on, but slowly
    await reached(lambda: len(service.entered) == 1 + 4)
    for gate in gates:
        gate.set()
    await reached(lambda: sorted(service.replies.sent) == numbered(10))


async def test_a_look_leaves_alone_who_gets_on_and_is_quick(unwatched: Serve) -> None:
    service = unwatched(concurrency=4)
    await service.warm()
    gates = [service.gate(payload) for payload in numbered(10)]
    service.put(*numbered(10))
    before = service.lane._called
    gates[0].set()
    await reached(lambda: service.entered == numbered(2))
    service.lane._look(before)
    assert service.lane._active == 1
    for gate in gates:
        gate.set()
    await reached(lambda: service.replies.sent == numbered(10))


@pytest.mark.parametrize("concurrency", [2, 4])
async def test_when_a_quick_function_blocks_the_other_workers_join(
    serve: Serve, concurrency: int
) -> None:
    service = serve(concurrency)
    await service.warm()
    gates = [service.gate(payload) for payload in numbered(4)]
    service.put(*numbered(4))
    await reached(lambda: len(service.entered) == concurrency)
    for gate in gates:
        gate.set()
    await reached(lambda: sorted(service.replies.sent) == numbered(4))


async def test_replies_are_held_while_requests_wait_and_no_longer_than_so_many(
    unwatched: Serve,
) -> None:
    service = unwatched()
    await service.warm()
    last, late = numbered(MOST_HELD + 3)[-2:]
    first, gate, end = (service.gate(payload) for payload in (b"0", last, late))
    service.put(*numbered(MOST_HELD + 3))
    first.set()
    await reached(lambda: service.entered[-1:] == [last])
    # All but the one behind so many, which has gone with them.
    assert service.replies.sent == numbered(MOST_HELD + 1)
    gate.set()
    await reached(lambda: service.entered[-1] == late)
    assert service.replies.held == [last]
    end.set()
    await reached(lambda: service.replies.sent == numbered(MOST_HELD + 3))


async def test_what_is_held_leaves_when_the_next_request_has_no_reply(unwatched: Serve) -> None:
    service = unwatched()
    await service.warm()
    gate = await service.at_the_second()
    assert service.replies.held == [b"first"]
    gate.set()
    await reached(lambda: service.replies.sent == [b"first"])


async def test_what_is_held_leaves_when_the_next_request_blocks(serve: Serve) -> None:
    service = serve()
    await service.warm()
    gate, first = service.gate(b"silent"), service.gate(b"first")
    service.put(b"first", b"silent")
    assert service.lane._is_watched
    first.set()
    await reached(lambda: service.replies.sent == [b"first"])
    gate.set()


async def test_what_is_held_just_after_a_look_leaves_before_the_next_request(
    unwatched: Serve,
) -> None:
    service = unwatched()
    await service.warm()
    lane, replies = service.lane, service.replies

    def look() -> None:
        lane._is_watched = False
        lane._send_held()

    replies.before_hold = look
    gate = await service.at_the_second()
    assert replies.sent == [b"first"]
    gate.set()


async def test_what_is_held_leaves_before_the_lane_is_closed(unwatched: Serve) -> None:
    service = unwatched()
    await service.warm()
    gate = await service.at_the_second()
    closing = asyncio.create_task(service.lane.close(DEADLINE))
    gate.set()
    await soon(closing)
    assert service.replies.sent == [b"first"]


async def test_a_worker_that_cannot_send_what_is_held_goes_on(
    unwatched: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the loop was closed meanwhile."""
    service = unwatched()
    await service.warm()
    gate = await service.at_the_second()

    def let_go() -> None:
        raise RuntimeError("Event loop is closed")

    with monkeypatch.context() as patched:
        patched.setattr(service.replies, "let_go", let_go)
        gate.set()
        await reached(lambda: service.lane._active == 0)
    service.put(b"next")
    await reached(lambda: service.replies.sent == [b"first", b"next"])


async def test_a_lane_that_is_closed_drops_and_counts(serve: Serve) -> None:
    service = serve()
    await soon(service.lane.close(1.0))
    service.put(b"late")
    assert service.lane.stats.dropped == 1
    assert service.entered == []


async def test_a_function_that_raises_ends_nothing(serve: Serve) -> None:
    service = serve()
    await service.warm()
    service.put(b"raise", *numbered(3))
    await reached(lambda: sorted(service.replies.sent) == numbered(3))
    assert [type(error) for error in service.errors] == [ValueError]


@pytest.mark.parametrize("concurrency", [1, 2, 4])
async def test_whatever_comes_when_each_request_is_handled_once(
    serve: Serve, concurrency: int
) -> None:
    service = serve(concurrency)
    requests = [b"%b%d" % (b"slow " * (n % 301 == 300), n) for n in range(3000)]
    for number, request in enumerate(requests):
        service.put(request)
        if number % 7 == 0:
            await asyncio.sleep(0)
    await reached(lambda: len(service.replies.sent) == len(requests))
    assert sorted(service.replies.sent) == sorted(requests)


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_the_lane_of_a_broker_that_holds_nothing_calls_as_many_at_once_as_it_may(
    workers: Workers, concurrency: int
) -> None:
    workers.loop = asyncio.get_running_loop()
    inside, gate = list[bytes](), threading.Event()

    def handle(packet: Packet) -> None:
        inside.append(packet.payload)
        assert gate.wait(DEADLINE)

    lane = RequestLane(
        *(workers, "lane", handle, Stats(), lambda packet, error: None), concurrency=concurrency
    )
    for payload in numbered(8):
        lane.put(Packet(payload))
    await reached(lambda: len(inside) == concurrency)
    gate.set()
    await reached(lambda: lane._active == 0)
    assert sorted(inside) == numbered(8)


# ---- a worker that reads ----


class Read:
    """A lane of one worker at a time, whose requests come by the loop or from their source.

    Its function is never known to be quick.
    """

    def __init__(self, workers: Workers, concurrency: int, reads_bursts: bool) -> None:
        workers.loop = asyncio.get_running_loop()
        self.source = Source(reads_bursts)
        assert isinstance(self.source, ReadingConsumer)
        self.handled: list[bytes] = []
        self.gate = threading.Event()
        """What the function waits for at its end."""
        self.gate.set()
        self.threads: list[int] = []
        self.stats = Stats()
        self.lane = HoldingLane(
            *(Replies(), workers, "lane", self._handle, self.stats, lambda packet, error: None),
            concurrency=concurrency,
        )
        self.lane.read_from(self.source)

    def _handle(self, packet: Packet) -> None:
        self.handled.append(packet.payload)
        self.threads.append(threading.get_ident())
        assert self.gate.wait(DEADLINE)

    async def one_by_one(self, count: int) -> None:
        """Requests that come by the loop, each when that before was worked off."""
        for number in range(count):
            self.lane.put(Packet(b"%d" % number))
            await reached(lambda: self.lane._active == 0 or self.source.is_read)
        assert self.handled == numbered(count)

    async def begin(self) -> None:
        """Have a worker read."""
        await self.one_by_one(PROVEN)
        await reached(lambda: self.source.is_read)
        self.handled.clear()


Reads = Callable[[], AbstractAsyncContextManager[Read]]


@pytest.fixture(params=[(1, False), (2, False), (2, True)])
def reads(workers: Workers, request: pytest.FixtureRequest) -> Reads:
    """A lane as long as the test has it."""

    @asynccontextmanager
    async def make() -> AsyncIterator[Read]:
        read = Read(workers, *request.param)
        try:
            yield read
        finally:
            assert await soon(read.lane.close(DEADLINE)) == []
        assert not workers.sources

    return make


async def test_where_requests_come_one_by_one_their_worker_reads_the_next(reads: Reads) -> None:
    async with reads() as read:
        await read.one_by_one(PROVEN - 1)
        await reached(lambda: read.lane._active == 0)
        assert not read.source.is_read
        read.lane.put(Packet(b"last"))
        await reached(lambda: read.source.is_read)
        for number in range(PROVEN, 100):
            read.source.bring(b"%d" % number)
            await reached(lambda n=number: len(read.handled) > n and read.source.is_read)
        assert len(set(read.threads[PROVEN - 1 :])) == 1
        assert read.stats.received == 100
        assert read.stats.dropped == 0


async def test_where_requests_come_several_at_once_nobody_reads(reads: Reads) -> None:
    async with reads() as read:
        for number in range(0, 10 * PROVEN, 2):
            for payload in numbered(number + 2)[-2:]:
                read.lane.put(Packet(payload))
            await reached(lambda: read.lane._active == 0)
        assert not read.source.is_read
        assert sorted(read.handled) == sorted(numbered(10 * PROVEN))


async def test_what_the_loop_brings_meanwhile_calls_away_who_reads(reads: Reads) -> None:
    async with reads() as read:
        await read.begin()
        read.lane.put(Packet(b"by the loop"))
        await reached(lambda: read.handled == [b"by the loop"])
        await reached(lambda: read.lane._active == 0)
        assert not read.source.is_read
        read.handled.clear()
        await read.begin()  # after a while it is as before


async def test_a_lane_that_is_closed_calls_away_who_reads(reads: Reads) -> None:
    async with reads() as read:
        await read.begin()
        await soon(read.lane.close(DEADLINE))
        assert not read.source.is_read


async def test_what_was_read_before_the_end_is_worked_off(reads: Reads) -> None:
    async with reads() as read:
        await read.begin()
        read.source.bring(b"in the last moment")
        await soon(read.lane.close(DEADLINE))
        assert read.handled == [b"in the last moment"]


async def test_who_reads_works_off_other_lanes_as_who_is_idle_does(
    workers: Workers, reads: Reads
) -> None:
    async with reads() as read:
        await read.begin()
        threads: list[int] = []
        other = ThreadLane(
            *(workers, "other", lambda packet: threads.append(threading.get_ident()), Stats()),
            lambda packet, error: None,
        )
        other.put(Packet(b""))
        await reached(lambda: threads == read.threads[-1:])
        assert workers.count == len(set(read.threads))


async def test_who_reads_is_not_busy(workers: Workers, reads: Reads) -> None:
    async with reads() as read:
        await read.begin()
        await reached(lambda: not workers.busy)


async def test_who_reads_works_off_what_another_thread_hands_over(
    workers: Workers, reads: Reads
) -> None:
    """As with the callback of a future, when it is the only worker whom the system allows."""
    async with reads() as read:
        await read.begin()
        done = threading.Event()

        class Work:
            name = "work"

            def work(self) -> None:
                done.set()

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(_workers, "MAX_WORKERS", workers.count)
            await asyncio.to_thread(workers.serve, Work())
            await reached(done.is_set)


# ---- a worker that reads several at once, and keeps the turn ----


@asynccontextmanager
async def read_by_a_worker(service: Service) -> AsyncIterator[Source]:
    """Have a worker of a quick function wait for what comes, as long as the test has it."""
    source = Source(reads_bursts=True)
    await service.warm()
    service.lane.read_from(source)
    for number in range(PROVEN):
        service.put(b"%d" % number)
        await reached(lambda: service.lane._active == 0 or source.is_read)
    await reached(lambda: source.is_read)
    service.replies.sent.clear()
    service.entered.clear()
    service.threads.clear()
    yield source
    await soon(service.lane.close(DEADLINE))


async def test_what_comes_at_once_is_worked_off_by_the_one_who_has_read_it(
    unwatched: Serve,
) -> None:
    service = unwatched(concurrency=4)
    async with read_by_a_worker(service) as source:
        received = service.lane.stats.received
        for _ in range(3):
            source.bring(*numbered(5))
            await reached(lambda: source.is_read)
        assert service.replies.sent == 3 * numbered(5)
        assert len(set(service.threads)) == 1
        assert service.lane.stats.received == received + 15


async def test_replies_to_what_has_come_at_once_leave_as_one(unwatched: Serve) -> None:
    service = unwatched()
    async with read_by_a_worker(service) as source:
        last = service.gate(b"2")
        source.bring(*numbered(3))
        await reached(lambda: service.entered == numbered(3))
        assert (service.replies.held, service.replies.sent) == (numbered(2), [])
        last.set()
        await reached(lambda: service.replies.sent == numbered(3))


@asynccontextmanager
async def at_the_gate(service: Service) -> AsyncIterator[tuple[Source, threading.Event]]:
    """Have what comes at once watched, so that the turn is kept, and come to a request that waits.

    Two more are behind that.
    """
    async with read_by_a_worker(service) as source:
        source.bring(b"a", b"b")
        await reached(lambda: service.lane._next_look is not None and source.is_read)
        source.bring(b"by one who keeps nothing yet")  # who began to read before the first look
        await reached(lambda: source.is_read and len(service.entered) == 3)
        service.entered.clear()
        gate = service.gate(b"gate")
        source.bring(b"gate", b"c", b"d")
        await reached(lambda: service.entered[:1] == [b"gate"])
        yield source, gate


async def test_a_worker_who_is_left_alone_keeps_the_turn_to_read(unwatched: Serve) -> None:
    service = unwatched(concurrency=4)
    async with at_the_gate(service) as (source, gate):
        assert source.is_kept
        assert service.entered == [b"gate"]
        gate.set()
        await reached(lambda: source.is_read)
        assert service.entered == [b"gate", b"c", b"d"]


async def test_who_does_not_get_on_keeps_no_turn_and_the_others_join(unwatched: Serve) -> None:
    service = unwatched(concurrency=2)
    async with at_the_gate(service) as (source, gate):
        service.lane._look(service.lane._called)
        await reached(lambda: sorted(service.entered) == [b"c", b"d", b"gate"])
        assert not source.is_kept
        gate.set()


async def test_who_leaves_keeps_no_turn(unwatched: Serve) -> None:
    service = unwatched(concurrency=2)
    async with at_the_gate(service) as (source, gate):
        service.lane._in_row = 0  # nobody is to read on
        assert source.is_kept
        gate.set()
        await reached(lambda: service.lane._active == 0)
        assert not source.is_kept


async def test_the_turn_is_not_kept_beyond_the_end_of_the_lane(unwatched: Serve) -> None:
    service = unwatched(concurrency=2)
    async with at_the_gate(service) as (source, gate):
        closing = asyncio.create_task(service.lane.close(DEADLINE))
        await reached(lambda: not source.is_kept)
        gate.set()
        await soon(closing)


async def test_a_turn_that_is_kept_when_nobody_looks_any_more_is_given_back(
    unwatched: Serve,
) -> None:
    service = unwatched(concurrency=2)

    def look() -> None:
        service.lane._is_watched = False

    async with at_the_gate(service) as (source, gate):
        gate.set()
        await reached(lambda: source.is_read)
        source.before_return = look
        last = service.gate(b"last")
        source.bring(b"last")
        await reached(lambda: service.entered[-1] == b"last")
        assert not source.is_kept
        last.set()


async def test_what_comes_at_once_to_a_function_that_is_not_quick_is_for_all_workers(
    workers: Workers,
) -> None:
    read = Read(workers, 3, reads_bursts=True)
    await read.begin()
    read.gate.clear()
    read.source.bring(*numbered(3))
    await reached(lambda: sorted(read.handled) == numbered(3))
    read.gate.set()
    await soon(read.lane.close(DEADLINE))


async def test_what_the_loop_brings_while_a_worker_begins_to_read_is_not_left_waiting(
    unwatched: Serve,
) -> None:
    service = unwatched(concurrency=1)
    async with read_by_a_worker(service) as source:
        gate = service.gate(b"gate")

        class Late(deque[Packet]):
            def append(self, packet: Packet) -> None:
                gate.set()
                eventually(lambda: source.is_read)
                super().append(packet)

        source.bring(b"gate")
        await reached(lambda: service.entered == [b"gate"])
        service.lane._queue = Late()
        service.put(b"late")
        await reached(lambda: service.entered == [b"gate", b"late"])


async def test_where_nothing_comes_at_once_any_more_no_turn_is_kept(unwatched: Serve) -> None:
    service = unwatched(concurrency=4)
    async with at_the_gate(service) as (source, gate):
        gate.set()
        kept = []
        for payload in numbered(PROVEN + 2):
            await reached(lambda: source.is_read)
            gate = service.gate(payload)
            source.bring(payload)
            await reached(lambda p=payload: service.entered[-1] == p)
            kept.append(source.is_kept)
            gate.set()
        assert kept == [True] * PROVEN + [False] * 2
        await reached(lambda: source.is_read)
        service.lane._look(service.lane._called - 1)  # nor does the loop look any more
        assert service.lane._next_look is None


async def test_where_nothing_has_come_at_once_no_turn_is_kept(unwatched: Serve) -> None:
    service = unwatched(concurrency=4)
    async with read_by_a_worker(service) as source:
        service.lane._watch()
        for payload in numbered(2):  # the first by one who has begun to read before
            gate = service.gate(payload)
            source.bring(payload)
            await reached(lambda p=payload: service.entered[-1:] == [p])
            assert not source.is_kept
            gate.set()
            await reached(lambda: source.is_read)


@pytest.mark.parametrize("reads_bursts", [True, False])
async def test_where_several_come_at_once_by_the_loop_who_can_reads_the_next_of_them(
    unwatched: Serve, reads_bursts: bool
) -> None:
    service = unwatched(concurrency=2)
    await service.warm()
    source = Source(reads_bursts)
    service.lane.read_from(source)
    first = service.gate(b"0")
    service.put(*numbered(PROVEN + 1))
    first.set()
    await reached(lambda: service.lane._active == 0 or source.is_read)
    assert source.is_read is reads_bursts
    await soon(service.lane.close(DEADLINE))
