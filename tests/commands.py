"""The command as a test runs it: in this process, on a broker that it shares with nodes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from commlib.cli._main import commlib

TIMES = ("0.1", "0.5", "2", "20")  # s that a command measures, until it was enough


def run(url: str, *arguments: str, input: str | None = None) -> Result:
    """What `commlib` does with these arguments and that broker."""
    whole = [*arguments, "--url", url]
    return CliRunner().invoke(commlib, whole, input=input, catch_exceptions=False)


def succeeded(url: str, *arguments: str, input: str | None = None) -> str:
    """What it prints, which has to be all that it says."""
    result = run(url, *arguments, input=input)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def refused(url: str, *arguments: str, input: str | None = None, status: int = 1) -> str:
    """What it says on standard error, where it has to end with this status: 2 for wrong words."""
    result = run(url, *arguments, input=input)
    assert result.exit_code == status, result.output
    return result.stderr.strip()


def parsed(url: str, *arguments: str) -> Any:
    """The JSON that it prints."""
    return json.loads(succeeded(url, *arguments, "--json"))


def in_time(measure: Callable[[str], Result], wanted: str) -> Result:
    """What a command says that measures for some s, as many as it takes here to see enough.

    It has seen enough when it prints what the expression ``wanted`` matches.
    """
    for seconds in TIMES:
        result = measure(seconds)
        if re.search(wanted, result.stdout, re.MULTILINE):
            return result
    pytest.fail(f"no {wanted} in {result.stdout}{result.stderr}")
