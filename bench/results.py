"""What came of a run: figures of all rounds, their medians, and the ratios that have targets."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.roster import CONTENDERS, ROOT
from bench.targets import Figure, Target

DIGITS = 6
# What was counted that went wrong.
WRONG = frozenset({"lost", "duplicates", "failed"})
# Of these, the worst round counts, not the median.
WORST = WRONG | {"max_us", "fast_max_us"}
# Of these, each round has what came of all up to it, so the last one counts.
SO_FAR = frozenset({"p999_us", "fast_p999_us"})
# Whose best is what ours is compared with.
OTHERS = {"limit": {"limit"}, "peer": {"peer"}, "client": {"limit", "client"}}


@dataclass
class Result:
    """What came of one measurement of one contender.

    ``cannot`` says why it was not tried, ``failures`` why rounds have no figures; such a round is
    empty, so that rounds of the same number are those that were taken one after the other.
    """

    cannot: str = ""
    rounds: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def fail(self, why: str) -> None:
        """A round came to nothing."""
        self.rounds.append({})
        self.failures.append(why.replace(str(ROOT), "."))

    def value(self, key: str) -> float | None:
        """A figure over all rounds; None if no round has it."""
        found: list[float] = [figures[key] for figures in self.rounds if key in figures]
        if not found:
            return None
        if key in SO_FAR:
            return found[-1]
        return max(found) if key in WORST else statistics.median(found)

    @property
    def failed(self) -> int:
        """In how many rounds not everything went well."""
        return sum(not figures or "why" in figures for figures in self.rounds)

    @classmethod
    def read(cls, words: Mapping[str, Any]) -> Result:
        """What ``as_dict`` gave."""
        rounds, failures = words.get("rounds", []), words.get("failures", [])
        return cls(words.get("cannot", ""), rounds, failures)

    @property
    def reasons(self) -> list[str]:
        """Why not everything went well."""
        why = [
            figures["why"].replace(str(ROOT), ".") for figures in self.rounds if "why" in figures
        ]
        return sorted({*self.failures, *why})

    def as_dict(self) -> dict[str, object]:
        """All of it, to be written down."""
        keys = {key for figures in self.rounds for key in figures} - {"why"}
        if self.cannot:
            return {"cannot": self.cannot}
        return {
            "median": _shortened({key: self.value(key) for key in sorted(keys)}),
            "rounds": [_shortened(figures) for figures in self.rounds],
            "failures": self.failures,
        }


def _shortened(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The same with as many digits as mean anything, which makes a record a third as long."""
    return {
        key: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
        for key, value in figures.items()
    }


@dataclass
class Results:
    """All measurements of a run on one broker, by measurement and contender."""

    broker: str
    version: str
    results: dict[str, dict[str, Result]] = field(default_factory=dict)

    @classmethod
    def read(cls, broker: str, words: Mapping[str, Any]) -> Results:
        """What ``as_dict`` gave."""
        results = {
            measurement: {name: Result.read(found) for name, found in by_contender.items()}
            for measurement, by_contender in words["measurements"].items()
        }
        return cls(broker, words["version"], results)

    def of(self, measurement: str, contender: str) -> Result:
        """That of one contender, to be filled."""
        return self.results.setdefault(measurement, {}).setdefault(contender, Result())

    def value(self, figure: Figure, contender: str) -> float | None:
        """A figure of a contender; None if it has none."""
        result = self.results.get(figure.measurement, {}).get(contender)
        return None if result is None else result.value(figure.key)

    def ratio(self, figure: Figure, ours: str, to: str) -> float | None:
        """Ours to that of the "limit", or to the best "peer" or "client"; None if one is missing.

        The limit is among the clients: it is the barest.
        """
        mine = self.value(figure, ours)
        others = [
            value
            for contender in CONTENDERS
            if contender.kind in OTHERS[to]
            and (value := self.value(figure, contender.name)) is not None
        ]
        if mine is None or not others:
            return None
        best = max(others) if figure.more_is_better else min(others)
        return mine / best if best else None

    def is_met(self, figure: Figure, target: Target, ours: str) -> bool | None:
        """Whether ours meets a target; None if that cannot be told."""
        if target.of == "itself":
            found = self.value(figure, ours)
        else:
            found = self.ratio(figure, ours, target.of)
        if found is None:
            return None
        return found >= target.bound if figure.more_is_better else found <= target.bound

    def as_dict(self) -> dict[str, object]:
        """All of it, to be written down."""
        return {
            "version": self.version,
            "measurements": {
                measurement: {name: result.as_dict() for name, result in by_contender.items()}
                for measurement, by_contender in self.results.items()
            },
        }
