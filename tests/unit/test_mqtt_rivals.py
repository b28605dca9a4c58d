"""Whether another client has our client id: what the ends of connections tell of it."""

from __future__ import annotations

import pytest

from commlib._session import TakenOver
from commlib.exceptions import ConnectionLost
from commlib.transports._mqtt_rivals import SHORT_SECONDS, WINDOW_SECONDS, Rivals

TOLD = TakenOver("the broker says: another client came with the same client id")
RESET = ConnectionResetError("reset by peer")


class Lives:
    """Connections one after the other, and what is made of the ends of them."""

    def __init__(self) -> None:
        self.rivals = Rivals("broker", "r2d2")
        self._now = 1000.0

    def end(
        self, *reasons: Exception | None, after: float = 1.0, pause: float = 0.05
    ) -> list[Exception | None]:
        """What is made of connections that live ``after`` seconds each, ``pause`` between them."""
        found = []
        for reason in reasons:
            begun = self._now + pause
            self._now = begun + after
            found.append(self.rivals.judge(reason, begun, self._now))
        return found


def told(found: list[Exception | None]) -> list[str]:
    """What of it is told of another client."""
    return [str(error) for error in found if isinstance(error, TakenOver)]


FIRST = "broker: another client came with the client id 'r2d2'; give each program its own"
OTHER = ", or do not publish what the broker ends connections for"
LIKELY = FIRST.replace(";", ", as it seems;") + OTHER
AGAIN = "broker: another client came with the client id 'r2d2' again"


def test_what_the_broker_says_is_told_with_the_name_and_advice_once() -> None:
    lives = Lives()
    assert told(lives.end(TOLD, TOLD, TOLD)) == [FIRST, AGAIN, AGAIN]


def test_what_the_broker_says_once_is_no_reason_to_suspect_what_comes_after_it() -> None:
    lives = Lives()
    lives.end(TOLD)
    assert lives.end(None, RESET) == [None, RESET]


CLOSED = EOFError("the websocket was closed: 1001 (going away)")


@pytest.mark.parametrize(
    "reasons", [[None] * 3, [CLOSED] * 3, [RESET] * 20, [None, None, RESET, CLOSED]]
)
def test_many_short_lives_are_a_fight_however_they_end(reasons: list[Exception | None]) -> None:
    lives = Lives()
    assert lives.end(*reasons[:-1]) == reasons[:-1]
    assert told(lives.end(reasons[-1])) == [LIKELY]


def test_in_a_fight_every_end_is_a_take_over_until_one_outlives_the_pauses() -> None:
    lives = Lives()
    lives.end(None, None, None)
    assert told(lives.end(None, RESET, after=SHORT_SECONDS + 30)) == [AGAIN, AGAIN]
    assert lives.end(None, after=WINDOW_SECONDS + 1) == [None]
    assert told(lives.end(None, None, None)) == [LIKELY], "another episode"


@pytest.mark.parametrize(
    ("after", "pause"),
    [(SHORT_SECONDS, 0.05), (1.0, WINDOW_SECONDS / 2)],
    ids=["long", "far apart"],
)
def test_lives_that_are_long_or_far_apart_are_no_fight(after: float, pause: float) -> None:
    lives = Lives()
    assert lives.end(*[None] * 20, after=after, pause=pause) == [None] * 20


def test_what_we_have_ended_or_the_broker_for_another_reason_does_not_count() -> None:
    lives = Lives()
    reason = ConnectionLost("no sign of life for 2 s")
    assert lives.end(None, None, reason, None, after=0.5)[:3] == [None, None, reason]
    assert lives.end(reason) == [reason], "not in a fight, either"


def test_a_broker_that_was_away_has_ended_them_itself() -> None:
    lives = Lives()
    for _ in range(5):
        assert lives.end(None, None) == [None, None]
        lives.rivals.forget()
