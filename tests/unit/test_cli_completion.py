"""`commlib completion`, and what a shell is told when it completes a word."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from announced import announced
from brokers import Broker
from commlib.cli import _complete
from commlib.cli._complete import names_of
from commlib.cli._main import COMMANDS, commlib
from commlib.node import Node

COMMAND = "from commlib.cli import main; main()"


def completed(*words: str) -> dict[str, str | None]:
    """What the last of these words may become, each with its help."""
    *before, incomplete = words
    shell = BashComplete(commlib, {}, "commlib", "_COMMLIB_COMPLETE")
    return {item.value: item.help for item in shell.get_completions(before, incomplete)}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_of_its_own(shell: str) -> None:
    result = CliRunner().invoke(commlib, ["completion", shell])
    if shell == "bash" and "bash" in result.stderr.lower() and result.exit_code == 1:
        pytest.skip(result.stderr)  # the bash of macOS is too old for it
    assert result.exit_code == 0, result.output
    assert f"_COMMLIB_COMPLETE={shell}_complete" in result.stdout


def test_a_shell_that_is_not_known_is_refused() -> None:
    result = CliRunner().invoke(commlib, ["completion", "tcsh"])
    assert result.exit_code == 2
    assert "bash" in result.stderr


def test_commands_are_completed_with_their_help() -> None:
    assert completed("do") == {"doctor": COMMANDS["doctor"].help}
    assert set(completed("")) == set(COMMANDS)
    assert set(completed("node", "")) == {"list", "info", "ping"}


def test_options_are_completed() -> None:
    assert set(completed("graph", "--fo")) == {"--format"}
    assert set(completed("graph", "--format", "m")) == {"mermaid"}


def test_no_command_is_imported_for_its_name() -> None:
    program = (
        f"import sys, atexit; atexit.register(lambda: print('rich' in sys.modules)); {COMMAND}"
    )
    asked = {"_COMMLIB_COMPLETE": "bash_complete", "COMP_WORDS": "commlib t", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | asked, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["plain,top", "plain,topic", "False"]


# ---- names ----


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A broker with a robot on it."""
    monkeypatch.setattr("commlib.aio.node.APPEARS_AFTER", 0.0)
    monkeypatch.setattr("commlib.aio._asked.JITTER", 0.0)
    # What a person does not wait for, a loaded machine may need.
    monkeypatch.setattr(_complete, "ANSWERS_SECONDS", 10.0)
    monkeypatch.setattr(_complete, "LONGEST", 15.0)
    url = Broker.named("memory", lambda name: None).url
    robot = Node("robot", connection_params=url, heartbeats=False)
    robot.create_publisher("sonar")
    robot.create_psubscriber("sonar.*", lambda msg, topic: None)
    robot.create_rpc("add", lambda request: request)
    with announced(url, robot):
        yield url


def test_names_of_nodes_are_asked_from_the_broker(url: str) -> None:
    assert list(completed("node", "info", "--url", url, "ro")) == ["robot"]
    assert completed("node", "info", "--url", url, "x") == {}


def test_names_of_ports_are_told_by_kind(url: str) -> None:
    context = click.Context(commlib)
    context.params["url"] = url
    name = click.Argument(["name"])

    def found(*kinds: str) -> list[str]:
        return [item.value for item in names_of(*kinds)(context, name, "")]

    assert found("publisher", "subscriber") == ["sonar"]
    assert found("service") == ["add"]


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "no url", "redis://a..b"])
def test_without_a_broker_there_are_no_names_and_no_errors(url: str) -> None:
    assert completed("node", "info", "--url", url, "") == {}
