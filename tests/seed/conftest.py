"""The programs of the seed, on each broker that it knew."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"

FindProgram = Callable[[str], Path]


@pytest.fixture
def find_program(exchanged: Mapping[str, str], tmp_path: Path) -> FindProgram:
    """The path of a program for the brokers of the test, which gives the words ``exchanged``.

    The programs are written for Redis, bridges for one from Redis to MQTT. For others the words are
    exchanged throughout, as somebody does it who copies them out of the README.
    """
    words = {**exchanged, **{old.upper(): new.upper() for old, new in exchanged.items()}}

    def find(name: str) -> Path:
        copy = tmp_path / f"{name}.py"
        text = (PROGRAMS / copy.name).read_text()
        copy.write_text(re.sub("|".join(words), lambda found: words[found[0]], text))
        return copy

    return find
