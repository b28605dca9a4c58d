"""The queue in front of a connection; with a link that is a fake."""

from __future__ import annotations

import asyncio
import gc
import random
import signal
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

import pytest

from bystander import Bystander
from collected import DEADLINE
from commlib import _outbox
from commlib._outbox import Outbox
from commlib._params import Offline
from commlib.exceptions import AuthError, CommlibError, ConnectionLost, EndpointClosed
from commlib.transports.base import LinkStats
from fake_link import FakeLink

T = TypeVar("T")


async def soon(awaitable: Awaitable[Any]) -> Any:
    """What it gives, before the test is given up."""
    async with asyncio.timeout(DEADLINE):
        return await awaitable


# ---- the outbox while the link is there ----


class Outbox_(Outbox):
    """An outbox whose failure is set by the test, and whether the first link is on its way."""

    def __init__(self, offline: Offline | None = None) -> None:
        self.refusal: CommlibError | None = None
        self.first = False
        self.stats = LinkStats()
        super().__init__(
            "fake",
            offline or Offline(),
            self.stats,
            failure=lambda: self.refusal,
            connecting=lambda: self.first,
        )


async def test_a_burst_is_one_write() -> None:
    outbox, link = Outbox_(), FakeLink()
    outbox.set_link(link)
    for number in range(100):
        assert outbox.put(b"%d" % number, number)
    assert link.writes == []
    await asyncio.sleep(0)
    assert link.writes == [([b"%d" % n for n in range(100)], list(range(100)))]


async def test_how_a_question_ends_that_nobody_waits_for_any_more_is_no_news() -> None:
    outbox, link, told = Outbox_(), FakeLink(), list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    outbox.set_link(link)
    asking = asyncio.create_task(outbox.confirm(b"?", link.closed))
    await soon(link.written.wait())
    asking.cancel()
    await asyncio.wait([asking])
    [[_, [answer]]] = link.writes
    assert isinstance(answer, asyncio.Future)
    answer.set_exception(ConnectionLost("it was lost"))
    await asyncio.sleep(0)
    link.writes.clear()
    del answer, asking
    gc.collect()
    assert told == []


async def test_what_waits_may_be_put_into_another_form_or_left_out() -> None:
    outbox, link = Outbox_(), FakeLink()
    outbox.set_link(link)
    outbox.on_room(False)
    for number in range(4):
        outbox.put(b"%d" % number * 10, number)
    outbox.revise(lambda frame, note: None if note == 1 else frame[note:])  # type: ignore[misc]
    outbox.on_room(True)
    assert link.writes == [([b"0" * 10, b"2" * 8, b"3" * 7], [0, 2, 3])]


async def test_what_is_left_out_makes_room() -> None:
    outbox, link = Outbox_(), FakeLink()
    outbox.set_link(link)
    outbox.on_room(False)
    big = bytes(_outbox.MAX_BYTES)
    assert outbox.put(big, "old")
    assert not outbox.put(big, "new")
    outbox.revise(lambda frame, note: None)
    assert outbox.put(big, "new")


async def test_what_is_revised_while_away_keeps_its_age_and_its_bounds() -> None:
    outbox, link = Outbox_(Offline(max_messages=2)), FakeLink()
    outbox.set_link(link)
    outbox.set_link(None)
    for number in range(2):
        outbox.put(b"%d" % number, number)
    outbox.revise(lambda frame, note: frame if note else None)
    outbox.put(b"2", 2)
    assert outbox.stats.overflow == 0
    outbox.put(b"3", 3)
    assert outbox.stats.overflow == 1
    outbox.set_link(link)
    assert link.frames == [b"2", b"3"]


async def test_a_burst_of_another_thread_is_one_write() -> None:
    outbox, link = Outbox_(), FakeLink()
    outbox.set_link(link)

    def burst() -> None:
        for number in range(1000):
            assert outbox.put(b"%d" % number, None)

    thread = threading.Thread(target=burst)
    thread.start()
    thread.join()  # the loop has to wait: none of it is written meanwhile
    await soon(link.written.wait())
    await asyncio.sleep(0)
    assert len(link.writes) == 1
    assert link.frames == [b"%d" % n for n in range(1000)]


async def test_a_link_that_takes_a_frame_at_once_is_given_it_unless_others_wait() -> None:
    outbox, link = Outbox_(), FakeLink()
    outbox.set_link(link)
    link.takes_now = True
    assert outbox.put(b"at once", None)
    assert link.frames == [b"at once"]
    link.takes_now = False
    assert outbox.put(b"queued", None)
    link.takes_now = True
    assert outbox.put(b"behind it", None)
    assert link.frames == [b"at once"]
    await asyncio.sleep(0)
    assert link.frames == [b"at once", b"queued", b"behind it"]


async def test_many_threads_lose_nothing_and_each_keeps_its_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_outbox, "MAX_BYTES", 20_000)  # full every now and then
    outbox, link = Outbox_(), FakeLink()
    outbox.set_link(link)
    loop = asyncio.get_running_loop()

    def put(thread: int) -> int:
        refused = 0
        for number in range(1000):
            while not outbox.put(b"%d %d" % (thread, number), (thread, number)):
                refused += 1
                asyncio.run_coroutine_threadsafe(outbox.room(), loop).result(DEADLINE)
        return refused

    refused = await asyncio.gather(*(asyncio.to_thread(put, number) for number in range(16)))
    await soon(outbox.room())
    written = [note for _, notes in link.writes for note in notes]
    assert link.frames == [b"%d %d" % note for note in written]
    for thread in range(16):
        assert [n for t, n in written if t == thread] == list(range(1000))
    assert len(link.writes) < len(written)
    assert sum(refused) > 0


async def test_a_full_outbox_takes_nothing_until_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_outbox, "MAX_BYTES", 1000)
    outbox, link = Outbox_(), FakeLink()
    outbox.set_link(link)
    outbox.on_room(False)
    count = 0
    while outbox.put(b"x" * 100, count):
        count += 1
    assert count == 1000 // (100 + _outbox.FRAME_COST)
    waiting = asyncio.create_task(outbox.room())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    assert link.writes == []
    outbox.on_room(True)
    await soon(waiting)
    assert len(link.frames) == count
    assert outbox.put(b"x", None)


async def test_a_frame_larger_than_the_outbox_is_taken_when_it_is_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_outbox, "MAX_BYTES", 1000)
    outbox, link = Outbox_(), FakeLink()
    outbox.set_link(link)
    assert outbox.put(b"x" * 5000, None)
    assert not outbox.put(b"x", None)
    await soon(outbox.room())
    assert outbox.put(b"y", None)
    await soon(outbox.room())
    assert link.frames == [b"x" * 5000, b"y"]


async def test_who_gives_up_waiting_for_room_leaves_nothing_behind() -> None:
    outbox = Outbox_()
    outbox.first = True  # the connection is on its way, and so is room
    outbox.set_link(None)
    for _ in range(10):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await outbox.room()
    assert outbox._waiting == []


async def test_who_waits_for_room_is_told_that_there_will_be_none() -> None:
    outbox = Outbox_(Offline("wait"))
    outbox.set_link(None)
    waiting = asyncio.create_task(outbox.room())
    await asyncio.sleep(0)
    outbox.refusal = AuthError("wrong password")
    outbox.wake()
    await soon(waiting)
    with pytest.raises(AuthError):
        outbox.put(b"x", None)
    await soon(outbox.room())


# ---- the outbox while the link is away ----


class Clock:
    """Stands in for the module ``time``."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_outbox, "time", clock)
    return clock


async def test_the_buffer_keeps_the_newest_messages_and_counts_the_others() -> None:
    outbox, link = Outbox_(Offline(max_messages=10)), FakeLink()
    for number in range(25):
        assert outbox.put(b"%d" % number, number)
    assert outbox.stats.overflow == 15
    outbox.set_link(link)
    assert link.frames == [b"%d" % n for n in range(15, 25)]
    assert [notes for _, notes in link.writes] == [list(range(15, 25))]
    assert outbox.stats == LinkStats(overflow=15)


async def test_the_buffer_is_bounded_by_bytes_as_well() -> None:
    outbox, link = Outbox_(Offline(max_bytes=100)), FakeLink()
    for number in range(8):
        assert outbox.put(b"%030d" % number, None)
    assert outbox.stats.overflow == 5
    assert outbox.put(b"x" * 101, None)  # fits by no means, and takes the others with it
    assert outbox.stats.overflow == 9
    assert outbox.put(b"y" * 100, None)
    outbox.set_link(link)
    assert link.frames == [b"y" * 100]
    assert outbox.stats == LinkStats(overflow=9)


async def test_what_is_too_old_when_the_link_comes_is_dropped_and_counted(clock: Clock) -> None:
    outbox, link = Outbox_(Offline(max_age=5.0)), FakeLink()
    for number in range(4):
        outbox.put(b"%d" % number, number)
        clock.now += 2.0
    clock.now += 1.0  # they are 9, 7, 5 and 3 s old
    outbox.set_link(link)
    assert link.frames == [b"2", b"3"]
    assert outbox.stats == LinkStats(expired=2)


def held(max_age: float = 5.0) -> tuple[Outbox_, FakeLink]:
    """An outbox whose broker takes nothing for now."""
    outbox, link = Outbox_(Offline(max_age=max_age)), FakeLink()
    outbox.set_link(link)
    outbox.on_room(False)
    outbox.hold()
    return outbox, link


def let_go(outbox: Outbox_) -> None:
    """The broker takes something again."""
    outbox.release(lambda note: note == "stays")
    outbox.on_room(True)


async def test_what_is_too_old_when_the_broker_takes_something_again_is_dropped_and_counted(
    clock: Clock,
) -> None:
    outbox, link = Outbox_(Offline(max_age=5.0)), FakeLink()
    outbox.set_link(link)
    outbox.put(b"before", None)  # the loop has not come to it
    outbox.on_room(False)
    outbox.hold()
    outbox.put(b"behind it", None)
    await asyncio.sleep(0)
    for number in range(4):
        outbox.put(b"%d" % number, "stays" if number == 1 else None)
        clock.now += 2.0
    clock.now += 1.0  # they are 9, 7, 5 and 3 s old
    let_go(outbox)
    assert link.frames == [b"1", b"2", b"3"]
    assert outbox.stats == LinkStats(expired=3)
    outbox.put(b"4", None)
    await asyncio.sleep(0)
    assert link.frames[3:] == [b"4"]


async def test_what_waits_only_because_the_socket_is_full_does_not_grow_old(clock: Clock) -> None:
    outbox, link = Outbox_(Offline(max_age=5.0)), FakeLink()
    outbox.set_link(link)
    outbox.on_room(False)
    outbox.put(b"1", None)
    clock.now += 60.0
    let_go(outbox)
    assert link.frames == [b"1"]
    assert outbox.stats == LinkStats()


@pytest.mark.parametrize("takes_now", [True, False])
async def test_what_other_threads_bring_while_it_is_held_grows_old_as_well(
    clock: Clock, takes_now: bool
) -> None:
    outbox, link = held()
    link.may_be_now = lambda urgent: takes_now  # type: ignore[method-assign]
    for number in range(4):
        await asyncio.to_thread(outbox.put, b"%d" % number, None)
        clock.now += 2.0
    let_go(outbox)
    await asyncio.sleep(0)
    assert link.frames == [b"2", b"3"]
    assert outbox.stats == LinkStats(expired=2)


async def test_what_is_revised_while_it_is_held_keeps_its_age(clock: Clock) -> None:
    outbox, link = held()
    for number in range(4):
        outbox.put(b"%d" % number, number)
        clock.now += 2.0
    outbox.revise(lambda frame, note: frame if note != 2 else None)
    let_go(outbox)
    assert link.frames == [b"3"]
    assert outbox.stats == LinkStats(expired=2)


async def test_what_is_dropped_when_the_broker_takes_something_again_makes_room(
    clock: Clock,
) -> None:
    outbox, _ = held()
    big = bytes(_outbox.MAX_BYTES)
    outbox.put(big, "old")
    clock.now += 6.0
    assert not outbox.put(big, "new")
    outbox.release(lambda note: False)
    assert outbox.put(big, "new")


async def test_a_link_that_is_lost_while_it_is_held_makes_nothing_younger(clock: Clock) -> None:
    outbox, _ = held()
    outbox.put(b"1", None)
    clock.now += 4.0
    outbox.put(b"2", None)
    outbox.set_link(None)
    clock.now += 4.0
    outbox.put(b"3", None)
    fresh = FakeLink()
    outbox.set_link(fresh)
    assert fresh.frames == [b"2", b"3"]
    assert outbox.stats == LinkStats(expired=1)
    outbox.put(b"4", None)
    clock.now += 60.0
    await asyncio.sleep(0)
    assert fresh.frames == [b"2", b"3", b"4"]


async def test_a_message_that_was_queued_when_the_link_broke_follows_the_policy_from_then_on(
    clock: Clock,
) -> None:
    outbox, broken = Outbox_(Offline(max_messages=10, max_age=5.0)), FakeLink()
    outbox.set_link(broken)
    for number in range(20):
        outbox.put(b"%d" % number, number)
    outbox.set_link(None)
    assert not outbox.empty
    clock.now += 3.0
    outbox.put(b"20", 20)
    assert outbox.stats == LinkStats(overflow=11)
    clock.now += 3.0
    fresh = FakeLink()
    outbox.set_link(fresh)
    assert broken.writes == []
    assert fresh.frames == [b"20"]
    assert outbox.stats == LinkStats(overflow=11, expired=9)


async def test_a_flush_that_was_on_its_way_when_the_link_broke_does_no_harm() -> None:
    outbox, first, second = Outbox_(), FakeLink(), FakeLink()
    outbox.set_link(first)
    outbox.put(b"1", 1)
    outbox.set_link(None)
    await asyncio.sleep(0)
    outbox.set_link(second)
    outbox.put(b"2", 2)
    await asyncio.sleep(0)
    assert first.writes == []
    assert second.frames == [b"1", b"2"]


@pytest.mark.parametrize("bounds", [{"max_messages": 10}, {"max_bytes": 10}])
async def test_while_the_first_link_is_on_its_way_nothing_is_dropped(bounds: Any) -> None:
    outbox, link = Outbox_(Offline(**bounds)), FakeLink()
    outbox.first = True
    for number in range(10):
        assert outbox.put(b"%d" % number, number)
    assert not outbox.put(b"10", 10)
    waiting = asyncio.create_task(outbox.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    outbox.first = False
    outbox.set_link(link)
    await soon(waiting)
    assert outbox.put(b"10", 10)
    await asyncio.sleep(0)
    assert link.frames == [b"%d" % n for n in range(11)]
    assert outbox.stats == LinkStats()


async def test_when_the_first_attempt_has_failed_the_policy_holds() -> None:
    outbox = Outbox_(Offline(max_messages=10))
    outbox.first = True
    for number in range(10):
        assert outbox.put(b"%d" % number, number)
    assert not outbox.put(b"10", 10)
    waiting = asyncio.create_task(outbox.room())
    await asyncio.sleep(0)
    outbox.first = False
    outbox.wake()
    await soon(waiting)
    assert outbox.put(b"10", 10)
    assert outbox.stats == LinkStats(overflow=1)


async def test_the_policy_wait_takes_nothing_until_the_link_is_there() -> None:
    outbox, link = Outbox_(Offline("wait")), FakeLink()
    assert not outbox.put(b"1", None)
    waiting = asyncio.create_task(outbox.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    outbox.set_link(link)
    await soon(waiting)
    assert outbox.put(b"1", None)
    await asyncio.sleep(0)
    assert link.frames == [b"1"]
    assert outbox.stats == LinkStats()


async def test_the_policy_raise_raises_with_the_remedy() -> None:
    outbox = Outbox_(Offline("raise"))
    with pytest.raises(ConnectionLost, match="offline='buffer'"):
        outbox.put(b"1", None)
    assert outbox.empty
    assert outbox.stats == LinkStats()


@pytest.mark.parametrize("policy", ["buffer", "wait", "raise"])
async def test_no_policy_hides_why_no_link_will_come(policy: Any) -> None:
    outbox = Outbox_(Offline(policy))
    outbox.refusal = AuthError("wrong password")
    with pytest.raises(AuthError, match="wrong password"):
        outbox.put(b"1", None)
    assert outbox.empty


async def test_what_is_given_up_is_counted() -> None:
    outbox = Outbox_()
    for number in range(7):
        outbox.put(b"%d" % number, None)
    outbox.close()
    assert outbox.empty
    assert outbox.stats == LinkStats(expired=7)
    link = FakeLink()
    outbox.set_link(link)
    assert link.writes == []


async def test_while_it_logs_what_is_lost_other_threads_may_use_it() -> None:
    outbox = Outbox_(Offline(max_messages=1))

    def put() -> None:
        with suppress(EndpointClosed):
            outbox.put(b"of another thread", None)

    with Bystander(put).on("commlib.session") as bystander:
        outbox.put(b"1", None)
        outbox.put(b"2", None)
        assert bystander.was_free == [True]
        outbox.close()
    assert bystander.was_free == [True, True]


# ---- threads that write themselves ----


class Busy(FakeLink):
    """A link whose first ``write_now`` lasts until the test lets it go on."""

    def __init__(self) -> None:
        super().__init__()
        self.takes_now = True
        self.takes_all = True
        self.loop_writes: list[list[bytes]] = []
        self.is_entered, self.may_go_on = threading.Event(), threading.Event()
        self.before_all: Callable[[], object] = lambda: None

    def write(self, frames: Iterable[bytes], notes: Iterable[object]) -> None:
        found = list(frames)
        self.loop_writes.append(found)
        super().write(found, notes)

    def write_now(self, frame: bytes, note: object, urgent: bool) -> bool:
        self.is_entered.set()
        assert self.may_go_on.wait(DEADLINE)
        if self.takes_now:
            super().write([frame], [note])
        return self.takes_now

    def write_all_now(self, frames: Iterable[bytes], notes: Iterable[object]) -> bool:
        self.before_all()
        if self.takes_all:
            super().write(frames, notes)
        return self.takes_all


class Writing:
    """An outbox that a thread is just writing the frame "first" from."""

    def __init__(self, offline: Offline | None = None) -> None:
        self.outbox, self.link = Outbox_(offline), Busy()
        self.outbox.set_link(self.link)
        self.first = asyncio.create_task(asyncio.to_thread(self.outbox.put, b"first", 0, True))

    async def begun(self) -> Writing:
        assert await asyncio.to_thread(self.link.is_entered.wait, DEADLINE)
        return self

    def on_loop(self, work: Callable[[], object]) -> Callable[[], object]:
        """What has this done on the loop, and waits for that; for the thread."""
        loop = asyncio.get_running_loop()

        async def do() -> None:
            work()

        return lambda: asyncio.run_coroutine_threadsafe(do(), loop).result(DEADLINE)

    async def ended(self) -> bool:
        """Let that thread go on; what its ``put`` returned."""
        self.link.may_go_on.set()
        return bool(await soon(self.first))


async def test_who_comes_while_a_thread_is_writing_leaves_it_to_that() -> None:
    writing = await Writing().begun()
    for number in range(1, 4):
        put = asyncio.to_thread(writing.outbox.put, b"%d" % number, number, True)
        assert await soon(put), "it does not wait for who is writing"
    assert not writing.outbox.empty
    assert not writing.outbox.is_written
    assert await writing.ended()
    assert writing.link.writes == [([b"first"], [0]), ([b"1", b"2", b"3"], [1, 2, 3])]
    assert writing.link.loop_writes == []
    assert writing.outbox.empty
    assert writing.outbox.is_written


async def test_the_loop_writes_nothing_between() -> None:
    writing = await Writing().begun()
    writing.outbox.put(b"of the loop", 1)
    writing.outbox.on_room(True)  # which has the loop write what waits
    await asyncio.sleep(0)
    assert writing.link.frames == []
    assert await writing.ended()
    assert writing.link.frames == [b"first", b"of the loop"]


async def test_what_cannot_be_written_then_is_written_by_the_loop_before_what_comes_later() -> None:
    writing = await Writing().begun()
    link, outbox = writing.link, writing.outbox
    link.takes_all = False
    link.before_all = lambda: outbox.put(b"3", 3)
    for number in (1, 2):
        assert outbox.put(b"%d" % number, number)
    assert await writing.ended()
    await soon(outbox.room())
    assert link.loop_writes == [[b"1", b"2", b"3"]]
    assert [note for _, notes in link.writes for note in notes] == [0, 1, 2, 3]


async def test_a_frame_that_the_link_does_not_take_after_all_waits_with_the_others() -> None:
    writing = await Writing().begun()
    writing.link.takes_now = False
    assert writing.outbox.put(b"1", 1)
    assert await writing.ended()
    await soon(writing.outbox.room())
    # In one go, or in two if the loop was quick.
    assert [frame for frames in writing.link.loop_writes for frame in frames] == [b"1", b"first"]


async def test_when_the_link_goes_meanwhile_the_policy_holds_for_what_waits() -> None:
    writing = await Writing(Offline(max_messages=2)).begun()
    outbox, link = writing.outbox, writing.link
    for number in (1, 2, 3):
        outbox.put(b"%d" % number, number)
    link.takes_all = False
    link.before_all = writing.on_loop(lambda: outbox.set_link(None))
    assert await writing.ended()
    next_link = FakeLink()
    assert outbox.put(b"4", 4)
    outbox.set_link(next_link)
    await asyncio.sleep(0)
    assert next_link.frames == [b"3", b"4"]
    assert outbox.stats.overflow == 2


async def test_what_is_held_when_the_outbox_is_closed_is_counted() -> None:
    writing = await Writing().begun()
    outbox, link = writing.outbox, writing.link
    question: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    outbox.put(b"1", 1)
    outbox.put(b"a question", question)
    link.takes_all = False

    def close() -> None:
        outbox.set_link(None)
        outbox.close()

    link.before_all = writing.on_loop(close)
    assert await writing.ended()
    assert outbox.stats.expired == 1
    assert outbox.empty


async def test_what_is_revised_meanwhile_is_not_written_as_it_was() -> None:
    writing = await Writing().begun()
    outbox, link = writing.outbox, writing.link
    for number in (1, 2, 3):
        outbox.put(b"%d" % number, number)
    link.takes_all = False
    link.before_all = lambda: outbox.revise(
        lambda frame, note: None if note == 2 else b"new " + frame
    )
    assert await writing.ended()
    await soon(outbox.room())
    assert link.loop_writes == [[b"new 1", b"new 3"]]
    assert outbox._bytes == 0


async def test_who_waits_for_room_is_told_by_a_thread_that_has_made_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_outbox, "MAX_BYTES", 1000)
    writing = await Writing().begun()
    while writing.outbox.put(b"x" * 100, None):
        pass
    waiting = asyncio.create_task(writing.outbox.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await writing.ended()
    await soon(waiting)
    assert writing.outbox.put(b"x" * 100, None)


async def test_a_thread_does_not_write_for_others_for_ever() -> None:
    writing = await Writing().begun()
    outbox, link = writing.outbox, writing.link
    link.before_all = lambda: outbox.put(b"one more", None)
    outbox.put(b"one", None)
    assert await writing.ended()
    await soon(outbox.room())
    assert len(link.writes) == 1 + _outbox.MOST_OF_OTHERS + 1
    assert link.loop_writes == [[b"one more"]]


class Held:
    """An outbox with two frames that wait for more to come."""

    def __init__(self) -> None:
        self.outbox, self.link = Outbox_(), FakeLink()
        self.outbox.set_link(self.link)
        self.link.takes_now = True

    async def begun(self) -> Held:
        for number in range(2):
            await asyncio.to_thread(self.outbox.put, b"%d" % number, number, True, True)
        assert self.link.writes == []
        return self


async def test_what_is_put_with_more_to_come_waits_and_wakes_nobody() -> None:
    held = await Held().begun()
    assert not held.outbox._wake_pending
    assert not held.outbox.is_written


async def test_what_comes_next_is_written_with_what_waits_for_it_in_one_go() -> None:
    held = await Held().begun()
    assert await asyncio.to_thread(held.outbox.put, b"2", 2, True)
    assert held.link.writes == [([b"0", b"1", b"2"], [0, 1, 2])]
    assert held.outbox.is_written


async def test_what_is_let_go_is_written_by_who_says_so() -> None:
    held = await Held().begun()
    await asyncio.to_thread(held.outbox.let_go)
    assert held.link.writes == [([b"0", b"1"], [0, 1])]
    await asyncio.to_thread(held.outbox.let_go)
    assert len(held.link.writes) == 1, "nothing waited any more"


@pytest.mark.parametrize("urgent", [False, True, None])
async def test_what_the_loop_puts_takes_along_what_waits(urgent: bool | None) -> None:
    held = await Held().begun()
    assert held.outbox.put(b"2", 2, urgent)
    await asyncio.sleep(0)
    assert held.link.writes == [([b"0", b"1", b"2"], [0, 1, 2])]


async def test_what_the_loop_lets_go_is_written_in_its_next_turn() -> None:
    held = await Held().begun()
    held.outbox.let_go()
    await asyncio.sleep(0)
    assert held.link.writes == [([b"0", b"1"], [0, 1])]


class Flushed(FakeLink):
    """A link that does something else in the middle of what the loop writes."""

    meanwhile: Callable[[], None] = staticmethod(lambda: None)

    def write(self, frames: Iterable[bytes], notes: Iterable[object]) -> None:
        super().write(frames, notes)
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()


async def test_what_is_let_go_while_the_loop_writes_is_written_in_its_next_turn() -> None:
    outbox, link = Outbox_(), Flushed()
    outbox.set_link(link)

    def hold_and_let_go() -> None:
        outbox.put(b"held", 1, True, more=True)
        outbox.let_go()

    def meanwhile() -> None:
        thread = threading.Thread(target=hold_and_let_go)
        thread.start()
        thread.join(DEADLINE)

    link.meanwhile = meanwhile
    outbox.put(b"of the loop", 0)
    await asyncio.sleep(0)
    assert link.frames == [b"of the loop"]
    await asyncio.sleep(0)
    assert link.frames == [b"of the loop", b"held"]


async def test_what_is_let_go_while_another_thread_writes_is_written_by_that() -> None:
    writing = await Writing().begun()

    def hold_and_let_go() -> None:
        writing.outbox.put(b"held", 1, True, more=True)
        writing.outbox.let_go()

    await asyncio.to_thread(hold_and_let_go)
    assert await writing.ended()
    assert writing.link.frames == [b"first", b"held"]


@pytest.mark.parametrize("is_let_go", [False, True])
async def test_what_waits_for_more_is_left_to_the_loop_if_the_link_does_not_take_it(
    is_let_go: bool,
) -> None:
    held = await Held().begun()
    held.link.takes_now = False
    if is_let_go:
        await asyncio.to_thread(held.outbox.let_go)
    else:
        await asyncio.to_thread(held.outbox.put, b"2", 2, True)
    await asyncio.sleep(0)
    assert held.link.frames == [b"0", b"1", b"2"][: 3 - is_let_go]


async def test_what_waits_for_more_leaves_with_who_waits_for_room() -> None:
    held = await Held().begun()
    await soon(held.outbox.room())
    assert held.link.frames == [b"0", b"1"]


async def test_what_waits_for_more_when_the_link_is_lost_leaves_with_the_next() -> None:
    held = await Held().begun()
    held.outbox.set_link(None)
    held.outbox.let_go()
    next_link = FakeLink()
    held.outbox.set_link(next_link)
    assert next_link.frames == [b"0", b"1"]


async def test_what_waits_for_more_waits_for_a_socket_that_is_full() -> None:
    held = await Held().begun()
    held.outbox.on_room(False)
    await asyncio.to_thread(held.outbox.let_go)
    await asyncio.sleep(0)
    assert held.link.writes == []
    held.outbox.on_room(True)
    assert held.link.frames == [b"0", b"1"]


async def test_the_main_thread_writes_its_own_alone() -> None:
    """A signal may end what it does, and others wait for theirs."""
    outbox, link = Outbox_(), Busy()
    outbox.set_link(link)
    link.may_go_on.set()
    link.before_all = lambda: pytest.fail("it has written for others")
    assert outbox.put(b"own", 0, True)
    assert link.frames == [b"own"]
    assert not outbox._writing


class Numbered(threading.Event):
    """What stands for a frame, and is set when that is written."""

    def __init__(self, thread: int, number: int) -> None:
        super().__init__()
        self.numbers = thread, number
        self.is_urgent = number % 5 > 0


class Fitful(FakeLink):
    """A link that takes a frame now and then, and lets other threads run meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self._random, self._lock = random.Random(7), threading.Lock()
        self.now = self.all = 0

    def may_be_now(self, urgent: bool) -> bool:
        return urgent

    def _takes(self, frames: Iterable[bytes], notes: Iterable[object]) -> bool:
        if not self._lock.acquire(blocking=False):
            return False
        try:
            time.sleep(0)
            if self._random.random() < 0.3:
                return False
            self._take(frames, notes)
            time.sleep(0)
            return True
        finally:
            self._lock.release()

    def write(self, frames: Iterable[bytes], notes: Iterable[object]) -> None:
        with self._lock:
            self._take(frames, notes)

    def _take(self, frames: Iterable[bytes], notes: Iterable[object]) -> None:
        super().write(frames, notes)
        for note in self.writes[-1][1]:
            assert isinstance(note, Numbered)
            note.set()

    def write_now(self, frame: bytes, note: object, urgent: bool) -> bool:
        is_taken = self._takes([frame], [note])
        self.now += is_taken
        return is_taken

    def write_all_now(self, frames: Iterable[bytes], notes: Iterable[object]) -> bool:
        is_taken = self._takes(frames, notes)
        self.all += is_taken
        return is_taken


async def test_threads_that_write_for_each_other_lose_nothing_and_each_keeps_its_order() -> None:
    outbox, link = Outbox_(), Fitful()
    outbox.set_link(link)

    notes = [[Numbered(thread, number) for number in range(300)] for thread in range(16)]

    def put(mine: list[Numbered]) -> None:
        for note in mine:
            assert outbox.put(b"%d %d" % note.numbers, note, note.is_urgent)
            # Who is in a hurry waits for an answer, and the others go on.
            assert not note.is_urgent or note.wait(DEADLINE)

    await asyncio.gather(*(asyncio.to_thread(put, mine) for mine in notes))
    while not outbox.is_written:
        await soon(outbox.room())
    written = [note.numbers for _, notes in link.writes for note in notes]  # type: ignore[attr-defined]
    assert link.frames == [b"%d %d" % numbers for numbers in written]
    for thread in range(16):
        assert [n for t, n in written if t == thread] == list(range(300))
    assert link.now > 0
    assert link.all > 0


# ---- signal handlers ----


async def test_a_signal_handler_may_put_at_any_point_of_a_put_or_a_flush(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Signals come between two calls of this thread: here, at every call of a deque."""
    outbox, link = Outbox_(), FakeLink()
    inside, interruptions = False, 0

    def handle(*args: object) -> None:
        nonlocal inside, interruptions
        inside = True
        outbox.put(b"signal %d" % interruptions, interruptions)
        interruptions += 1
        inside = False

    class Interrupted(deque[Any]):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self._interrupt()

        def append(self, item: Any) -> None:
            super().append(item)
            self._interrupt()

        def _interrupt(self) -> None:
            if not inside:
                signal.raise_signal(signal.SIGUSR1)

    outbox.set_link(link)
    monkeypatch.setattr(_outbox, "deque", Interrupted)
    before = signal.signal(signal.SIGUSR1, handle)
    try:
        for number in range(50):
            outbox.put(b"%d" % number, number)
            outbox._flush()
        monkeypatch.setattr(_outbox, "deque", deque)
        outbox._flush()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert interruptions >= 100
    assert [len(frames) for frames, _ in link.writes] == [len(notes) for _, notes in link.writes]
    ours = [frame for frame in link.frames if not frame.startswith(b"signal")]
    assert ours == [b"%d" % n for n in range(50)]
    theirs = [frame for frame in link.frames if frame.startswith(b"signal")]
    assert sorted(theirs) == sorted(b"signal %d" % n for n in range(interruptions))


# ---- the main thread beside the loop ----


class Beside:
    """An outbox whose loop runs in another thread; ``link`` takes nothing from this one."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.outbox, self.link = self.on_loop(self._make)

    async def _make(self) -> tuple[Outbox_, FakeLink]:
        outbox = Outbox_()
        outbox.attend()
        return outbox, FakeLink()

    def on_loop(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return asyncio.run_coroutine_threadsafe(work(), self.loop).result(DEADLINE)

    def set_link(self, link: FakeLink | None) -> None:
        async def set_it() -> None:
            self.outbox.set_link(link)

        self.on_loop(set_it)

    def room(self) -> None:
        self.on_loop(self.outbox.room)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture
def beside() -> Iterator[Beside]:
    made = Beside()
    yield made
    made.close()


def test_the_main_thread_loses_nothing_and_keeps_its_order(
    beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_outbox, "MAX_BYTES", 20_000)  # full every now and then
    beside.set_link(beside.link)
    refused = 0
    for number in range(3000):
        while not beside.outbox.put(b"%d" % number, number):
            refused += 1
            beside.room()
    beside.room()
    assert beside.outbox.empty
    assert beside.link.frames == [b"%d" % number for number in range(3000)]
    assert [note for _, notes in beside.link.writes for note in notes] == [*range(3000)]
    assert refused


def test_what_the_main_thread_has_put_is_written_before_what_others_put_after_that(
    beside: Beside,
) -> None:
    beside.set_link(beside.link)
    is_over = threading.Event()
    beside.loop.call_soon_threadsafe(is_over.wait, DEADLINE)
    assert beside.outbox.put(b"first", "a")
    other = threading.Thread(target=beside.outbox.put, args=(b"second", "b", True))
    other.start()
    other.join()
    is_over.set()
    beside.room()
    assert beside.link.frames == [b"first", b"second"]


def test_what_the_main_thread_puts_while_the_link_is_away_follows_the_policy(
    beside: Beside,
) -> None:
    beside.outbox._offline = Offline(max_messages=3)
    for number in range(10):
        while not beside.outbox.put(b"%d" % number, number):
            beside.room()
    beside.set_link(beside.link)
    assert beside.link.frames == [b"7", b"8", b"9"]
    assert beside.outbox.stats.overflow == 7


def test_what_the_main_thread_puts_behind_the_end_is_refused_or_counted(beside: Beside) -> None:
    async def close() -> None:
        beside.outbox._of_main.append((b"amid", "amid"))  # it had looked before that
        beside.outbox.close()

    beside.on_loop(close)
    with pytest.raises(EndpointClosed):
        beside.outbox.put(b"late", "late")
    assert beside.outbox.stats.expired == 1
    assert beside.outbox.empty


def test_while_the_link_is_away_no_more_is_kept_than_the_policy_says(beside: Beside) -> None:
    """Whatever keeps the loop from taking it."""
    beside.outbox._offline = Offline(max_messages=10)
    is_over = threading.Event()
    beside.loop.call_soon_threadsafe(is_over.wait, DEADLINE)
    puts = [beside.outbox.put(b"%d" % number, number) for number in range(12)]
    assert puts == [True] * 10 + [False] * 2
    is_over.set()
    beside.room()
    assert beside.outbox.put(b"10", 10)
    beside.set_link(beside.link)
    assert beside.link.frames == [b"%d" % number for number in range(1, 11)]


def test_what_the_main_thread_puts_behind_the_end_of_the_loop_is_refused() -> None:
    beside = Beside()
    beside.set_link(beside.link)
    beside.close()
    with pytest.raises(EndpointClosed):
        beside.outbox.put(b"a", "a")


def test_ctrl_c_amid_a_put_of_the_main_thread_leaves_nothing_behind_unheard(
    beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside.set_link(beside.link)
    wake, is_first = beside.outbox._wake_loop, True

    def interrupted() -> None:
        nonlocal is_first
        was_first, is_first = is_first, False
        if was_first:
            raise KeyboardInterrupt
        wake()

    monkeypatch.setattr(beside.outbox, "_wake_loop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        beside.outbox.put(b"a", "a")
    beside.room()
    assert beside.link.frames == [b"a"]
    assert beside.outbox.put(b"b", "b")
    beside.room()
    assert beside.link.frames == [b"a", b"b"]


def test_the_main_thread_leaves_writing_to_the_loop_where_a_handler_might_wait_for_it(
    beside: Beside,
) -> None:
    beside.set_link(beside.link)
    beside.link.takes_now = True
    writers: list[int] = []
    write = beside.link.write

    def note(frames: Iterable[bytes], notes: Iterable[object]) -> None:
        writers.append(threading.get_ident())
        write(frames, notes)

    beside.link.write = note  # type: ignore[method-assign]
    assert beside.outbox.put(b"own", "a", True)
    before = signal.signal(signal.SIGUSR1, lambda *args: None)
    try:
        assert beside.outbox.put(b"loop", "b", True)
        beside.room()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert beside.link.frames == [b"own", b"loop"]
    assert [writer == threading.get_ident() for writer in writers] == [True, False]
