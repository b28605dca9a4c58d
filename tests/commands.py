"""The command as a test runs it: in this process, on a broker that it shares with nodes."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result

from commlib.cli._main import commlib


def run(url: str, *arguments: str, input: str | None = None) -> Result:
    """What `commlib` does with these arguments and that broker."""
    whole = [*arguments, "--url", url]
    return CliRunner().invoke(commlib, whole, input=input, catch_exceptions=False)


def succeeded(url: str, *arguments: str, input: str | None = None) -> str:
    """What it prints, which has to be all that it says."""
    result = run(url, *arguments, input=input)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def refused(url: str, *arguments: str, input: str | None = None) -> str:
    """What it says on standard error, where it has to end with status 1."""
    result = run(url, *arguments, input=input)
    assert result.exit_code == 1, result.output
    return result.stderr.strip()


def parsed(url: str, *arguments: str) -> Any:
    """The JSON that it prints."""
    return json.loads(succeeded(url, *arguments, "--json"))
