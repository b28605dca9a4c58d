"""What became of each figure between two records.

A machine drifts, so what is compared is the *ratio to the limit of the same round*, wherever the
limit has the figure: rounds take turns, and what slows one contender for a while slows the limit
beside it. What has no such ratio (memory, threads, the start of a process) is compared as it is,
and not at all if the records are of different machines.

A loss, a duplicate or a failure where there was none needs no test, for there shall be none.
All figures of ours are judged together: of many, some look worse by chance.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bench.record import Record
from bench.results import SO_FAR, WRONG, Result, Results
from bench.roster import CONTENDERS
from bench.targets import FIGURES, Figure
from bench.verdict import LEAST, Verdict, chance, holm, judge, least_chance

HARDWARE = ("processor", "cores", "architecture", "memory_mb")
KINDS = {who.name: who.kind for who in CONTENDERS}


@dataclass(frozen=True)
class Change:
    """A figure of a contender, before and after.

    ``before`` and ``after`` are medians, of ratios to the limit if ``of_limit``. ``chance`` is how
    likely noise makes such a difference, ``least`` how likely the clearest of so many rounds;
    ``is_judged``: that one would count.
    """

    broker: str
    figure: Figure
    contender: str
    before: float
    after: float
    of_limit: bool
    verdict: Verdict
    chance: float = 0.0
    least: float = 0.0
    is_judged: bool = True

    @property
    def percent(self) -> float | None:
        """How much more it is than before; None if it was nought."""
        return (self.after / self.before - 1) * 100 if self.before else None

    @property
    def is_ours(self) -> bool:
        """Whether it is one of those that must not become worse."""
        return KINDS.get(self.contender) == "ours"

    def among(self, unlikely: float) -> Change:
        """The same where only what is as unlikely as that counts."""
        verdict, is_judged = self.verdict, self.least <= unlikely
        if verdict in (Verdict.REGRESSION, Verdict.IMPROVEMENT) and self.chance > unlikely:
            verdict = Verdict.PERHAPS
        elif verdict is Verdict.NOISE and not is_judged:
            verdict = Verdict.TOO_FEW
        return replace(self, verdict=verdict, is_judged=is_judged)


def changes(before: Record, after: Record, least: float = LEAST) -> list[Change]:
    """All that both have; ``least`` is what matters, in percent.

    Ours are judged together, all others each by itself.
    """
    found = list(_changes(before, after, least))
    unlikely = holm(
        [one.chance for one in found if one.is_ours and one.verdict is not Verdict.TOO_FEW]
    )
    return [one.among(unlikely) if one.is_ours else one for one in found]


def _changes(before: Record, after: Record, least: float) -> Iterator[Change]:
    """The same, each judged by itself."""
    as_they_are = not differences(before, after, HARDWARE)
    for old, new in _brokers_of_both(before, after):
        for figure in _figures(old):
            for contender in _of_both(old, new, figure.measurement):
                yield from _change(old, new, figure, contender, as_they_are, least)


def differences(before: Record, after: Record, what: Sequence[str]) -> list[str]:
    """In which of these the machines differ, in words."""
    return [
        f"{name}: {before.machine.get(name)} and {after.machine.get(name)}"
        for name in what
        if before.machine.get(name) != after.machine.get(name)
    ]


def failing(before: Record, after: Record) -> list[str]:
    """What of ours fails now and did not before, in all rounds or in some, in words."""
    return [
        f"{new.broker}, {measurement}, {contender}, {now.failed} of {len(now.rounds)} rounds: "
        f"{'; '.join(now.reasons)}"
        for old, new in _brokers_of_both(before, after)
        for measurement in old.results
        for contender in _of_both(old, new, measurement)
        if KINDS.get(contender) == "ours"
        and _is_worse(old.results[measurement][contender], now := new.of(measurement, contender))
    ]


def _is_worse(old: Result, new: Result) -> bool:
    """Whether rounds fail where none did, or all where some did not."""
    was_measured, is_measured = any(old.rounds), any(new.rounds)
    return was_measured and new.failed > 0 and (old.failed == 0 or not is_measured)


def _brokers_of_both(before: Record, after: Record) -> Iterator[tuple[Results, Results]]:
    later = {results.broker: results for results in after.brokers}
    for results in before.brokers:
        if results.broker in later:
            yield results, later[results.broker]


def _of_both(old: Results, new: Results, measurement: str) -> list[str]:
    """The contenders that both have in a measurement."""
    contenders = new.results.get(measurement, {})
    return [name for name in old.results.get(measurement, {}) if name in contenders]


def _figures(results: Results) -> Iterator[Figure]:
    """Each figure once, and each count of what went wrong.

    The table has some figures for several faces of ours, and counts beside others.
    """
    counts = [
        Figure(measurement, key, f"{measurement}, {key}")
        for measurement in results.results
        for key in sorted(WRONG)
    ]
    seen = set()
    for figure in (*FIGURES, *counts):
        # Rounds that are not independent tell nothing of chance.
        if figure.key not in SO_FAR and (figure.measurement, figure.key) not in seen:
            seen.add((figure.measurement, figure.key))
            yield figure


def _change(
    old: Results, new: Results, figure: Figure, contender: str, as_they_are: bool, least: float
) -> Iterator[Change]:
    """What became of it, unless there is nothing that can be compared."""
    rounds = [_values(side, figure, contender) for side in (old, new)]
    if figure.key in WRONG:
        if all(rounds) and any(map(any, rounds)):
            yield _change_of_wrong(old.broker, figure, contender, *rounds)
        return
    ratios = [_ratios(side, figure, contender) for side in (old, new)]
    if of_limit := all(ratios):
        rounds = ratios
    is_ratio = of_limit or figure.key.endswith("_ratio")
    if all(rounds) and (is_ratio or as_they_are):
        before, after = (statistics.median(side) for side in rounds)
        verdict = judge(*rounds, more_is_better=figure.more_is_better, least=least)
        likely = chance(*rounds), least_chance(*rounds)
        yield Change(old.broker, figure, contender, before, after, of_limit, verdict, *likely)


def _values(results: Results, figure: Figure, contender: str) -> list[float]:
    """The figure in each round that has it."""
    rounds = results.results[figure.measurement][contender].rounds
    return [words[figure.key] for words in rounds if figure.key in words]


def _ratios(results: Results, figure: Figure, contender: str) -> list[float]:
    """Its ratio to the limit in each round; none if that has none, or is the contender."""
    by_contender, key = results.results[figure.measurement], figure.key
    limit = next((name for name in by_contender if KINDS.get(name) == "limit"), contender)
    if limit == contender:
        return []
    pairs = zip(by_contender[contender].rounds, by_contender[limit].rounds, strict=False)
    return [words[key] / bare[key] for words, bare in pairs if key in words and bare.get(key)]


def _change_of_wrong(
    broker: str, figure: Figure, contender: str, old: Sequence[float], new: Sequence[float]
) -> Change:
    """What it is that so many went wrong; where none did, any is too much."""
    worst = Change(broker, figure, contender, max(old), max(new), False, Verdict.REGRESSION)
    if any(old) and any(new):
        verdict = judge(old, new, more_is_better=False)
        return replace(
            worst, verdict=verdict, chance=chance(old, new), least=least_chance(old, new)
        )
    return worst if any(new) else replace(worst, verdict=Verdict.IMPROVEMENT)
