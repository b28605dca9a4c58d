"""The heart of a node, with a clock that the test turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from commlib import aio
from commlib.aio._heartbeat import Heartbeat
from commlib.aio._hub import Hub
from commlib.exceptions import ConnectionLost
from commlib.transports import resolve

Fire = Callable[..., None]
INTERVAL = 100.0


class Clock:
    """The timers that the heart has asked for, newest last; they go off when the test says so."""

    def __init__(self, heart: Heartbeat, monkeypatch: pytest.MonkeyPatch) -> None:
        self.timers: list[tuple[float, Fire, tuple[Any, ...]]] = []
        self.now = 1000.0
        loop = asyncio.get_running_loop()
        call_at = loop.call_at

        def note(when: float, callback: Any, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
            if getattr(callback, "__self__", None) is heart:
                self.timers.append((when, callback, args))
                when += 1e6  # never by itself
            return call_at(when, callback, *args, **kwargs)

        monkeypatch.setattr(loop, "call_at", note)
        monkeypatch.setattr(loop, "time", lambda: self.now)

    def fire(self, number: int = -1, late: float = 0.0) -> None:
        """Let a timer go off, in time or so many seconds late."""
        when, callback, args = self.timers[number]
        self.now = when + late
        callback(*args)


@asynccontextmanager
async def beating(
    monkeypatch: pytest.MonkeyPatch, url: str = "memory://heart"
) -> AsyncIterator[tuple[Heartbeat, Clock]]:
    hub = Hub(resolve(url), "heart")
    heart = Heartbeat("n.heartbeat", INTERVAL, hub, envelope=True)
    with monkeypatch.context() as patch:
        clock = Clock(heart, patch)
        await heart.run()
        yield heart, clock
    await heart.stop()
    await hub.close()


async def test_it_keeps_to_its_schedule_however_late_a_timer_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with beating(monkeypatch) as (heart, clock):
        for late in (0.0, 3.0, 99.0, 0.5):
            clock.fire(late=late)
        assert [when for when, *_ in clock.timers] == [1000 + n * INTERVAL for n in range(1, 6)]
        assert heart.own_stats.sent == 5


async def test_beats_that_were_missed_are_not_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async with beating(monkeypatch) as (heart, clock):
        clock.fire(late=1000.0)
        assert heart.own_stats.sent == 2
        clock.fire()
        assert clock.timers[-1][0] == clock.now + INTERVAL
        assert heart.own_stats.sent == 3


async def test_it_beats_when_the_connection_is_back_and_the_old_timer_is_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with beating(monkeypatch) as (heart, clock):
        transport = heart.hub.transport
        transport.on_state(False, ConnectionLost("gone"))
        assert heart.own_stats.sent == 1
        clock.now += 5
        transport.on_state(True, None)
        assert heart.own_stats.sent == 2
        assert [when for when, *_ in clock.timers] == [1000 + INTERVAL, 1005 + INTERVAL]
        clock.fire(0)
        assert heart.own_stats.sent == 2
        clock.fire(1)
        assert heart.own_stats.sent == 3


async def test_it_has_one_timer_however_often_the_connection_comes_back() -> None:
    async with aio.Node("n", "memory://heart") as node:
        (heart,) = node._own
        assert isinstance(heart, Heartbeat)
        timers = [heart._timer]
        for _ in range(3):
            node.hub.transport.on_state(False, ConnectionLost("gone"))
            node.hub.transport.on_state(True, None)
            timers.append(heart._timer)
        assert [timer.cancelled() for timer in timers if timer] == [True, True, True, False]


@pytest.mark.parametrize("how", ["stop", "close"])
async def test_it_is_still_when_it_was_stopped_or_its_hub_was_closed(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async with beating(monkeypatch) as (heart, clock):
        await (heart.stop() if how == "stop" else heart.hub.close())
        clock.fire()
        heart.hub.transport.on_state(True, None)
        assert (heart.own_stats.sent, heart.own_stats.dropped, len(clock.timers)) == (1, 0, 1)
        await heart.run()
        assert (heart.own_stats.sent, len(clock.timers)) == (2, 2)
        clock.fire(0)
        assert (heart.own_stats.sent, len(clock.timers)) == (2, 2)
        heart.hub.transport.on_state(True, None)
        assert heart.own_stats.sent == 3, "it listens once, not twice"


async def test_a_stopped_heart_leaves_no_timer_and_no_listener() -> None:
    async with aio.Node("n", "memory://heart") as node:
        (heart,) = node._own
        assert isinstance(heart, Heartbeat)
        timer = heart._timer
        assert timer is not None
    assert timer.cancelled()
    assert not node.hub.listeners


async def test_without_connection_or_room_a_beat_is_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with beating(monkeypatch) as (heart, clock):

        def refuse(topic: str, packet: Any) -> bool:
            raise ConnectionLost("offline='raise'")

        for publish in (lambda topic, packet: False, refuse):
            with monkeypatch.context() as patch:
                patch.setattr(heart.hub.transport, "publish", publish)
                clock.fire()
        with monkeypatch.context() as patch:
            patch.setattr(type(heart.hub.transport), "connected", False)
            clock.fire()
        assert (heart.own_stats.sent, heart.own_stats.dropped) == (1, 3)
        clock.fire()
        assert heart.own_stats.sent == 2


async def test_a_beat_that_is_over_the_limit_is_dropped_and_the_next_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with beating(monkeypatch, "memory://heart?max_payload=5") as (heart, clock):
        clock.fire()
        assert (heart.own_stats.sent, heart.own_stats.dropped) == (0, 2)
        assert len(clock.timers) == 2
