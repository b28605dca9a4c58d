"""Answers that nobody waits for, and how they wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from commlib.transports._redis_answers import LATER, MANY, LazyReading
from commlib.transports._redis_link import Asking


class Clock(asyncio.AbstractEventLoop):
    """An event loop whose time goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[asyncio.TimerHandle] = []

    def time(self) -> float:
        return self.now

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[[], object]
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(self.now + delay, callback, (), self)
        self.timers.append(timer)
        return timer

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def wait(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if timer.when() <= self.now]
        self.timers = [timer for timer in self.timers if timer not in due]
        for timer in due:
            if not timer.cancelled():
                timer._run()


class Link:
    """Is read from, or not."""

    def __init__(self) -> None:
        self.on_idle: Callable[[], None]
        self.on_asked: Callable[[], None]
        self.is_read = True
        self.unanswered = 0
        self.answered: object = None

    def pause(self) -> None:
        assert self.is_read
        self.is_read = False

    def go_on(self) -> None:
        assert not self.is_read
        self.is_read = True

    def answer(self, times: int = 1, note: object = ("queue", None)) -> None:
        """So often something comes, and is read; the last of it is the answer to this."""
        self.answered = note
        for _ in range(times):
            self.on_idle()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def link(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Link:
    """One that is read from lazily, and nothing has come for some time."""
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)
    link = Link()
    LazyReading(link)  # type: ignore[arg-type]
    clock.wait(2 * LATER)
    return link


def test_many_answers_in_a_row_are_read_later_and_together(clock: Clock, link: Link) -> None:
    link.answer(MANY - 1)
    assert link.is_read
    link.answer()
    assert not link.is_read
    link.unanswered = MANY
    clock.wait(LATER)
    assert link.is_read
    link.answer()
    assert not link.is_read, "they go on coming"
    link.unanswered = MANY - 1
    clock.wait(LATER)
    link.answer(MANY - 1)
    assert link.is_read, "there were few"


def test_answers_that_come_now_and_then_are_read_at_once(clock: Clock, link: Link) -> None:
    for _ in range(10 * MANY):
        clock.wait(LATER / (MANY - 2))
        link.answer()
        assert link.is_read


def test_nobody_who_waits_for_an_answer_waits_for_longer(clock: Clock, link: Link) -> None:
    link.answer(MANY)
    assert not link.is_read
    link.on_asked()
    assert link.is_read
    link.answer(10 * MANY)
    assert link.is_read, "what was asked for may be yet to come"
    link.on_asked()
    clock.wait(2 * LATER)
    link.answer(MANY)
    assert not link.is_read


def test_the_look_that_was_not_needed_any_more_does_nothing(clock: Clock, link: Link) -> None:
    link.answer(MANY)
    link.on_asked()
    link.answer()
    clock.wait(LATER)
    assert link.is_read
    clock.wait(LATER)
    link.answer(MANY)
    assert not link.is_read


def test_answers_to_what_is_published_are_read_when_they_come(clock: Clock, link: Link) -> None:
    link.answer(10 * MANY, note="topic")
    for _ in range(10):
        link.answer(MANY - 1)
        link.answer(note="topic")
    assert link.is_read
    link.answer(MANY, note=Asking("queue"))
    assert not link.is_read
    link.answer(note="topic")
    clock.wait(LATER)
    assert link.is_read
