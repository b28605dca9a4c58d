"""Where callbacks run: order, bounds, concurrency, and the threads that do the work."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from bystander import Bystander
from collected import DEADLINE, Collected, eventually
from commlib import _lanes, _turns, _workers
from commlib._lanes import (
    Bounds,
    InlineLane,
    IterLane,
    Lane,
    LoopLane,
    ThreadLane,
    is_async,
    make_lane,
)
from commlib._packet import Packet
from commlib._stats import Stats
from commlib._workers import Workers


class Errors:
    """What ``on_error`` was told."""

    def __init__(self) -> None:
        self.items: list[tuple[bytes, BaseException]] = []

    def __call__(self, packet: Packet, error: BaseException) -> None:
        self.items.append((packet.payload, error))


@pytest.fixture
def workers() -> Iterator[Workers]:
    """Workers who have all gone when the test has ended."""
    workers = Workers("test")
    yield workers
    for thread in workers.close():
        thread.join(DEADLINE)
        assert not thread.is_alive()


Make = Callable[..., Any]


@pytest.fixture
def make(workers: Workers) -> Make:
    """Makes a lane for a handler, of the kind that fits it."""

    def make(handle: Any, *, inline: bool = False, **options: Any) -> Lane:
        on_error = options.pop("on_error", Errors())
        workers.loop = asyncio.get_running_loop()
        return make_lane(workers, handle, inline, "lane", handle, Stats(), on_error, **options)

    return make


class Gate:
    """A callback that waits to be let through, and knows how many wait."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.most = self._inside = 0
        self._changed = threading.Condition()
        self._open = False

    def __call__(self, packet: Packet) -> None:
        with self._changed:
            self._inside += 1
            self.most = max(self.most, self._inside)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._open, DEADLINE)
            self._inside -= 1
            self.got.append(packet.payload)
            self._changed.notify_all()

    def wait_for(self, inside: int) -> None:
        """Return when so many callbacks are running."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._inside == inside, DEADLINE)

    def open(self) -> None:
        with self._changed:
            self._open = True
            self._changed.notify_all()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


async def soon(awaitable: Awaitable[Any]) -> Any:
    """What it gives, before the test is given up."""
    async with asyncio.timeout(DEADLINE):
        return await awaitable


async def reached(holds: Callable[[], bool]) -> None:
    """Let the loop go on until something holds."""
    await soon(asyncio.to_thread(eventually, holds))


def numbered(count: int, first: int = 0) -> list[Packet]:
    return [Packet(b"%d" % number) for number in range(first, first + count)]


def put_all(lane: Lane, packets: list[Packet]) -> None:
    for packet in packets:
        lane.put(packet)


# ---- which lane for which callback ----


async def test_the_callback_decides_where_it_runs(make: Make) -> None:
    async def coroutine(packet: Packet) -> None: ...

    class Object:
        async def __call__(self, packet: Packet) -> None: ...

    assert is_async(coroutine)
    assert is_async(Object())
    assert not is_async(len)
    assert isinstance(make(coroutine), LoopLane)
    assert isinstance(make(Object()), LoopLane)
    assert isinstance(make(len), ThreadLane)
    assert isinstance(make(len, inline=True), InlineLane)
    assert isinstance(make(None), IterLane)


@pytest.mark.parametrize("overflow", ["drop", "", "block"])
def test_an_unknown_way_to_overflow_is_refused_with_those_that_there_are(overflow: Any) -> None:
    with pytest.raises(ValueError, match="drop_oldest, drop_newest, latest"):
        Bounds(overflow=overflow)


@pytest.mark.parametrize("bounds", [{"max_messages": 0}, {"max_bytes": 0}])
def test_a_lane_without_room_is_refused(bounds: Any) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Bounds(**bounds)


# ---- order and concurrency ----


async def test_a_plain_function_is_called_in_order_and_not_on_the_loop(make: Make) -> None:
    got, places = Collected(), set()

    def handle(packet: Packet) -> None:
        places.add(threading.current_thread())
        got(packet.payload)

    lane = make(handle)
    for burst in range(50):
        put_all(lane, numbered(20, 20 * burst))
        await asyncio.sleep(0)
    await lane.close(DEADLINE)
    assert got.items == [b"%d" % n for n in range(1000)]
    assert threading.current_thread() not in places
    assert (lane.stats.received, lane.stats.dropped) == (1000, 0)


async def test_a_coroutine_function_is_awaited_in_order_on_the_loop(make: Make) -> None:
    got = []

    async def handle(packet: Packet) -> None:
        await asyncio.sleep(0)
        assert threading.current_thread() is threading.main_thread()
        got.append(packet.payload)

    lane = make(handle)
    put_all(lane, numbered(100))
    await lane.close(DEADLINE)
    assert got == [b"%d" % n for n in range(100)]


async def test_a_burst_costs_one_task(make: Make) -> None:
    async def handle(packet: Packet) -> None: ...

    lane = make(handle)
    before = len(asyncio.all_tasks())
    put_all(lane, numbered(100))
    assert len(asyncio.all_tasks()) == before + 1
    await lane.close(DEADLINE)


async def test_inline_calls_at_once_on_the_loop(make: Make) -> None:
    got: list[bytes] = []
    lane = make(lambda packet: got.append(packet.payload), inline=True)
    lane.put(Packet(b"1"))
    assert got == [b"1"]
    await lane.close(0)
    lane.put(Packet(b"2"))
    assert got == [b"1"]
    assert (lane.stats.received, lane.stats.dropped) == (1, 1)


@pytest.mark.parametrize("inline", [False, True])
async def test_a_coroutine_that_a_plain_function_returns_is_an_error_and_other_results_are_not(
    make: Make, inline: bool
) -> None:
    async def handle(packet: Packet) -> None:
        raise AssertionError("nobody awaits it")

    def call(packet: Packet) -> Any:
        return handle(packet) if packet.payload == b"1" else packet

    errors = Errors()
    lane = make(call, inline=inline, on_error=errors)
    put_all(lane, numbered(3))
    await lane.close(DEADLINE)

    [(payload, error)] = errors.items
    assert payload == b"1"
    assert isinstance(error, TypeError)
    assert "make it async def" in str(error)


@pytest.mark.parametrize(
    "error",
    [ValueError(), SystemExit(), GeneratorExit(), asyncio.CancelledError(), BaseException()],
)
async def test_whatever_an_inline_callback_raises_stays_in_its_lane(
    make: Make, error: BaseException
) -> None:
    def fail(packet: Packet) -> None:
        raise error

    errors = Errors()
    put_all(make(fail, inline=True, on_error=errors), numbered(2))
    assert errors.items == [(b"0", error), (b"1", error)]


async def test_a_coroutine_that_ignores_that_it_is_cancelled_does_not_keep_its_lane_open(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    ended = asyncio.Event()
    stubborn: list[asyncio.Task[Any] | None] = []

    async def ignore(packet: Packet) -> None:
        stubborn.append(asyncio.current_task())
        while not ended.is_set():
            with suppress(asyncio.CancelledError):
                await ended.wait()

    lane = make(ignore)
    put_all(lane, numbered(1))
    await reached(lambda: bool(stubborn))
    await soon(lane.close(0.01))
    assert "did not end when it was cancelled" in caplog.text
    ended.set()
    [task] = stubborn
    assert task is not None
    await asyncio.wait([task])


@pytest.mark.parametrize("concurrency", [1, 2, 7])
async def test_threads_call_as_many_at_once_as_allowed_and_never_more(
    make: Make,
    gate: Gate,
    workers: Workers,
    monkeypatch: pytest.MonkeyPatch,
    concurrency: int,
) -> None:
    monkeypatch.setattr(_workers, "PATIENCE", DEADLINE)  # the look is taken here
    lane = make(gate, concurrency=concurrency)
    put_all(lane, numbered(50))
    await asyncio.to_thread(gate.wait_for, min(concurrency, _workers.FEW))
    workers._look(lane, workers._done)
    await asyncio.to_thread(gate.wait_for, concurrency)
    assert workers.count == concurrency
    gate.open()
    await lane.close(DEADLINE)
    assert gate.most == concurrency
    assert Counter(gate.got) == Counter(b"%d" % n for n in range(50))


@pytest.mark.parametrize("concurrency", [1, 2, 7])
async def test_coroutines_run_as_many_at_once_as_allowed_and_never_more(
    make: Make, concurrency: int
) -> None:
    running, most, done, go = 0, 0, 0, asyncio.Event()

    async def handle(packet: Packet) -> None:
        nonlocal running, most, done
        running += 1
        most = max(most, running)
        await go.wait()
        await asyncio.sleep(0)
        running -= 1
        done += 1

    lane = make(handle, concurrency=concurrency)
    put_all(lane, numbered(50))
    await reached(lambda: running == concurrency)
    go.set()
    await lane.close(DEADLINE)
    assert most == concurrency
    assert done == 50


async def test_nothing_is_lost_or_doubled_whatever_the_handlers_and_the_producer_do(
    make: Make,
) -> None:
    chance = random.Random(4711)
    lanes: list[tuple[Lane, list[bytes], int]] = []

    def make_handler(got: list[bytes], delays: list[float]) -> Callable[[Packet], None]:
        def handle(packet: Packet) -> None:
            delay = delays[len(got) % len(delays)]
            if delay:
                time.sleep(delay)  # a handler takes its time: that is what is tested
            got.append(packet.payload)

        return handle

    for concurrency in (1, 1, 1, 2, 5):
        got: list[bytes] = []
        delays = [chance.choice([0, 0, 0, 0.0001, 0.001]) for _ in range(101)]
        lanes.append((make(make_handler(got, delays), concurrency=concurrency), got, concurrency))
    sent = {id(lane): 0 for lane, *_ in lanes}
    for _ in range(1500):
        lane, _, _ = chance.choice(lanes)
        burst = chance.randrange(1, 8)
        put_all(lane, numbered(burst, sent[id(lane)]))
        sent[id(lane)] += burst
        if chance.random() < 0.5:
            await asyncio.sleep(chance.choice([0, 0, 0.0002]))
    await asyncio.gather(*(lane.close(DEADLINE) for lane, *_ in lanes))
    for lane, got, concurrency in lanes:
        expected = [b"%d" % n for n in range(sent[id(lane)])]
        assert (got if concurrency == 1 else sorted(got, key=int)) == expected
        assert (lane.stats.received, lane.stats.dropped) == (len(expected), 0)


# ---- bounds ----


@pytest.mark.parametrize(
    ("bounds", "left", "warned"),
    [
        (Bounds(max_messages=10), range(90, 100), True),
        (Bounds(max_messages=10, overflow="drop_newest"), range(10), True),
        (Bounds(max_messages=10, overflow="latest"), range(99, 100), False),
        (Bounds(max_messages=1), range(99, 100), True),
        (Bounds(max_messages=1, overflow="drop_newest"), range(1), True),
        (Bounds(max_bytes=10 * 1000), range(90, 100), True),
        (Bounds(max_bytes=10 * 1000, overflow="drop_newest"), range(10), True),
        (Bounds(max_bytes=999), range(99, 100), True),
    ],
)
async def test_what_does_not_fit_is_dropped_by_the_policy_and_counted(
    make: Make,
    gate: Gate,
    caplog: pytest.LogCaptureFixture,
    bounds: Bounds,
    left: range,
    warned: bool,
) -> None:
    lane = make(gate, bounds=bounds)
    lane.put(Packet(b"first"))
    await asyncio.to_thread(gate.wait_for, 1)
    put_all(lane, [Packet(b"%d" % n + b" " * (1000 - len(str(n)))) for n in range(100)])
    assert (lane.stats.received, lane.stats.dropped) == (101, 100 - len(left))
    gate.open()
    await lane.close(DEADLINE)
    assert [item.strip() for item in gate.got] == [b"first", *(b"%d" % n for n in left)]
    assert lane.stats.dropped == 100 - len(left)
    assert len(caplog.records) == warned
    assert all("lane: the callback is too slow" in r.message for r in caplog.records)


async def test_a_message_larger_than_the_lane_is_handed_over_when_it_is_alone(
    make: Make, gate: Gate
) -> None:
    lane = make(gate, bounds=Bounds(max_bytes=10))
    lane.put(Packet(b"x" * 1000))
    gate.open()
    await lane.close(DEADLINE)
    assert gate.got == [b"x" * 1000]
    assert lane.stats.dropped == 0


@pytest.mark.parametrize("bounds", [Bounds(max_messages=10), Bounds(max_bytes=1000)])
async def test_each_episode_of_overflow_is_told_once(
    make: Make, caplog: pytest.LogCaptureFixture, bounds: Bounds
) -> None:
    turns, done = threading.Semaphore(0), Collected()

    def handle(packet: Packet) -> None:
        assert turns.acquire(timeout=DEADLINE)
        done(packet)

    lane = make(handle, bounds=bounds)
    put_all(lane, [Packet(b"x" * 100)] * 30)
    for number in range(50):
        # One is worked off, two come: it has not got over it.
        turns.release()
        await asyncio.to_thread(done.wait, number + 1)
        put_all(lane, [Packet(b"x" * 100)] * 2)
    assert len(caplog.records) == 1
    turns.release(100)
    await reached(lambda: len(done.items) == lane.stats.received - lane.stats.dropped)
    lane.put(Packet(b"all is well"))
    for _ in range(100):
        turns.acquire(blocking=False)
    put_all(lane, [Packet(b"x" * 100)] * 30)
    assert len(caplog.records) == 2
    turns.release(100)
    await lane.close(DEADLINE)
    assert len(done.items) == lane.stats.received - lane.stats.dropped


async def test_every_message_is_either_handled_or_counted_as_dropped(make: Make) -> None:
    for overflow in ("drop_oldest", "drop_newest", "latest"):
        got: list[bytes] = []
        lane = make(
            lambda packet, got=got: got.append(packet.payload),
            bounds=Bounds(max_messages=5, max_bytes=50, overflow=overflow),
        )
        for burst in range(500):
            put_all(lane, numbered(burst % 17, 100 * burst))
            await asyncio.sleep(0)
        await lane.close(DEADLINE)
        assert lane.stats.received == sum(burst % 17 for burst in range(500))
        assert len(got) + lane.stats.dropped == lane.stats.received
        assert got == sorted(got, key=int)


# ---- errors ----


@pytest.mark.parametrize("kind", ["thread", "loop", "inline"])
@pytest.mark.parametrize(
    "error", [KeyError("mine"), SystemExit(3), GeneratorExit(), BaseException("not a kind")]
)
async def test_what_a_callback_raises_is_told_and_the_lane_goes_on(
    make: Make, kind: str, error: BaseException
) -> None:
    got, errors = Collected(), Errors()

    def handle(packet: Packet) -> None:
        if packet.payload in (b"1", b"3"):
            raise error
        got(packet.payload)

    async def handle_on_loop(packet: Packet) -> None:
        handle(packet)

    lane = make(
        handle_on_loop if kind == "loop" else handle, inline=kind == "inline", on_error=errors
    )
    put_all(lane, numbered(5))
    await lane.close(DEADLINE)
    assert got.items == [b"0", b"2", b"4"]
    assert errors.items == [(b"1", error), (b"3", error)]


def test_ctrl_c_is_for_the_program_in_the_main_thread_and_nowhere_else() -> None:
    found = Collected()
    assert _turns.is_for_program(KeyboardInterrupt())
    assert not _turns.is_for_program(SystemExit())
    other = threading.Thread(target=lambda: found(_turns.is_for_program(KeyboardInterrupt())))
    other.start()
    assert found.first is False
    other.join()


async def test_the_worker_of_a_callback_that_exits_is_used_again(
    make: Make, workers: Workers
) -> None:
    places: list[threading.Thread] = []

    def handle(packet: Packet) -> None:
        places.append(threading.current_thread())
        raise SystemExit

    lane = make(handle)
    for number in range(10):
        lane.put(Packet(b"x"))
        await reached(lambda number=number: len(places) == number + 1 and lane._active == 0)
        await reached(lambda: workers._idle == 1)
    assert len(set(places)) == 1
    assert places[0].is_alive()
    assert workers.count == 1


async def test_a_coroutine_that_was_cancelled_by_others_is_an_error_like_any(make: Make) -> None:
    got, errors = [], Errors()

    async def handle(packet: Packet) -> None:
        if packet.payload == b"1":
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        got.append(packet.payload)

    lane = make(handle, on_error=errors)
    put_all(lane, numbered(4))
    await lane.close(DEADLINE)
    assert got == [b"0", b"2", b"3"]
    [(payload, error)] = errors.items
    assert payload == b"1"
    assert isinstance(error, asyncio.CancelledError)


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_coroutine_that_cancels_its_own_task_is_an_error_and_the_lane_goes_on(
    make: Make, concurrency: int
) -> None:
    got, errors = [], Errors()

    async def handle(packet: Packet) -> None:
        if packet.payload in (b"0", b"2"):
            own = asyncio.current_task()
            assert own is not None
            own.cancel()
            await asyncio.sleep(0)
        got.append(packet.payload)

    lane = make(handle, on_error=errors, concurrency=concurrency)
    put_all(lane, numbered(5))
    await reached(lambda: lane.waiting == 0)
    await lane.close(DEADLINE)

    assert got == [b"1", b"3", b"4"]
    assert [payload for payload, _ in errors.items] == [b"0", b"2"]
    assert all(isinstance(error, asyncio.CancelledError) for _, error in errors.items)
    assert lane.stats.dropped == 0


def test_no_coroutine_is_begun_when_asyncio_ends_a_loop_and_cancels_all(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    began, errors = [], Errors()

    async def handle(packet: Packet) -> None:
        began.append(packet.payload)
        await asyncio.Event().wait()

    async def main() -> None:
        for _ in range(2):
            lane = make_lane(workers, handle, False, "lane", handle, Stats(), errors)
            put_all(lane, numbered(3))
        await asyncio.sleep(0)

    asyncio.run(main())
    gc.collect()
    assert began == [b"0", b"0"]
    assert errors.items == []
    assert caplog.messages == []


# ---- close ----


async def test_close_works_off_what_is_there_within_its_grace(make: Make) -> None:
    got: list[bytes] = []

    async def handle(packet: Packet) -> None:
        await asyncio.sleep(0)
        got.append(packet.payload)

    for lane in (make(handle), make(lambda packet: got.append(packet.payload), concurrency=3)):
        got.clear()
        put_all(lane, numbered(500))
        await lane.close(DEADLINE)
        assert len(got) == 500
        lane.put(Packet(b"too late"))
        assert lane.stats.dropped == 1
        await lane.close(DEADLINE)
        assert len(got) == 500


async def test_close_drops_and_counts_what_is_left_after_its_grace(
    make: Make, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    lane = make(gate, concurrency=2)
    put_all(lane, numbered(10))
    await asyncio.to_thread(gate.wait_for, 2)
    await lane.close(0.01)
    assert (lane.stats.received, lane.stats.dropped) == (10, 8)
    assert "lane: stopped while its callback was running" in caplog.messages
    gate.open()
    await asyncio.to_thread(gate.wait_for, 0)
    assert sorted(gate.got) == [b"0", b"1"]


async def test_close_cancels_coroutines_after_its_grace(make: Make) -> None:
    cancelled, errors = [], Errors()

    async def handle(packet: Packet) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(packet.payload)
            raise

    lane = make(handle, concurrency=2, on_error=errors)
    put_all(lane, numbered(10))
    await asyncio.sleep(0)
    await soon(lane.close(0.01))
    assert sorted(cancelled) == [b"0", b"1"]
    assert errors.items == []
    assert lane.stats.dropped == 8


async def test_a_coroutine_may_close_its_own_lane_and_goes_on_after_that(make: Make) -> None:
    closed = asyncio.Event()

    async def handle(packet: Packet) -> None:
        # As a node does that is stopped in a callback: not in this task, but on its behalf.
        await asyncio.gather(lane.close(0.01))
        await asyncio.sleep(0)
        closed.set()

    lane = make(handle)
    put_all(lane, numbered(3))
    await soon(closed.wait())
    assert lane.stats.dropped == 2
    await reached(lambda: lane._active == 0)


def test_a_callback_may_outlive_the_loop_it_was_called_from(gate: Gate) -> None:
    workers, uncaught = Workers("test"), Collected()

    async def main() -> None:
        lane = make_lane(workers, gate, False, "lane", gate, Stats(), Errors())
        lane.put(Packet(b"x"))
        await asyncio.to_thread(gate.wait_for, 1)
        await lane.close(0)

    before, threading.excepthook = threading.excepthook, uncaught
    try:
        asyncio.run(main())
        gate.open()
        for thread in workers.close():
            thread.join(DEADLINE)
            assert not thread.is_alive()
    finally:
        threading.excepthook = before
    assert gate.got == [b"x"]
    assert uncaught.items == []


# ---- iteration ----


@contextlib.asynccontextmanager
async def iterated(make: Make, **options: Any) -> AsyncIterator[IterLane]:
    lane = make(None, **options)
    yield lane
    await lane.close(0)


async def test_iteration_gives_what_came_in_order_and_waits_for_what_comes(make: Make) -> None:
    async with iterated(make) as lane:
        put_all(lane, numbered(3))
        got = [await lane.next() for _ in range(3)]
        asyncio.get_running_loop().call_soon(lane.put, Packet(b"3"))
        got.append(await soon(lane.next()))
        assert [packet.payload for packet in got if packet] == [b"0", b"1", b"2", b"3"]


async def test_iteration_ends_with_the_lane_for_everybody(make: Make) -> None:
    async with iterated(make) as lane:
        waiting = [asyncio.create_task(lane.next()) for _ in range(3)]
        await asyncio.sleep(0)
        await lane.close(0)
        assert await soon(asyncio.gather(*waiting)) == [None] * 3
        lane.put(Packet(b"too late"))
        assert await soon(lane.next()) is None
        assert lane.stats.dropped == 1


async def test_several_tasks_may_iterate_and_each_packet_goes_to_one_of_them(make: Make) -> None:
    async with iterated(make) as lane:
        got: list[bytes] = []

        async def take() -> None:
            while (packet := await lane.next()) is not None:
                got.append(packet.payload)
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(take()) for _ in range(3)]
        for packet in numbered(50):
            lane.put(packet)
            await asyncio.sleep(0)
        await reached(lambda: len(got) == 50)
        await lane.close(0)
        await soon(asyncio.gather(*tasks))
        assert sorted(got, key=int) == [b"%d" % n for n in range(50)]


async def test_a_wait_that_was_given_up_takes_no_packet_along(make: Make) -> None:
    async with iterated(make) as lane:
        for number in range(5):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await lane.next()
            lane.put(Packet(b"%d" % number))
            packet = await soon(lane.next())
            assert packet.payload == b"%d" % number


async def test_iteration_is_bounded_as_well(make: Make) -> None:
    async with iterated(make, bounds=Bounds(max_messages=3)) as lane:
        put_all(lane, numbered(10))
        assert [(await lane.next()).payload for _ in range(3)] == [b"7", b"8", b"9"]
        assert (lane.stats.received, lane.stats.dropped) == (10, 7)


# ---- workers ----


async def test_a_worker_is_used_again_for_any_lane(make: Make, workers: Workers) -> None:
    places = Collected()
    lanes = [make(lambda packet: places(threading.current_thread())) for _ in range(3)]
    for number in range(30):
        lanes[number % 3].put(Packet(b"x"))
        await asyncio.to_thread(places.wait, number + 1)
        await reached(lambda number=number: lanes[number % 3]._active == 0)
        await reached(lambda: workers._idle == 1)
    assert workers.count == 1
    assert len(set(places.items)) == 1


async def test_lanes_whose_callbacks_block_starve_no_other(
    make: Make, gate: Gate, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_workers, "PATIENCE", DEADLINE)  # the looks are taken here
    lanes = [make(gate) for _ in range(30)]
    for lane in lanes:
        lane.put(Packet(b"blocks"))
    await asyncio.to_thread(gate.wait_for, _workers.FEW)
    while workers.all_taken:
        workers._look(lanes[0], workers._done)
        await asyncio.to_thread(gate.wait_for, workers.count)
    got = Collected()
    other = make(got)
    other.put(Packet(b"runs"))
    workers._look(other, workers._done)
    assert (await asyncio.to_thread(lambda: got.first)).payload == b"runs"
    assert workers.count == 31
    assert workers.starved == 0


async def test_a_burst_over_thousands_of_lanes_is_left_to_a_few_workers(
    make: Make, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_workers, "PATIENCE", DEADLINE)
    got = Collected()
    for lane in [make(got) for _ in range(2000)]:
        lane.put(Packet(b"x"))
    await asyncio.to_thread(got.wait, 2000)
    assert workers.count == _workers.FEW
    assert workers.starved == 0


async def test_workers_that_get_on_slowly_are_joined_by_one_and_those_that_block_by_many(
    make: Make, gate: Gate, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_workers, "PATIENCE", DEADLINE)  # the looks are taken here
    lanes = [make(gate) for _ in range(20)]
    for lane in lanes:
        lane.put(Packet(b"x"))
    await asyncio.to_thread(gate.wait_for, _workers.FEW)
    for done, joined in ((_workers.QUICK * _workers.FEW, 0), (1, 1), (0, _workers.FEW + 1)):
        before = workers.count
        workers._look(lanes[0], workers._done - done)
        assert workers.count == before + joined
        await asyncio.to_thread(gate.wait_for, workers.count)
    assert workers.starved == 0


async def test_at_the_limit_lanes_wait_and_that_is_told_once_and_counted(
    make: Make,
    gate: Gate,
    workers: Workers,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(_workers, "MAX_WORKERS", 3)
    lanes = [make(gate) for _ in range(8)]
    for lane in lanes:
        lane.put(Packet(b"x"))
    await asyncio.to_thread(gate.wait_for, 3)
    await reached(lambda: workers.starved == 5)
    assert workers.count == 3
    assert workers.all_taken
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "all 3 workers of test are busy; lane waits" in record.message
    gate.open()
    for lane in lanes:
        await lane.close(DEADLINE)
    assert len(gate.got) == 8
    assert workers.count == 3


def test_while_a_lack_of_workers_is_logged_other_threads_may_use_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Call:
        name = "call"

        def work(self) -> None:
            raise AssertionError("there is nobody to do it")

    monkeypatch.setattr(_workers, "MAX_WORKERS", 0)
    workers = Workers("test")
    with Bystander(lambda: workers.serve(Call())).on("commlib.lanes") as bystander:
        workers.serve(Call())
    assert bystander.was_free == [True]
    assert workers.starved == 2


async def test_a_lane_that_never_runs_dry_leaves_workers_to_the_others_at_the_limit(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_workers, "MAX_WORKERS", 1)
    monkeypatch.setattr(_lanes, "TURN", 10)
    served = Collected()
    loop = asyncio.get_running_loop()
    supply = Packet(b"x")
    count = 0

    def handle(packet: Packet) -> None:
        nonlocal count
        count += 1
        if not served.items:
            endless._queue.append(supply)  # before this one is done, so it is never empty

    endless = make(handle)
    endless.put(supply)
    await reached(lambda: count > 20)
    other = make(served)
    loop.call_soon(other.put, Packet(b"other"))
    await asyncio.to_thread(served.wait, 1)
    await endless.close(DEADLINE)


async def test_idle_workers_end_and_new_ones_begin_when_needed(
    make: Make, gate: Gate, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_workers, "IDLE_SECONDS", 0.01)
    for _ in range(5):
        make(gate).put(Packet(b"x"))
    await asyncio.to_thread(gate.wait_for, 5)
    threads = list(workers._threads)
    gate.open()
    for thread in threads:
        await asyncio.to_thread(thread.join, DEADLINE)
        assert not thread.is_alive()
    assert workers.count == 0
    got = Collected()
    lane = make(got)
    for number in range(20):
        lane.put(Packet(b"%d" % number))
        await asyncio.to_thread(got.wait, number + 1)
        if number % 5 == 0:
            await reached(lambda: workers.count == 0)
    await lane.close(DEADLINE)


async def test_work_that_comes_while_idle_workers_end_is_never_forgotten(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_workers, "IDLE_SECONDS", 0.0005)
    got = Collected()
    lanes = [make(got) for _ in range(4)]
    for number in range(300):
        lanes[number % 4].put(Packet(b"%d" % number))
        await asyncio.sleep(0.0005 * (number % 3))
    await asyncio.to_thread(got.wait, 300)


async def test_a_lane_that_comes_while_the_last_worker_ends_is_served(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_workers, "IDLE_SECONDS", 0.2)
    done = Collected()

    class Call:
        name = "call"

        def work(self) -> None:
            done(self)

    def comes_unannounced() -> bool:
        """As ``serve``, interrupted when it has seen that somebody is idle, before it wakes him."""
        with workers._lock:
            if workers._idle:
                workers._line.append(Call())
            return bool(workers._idle)

    served = 0
    is_in_line = False
    while not is_in_line:  # the worker may have ended by then
        workers.serve(Call())
        served += 1
        await asyncio.to_thread(done.wait, served)
        await reached(lambda: workers._idle == workers.count)
        is_in_line = comes_unannounced()
    assert await asyncio.to_thread(done.wait, served + 1)


async def test_lanes_are_served_though_all_workers_have_ended_while_the_loop_was_blocked(
    make: Make, gate: Gate, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_workers, "IDLE_SECONDS", 0.01)
    late = Collected()
    for _ in range(_workers.FEW + 1):
        make(gate).put(Packet(b"x"))
    assert workers._is_watched
    gate.open()
    for thread in list(workers._threads):
        thread.join(DEADLINE)  # on the loop, which cannot look meanwhile
    assert (workers.count, workers._is_watched) == (0, True)
    make(late).put(Packet(b"late"))
    assert (await asyncio.to_thread(late.wait, 1))[0].payload == b"late"


async def test_a_look_that_finds_no_workers_at_all_starts_one(
    make: Make, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = Collected()
    lane = make(got)
    monkeypatch.setattr(workers, "serve", workers.serve_again)
    lane.put(Packet(b"x"))
    assert workers.count == 0
    for done_before in (workers._done, workers._done - _workers.QUICK):
        workers._look(lane, done_before)
    assert (await asyncio.to_thread(got.wait, 1))[0].payload == b"x"


async def test_no_look_is_left_to_a_loop_that_is_not_the_workers_own(
    make: Make, gate: Gate, workers: Workers
) -> None:
    for _ in range(_workers.FEW):
        make(gate).put(Packet(b"x"))
    await asyncio.to_thread(gate.wait_for, _workers.FEW)
    done = Collected()

    class Call:
        name = "call"

        def work(self) -> None:
            done(self)

    async def serve() -> None:
        workers.serve(Call())  # as a callback of a future does in a program's own loop

    await asyncio.to_thread(asyncio.run, serve())
    assert await asyncio.to_thread(done.wait, 1)
    assert not workers._is_watched


async def test_a_system_without_threads_for_us_is_told_and_the_lane_waits(
    make: Make, workers: Workers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    got = Collected()
    lane, other = make(got), make(got)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        lane.put(Packet(b"1"))
    assert workers.count == 0
    assert workers.starved == 1
    assert "lane waits" in caplog.text
    other.put(Packet(b"2"))
    await asyncio.to_thread(got.wait, 2)
    assert sorted(packet.payload for packet in got.items) == [b"1", b"2"]


async def test_a_single_call_can_be_given_to_the_workers(workers: Workers) -> None:
    done = Collected()

    class Call:
        name = "call"

        def work(self) -> None:
            done(threading.current_thread())

    workers.serve(Call())
    assert (await asyncio.to_thread(lambda: done.first)) is not threading.main_thread()


class Wait:
    """Work that lasts until it is let go."""

    name = "wait"

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def work(self) -> None:
        self.go_on.wait(DEADLINE)


async def test_work_that_lasts_has_a_thread_of_its_own_which_ends_with_it(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_workers, "MAX_WORKERS", 1)
    works = [Wait() for _ in range(3)]
    threads = [workers.serve_alone(work) for work in works]
    assert {thread.name for thread in threads} == {"wait-worker"}
    assert all(thread.daemon for thread in threads)
    assert (workers.count, workers.all_taken) == (0, False)

    for work, thread in zip(works, threads, strict=True):
        assert thread.is_alive()
        work.go_on.set()
        thread.join(DEADLINE)  # here: what another thread has called may be kept for a moment
        assert not thread.is_alive()
    del thread, threads
    gc.collect()
    assert workers.close() == []


async def test_of_the_threads_with_work_that_lasts_close_returns_those_worth_waiting_for() -> None:
    workers = Workers("test")
    work, endless = Wait(), Wait()
    thread, stubborn = workers.serve_alone(work), workers.serve_alone(endless)
    workers.give_up(stubborn)
    assert workers.close() == [thread]
    for work_of in (work, endless):
        work_of.go_on.set()
    for each in (thread, stubborn):
        await asyncio.to_thread(each.join, DEADLINE)


async def test_closing_the_workers_lets_them_finish_what_they_do(gate: Gate) -> None:
    workers = Workers("test")
    lane = make_lane(workers, gate, False, "lane", gate, Stats(), Errors())
    lane.put(Packet(b"x"))
    await asyncio.to_thread(gate.wait_for, 1)
    [thread] = workers.close()
    assert thread.is_alive()
    gate.open()
    await asyncio.to_thread(thread.join, DEADLINE)
    assert not thread.is_alive()
    assert gate.got == [b"x"]
