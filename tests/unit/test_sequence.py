"""Numbers on messages: counted by the sender, compared by the receiver."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commlib import _sequence
from commlib._sequence import Gaps, Sequence
from commlib._stats import Stats


def counted(*numbers: int, origin: str = "o", topic: str = "t") -> tuple[int, int, int]:
    """Gaps, duplicates and late comers that a receiver of these numbers counts."""
    stats = Stats()
    gaps = Gaps(stats)
    for number in numbers:
        gaps.note(origin, topic, number)
    return stats.gaps, stats.duplicates, stats.reordered


# ---- the sender ----


def test_each_topic_is_counted_from_zero() -> None:
    sequence = Sequence("me")

    numbers = [("me", number) for number in (0, 1, 0, 2, 1)]
    assert [sequence.next(topic) for topic in "aabab"] == numbers


def test_threads_never_get_the_same_number() -> None:
    sequence = Sequence("me")
    numbers: list[int] = []
    start = threading.Barrier(8)

    def count() -> None:
        start.wait(10)
        numbers.extend([sequence.next("t")[1] for _ in range(2000)])

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(numbers) == list(range(16_000))


def in_place(number: tuple[str, int], topic: str) -> tuple[str, str, int]:
    """As a receiver notes it."""
    origin, seq = number
    return origin, topic, seq


def test_of_a_number_that_is_not_sent_nobody_sees_a_gap() -> None:
    sender, stats = Sequence("ab"), Stats()
    gaps = Gaps(stats)
    for topic in ("a", "b"):
        gaps.note(*in_place(sender.next(topic), topic))
    sender.next("a")  # could not be written
    sender.begin_anew("a")
    for topic in ("a", "a", "b"):
        gaps.note(*in_place(sender.next(topic), topic))
    assert (stats.gaps, stats.duplicates, stats.reordered) == (0, 0, 0)


def test_the_topic_that_came_first_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sequence, "MAX_TOPICS", 3)
    sequence = Sequence("me")

    numbers = [sequence.next(topic) for topic in ("a", "b", "c", "a", "d", "b", "a")]
    assert [number for _, number in numbers] == [
        *(0, 0, 0, 1),  # room for three
        *(0, 1, 0),  # d takes the place of a, which begins again and takes that of b
    ]
    origins = [origin for origin, _ in numbers]
    assert origins[:4] == ["me"] * 4
    assert origins[5] == "me", "it was not forgotten"
    assert len({"me", origins[4], origins[6]}) == 3, "what begins again is a new sender"


# ---- the receiver ----


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([], (0, 0, 0)),
        ([0, 1, 2, 3], (0, 0, 0)),
        ([7, 8, 9], (0, 0, 0)),  # it began to listen later
        ([0, 2], (1, 0, 0)),
        ([0, 10], (9, 0, 0)),
        ([0, 1, 1, 2], (0, 1, 0)),
        ([5, 5, 5], (0, 2, 0)),
        ([0, 2, 1, 3], (0, 0, 1)),  # overtaken, not lost
        ([0, 3, 1, 2, 4], (0, 0, 2)),
        ([0, 3, 2, 4], (1, 0, 1)),
        ([0, 1, 2, 0, 1, 3], (0, 2, 0)),
        ([0, 1, 2, 3, 0, 4], (0, 1, 0)),  # the first one came twice
        ([9, 8], (0, 0, 1)),
        ([0, 1, 2, 6, 1, 2], (3, 2, 0)),  # what comes twice was not lost before
        ([0, 1, 2, 6, 4, 4, 3], (1, 1, 2)),
        ([5, 6, 7, 5, 6, 7, 8], (0, 3, 0)),  # a connection broke, and they were sent again
    ],
)
def test_what_is_irregular_is_counted(numbers: list[int], expected: tuple[int, int, int]) -> None:
    assert counted(*numbers) == expected


def test_senders_and_topics_are_counted_apart() -> None:
    stats = Stats()
    gaps = Gaps(stats)

    for number in range(5):
        for origin in ("a", "b"):
            for topic in ("x", "y"):
                gaps.note(origin, topic, number)

    assert (stats.gaps, stats.duplicates, stats.reordered) == (0, 0, 0)


def test_a_sender_that_is_forgotten_is_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sequence, "MAX_TOPICS", 2)
    stats = Stats()
    gaps = Gaps(stats)

    for origin, number in [("a", 0), ("b", 0), ("c", 0), ("a", 5), ("c", 1)]:
        gaps.note(origin, "t", number)

    assert stats.gaps == 0
    assert len(gaps._senders) == 2


@given(st.sets(st.integers(1, 200)))
def test_every_message_that_is_lost_on_the_way_is_a_gap(lost: set[int]) -> None:
    numbers = [number for number in range(202) if number not in lost]

    assert counted(*numbers) == (len(lost), 0, 0)


@given(st.lists(st.integers(0, 60)))
def test_in_whatever_order_and_how_often_they_come_what_does_not_is_a_gap(
    numbers: list[int],
) -> None:
    gaps, duplicates, _ = counted(0, *numbers)

    different = {0, *numbers}
    assert gaps == max(different) + 1 - len(different)
    assert duplicates == len(numbers) + 1 - len(different)


def test_of_very_many_gaps_the_oldest_are_forgotten_and_stay_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_sequence, "MAX_STRETCHES", 2)
    monkeypatch.setattr(_sequence, "MAX_INCOMPLETE", 2)
    stats = Stats()
    gaps = Gaps(stats)

    assert counted(0, 2, 4, 6, 1, 3, 5) == (1, 1, 2)
    for origin in "abc":
        gaps.note(origin, "t", 0)
        gaps.note(origin, "t", 2)
    for origin in "abc":
        gaps.note(origin, "t", 1)
    assert (stats.gaps, stats.duplicates, stats.reordered) == (1, 1, 2)


@given(st.permutations(range(1, 12)))
def test_what_is_only_overtaken_is_no_gap_in_the_end(order: list[int]) -> None:
    gaps, duplicates, _ = counted(0, *order)

    assert (gaps, duplicates) == (0, 0)
