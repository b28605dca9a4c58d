"""What twice as many may cost, and how each span of each series is judged by it.

What all of them cost may be twice as much for twice as many. What one message, call or copy costs,
or one more of them, shall stay as it is. What is measured has noise, so that something is added
before a promise is taken for broken: `ALLOWED` is what is left of both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log2

from bench.scale.series import Cost, Series

PROMISE = {Cost.TOTAL: 2.0, Cost.EACH: 1.0}  # times as much, at most, for twice as many
# Times as much again. All are many parts, of which the noise is evened out; one is few.
NOISE = {Cost.TOTAL: 1.15, Cost.EACH: 1.25}
ALLOWED = {cost: PROMISE[cost] * NOISE[cost] for cost in Cost}
STEP = (
    "with several busy in turn a message finds its lane, or its connection, at rest and wakes it, "
    "while a burst on the only one is worked off in one go"
)


@dataclass(frozen=True)
class Growth:
    """How a series grows from ``low`` to ``high``, two of its numbers.

    ``doubling``: how many times as much twice as many cost, on average over the span.
    """

    series: Series
    low: int
    high: int
    doubling: float

    @property
    def is_step(self) -> bool:
        """Whether it is the step from one to some, which has a reason and is not judged."""
        return self.low == 1 and self.series.has_step

    @property
    def is_too_much(self) -> bool:
        """Whether it breaks the promise."""
        return not self.is_step and self.doubling > ALLOWED[self.series.cost]


def growths(one: Series) -> Iterator[Growth]:
    """Each span of a series; those are left out where there is nothing to be told."""
    for low, high in one.spans():
        if (times := one.growth(low, high)) is not None:
            yield Growth(one, low, high, times ** (1 / log2(high / low)))


def too_much(all_series: Sequence[Series]) -> list[Growth]:
    """All that breaks the promise, be it known or not."""
    return [growth for one in all_series for growth in growths(one) if growth.is_too_much]
