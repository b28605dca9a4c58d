"""What `make scale` has measured, and how it is written down."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.scale.runs import Figures, Runs
from bench.scale.series import Series, series


@dataclass
class Record:
    """The figures of each run on each broker, the medians of so many rounds."""

    machine: dict[str, object]
    rounds: int
    runs: dict[str, Runs]
    failures: list[str]

    def series(self) -> list[Series]:
        """The same as series."""
        return [one for broker, runs in self.runs.items() for one in series(broker, runs)]

    def write(self, file: Path) -> None:
        """Write it down, with the series as they are drawn."""
        found = self.series()
        record = {
            "machine": self.machine,
            "rounds": self.rounds,
            "series": [one.as_dict() for one in found if one.is_drawn],
            "more_series": [one.as_dict() for one in found if not one.is_drawn],
            "runs": self.runs,
            "failures": self.failures,
        }
        file.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, file: Path) -> Self:
        """What was written; the series are made anew of the figures."""
        record = json.loads(file.read_text())
        runs = {
            broker: {
                name: {int(many): figures for many, figures in points.items()}
                for name, points in by_name.items()
            }
            for broker, by_name in record["runs"].items()
        }
        return cls(record["machine"], record.get("rounds", 1), runs, record["failures"])


def medians(rounds: Sequence[Runs]) -> Runs:
    """The median of each figure; of a point that failed in one of the rounds there is none."""
    return {
        name: {
            many: _median([one[name][many] for one in rounds])
            for many in points
            if all(many in one[name] for one in rounds)
        }
        for name, points in rounds[0].items()
    }


def _median(rounds: Sequence[Figures]) -> Figures:
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
