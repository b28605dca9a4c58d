"""The far side of a bridge, on a transport of paper."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

import pytest

from commlib._bridge_stats import BridgeStats
from commlib._packet import Packet
from commlib._store import Keep
from commlib.aio import _outlet
from commlib.aio._hub import Hub
from commlib.aio._listeners import Listeners
from commlib.aio._outlet import Outlet
from commlib.exceptions import ConnectionLost, EndpointClosed

KEEP = Keep()


class Paper:
    """A hub and its transport, which write down what they are given."""

    def __init__(self) -> None:
        self.params = "paper://"
        self.transport = self
        self.listeners = Listeners()
        self.connected = True
        self.written: list[tuple[str, bytes]] = []
        self.has_room, self.answers = asyncio.Event(), asyncio.Event()
        self.has_room.set()
        self.answers.set()
        self.error: Exception | None = None
        self.flushes = 0
        self._news = asyncio.Event()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return asyncio.get_running_loop().create_task(work)

    def publish(self, topic: str, packet: Packet) -> bool:
        if self.error is not None:
            raise self.error
        if self.has_room.is_set():
            self.written.append((topic, packet.payload))
            self._news.set()
        return self.has_room.is_set()

    async def room(self, packet: Packet) -> None:
        await self.has_room.wait()

    async def flush(self) -> None:
        self.flushes += 1
        await self.answers.wait()

    def turn(self, connected: bool) -> None:
        self.connected = connected
        for listener in self.listeners:
            listener(connected, None)

    async def until(self, count: int) -> list[bytes]:
        """What was written, as soon as it is so much."""
        async with asyncio.timeout(10):
            while len(self.written) < count:
                self._news.clear()
                await self._news.wait()
        return [payload for _, payload in self.written]


def make(
    sink: Paper, keep: Keep = KEEP, resume_after: float = 0.0
) -> tuple[Outlet, BridgeStats, list[BaseException]]:
    stats, errors = BridgeStats(), list[BaseException]()
    outlet = Outlet(
        *(cast("Hub", sink), "a -> b", keep, resume_after, stats),
        lambda packet, error: errors.append(error),
    )
    outlet.start()
    return outlet, stats, errors


def put(outlet: Outlet, *numbers: int) -> None:
    for number in numbers:
        outlet.put("t", Packet(b"%d" % number))


async def test_while_the_sink_is_there_nothing_waits() -> None:
    sink = Paper()
    outlet, stats, _ = make(sink)
    put(outlet, 1, 2)
    assert sink.written == [("t", b"1"), ("t", b"2")]
    assert (stats.forwarded, stats.waiting) == (2, 0)
    await outlet.stop(1)
    assert not sink.listeners


async def test_what_comes_while_the_sink_is_away_or_full_goes_out_in_order() -> None:
    sink = Paper()
    outlet, stats, _ = make(sink)
    sink.turn(False)
    put(outlet, 1, 2)
    assert (sink.written, stats.waiting) == ([], 2)
    sink.has_room.clear()
    sink.turn(True)
    put(outlet, 3)
    sink.has_room.set()
    assert await sink.until(3) == [b"1", b"2", b"3"]
    put(outlet, 4)
    assert await sink.until(4) == [b"1", b"2", b"3", b"4"]
    assert stats.waiting == 0
    await outlet.stop(1)


async def test_what_has_waited_is_held_back_until_subscribers_can_be_back() -> None:
    sink = Paper()
    outlet, stats, _ = make(sink, resume_after=1000.0)
    sink.turn(False)
    put(outlet, 1)
    await asyncio.sleep(0.05)  # the length of the outage is what counts
    loop = asyncio.get_running_loop()
    back = loop.time()
    sink.turn(True)
    put(outlet, 2)
    assert (sink.written, stats.waiting) == ([], 2)
    assert await sink.until(2) == [b"1", b"2"]
    assert loop.time() - back >= 0.1
    await outlet.stop(1)


async def test_on_a_dead_link_no_more_is_written_than_the_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_outlet, "WINDOW", 10)
    sink = Paper()
    sink.answers.clear()
    outlet, stats, _ = make(sink)
    put(outlet, *range(100))
    await asyncio.sleep(0)
    assert len(sink.written) == 10
    assert stats.waiting == 90
    sink.answers.set()
    assert await sink.until(100) == [b"%d" % n for n in range(100)]
    await outlet.stop(1)


async def test_few_messages_need_no_confirmation() -> None:
    sink = Paper()
    outlet, _, _ = make(sink)
    put(outlet, *range(100))
    await asyncio.sleep(0)
    assert sink.flushes == 0
    await outlet.stop(1)


async def test_a_connection_that_is_lost_in_the_middle_loses_nothing_that_waits() -> None:
    sink = Paper()
    outlet, stats, _ = make(sink)
    sink.error = ConnectionLost("away")
    put(outlet, 1)
    assert stats.waiting == 1
    sink.error = None
    sink.turn(True)
    assert await sink.until(1) == [b"1"]
    await outlet.stop(1)


async def test_what_can_never_be_sent_is_reported_and_holds_nothing_up() -> None:
    sink = Paper()
    outlet, stats, errors = make(sink)
    sink.error = ValueError("no such topic here")
    put(outlet, 1)
    sink.error = None
    put(outlet, 2)
    assert sink.written == [("t", b"2")]
    assert (len(errors), stats.forwarded) == (1, 1)
    await outlet.stop(1)


async def test_the_stop_sends_what_it_can_and_counts_the_rest() -> None:
    sink = Paper()
    outlet, stats, _ = make(sink, resume_after=1000.0)
    sink.turn(False)
    put(outlet, 1)
    await asyncio.sleep(0.01)  # the length of the outage is what counts
    sink.turn(True)
    await outlet.stop(5)
    assert sink.written == [("t", b"1")]

    outlet, stats, _ = make(sink)
    sink.turn(False)
    put(outlet, 2, 3)
    await outlet.stop(5)
    await outlet.stop(5)
    assert (stats.dropped, stats.waiting) == (2, 0)


async def test_it_can_be_started_again_and_has_nothing_of_the_last_run() -> None:
    sink = Paper()
    outlet, stats, _ = make(sink)
    sink.turn(False)
    put(outlet, 1)
    await outlet.stop(0)
    outlet.start()
    put(outlet, 2)
    assert stats.waiting == 1
    sink.turn(True)
    assert await sink.until(1) == [b"2"]
    assert (stats.dropped, stats.forwarded) == (1, 1)
    await outlet.stop(1)
    assert not sink.listeners


async def test_a_closed_sink_is_an_error_like_others() -> None:
    sink = Paper()
    outlet, _, errors = make(sink)
    sink.error = EndpointClosed("closed")
    put(outlet, 1)
    assert isinstance(errors[0], EndpointClosed)
    await outlet.stop(1)


async def test_an_overflow_is_counted_and_the_small_bound_is_for_outages(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = Paper()
    outlet, stats, _ = make(sink, Keep(max_messages=10))
    sink.has_room.clear()
    put(outlet, *range(50))
    assert (stats.waiting, stats.dropped) == (50, 0)
    sink.turn(False)
    put(outlet, 50, 51)
    assert (stats.waiting, stats.dropped) == (10, 42)
    assert len(caplog.records) == 1
    sink.has_room.set()
    sink.turn(True)
    assert await sink.until(10) == [b"%d" % n for n in range(42, 52)]
    await outlet.stop(1)
