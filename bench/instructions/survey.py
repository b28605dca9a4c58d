"""Many paths counted on many brokers, as many at a time as there are cores."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from bench.instructions.lab import count
from bench.instructions.paths import Path

Cell = tuple[Path, str]
"""A path on a broker."""


def cells_of(paths: Iterable[Path], brokers: Sequence[str]) -> list[Cell]:
    """All that there is to count."""
    return [(path, broker) for path in paths for broker in brokers if broker in path.brokers]


class Survey:
    """Counts on running brokers; ``failures`` tells what came to nothing."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = urls
        self._numbers = itertools.count()
        self.failures: list[str] = []

    def counts(self, cells: Sequence[Cell], rounds: int) -> dict[Cell, list[float]]:
        """The count of each cell in each round; without those that failed."""
        found: dict[Cell, list[float]] = {cell: [] for cell in cells}
        todo = [cell for _ in range(rounds) for cell in cells]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = zip(todo, pool.map(self._count, todo), strict=True)
            for done, (cell, result) in enumerate(results, 1):
                if result is None:
                    found.pop(cell, None)
                elif cell in found:
                    found[cell].append(result)
                _show(f"{done} of {len(todo)}")
        _show("")
        return found

    def _count(self, cell: Cell) -> float | None:
        path, broker = cell
        # A topic of its own: nothing that is left of another count may come here.
        topic = f"counted_{next(self._numbers):06d}"
        try:
            return count(path, self._urls[broker], topic)
        except Exception as exc:  # whatever it is, the others go on, and it is told
            self.failures.append(f"{path.name} on {broker}: {type(exc).__name__}: {exc}")
            return None


def _show(progress: str) -> None:
    """How far it is, where a person looks on."""
    if sys.stderr.isatty():
        print(f"\r{progress:20}\r", end="", file=sys.stderr, flush=True)
