"""`make fuzz`: bytes that look for new ways through the code, guided by what they reach.

A target is one file with a function `run(data)`, which raises for what must not happen, and one
name in `TARGETS`. None of them imports atheris: `tests/unit/test_fuzz.py` runs all files of
`corpus` through them, so an input that was found to crash one is put there, and stays as a test.
`engine` runs one target under atheris, `__main__` all of them, each in a process of its own.

The targets of the brokers share `stage`: whole transports, whose sockets, brokers and clock are
played.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

TARGETS = ("wire", "topics", "goal", "resp", "mqtt", "amqp")

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / "fuzz" / "corpus"

Run = Callable[[bytes], None]


def target(name: str) -> Run:
    """The function of a target."""
    run: Run = import_module(f"fuzz.{name}").run
    return run
