"""Which numbered messages have been taken before: windows, and what is known of the forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commlib._replays import Replays, Sender, Window

ROBOT = Sender("key", "robot", "topic")


def taken(*numbers: int, size: int = 4) -> list[int]:
    """The numbers of one sender that are taken, in the order in which they come."""
    replays = Replays(size)
    return [number for number in numbers if replays.take(ROBOT, number, 1)]


# ---- one sender ----


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([0, 1, 2], [0, 1, 2]),
        ([5, 5], [5]),
        ([0, 3, 1, 2], [0, 3, 1, 2]),
        ([7, 4], [7, 4]),
        ([7, 3], [7]),
        ([0, 4, 1, 0], [0, 4, 1]),
        ([3, 2**62, 3, 2**62 - 3, 2**62 - 4, 2**62], [3, 2**62, 2**62 - 3]),
    ],
)
def test_a_number_is_taken_once_and_as_long_as_the_window_reaches(
    numbers: list[int], expected: list[int]
) -> None:
    assert taken(*numbers) == expected


def test_a_window_of_one_takes_only_what_is_newer() -> None:
    assert taken(0, 2, 1, 2, 3, size=1) == [0, 2, 3]


class Naive:
    """The same as a set of all numbers that were taken."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._seen: set[int] = set()

    def take(self, number: int) -> bool:
        if number in self._seen or number <= max(self._seen, default=-1) - self._size:
            return False
        self._seen.add(number)
        return True


@given(
    st.integers(1, 70),
    st.lists(st.one_of(st.integers(0, 200), st.integers(2**62, 2**62 + 70)), max_size=60),
)
@settings(deadline=None)
def test_a_window_is_a_set_of_all_that_was_taken(size: int, numbers: list[int]) -> None:
    replays, naive = Replays(size), Naive(size)

    for number in numbers:
        expected = naive.take(number)
        assert replays.is_new(ROBOT, number, 1) == expected
        assert replays.take(ROBOT, number, 1) == expected


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1))
@settings(deadline=None)
def test_a_window_never_grows_beyond_its_size(numbers: list[int]) -> None:
    window = Window(8, numbers[0])

    for number in numbers:
        if window.is_new(number):
            window.take(number)

    assert window._seen < 1 << 8


# ---- many of them ----


@pytest.mark.parametrize(
    "other", [("x", "robot", "topic"), ("key", "x", "topic"), ("key", "robot", "x")]
)
def test_each_key_origin_and_topic_has_numbers_of_its_own(other: tuple[str, str, str]) -> None:
    replays = Replays(4)

    assert replays.take(ROBOT, 5, 1)
    assert replays.take(Sender(*other), 5, 1)
    assert not replays.take(ROBOT, 5, 1)


def sender(origin: object, key: str = "key") -> Sender:
    return Sender(key, str(origin), "topic")


def test_what_a_forgotten_sender_has_sent_is_never_taken_again() -> None:
    replays = Replays(4, most=2)
    for time, origin in enumerate("abc", 100):
        assert replays.take(sender(origin), 0, time)

    assert not replays.take(sender("a"), 0, 100)
    assert not replays.take(sender("a"), 1, 100), "it may have come as well"
    assert replays.take(sender("a"), 1, 101)


def test_a_new_sender_has_to_be_newer_than_all_that_were_forgotten() -> None:
    replays = Replays(4, most=2)
    taken = [
        replays.take(sender(origin), 0, time)
        for origin, time in (("a", 100), ("b", 90), ("c", 80), ("d", 80), ("e", 101), ("f", 95))
    ]

    assert taken == [True, True, True, False, True, False]


def test_who_was_forgotten_and_comes_again_is_not_believed_what_it_once_sent() -> None:
    replays = Replays(4, most=1)
    for origin, seq, time in (("a", 1, 100), ("b", 0, 200), ("a", 0, 200)):
        assert replays.take(sender(origin), seq, time)

    assert not replays.take(sender("a"), 1, 100), "its number is new to the new window"
    assert replays.take(sender("a"), 2, 101)


def test_a_sender_whose_clock_was_set_back_is_remembered_by_its_newest_message() -> None:
    replays = Replays(4, most=1)
    for seq, time in enumerate((100, 50)):
        replays.take(sender("a"), seq, time)
    replays.take(sender("b"), 0, 101)

    assert not replays.take(sender("a"), 0, 100)


def test_forgetting_one_key_does_not_hurt_the_others() -> None:
    replays = Replays(4, most=2)
    for origin in "abc":
        replays.take(sender(origin), 0, 100)

    assert replays.take(sender("z", key="other"), 0, 1)


def test_who_is_heard_is_not_forgotten() -> None:
    replays = Replays(4, most=2)
    replays.take(sender("a"), 0, 100)
    replays.take(sender("b"), 0, 101)
    replays.take(sender("a"), 1, 102)

    replays.take(sender("c"), 0, 103)

    assert sender("a") in replays._windows
    assert not replays.take(sender("b"), 0, 101)


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 12)), max_size=60),
    st.dictionaries(
        st.tuples(st.sampled_from("abcdef"), st.integers(0, 12)), st.integers(1, 9), max_size=60
    ),
    st.integers(1, 4),
)
@settings(max_examples=300, deadline=None)
def test_nothing_is_taken_twice_whatever_was_forgotten(
    messages: list[tuple[str, int]], times: dict[tuple[str, int], int], most: int
) -> None:
    replays = Replays(6, most)
    seen: set[tuple[str, int]] = set()

    for origin, number in messages:
        # A number is signed once, with whatever time the clock then had.
        if replays.take(sender(origin), number, times.get((origin, number), 5)):
            assert (origin, number) not in seen
            seen.add((origin, number))

    assert len(replays._windows) <= most
