"""What a difference between two sets of rounds is: a regression, an improvement, or noise.

It counts if it is *unlikely* and *large enough to matter*:

* Unlikely: by the exact rank test of Mann and Whitney, two-sided, it comes about at most once in a
  hundred times if both sets are of one kind. Ranks, for rounds have outliers and nothing is known
  of their distribution; exact for any number of rounds, for all ways to deal them are counted.
* Large enough: the medians differ by 5 % or more. Two runs of the same code differ by some percent
  in more than their rounds show, as each has its memory laid out in another way.

Of a hundred figures one would be mistaken. So where many are compared, by the method of Holm, all
of them together are mistaken at most once in a hundred comparisons.

That has its price. Five rounds on each side show a difference of a single figure, and only if the
two sets do not overlap, which chance brings about 2 times in 252. They can show nothing among many:
the clearest there is may then be chance, and all that is said of it is "perhaps", by which is known
what to measure again. Ten rounds show what does not overlap among 900 figures, and a whole run has
some 400 of ours: take ten. No number of rounds shows what is smaller than the noise within them.

The test is written out, for that is shorter than a dependency: it runs with nothing installed.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from itertools import count
from math import comb

LEAST = 5.0  # %
UNLIKELY = 0.01


class Verdict(StrEnum):
    """What a difference is."""

    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    PERHAPS = "perhaps"  # it would count if nothing else had been compared
    NOISE = "noise"
    TOO_FEW = "too few rounds"


def chance(before: Sequence[float], after: Sequence[float]) -> float:
    """How often two sets of one kind are at least as far apart as these, by the sum of their ranks.

    Exact, with equal values as well.
    """
    ranks = _ranks([*before, *after])
    few, all_of = len(before), len(ranks)
    middle = few * (all_of + 1) / 2
    apart = abs(sum(ranks[:few]) - middle)
    ways = _ways(tuple(sorted(ranks)), few)
    found = sum(many for total, many in ways.items() if abs(total - middle) >= apart)
    return found / comb(all_of, few)


def least_chance(before: Sequence[float], after: Sequence[float]) -> float:
    """That of sets that do not overlap: with so many rounds nothing is less likely."""
    return 2 / comb(len(before) + len(after), len(before))


def rounds_needed(figures: int) -> int:
    """On each side, for the clearest difference to count among so many figures."""
    return next(
        rounds for rounds in count(1) if 2 / comb(2 * rounds, rounds) <= UNLIKELY / max(1, figures)
    )


def holm(chances: Sequence[float]) -> float:
    """How unlikely one of these must be to count, for all of them together to be mistaken rarely.

    From the least likely on, each is held against its share among those that are left.
    """
    for left, value in zip(range(len(chances), 0, -1), sorted(chances), strict=True):
        if value > UNLIKELY / left:
            return UNLIKELY / left
    return UNLIKELY


def judge(
    before: Sequence[float], after: Sequence[float], *, more_is_better: bool, least: float = LEAST
) -> Verdict:
    """What the difference between two sets of rounds is, by itself; ``least`` in percent."""
    if least_chance(before, after) > UNLIKELY:
        return Verdict.TOO_FEW
    old, new = statistics.median(before), statistics.median(after)
    if abs(new - old) < abs(old) * least / 100 or new == old or chance(before, after) > UNLIKELY:
        return Verdict.NOISE
    return Verdict.IMPROVEMENT if (new > old) == more_is_better else Verdict.REGRESSION


@lru_cache
def _ways(ranks: tuple[float, ...], few: int) -> Counter[float]:
    """By the sum of their ranks, in how many ways so few of them can be dealt."""
    ways: list[Counter[float]] = [Counter() for _ in range(few + 1)]  # by how many are dealt
    ways[0][0] = 1
    for rank in ranks:
        for dealt in range(few, 0, -1):  # downwards: nothing is dealt twice
            for total, many in ways[dealt - 1].items():
                ways[dealt][total + rank] += many
    return ways[few]


def _ranks(values: Sequence[float]) -> list[float]:
    """The place of each in their order; equal ones share the middle of their places."""
    ordered = sorted(values)
    first = {value: place for place, value in reversed(list(enumerate(ordered, 1)))}
    return [first[value] + (ordered.count(value) - 1) / 2 for value in values]
