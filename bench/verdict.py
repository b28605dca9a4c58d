"""What a difference between two sets of rounds is: a regression, an improvement, or noise.

It counts if it is *unlikely* and *large enough to matter*:

* Unlikely: by the exact rank test of Mann and Whitney, two-sided, it comes about at most once in a
  hundred times if both sets are of one kind. Ranks, for rounds have outliers and nothing is known
  of their distribution; exact, for there are few. That takes at least five rounds on each side:
  with fewer, even sets that do not overlap come about by chance too often.
* Large enough: the medians differ by 5 % or more. Two runs of the same code differ by some percent
  in more than their rounds show, as each has its memory laid out in another way.

The test is written out, for that is shorter than a dependency: it runs with nothing installed.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import combinations
from math import comb

LEAST = 5.0  # %
UNLIKELY = 0.01
ENUMERATED = 20_000  # ways to deal the rounds; where there are more of them, so many are drawn


class Verdict(StrEnum):
    """What a difference is."""

    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    NOISE = "noise"
    TOO_FEW = "too few rounds"


def chance(before: Sequence[float], after: Sequence[float]) -> float:
    """How often two sets of one kind are at least as far apart as these, by the sum of their ranks.

    Exact up to nine rounds each; beyond that, of many ways to deal them drawn by chance, always the
    same ones.
    """
    ranks = _ranks([*before, *after])
    few, all_of = len(before), len(ranks)
    middle = few * (all_of + 1) / 2
    apart = abs(sum(ranks[:few]) - middle)
    if comb(all_of, few) <= ENUMERATED:
        deals: Iterator[Sequence[float]] = combinations(ranks, few)
    else:
        dealer = random.Random(0)
        deals = (dealer.sample(ranks, few) for _ in range(ENUMERATED))
    found = [abs(sum(deal) - middle) >= apart for deal in deals]
    return sum(found) / len(found)


def _ranks(values: Sequence[float]) -> list[float]:
    """The place of each in their order; equal ones share the middle of their places."""
    ordered = sorted(values)
    first = {value: place for place, value in reversed(list(enumerate(ordered, 1)))}
    return [first[value] + (ordered.count(value) - 1) / 2 for value in values]


def judge(
    before: Sequence[float], after: Sequence[float], *, more_is_better: bool, least: float = LEAST
) -> Verdict:
    """What the difference between two sets of rounds is; ``least`` in percent."""
    if 2 / comb(len(before) + len(after), len(before)) > UNLIKELY:
        return Verdict.TOO_FEW
    old, new = statistics.median(before), statistics.median(after)
    if abs(new - old) < abs(old) * least / 100 or new == old or chance(before, after) > UNLIKELY:
        return Verdict.NOISE
    return Verdict.IMPROVEMENT if (new > old) == more_is_better else Verdict.REGRESSION
