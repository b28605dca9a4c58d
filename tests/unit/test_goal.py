"""The life of a goal as a table, and how long its outcome is kept: alone and against models."""

from __future__ import annotations

from itertools import permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from commlib._goal import NEXT, TERMINAL, Finished, GoalState, GoalStatus, later
from commlib.action import GoalStatus as Exported

ACCEPTED, EXECUTING, CANCELING, SUCCEEDED, ABORTED, CANCELED = GoalStatus


def state_in(status: GoalStatus) -> GoalState:
    """A goal that has come to this state, by whatever way."""
    state = GoalState()
    state.status = status
    return state


# ---- names and numbers ----


def test_the_numbers_are_those_on_the_wire() -> None:
    assert [(status.name, status.value) for status in GoalStatus] == [
        ("ACCEPTED", 1),
        ("EXECUTING", 2),
        ("CANCELING", 3),
        ("SUCCEDED", 4),
        ("ABORTED", 5),
        ("CANCELED", 6),
    ]
    assert Exported is GoalStatus


def test_what_releases_misspell_or_call_otherwise_is_the_same_state() -> None:
    assert GoalStatus.SUCCEEDED is GoalStatus.SUCCEDED
    assert GoalStatus["RUNNING"] is GoalStatus.EXECUTING
    assert GoalStatus.SUCCEEDED == 4


# ---- the table ----


def test_the_table_has_every_state_and_leads_only_to_greater_ones() -> None:
    assert set(NEXT) == set(GoalStatus)
    assert [(a, b) for a, following in NEXT.items() for b in following if b <= a] == []


def test_every_state_is_reached_and_every_goal_can_end() -> None:
    reached = {ACCEPTED}
    for status in GoalStatus:  # by their numbers, so that one round is enough
        if status in reached:
            reached |= NEXT[status]
    assert reached == set(GoalStatus)
    assert all(following for status, following in NEXT.items() if status not in TERMINAL)


def test_nothing_follows_a_terminal_state() -> None:
    assert [NEXT[status] for status in TERMINAL] == [frozenset()] * 3


@pytest.mark.parametrize(("before", "after"), list(product(GoalStatus, GoalStatus)))
def test_a_goal_takes_the_steps_of_the_table_and_no_other(
    before: GoalStatus, after: GoalStatus
) -> None:
    state = state_in(before)
    if after in NEXT[before]:
        state.move(after)
        assert state.status is after
    else:
        with pytest.raises(AssertionError, match=after.name):
            state.move(after)
        assert state.status is before


def test_a_new_goal_is_accepted_and_neither_finished_nor_canceling() -> None:
    state = GoalState()
    assert (state.status, state.is_finished, state.is_canceling) == (ACCEPTED, False, False)


@pytest.mark.parametrize("status", GoalStatus)
def test_a_goal_is_finished_in_the_terminal_states(status: GoalStatus) -> None:
    assert state_in(status).is_finished == (status in TERMINAL)
    assert state_in(status).is_canceling == (status is CANCELING)


# ---- how it ends ----

OUTCOMES = {
    # whether it is to be cancelled, whether the callback raised, what it wished: how it ends
    (False, False, None): SUCCEEDED,
    (False, False, SUCCEEDED): SUCCEEDED,
    (False, False, ABORTED): ABORTED,
    (False, False, CANCELED): CANCELED,
    (True, False, None): CANCELED,
    (True, False, SUCCEEDED): CANCELED,
    (True, False, ABORTED): ABORTED,
    (True, False, CANCELED): CANCELED,
    **{
        (canceling, True, wish): ABORTED
        for canceling in (False, True)
        for wish in (None, *TERMINAL)
    },
}


@pytest.mark.parametrize("case", OUTCOMES, ids=str)
def test_the_end_of_the_callback_decides_the_end_of_the_goal(
    case: tuple[bool, bool, GoalStatus | None],
) -> None:
    canceling, failed, wish = case
    state = state_in(CANCELING if canceling else EXECUTING)
    if wish is not None:
        state.wish(wish)

    outcome = state.outcome(failed)

    assert outcome is OUTCOMES[case]
    assert not state.is_finished, "nothing has moved yet"
    state.move(outcome)


@pytest.mark.parametrize("status", [ACCEPTED, CANCELING, 0, 7, -1, 99])
def test_a_callback_cannot_wish_for_what_is_no_end(status: int) -> None:
    with pytest.raises(ValueError, match="SUCCEEDED, ABORTED or CANCELED"):
        GoalState().wish(status)


def test_the_last_wish_counts_and_executing_takes_it_back() -> None:
    state = state_in(EXECUTING)
    state.wish(ABORTED)
    state.wish(6)
    assert state.outcome(failed=False) is CANCELED
    state.wish(EXECUTING)
    assert state.outcome(failed=False) is SUCCEEDED


# ---- hearing of it ----


def test_whatever_the_order_in_which_states_are_heard_the_last_of_them_is_known() -> None:
    for path in ([1, 2, 4], [1, 2, 5], [1, 2, 3, 6], [1, 3, 6], [1, 2, 3, 5]):
        for heard in permutations(path):
            known = 0
            for status in heard:
                known = later(known, status)
            assert known == path[-1]


@given(st.lists(st.integers(-3, 9)))
def test_a_known_state_only_grows_is_always_one_and_never_leaves_an_end(heard: list[int]) -> None:
    known = 0
    for status in heard:
        before, known = known, later(known, status)
        assert known >= before
        assert known in (0, *GoalStatus)
        if before in TERMINAL:
            assert known == before


# ---- what has ended ----


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_goal_that_has_ended_is_kept_for_its_time_and_no_longer() -> None:
    clock = Clock()
    finished: Finished[str] = Finished(5.0, 10, clock)
    finished.add("a", "A")
    clock.now += 4.9
    assert finished.get("a") == "A"
    clock.now += 0.2
    assert finished.get("a") is None
    assert len(finished) == 0


def test_no_more_goals_are_kept_than_there_is_room_for_and_the_oldest_goes_first() -> None:
    finished: Finished[int] = Finished(5.0, 3, Clock())
    for n in range(5):
        finished.add(str(n), n)
    assert [finished.get(str(n)) for n in range(5)] == [None, None, 2, 3, 4]


def test_goals_that_have_just_ended_are_found() -> None:
    clock = Clock()
    finished: Finished[int] = Finished(60.0, 10, clock)
    for n in range(4):
        finished.add(str(n), n)
        clock.now += 1
    assert list(finished.newest(2.5)) == [3, 2]
    assert list(finished.newest(0.5)) == []


def test_a_goal_that_is_not_known_is_none() -> None:
    finished: Finished[int] = Finished(60.0, 10, Clock())
    assert finished.get("never heard of") is None
    assert list(finished.newest(9)) == []


class FinishedModel(RuleBasedStateMachine):
    """Against a list of everything that ever ended."""

    TTL, CAPACITY = 10.0, 4

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.finished: Finished[int] = Finished(self.TTL, self.CAPACITY, self.clock)
        self.ended: list[tuple[float, str, int]] = []

    @rule()
    def end(self) -> None:
        number = len(self.ended)
        self.finished.add(f"g{number}", number)
        self.ended.append((self.clock.now, f"g{number}", number))

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def exactly_the_newest_that_are_young_enough_are_kept(self) -> None:
        kept = [
            goal for goal in self.ended[-self.CAPACITY :] if goal[0] > self.clock.now - self.TTL
        ]
        assert len(self.finished) == len(kept)
        for goal in self.ended:
            assert self.finished.get(goal[1]) == (goal[2] if goal in kept else None)


FinishedModel.TestCase.settings = settings(max_examples=50, deadline=None)
TestFinished = FinishedModel.TestCase


class GoalModel(RuleBasedStateMachine):
    """A goal, what its service does to it, and a watcher who hears of it as the network likes."""

    def __init__(self) -> None:
        super().__init__()
        self.state = GoalState()
        self.published: list[GoalStatus] = [self.state.status]
        self.known = 0

    def _move(self, status: GoalStatus) -> None:
        self.state.move(status)
        self.published.append(status)

    @precondition(lambda self: self.state.status is ACCEPTED)
    @rule()
    def start(self) -> None:
        self._move(EXECUTING)

    @precondition(lambda self: self.state.status in (ACCEPTED, EXECUTING))
    @rule()
    def cancel(self) -> None:
        self._move(CANCELING)

    @precondition(lambda self: not self.state.is_finished)
    @rule(wish=st.sampled_from([EXECUTING, *TERMINAL]))
    def wish(self, wish: GoalStatus) -> None:
        self.state.wish(wish)

    @precondition(lambda self: self.state.status in (EXECUTING, CANCELING))
    @rule(failed=st.booleans())
    def end(self, failed: bool) -> None:
        self._move(self.state.outcome(failed))

    @rule(data=st.data())
    def hear(self, data: st.DataObject) -> None:
        self.known = later(self.known, data.draw(st.sampled_from(self.published)))

    @invariant()
    def nobody_is_ahead_of_the_service_and_nothing_follows_the_end(self) -> None:
        assert self.known <= self.state.status
        assert self.published == sorted(set(self.published))
        assert [s for s in self.published if s in TERMINAL] in ([], [self.published[-1]])
        if CANCELING in self.published:
            assert SUCCEEDED not in self.published


GoalModel.TestCase.settings = settings(max_examples=100, deadline=None)
TestGoal = GoalModel.TestCase
