"""Where the output of a command cannot be written, that is told in a sentence."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from brokers import Broker
from commlib.cli._output import telling_what_is_lost

FULL = Path("/dev/full")
COMMAND = "from commlib.cli import main; main()"
LATE = """
from commlib.cli._output import telling_what_is_lost
with telling_what_is_lost():
    print("is written at the end", end="")
"""
SAID = "Error: the output cannot be written: No space left on device\n"

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


def run(program: str, *words: str, **environment: str) -> tuple[int, str]:
    """How a program ends whose output is full, and what it says."""
    with FULL.open("w") as full:
        process = subprocess.run(
            [sys.executable, "-c", program, *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
            timeout=60,
            check=False,
        )
    return process.returncode, process.stderr


@pytest.mark.parametrize("words", ["--version", "completion bash", "broker --help"])
def test_an_output_that_is_full_is_told_by_every_command(words: str) -> None:
    assert run(COMMAND, *words.split()) == (1, SAID)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_is_written_at_the_end_is_told_as_well(unbuffered: str) -> None:
    assert run(LATE, PYTHONUNBUFFERED=unbuffered) == (1, SAID)


@pytest.mark.parametrize("form", [["--json"], ["--raw"], []])
def test_messages_are_shown_until_the_output_is_full(form: list[str]) -> None:
    broker = Broker.named("memory", lambda name: None)
    program = f"""
import threading
from commlib.node import Node
robot = Node("robot", {broker.url!r}, heartbeats=False)
sonar = robot.create_publisher("sonar")
robot.run()
def publish():
    while True:
        sonar.publish({{"a": 1}})
        threading.Event().wait(0.01)
threading.Thread(target=publish, daemon=True).start()
{COMMAND}
"""
    assert run(program, "topic", "echo", "sonar", "--url", broker.url, *form) == (1, SAID)


def test_who_has_closed_the_output_wants_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with telling_what_is_lost():
        print("whatever")
        assert not sys.stdout.isatty()
        sys.stdout.close()
    assert sys.stdout is None


def test_an_error_of_something_else_is_none_of_the_output() -> None:
    with pytest.raises(OSError, match="another disk"), telling_what_is_lost():
        raise OSError(errno.ENOSPC, "another disk")


def test_the_output_is_what_it_was_before() -> None:
    before = sys.stdout
    with telling_what_is_lost():
        print("whatever")
    assert sys.stdout is before
