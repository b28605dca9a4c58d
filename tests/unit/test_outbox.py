"""The queue in front of a connection; with a link that is a fake."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections import deque
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

import pytest

from bystander import Bystander
from collected import DEADLINE
from commlib import _outbox
from commlib._outbox import Outbox
from commlib._params import Offline
from commlib.exceptions import AuthError, CommlibError, ConnectionLost, EndpointClosed
from commlib.transports.base import LinkStats
from fake_link import FakeLink


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
