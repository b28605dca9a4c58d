"""What ports of one process do not go together, with each other and with those of others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from announced import Number, Word, node
from commlib._discovery import NodeInfo, mismatches
from commlib.aio import _matching
from commlib.aio._matching import Matching, Ports


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The topics that were warned of since the last look."""
    caplog.set_level(logging.WARNING, "commlib.discovery")

    def topics() -> list[str]:
        found = [record.getMessage().split(":")[0] for record in caplog.records]
        caplog.clear()
        return found

    return topics


UNLIKE = [
    node("one", *(("publisher", f"t{number}", Number) for number in range(5))),
    node("other", *(("subscriber", f"t{number}", Word) for number in range(5))),
]
"""Nodes that do not go together in five topics."""


@pytest.fixture
def time_for_two(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A clock that goes on when it is looked at, and leaves time to compare two topics at once."""
    clock = count()
    monkeypatch.setattr(_matching, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(_matching, "LONGEST", 3)
    return clock


def told(matching: Matching, *ours: NodeInfo) -> None:
    matching.note_change()
    assert matching.compare_own(lambda: ours)


def test_of_ours_each_mismatch_is_warned_of_once(warned: Callable[[], list[str]]) -> None:
    matching = Matching()
    one = node("one", ("publisher", "a", Number), ("subscriber", "b", Number))
    other = node("other", ("subscriber", "a", Word), ("publisher", "b", Number))
    told(matching, one, other)
    assert warned() == ["a"]
    told(matching, one, other)
    assert warned() == []


def test_a_mismatch_of_the_third_of_a_name_is_found(warned: Callable[[], list[str]]) -> None:
    reading = node("reading", ("subscriber", "a", Number))
    publishing = [node(f"at{qos}", ("publisher", "a", Number), qos=qos) for qos in (0, 1)]
    told(Matching(), reading, publishing[0])
    assert warned() == []
    told(Matching(), reading, *publishing)
    assert warned() == ["a"]


def test_what_there_was_no_time_for_is_compared_the_next_time(
    warned: Callable[[], list[str]], time_for_two: Iterator[int]
) -> None:
    matching = Matching()
    found = [(matching.compare_own(lambda: UNLIKE), warned()) for _ in range(4)]
    assert found == [(False, ["t0", "t1"]), (False, ["t2", "t3"]), (True, ["t4"]), (True, [])]


def test_nodes_that_change_all_the_time_keep_no_name_from_its_turn(
    warned: Callable[[], list[str]], time_for_two: Iterator[int]
) -> None:
    matching = Matching()
    found = []
    for _ in range(3):
        matching.note_change()
        matching.compare_own(lambda: UNLIKE)
        found.append(warned())
    assert found == [["t0", "t1"], ["t2", "t3"], ["t4"]]


def test_names_that_all_differ_are_not_even_indexed(monkeypatch: pytest.MonkeyPatch) -> None:
    indexed: list[object] = []
    monkeypatch.setattr(Ports, "add", lambda ports, port: indexed.append(port))
    ours = [node("one", ("publisher", "a", Number), ("subscriber", "b", Number))]
    told(Matching(), *ours)
    assert indexed == []
    told(Matching(), *ours, node("other", ("subscriber", "a", Number)))
    assert len(indexed) == 3


def test_a_stranger_who_tells_of_much_is_not_compared_for_longer_than_that(
    warned: Callable[[], list[str]], time_for_two: Iterator[int]
) -> None:
    ours, stranger = UNLIKE
    assert Matching().compare([stranger], lambda: [ours]) == [ours]
    assert warned() == ["t0", "t1"]
    assert next(time_for_two) == 4, "the rest was not looked at"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            node("one", ("publisher", "a", Number), qos=1),
            node("other", ("subscriber", "a", Number)),
        ),
        (node("one", ("publisher", "a", Number)), node("other", ("subscriber", "a", None))),
        (node("one", ("publisher", "a", Number)), node("other", ("publisher", "a", Word))),
        (node("one", ("publisher", "a", Number)), node("other", ("publisher", "a", Number))),
    ],
)
def test_no_time_is_spent_on_what_plainly_goes_together(one: NodeInfo, other: NodeInfo) -> None:
    ports = Ports()
    for info in (one, other):
        ports.add((info, info.endpoints[0]))
    assert list(ports.suspect) == []
    assert mismatches([one, other]) == []


@pytest.mark.parametrize(
    ("own", "theirs"), [("publisher", "subscriber"), ("subscriber", "publisher")]
)
def test_of_several_of_a_name_the_one_is_told_that_does_not_fit(
    own: str, theirs: str, warned: Callable[[], list[str]]
) -> None:
    both = [node(kind, (kind, "a", Number)) for kind in ("publisher", "subscriber")]
    matching = Matching()
    told(matching, *both)
    stranger = node("stranger", (theirs, "a", Word))
    assert [ours.name for ours in matching.compare([stranger], lambda: both)] == [own]
    assert warned() == ["a"]
