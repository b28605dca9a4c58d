"""How far a goal is, as its feedback tells. Pure.

A field is looked for that is called as such fields are: ``percent`` and the like, of 100;
``fraction`` and ``ratio``, of 1; ``progress`` and ``completion``, of 1 if it is a fraction and of
100 else; ``step`` of ``steps``, ``current`` or ``done`` of ``total``.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

from commlib.cli._shown import NoSuchField, pick

_EITHER = ("progress", "completion", "complete")
_FRACTIONS = ("fraction", "ratio")
_PERCENTS = ("percent", "percentage", "pct")
_PAIRS = (
    ("step", "steps"),
    ("step", "total_steps"),
    ("current_step", "total_steps"),
    ("current", "total"),
    ("completed", "total"),
    ("done", "total"),
)
_OF_GOAL = "goal."

Share = Callable[[Any], "float | None"]
"""How much of it is done, from 0 to 1, by a feedback; None if that does not tell."""


def share_in(feedback: Any) -> tuple[str, Share] | None:
    """The field of a feedback that looks like progress, and how to read it; None: there is none."""
    if not isinstance(feedback, dict):
        return None
    by_name = {name.lower(): name for name in feedback if _number(feedback, name) is not None}
    for lower, name in by_name.items():
        if lower.startswith("percent") or lower.endswith(_PERCENTS):
            return name, _of_total(name, 100)
        if lower in _FRACTIONS:
            return name, _of_total(name, 1)
    for word in _EITHER:
        if word in by_name:
            return by_name[word], _Scaled(by_name[word])
    for done, total_name in _PAIRS:
        if done in by_name and total_name in by_name:
            return by_name[done], _of_field(by_name[done], by_name[total_name])
    return None


def given_share(text: str, goal: Any) -> tuple[str, Share]:
    """The same for ``FIELD``, or ``FIELD:TOTAL``: a number, a field, or ``goal.FIELD`` of the goal.

    Raises ValueError.
    """
    field, colon, total = text.partition(":")
    if not field or (colon and not total):
        raise ValueError(f"--progress {text}: it is FIELD or FIELD:TOTAL, such as metres:100")
    if not colon:
        return field, _Scaled(field)
    if total.startswith(_OF_GOAL):
        known = _number(goal, total.removeprefix(_OF_GOAL))
        if not known:
            raise ValueError(f"--progress {text}: the goal has no such number, or it is 0")
        return field, _of_total(field, known)
    try:
        number = float(total)
    except ValueError:
        return field, _of_field(field, total)
    if not (isfinite(number) and number):
        raise ValueError(f"--progress {text}: the total must be a number other than 0")
    return field, _of_total(field, number)


def _number(data: Any, path: str) -> float | None:
    try:
        value = pick(data, path)
    except NoSuchField:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and isfinite(value) else None


def _of_total(field: str, total: float) -> Share:
    def share(feedback: Any) -> float | None:
        value = _number(feedback, field)
        return None if value is None else _clipped(value / total)

    return share


def _of_field(field: str, total: str) -> Share:
    def share(feedback: Any) -> float | None:
        value, whole = _number(feedback, field), _number(feedback, total)
        return None if value is None or not whole else _clipped(value / whole)

    return share


class _Scaled:
    """Reads a field that is a fraction or a percentage, whichever its values look like."""

    def __init__(self, field: str) -> None:
        self._field = field
        self._is_fraction: bool | None = None

    def __call__(self, feedback: Any) -> float | None:
        value = _number(feedback, self._field)
        if value is None:
            return None
        if abs(value) > 1:
            self._is_fraction = False
        elif self._is_fraction is None and value:
            # A whole number 1 is the first percent; one that writes fractions writes 1.0.
            self._is_fraction = isinstance(pick(feedback, self._field), float)
        return _clipped(value if self._is_fraction else value / 100)


def _clipped(share: float) -> float:
    return min(1.0, max(0.0, share))
