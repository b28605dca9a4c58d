"""Callgrind, the tool of Valgrind that counts instructions: its command line and its output. Pure.

The program that it runs marks the ends of laps by calling a function of the C library that nothing
else calls. Before each such call callgrind writes down what it has counted since the one before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

MARK = "getppid"  # in Python os.getppid()
OUTPUT = "counted"

_TOTALS = re.compile(rb"^totals: (\d+)$", re.MULTILINE)


def command(folder: Path, program: Iterable[str | Path]) -> list[str]:
    """Runs a program under callgrind, which writes into this folder."""
    return [
        "valgrind",
        "--tool=callgrind",
        f"--callgrind-out-file={folder / OUTPUT}",
        f"--dump-before={MARK}",
        "--quiet",
        # Whoever waits longest runs next, rather than whom the kernel prefers.
        "--fair-sched=try",
        *map(str, program),
    ]


def total(part: bytes) -> int:
    """How many instructions a part of the output tells of. Raises ValueError without a total."""
    found = _TOTALS.findall(part)
    if len(found) != 1:
        raise ValueError(f"a part of callgrind's output has {len(found)} totals")
    return int(found[0])


def laps(totals: Mapping[int, int]) -> list[int]:
    """The laps among the parts, by the number of each part.

    The first is what came before all laps. From then on a lap and what is between two take turns.
    """
    if sorted(totals) != list(range(1, len(totals) + 1)):
        raise ValueError(f"parts of callgrind's output are missing: there are {sorted(totals)}")
    return [totals[number] for number in sorted(totals) if number % 2 == 0]


def read(folder: Path) -> list[int]:
    """What each lap of the program has cost."""
    parts = folder.glob(f"{OUTPUT}.*")
    return laps({int(part.suffix[1:]): total(part.read_bytes()) for part in parts})
