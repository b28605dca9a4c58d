"""What the figures say of Python's garbage collector: nothing that was not measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.scale.series import Series

WITH, WITHOUT, FIGURE = "topics", "topics_uncollected", "make_cpu_s"
FEW, MANY = 1_000, 10_000


def notes(all_series: Sequence[Series]) -> Iterator[str]:
    """A sentence for each broker on which subscriptions were made with it off, and with it on."""
    for broker in dict.fromkeys(one.broker for one in all_series):
        on, off = (_each(all_series, broker, run) for run in (WITH, WITHOUT))
        if on and off:
            yield (
                "With Python's garbage collector off from the start, each of 10 000 subscriptions "
                f"on {broker} takes {off[1] / off[0]:.2f} times as long as each of 1000 "
                f"({off[1]:.0f} and {off[0]:.0f} µs of CPU); with it on, {on[1] / on[0]:.2f} times "
                f"({on[1]:.0f} and {on[0]:.0f})."
            )


def _each(all_series: Sequence[Series], broker: str, run: str) -> tuple[float, float] | None:
    """The µs that one of few costs, and one of many; None if either was not measured."""
    for one in all_series:
        if (one.broker, one.run, one.figure) == (broker, run, FIGURE):
            cost = {many: y / many * 1e6 for many, y in zip(one.x, one.y, strict=True) if y}
            if FEW in cost and MANY in cost:
                return cost[FEW], cost[MANY]
    return None
