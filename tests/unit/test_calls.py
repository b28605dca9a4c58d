"""Whose reply is whose: the table of pending calls, alone and against a model."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from commlib._calls import Calls


def table(capacity: int, *tokens: str) -> Calls[str]:
    """A table with calls added in this order; each call is its token in capitals."""
    calls: Calls[str] = Calls(capacity)
    for token in tokens:
        calls.add(token, token.upper())
    return calls


def test_a_call_may_be_sent_at_once_while_there_is_room() -> None:
    calls: Calls[str] = Calls(2)

    assert [calls.add(token, token) for token in "abc"] == [True, True, False]
    assert len(calls) == 3
    assert all(token in calls for token in "abc")


def test_a_reply_ends_its_call_once() -> None:
    calls = table(2, "a", "b")

    assert calls.take("a") == "A"
    assert calls.take("a") is None
    assert calls.take("never heard of") is None
    assert "a" not in calls
    assert len(calls) == 1


def test_a_call_that_was_not_sent_cannot_have_a_reply() -> None:
    calls = table(1, "a", "b")

    assert calls.take("b") is None
    assert "b" in calls


def test_the_next_call_is_the_one_that_has_waited_longest() -> None:
    calls = table(1, "a", "b", "c")

    assert calls.next() is None, "there is no room yet"
    calls.take("a")
    assert calls.next() == "B"
    assert calls.next() is None
    calls.take("b")
    assert calls.next() == "C"
    assert calls.take("c") == "C"
    assert calls.next() is None


def test_dropping_tells_whether_the_call_was_sent() -> None:
    calls = table(1, "a", "b")

    assert calls.drop("b") == ("B", False)
    assert calls.drop("a") == ("A", True)
    assert calls.drop("a") == (None, False)
    assert len(calls) == 0


def test_a_call_that_gave_up_while_it_waited_is_passed_over() -> None:
    calls = table(1, "a", "b", "c")
    calls.drop("b")
    calls.drop("a")

    assert calls.next() == "C"


def test_a_reply_after_the_call_was_dropped_reaches_nobody() -> None:
    calls = table(1, "a")
    calls.drop("a")

    assert calls.take("a") is None


def test_capacity_may_come_later() -> None:
    calls = table(0, "a", "b", "c")
    assert calls.next() is None

    calls.capacity = 2

    assert [calls.next(), calls.next(), calls.next()] == ["A", "B", None]


def test_clearing_ends_all_of_them() -> None:
    calls = table(1, "a", "b")

    assert calls.clear() == ["A", "B"]
    assert len(calls) == 0
    assert calls.clear() == []
    assert calls.take("a") is None
    assert calls.next() is None
    assert calls.add("c", "C"), "it goes on working"


def test_a_name_may_not_take_all_the_places() -> None:
    calls: Calls[str] = Calls(64)
    sent = [calls.add(f"a{n}", "a", "a") for n in range(100)]
    assert sent.count(True) == 48, "three times as many as are left"
    assert [calls.add(f"b{n}", "b", "b") for n in range(20)].count(True) == 12
    assert calls.add("c", "c", "c"), "there is room for a third"


def test_names_that_wait_take_turns_and_each_keeps_its_order() -> None:
    calls: Calls[str] = Calls(4)
    for n in range(4):
        calls.add(f"first{n}", "first")
    for n in range(3):
        calls.add(f"a{n}", f"A{n}", "a")
    calls.add("b0", "B0", "b")
    calls.drop("a0")
    for n in range(4):
        calls.take(f"first{n}")
    assert [calls.next() for _ in range(4)] == ["A1", "B0", "A2", None]
    assert len(calls) == 3


class Counted(str):
    """A name that counts how often any of them is looked up."""

    __slots__ = ()
    lookups = 0

    def __hash__(self) -> int:
        Counted.lookups += 1
        return super().__hash__()


def test_who_is_next_is_found_without_a_look_at_all_names_that_wait() -> None:
    calls: Calls[int] = Calls(4)
    for number in range(1000):
        calls.add(str(number), number, Counted(f"service{number}"))
    Counted.lookups = 0
    for number in range(100):
        assert calls.take(str(number)) == number
        assert calls.next() == number + 4
        assert calls.next() is None, "all places are taken"
    assert Counted.lookups < 100 * 20


class CallsAgainstAModel(RuleBasedStateMachine):
    """Whatever happens in whatever order, each call ends once and the line is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Calls[int] = Calls(3)
        self.made = 0
        self.under_way: list[int] = []
        self.waiting: list[int] = []

    @rule()
    def add(self) -> None:
        call = self.made
        self.made += 1
        sent = self.calls.add(str(call), call)
        assert sent == (len(self.under_way) < 3)
        (self.under_way if sent else self.waiting).append(call)

    @precondition(lambda self: self.made)
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        call = data.draw(st.integers(0, self.made - 1))
        expected = call if call in self.under_way else None
        assert self.calls.take(str(call)) == expected
        if expected is not None:
            self.under_way.remove(call)

    @precondition(lambda self: self.made)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        call = data.draw(st.integers(0, self.made - 1))
        found, was_sent = self.calls.drop(str(call))
        assert was_sent == (call in self.under_way)
        assert (found is not None) == (call in self.under_way or call in self.waiting)
        for line in (self.under_way, self.waiting):
            if call in line:
                line.remove(call)

    @rule()
    def next(self) -> None:
        found = self.calls.next()
        if self.waiting and len(self.under_way) < 3:
            assert found == self.waiting.pop(0)
            self.under_way.append(found)
        else:
            assert found is None

    @rule()
    def clear(self) -> None:
        assert sorted(self.calls.clear()) == sorted(self.under_way + self.waiting)
        self.under_way, self.waiting = [], []

    @invariant()
    def knows_what_is_pending(self) -> None:
        assert len(self.calls) == len(self.under_way) + len(self.waiting)
        assert all(str(call) in self.calls for call in self.under_way + self.waiting)


TestCallsAgainstAModel = CallsAgainstAModel.TestCase
TestCallsAgainstAModel.settings = settings(max_examples=60, deadline=None)
