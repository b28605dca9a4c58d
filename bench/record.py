"""A whole run as it is written down, and read again for tables, pictures and comparisons."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.results import Results
from bench.roster import ROOT

FOLDER = ROOT / "bench" / "results"
NAMES = "20*.json"  # beside records, which are named by their date, the folder has scale.json


@dataclass(frozen=True)
class Record:
    """What came of a run, on which machine, and with which versions of whom.

    ``date`` begins with the day, as in 2026-11-26: records are in its order.
    """

    date: str
    machine: Mapping[str, Any]
    rounds: int
    versions: Mapping[str, Mapping[str, str]]
    brokers: tuple[Results, ...]

    @classmethod
    def read(cls, file: Path) -> Record:
        """The one in this file. Raises ValueError if it has none."""
        try:
            words = json.loads(file.read_text())
            brokers = tuple(Results.read(*item) for item in words["brokers"].items())
            return cls(words["date"], words["machine"], words["rounds"], words["versions"], brokers)
        except (KeyError, TypeError, AttributeError, ValueError) as exc:
            raise ValueError(f"{file} is no record of a run: {exc!r}") from exc

    def write(self, file: Path) -> None:
        """Put it there."""
        words = {
            "date": self.date,
            "machine": self.machine,
            "rounds": self.rounds,
            "versions": self.versions,
            "brokers": {results.broker: results.as_dict() for results in self.brokers},
        }
        file.write_text(json.dumps(words, indent=1, ensure_ascii=False) + "\n")


def newest(folder: Path = FOLDER) -> Path:
    """The file of the last record. Raises FileNotFoundError if there is none."""
    files = [(Record.read(file).date, file) for file in folder.glob(NAMES)]
    if not files:
        raise FileNotFoundError(f"no run is recorded in {folder}; make bench records one")
    return max(files)[1]
