"""What the benchmark counts: calls, and the latencies of all rounds."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest
from bench import child
from bench.child import Ledger
from bench.results import Result
from bench.roles import FEEDBACKS, wrong


class Clock:
    """Says what time it is, by seconds that are set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(child, "perf_counter", clock)
    return clock


def calls(ledger: Ledger, clock: Clock, *seconds: float) -> dict[str, object]:
    """The figures of calls that are made one after another and take so long."""
    for took in seconds:
        sent = clock.now
        clock.now += took
        ledger.note(sent, 1, 1)
    return ledger.figures()


def test_the_rate_of_calls_is_that_of_the_whole_time(clock: Clock) -> None:
    figures = calls(Ledger(1.0, 100), clock, *[0.25] * 4)
    assert (figures["rate"], figures["count"], figures["p50_us"]) == (4, 4, 250_000)


def test_a_call_that_ends_after_the_time_counts_with_all_the_time_that_it_took(
    clock: Clock,
) -> None:
    figures = calls(Ledger(1.0, 100), clock, 0.25, 0.25, 0.25, 1.25)
    assert (figures["rate"], figures["p99_us"]) == (2, 1_250_000)


def test_the_rate_of_callers_that_hang_is_not_that_of_the_time_before(clock: Clock) -> None:
    assert calls(Ledger(1.0, 100), clock, 0.125, 0.125)["rate"] == 2


def test_when_all_calls_were_made_the_time_is_over(clock: Clock) -> None:
    ledger = Ledger(1.0, 2)
    assert calls(ledger, clock, 0.125, 0.125)["rate"] == 8
    assert not ledger.is_open


def test_a_wrong_reply_has_failed_and_is_told(clock: Clock) -> None:
    ledger = Ledger(1.0, 2)
    ledger.note(clock.now, 1, 2)
    assert ledger.figures() == {
        "failed": 1,
        "count": 0,
        "why": "ValueError: the reply is 2, not 1",
    }


def test_feedback_that_is_missing_does_not_hide_what_came_twice() -> None:
    assert wrong([0, FEEDBACKS, -1]) == {"lost": FEEDBACKS, "duplicates": 1}
    assert wrong([]) == {"lost": 0, "duplicates": 0}


def test_of_what_each_round_has_for_all_so_far_the_last_one_counts() -> None:
    rounds = [{"p999_us": 5.0, "p99_us": 5.0}, {"p999_us": 4.0, "p99_us": 1.0}, {"p99_us": 2.0}]
    assert (Result(rounds=rounds).value("p999_us"), Result(rounds=rounds).value("p99_us")) == (4, 2)


def test_the_highest_percentile_is_that_of_the_messages_of_all_rounds(tmp_path: Path) -> None:
    pytest.importorskip("hdrh", reason="make bench installs it")
    from bench.latencies import Latencies

    latencies, file, result = Latencies(), tmp_path / "delays", Result()
    # Two of 800 are slow in the first round, which are two of 2400 in all.
    for slow in (0.5, 0.001, 0.001):
        with file.open("wb") as out:
            array("d", [0.001] * 798 + [slow] * 2).tofile(out)
        result.rounds.append(latencies.add(file))
    assert [round(found["p999_us"], -3) for found in result.rounds] == [500_000, 1000, 1000]
    assert result.value("p999_us") == pytest.approx(1000, rel=0.01)
    assert result.value("p50_us") == pytest.approx(1000, rel=0.01)
    assert result.value("max_us") == pytest.approx(500_000, rel=0.01)


def test_a_round_without_messages_has_no_latency(tmp_path: Path) -> None:
    pytest.importorskip("hdrh", reason="make bench installs it")
    from bench.latencies import Latencies

    (tmp_path / "delays").touch()
    assert Latencies().add(tmp_path / "delays") == {}
