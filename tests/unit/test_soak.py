"""What the soak counts with: a wrong figure there would find no fault, or find one that is none."""

from __future__ import annotations

import os
import random
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from soak.run import LINK_FAULTS
from soak.samples import Sample, count_fault, look, memory_fault, slope
from soak.schedule import LINKS, PARTS, SECONDS, schedule
from soak.tally import Numbers, Once

HOUR = 3600


def counted(*arrived: int) -> Numbers:
    """The account of these numbers, in this order."""
    numbers = Numbers()
    for number in arrived:
        numbers.note(number)
    return numbers


# ---- the messages ----


@given(st.sets(st.integers(0, 50), min_size=1), st.randoms())
def test_in_whatever_order_they_come_each_message_is_counted_once(
    numbers: set[int], chance: random.Random
) -> None:
    order = list(numbers)
    chance.shuffle(order)
    account = counted(*order)
    overtaken = sum(n < max(order[:i], default=-1) for i, n in enumerate(order))
    assert (account.received, account.duplicates) == (len(order), 0)
    assert (account.last, account.reordered) == (max(order), overtaken)


@given(st.lists(st.integers(0, 20), min_size=1))
def test_what_came_before_is_a_duplicate(numbers: list[int]) -> None:
    account = counted(*numbers)
    assert account.received == len(set(numbers))
    assert account.duplicates == len(numbers) - len(set(numbers))


def test_an_account_that_adds_up_has_no_faults() -> None:
    assert counted(0, 1, 2).faults("t", sent=3, gaps=0, last_ones=0) == []
    assert counted(0, 3).faults("t", sent=4, gaps=2, last_ones=0) == []
    assert counted(0, 3).faults("t", sent=6, gaps=2, last_ones=2) == []


@pytest.mark.parametrize(
    ("arrived", "sent", "gaps", "kind", "says"),
    [
        ((0, 1, 1), 2, 0, "repeated", "twice"),
        ((0, 2, 1), 3, 0, "repeated", "after later ones"),
        ((0, 3), 4, 1, "miscounted", "1 counted as lost; that makes 3"),
        ((0, 3), 4, 3, "miscounted", "3 counted as lost; that makes 5"),
        ((0, 1), 4, 0, "miscounted", "4 were sent, and the last that came was 1"),
        ((0, 1), 1, 0, "miscounted", "1 were sent"),
    ],
    ids=["twice", "overtaken", "uncounted", "counted twice", "the last ones", "from nowhere"],
)
def test_what_does_not_add_up_is_told(
    arrived: tuple[int, ...], sent: int, gaps: int, kind: str, says: str
) -> None:
    ((found, text),) = counted(*arrived).faults("t", sent, gaps, last_ones=1)
    assert found == kind
    assert says in text


def test_what_comes_twice_is_known_among_the_newest() -> None:
    once = Once(capacity=3)
    for number in (1, 2, 3, 3, 4, 2, 1):
        once.note(number)
    assert once.twice == 2  # of the first 1 it knows nothing any more


# ---- the size ----


def samples(mb: list[float]) -> list[Sample]:
    """Samples of a process, one a second."""
    return [Sample(at, size, 10, 5) for at, size in enumerate(mb)]


def test_the_slope_is_that_of_the_line() -> None:
    assert slope([0, 1, 2, 3], [5, 7, 9, 11]) == pytest.approx(2)
    assert slope([], []) == slope([1, 1], [2, 3]) == 0


def test_memory_that_grows_all_the_time_is_told() -> None:
    growing = [30 + 0.005 * second for second in range(HOUR // 2)]
    assert memory_fault(samples(growing)).startswith("memory grows: 4.5 MB over the second half")


@pytest.mark.parametrize("seed", range(5))
def test_noise_a_warm_up_outages_and_one_step_are_no_growth(seed: int) -> None:
    chance = random.Random(seed)
    noisy = [30 + chance.gauss(0, 0.5) for _ in range(HOUR // 2)]
    warm = [min(60, 30 + second / 10) for second in range(HOUR // 2)]
    outage = [30 + 20 * (1700 < second < 1760) for second in range(HOUR // 2)]
    step = [30 + 10 * (second > 1300) for second in range(HOUR // 2)]
    for mb in (noisy, warm, outage, step):
        assert memory_fault(samples(mb)) == ""


def test_of_a_few_samples_nothing_is_said() -> None:
    assert memory_fault(samples([10, 100, 1000])) == ""
    assert memory_fault([]) == count_fault("handles", [1, 20, 300]) == ""


def test_one_handle_that_is_left_behind_each_time_is_told() -> None:
    assert count_fault("handles", list(range(20, 40))).startswith("handles grow")


@pytest.mark.parametrize("seed", range(5))
def test_what_comes_and_goes_is_no_growth(seed: int) -> None:
    chance = random.Random(seed)
    assert count_fault("threads", [chance.randint(10, 20) for _ in range(30)]) == ""
    assert count_fault("objects", [25_000 + chance.randint(0, 400) for _ in range(30)]) == ""


def test_a_look_at_this_process_sees_it() -> None:
    before = look(os.getpid(), 0.0)
    read, write = os.pipe()
    try:
        after = look(os.getpid(), 1.0)
    finally:
        os.close(read)
        os.close(write)
    assert after.handles == before.handles + 2
    assert after.rss_mb > 1
    assert after.threads >= 1


# ---- the faults ----


def test_the_same_seed_gives_the_same_faults_and_another_one_others() -> None:
    def first(seed: int, broker: str) -> list[object]:
        return list(islice(schedule(seed, broker), 50))

    assert first(7, "redis") == first(7, "redis")
    assert len({tuple(first(*each)) for each in [(7, "redis"), (7, "mqtt"), (8, "redis")]}) == 3


def test_each_kind_of_fault_comes_before_any_comes_again() -> None:
    faults = list(islice(schedule(1, "redis"), 2 * len(SECONDS)))
    for part in (faults[: len(SECONDS)], faults[len(SECONDS) :]):
        assert {fault.kind for fault in part} == SECONDS.keys()
    for fault in faults:
        shortest, longest = SECONDS[fault.kind]
        assert shortest <= fault.lasts <= longest
        assert bool(fault.sides) == (fault.kind in LINKS)


def test_there_is_a_way_to_inflict_each_kind_of_fault() -> None:
    assert LINK_FAULTS.keys() == set(LINKS)
    assert SECONDS.keys() == {*LINKS, *PARTS, "kill", "freeze"}
