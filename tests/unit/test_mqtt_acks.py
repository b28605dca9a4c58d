"""What comes is acknowledged at once, or with what is written next, but never late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from commlib.transports._mqtt_acks import MOST, NO_TALK_SECONDS, PERIOD, Acks


class Connection:
    """What comes and what is written, by a clock that the test lets go on."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.due: list[tuple[float, Callable[[], object]]] = []
        self.asked = 0
        self.is_unsent = False
        self.acks = Acks(cast("asyncio.AbstractEventLoop", self), self._ask, lambda: self.is_unsent)

    def _ask(self) -> None:
        self.asked += 1

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], object]) -> None:
        self.due.append((self.now + seconds, callback))

    def passes(self, seconds: float) -> None:
        until = self.now + seconds
        while self.due and self.due[0][0] <= until:
            self.now, callback = self.due.pop(0)
            callback()
        self.now = until

    def hears(self) -> int:
        """Something comes; how often that was acknowledged at once."""
        before = self.asked
        self.acks.heard(self.now)
        return self.asked - before

    def writes(self, count: int = 1, every: float = 0.0001) -> None:
        for _ in range(count):
            self.passes(every)
            self.acks.writes += 1

    def talks(self) -> None:
        """Much is written and heard, so that nothing of it is acknowledged at once."""
        self.hears()
        self.writes(20)
        assert self.hears() == 0


@pytest.fixture
def connection() -> Connection:
    return Connection()


def test_what_comes_is_acknowledged_at_once(connection: Connection) -> None:
    for _ in range(5):
        assert connection.hears() == 1
        connection.passes(0.1)


def test_of_a_burst_the_rest_is_acknowledged_in_one_go_and_soon(connection: Connection) -> None:
    assert [connection.hears() for _ in range(2 * MOST)] == [1] * MOST + [0] * MOST
    connection.passes(2 * PERIOD)
    assert connection.asked == MOST + 1


def test_where_much_is_written_that_acknowledges(connection: Connection) -> None:
    connection.talks()
    before = connection.asked
    for _ in range(100):
        connection.hears()
        connection.writes(3)
    connection.passes(0.1)
    assert connection.asked == before


def test_when_nothing_is_written_any_more_the_last_is_acknowledged_soon(
    connection: Connection,
) -> None:
    connection.talks()
    before = connection.asked
    connection.passes(2 * PERIOD)
    assert connection.asked == before + 1
    assert connection.due == []


def test_what_was_written_and_has_not_left_acknowledges_nothing(connection: Connection) -> None:
    connection.talks()
    connection.writes()
    before, connection.is_unsent = connection.asked, True
    connection.passes(2 * PERIOD)
    assert connection.asked == before + 1


def test_where_a_packet_had_to_wait_all_are_acknowledged_at_once_for_a_while(
    connection: Connection,
) -> None:
    connection.talks()
    connection.passes(2 * PERIOD)
    for _ in range(10):
        connection.writes(20)
        assert connection.hears() == 1
        connection.passes(2 * PERIOD)
    connection.passes(NO_TALK_SECONDS)
    connection.talks()


def test_one_that_writes_now_and_then_is_answered_at_once(connection: Connection) -> None:
    for _ in range(5):
        connection.writes(every=0.001)
        assert connection.hears() == 1


def test_one_that_waits_for_answers_says_nothing_meanwhile(connection: Connection) -> None:
    for _ in range(20):
        connection.passes(0.0003)
        assert connection.hears() == 1
        connection.acks.answered()
        assert connection.hears() == 1, "what it waits for next"
        connection.writes(2)
