"""The programs of the seed, on each broker that it knew and we have."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"

FindProgram = Callable[[str], Path]


@pytest.fixture
def find_program(scheme: str, tmp_path: Path) -> FindProgram:
    """The path of a program for the broker of the test, which gives its ``scheme``.

    The programs are written for Redis. For MQTT the two are exchanged throughout, as somebody does
    it who copies them out of the README.
    """
    other = {"redis": "mqtt", "mqtt": "redis", "REDIS": "MQTT", "MQTT": "REDIS"}

    def find(name: str) -> Path:
        path = PROGRAMS / f"{name}.py"
        if scheme == "redis":
            return path
        words = re.compile("redis|mqtt|REDIS|MQTT")
        copy = tmp_path / path.name
        copy.write_text(words.sub(lambda found: other[found[0]], path.read_text()))
        return copy

    return find
