"""The timer: its schedule as a function, its thread as it is."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from collected import DEADLINE, Collected, eventually
from commlib.timer import Timer, TimerEvent, _next_tick

PERIOD = 0.001


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Holds callbacks up until it is set; in the end it is."""
    gate = threading.Event()
    yield gate
    gate.set()


def started(timer: Timer) -> Timer:
    timer.start()
    return timer


def ended(timer: Timer) -> bool:
    timer.join(DEADLINE)
    return not timer.is_alive()


# ---- the schedule ----


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (10.0, 10.5),
        (10.4, 10.5),
        (10.5, 10.5),
        (10.6, 11.0),
        (11.0, 11.5),
        (13.75, 14.0),
        (1_000_000.25, 1_000_000.5),
    ],
)
def test_the_next_tick_is_the_first_of_the_schedule_that_is_not_missed(
    now: float, expected: float
) -> None:
    assert _next_tick(10.0, now, 0.5) == expected


def test_lateness_below_a_period_does_not_move_the_schedule() -> None:
    due = 100.0
    for _ in range(100_000):
        due = _next_tick(due, due + 0.03, 0.1)
    assert due == pytest.approx(100 + 10_000, abs=1e-6)


def test_each_event_knows_the_one_before() -> None:
    events = Collected()
    with Timer(PERIOD, events):
        first, second, third = events.wait(3)[:3]

    assert isinstance(first, TimerEvent)
    assert (first.last_expected, first.last_real, first.last_duration) == (None, None, None)
    for before, after in ((first, second), (second, third)):
        assert after.last_expected == before.current_expected
        assert after.last_real == before.current_real
        assert after.last_duration >= 0
        assert after.current_expected > before.current_expected
    for event in (first, second, third):
        assert event.current_real >= event.current_expected


def test_ticks_that_are_missed_while_the_callback_runs_are_skipped(gate: threading.Event) -> None:
    period = 0.05
    begun, events = threading.Event(), Collected()

    def callback(event: TimerEvent) -> None:
        if not events.items:
            begun.set()
            gate.wait(DEADLINE)
        events(event)

    with Timer(period, callback):
        assert begun.wait(DEADLINE)
        threading.Event().wait(4 * period)  # what is tested is that this time passes
        gate.set()
        first, second = events.wait(2)[:2]

    assert second.last_duration >= 4 * period
    # Not made up for at the tick that came next; the slack is for the two clocks that are read.
    assert second.current_expected - first.current_expected > 2 * period


def test_a_oneshot_timer_calls_once_and_ends() -> None:
    events = Collected()
    timer = started(Timer(PERIOD, events, oneshot=True))
    assert ended(timer)
    assert len(events.items) == 1


@pytest.mark.parametrize("period", [0, -1.0, float("nan")])
def test_a_period_that_is_no_time_is_refused(period: float) -> None:
    with pytest.raises(ValueError, match="a time above 0 s"):
        Timer(period, print)


# ---- its end ----


@pytest.mark.parametrize("period", [3600.0, 1e12, float("inf")])
def test_shutdown_ends_a_timer_that_is_waiting_for_its_tick(period: float) -> None:
    events = Collected()
    timer = started(Timer(period, events))
    assert timer.is_alive()
    timer.shutdown()
    timer.shutdown()
    assert ended(timer)
    assert events.items == []


def test_the_callback_may_shut_its_timer_down() -> None:
    events = Collected()

    def callback(event: TimerEvent) -> None:
        events(event)
        timer.shutdown()

    timer = Timer(PERIOD, callback)
    timer.start()
    assert ended(timer)
    assert len(events.items) == 1


def test_shutdown_does_not_wait_for_the_callback_and_join_does(gate: threading.Event) -> None:
    begun = threading.Event()

    def callback(_: TimerEvent) -> None:
        begun.set()
        gate.wait(DEADLINE)

    timer = started(Timer(PERIOD, callback))
    assert begun.wait(DEADLINE)
    timer.shutdown()
    assert timer.is_alive()
    gate.set()
    assert ended(timer)


def test_a_timer_that_was_shut_down_before_it_started_calls_nothing() -> None:
    events = Collected()
    timer = Timer(PERIOD, events)
    timer.shutdown()
    assert ended(started(timer))
    assert events.items == []


def test_after_a_with_block_the_callback_runs_no_more() -> None:
    begun, done = threading.Event(), Collected()

    def callback(event: TimerEvent) -> None:
        begun.set()
        done(event)

    with suppress(ZeroDivisionError), Timer(PERIOD, callback) as timer:
        assert begun.wait(DEADLINE)
        raise ZeroDivisionError
    assert not timer.is_alive()
    assert done.items != []


def test_a_timer_is_a_thread_that_ends_with_the_program() -> None:
    timer = Timer(3600, print)
    assert isinstance(timer, threading.Thread)
    assert timer.daemon
    assert not timer.is_alive()


# ---- callbacks that raise ----


@pytest.mark.parametrize("error", [ValueError("no such arm"), SystemExit(3), KeyboardInterrupt()])
def test_a_callback_that_raises_is_logged_once_and_the_timer_goes_on(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def callback(_: TimerEvent) -> None:
        raise error

    with Timer(PERIOD, callback) as timer:
        eventually(lambda: timer.errors >= 3)

    (record,) = caplog.records
    assert (record.name, record.levelno) == ("commlib.timer", logging.ERROR)
    assert repr(error) in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_different_errors_are_logged_each() -> None:
    records = Collected()
    turns = iter(["ValueError", "KeyError", "ValueError", "same kind elsewhere"])

    def callback(_: TimerEvent) -> None:
        turn = next(turns, "")
        if turn == "ValueError":
            raise ValueError(turn)
        if turn == "KeyError":
            raise KeyError(turn)
        if turn:
            raise ValueError(turn)

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records(record.getMessage())

    log = logging.getLogger("commlib.timer")
    handler: Any = Keep()
    log.addHandler(handler)
    try:
        with Timer(PERIOD, callback) as timer:
            eventually(lambda: timer.errors == 4)
    finally:
        log.removeHandler(handler)

    assert [text.split("'")[1] for text in records.items] == [
        "ValueError",
        "KeyError",
        "same kind elsewhere",
    ]
