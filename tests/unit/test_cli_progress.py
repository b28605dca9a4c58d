"""How far a goal is, out of whatever its feedback holds."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from commlib.cli._progress import given_share, share_in


@pytest.mark.parametrize(
    ("feedback", "field", "share"),
    [
        ({"percent": 50}, "percent", 0.5),
        ({"Percentage": 12.5, "a": 1}, "Percentage", 0.125),
        ({"percent_complete": 150}, "percent_complete", 1.0),
        ({"battery": 3, "done_pct": 1}, "done_pct", 0.01),
        ({"fraction": 0.25}, "fraction", 0.25),
        ({"ratio": 1}, "ratio", 1.0),
        ({"progress": 0.5}, "progress", 0.5),
        ({"progress": 1.0}, "progress", 1.0),
        ({"progress": 1}, "progress", 0.01),
        ({"progress": 40}, "progress", 0.4),
        ({"progress": 0}, "progress", 0.0),
        ({"completion": 0.1}, "completion", 0.1),
        ({"step": 1, "steps": 4}, "step", 0.25),
        ({"current": 3, "total": 4}, "current", 0.75),
        ({"percent": -5}, "percent", 0.0),
    ],
)
def test_a_number_that_is_called_like_progress_is_found(
    feedback: Any, field: str, share: float
) -> None:
    found = share_in(feedback)
    assert found is not None
    assert (found[0], found[1](feedback)) == (field, share)


@pytest.mark.parametrize(
    "feedback",
    [
        {"metres": 1},
        {"percent": "50"},
        {"percent": True},
        {"percent": nan},
        {"percent": inf},
        {"step": 1},
        {"total": 5},
        {},
        [1],
        None,
        0.5,
    ],
)
def test_what_is_none_is_not_taken_for_progress(feedback: Any) -> None:
    assert share_in(feedback) is None


def test_a_fraction_stays_one_when_it_comes_to_one_as_a_whole_number() -> None:
    _, share = given_share("progress", {})
    assert [share({"progress": value}) for value in (0, 0.5, 1)] == [0.0, 0.5, 1.0]


def test_percents_stay_that_when_they_are_small() -> None:
    _, share = given_share("progress", {})
    assert [share({"progress": value}) for value in (0, 50, 1)] == [0.0, 0.5, 0.01]


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("metres:8", 0.25),
        ("metres:goal.metres", 0.5),
        ("metres:of", 0.2),
        ("at.x:4", 0.75),
        ("metres:nothing", None),
        ("feet:8", None),
    ],
)
def test_a_field_is_given_with_its_total(text: str, share: float | None) -> None:
    _, read = given_share(text, {"metres": 4})
    assert read({"metres": 2, "of": 10, "at": {"x": 3}}) == share
