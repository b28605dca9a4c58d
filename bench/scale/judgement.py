"""What is made of all series: what costs too much, with a known reason or without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.scale.exceptions import KNOWN, Known
from bench.scale.promise import Growth, too_much
from bench.scale.series import Series


@dataclass(frozen=True)
class Judgement:
    """What costs too much; ``gone`` are the known exceptions that no longer occur."""

    unexplained: list[Growth]
    explained: dict[Known, list[Growth]]
    gone: list[Known]


def judge(all_series: Sequence[Series], known: Sequence[Known] = KNOWN) -> Judgement:
    """Judge everything that was measured."""
    unexplained: list[Growth] = []
    explained: dict[Known, list[Growth]] = {}
    for growth in too_much(all_series):
        reasons = (one for one in known if one.explains(growth, all_series))
        if (reason := next(reasons, None)) is None:
            unexplained.append(growth)
        else:
            explained.setdefault(reason, []).append(growth)
    # One whose figures are still too much, only more so or without proof, has not gone.
    occurs = {
        one
        for one in known
        for growth in too_much(all_series)
        if one.is_about(growth.series) and growth.low >= one.since
    }
    gone = [one for one in known if one not in occurs and one.was_looked_for(all_series)]
    return Judgement(unexplained, explained, gone)
