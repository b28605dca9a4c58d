"""The command's group: each subcommand lies in a module that only its own call imports.

A subcommand may need an extra that is not installed, or take a while to import; neither is to
trouble the others, nor `commlib --help`. So its one line of help stands here, beside its place.
"""

from __future__ import annotations

import importlib
from typing import NamedTuple

import click

from commlib import __version__


class Lazy(NamedTuple):
    """Where a subcommand lies (`module:attribute`), and its line in `commlib --help`."""

    target: str
    help: str


COMMANDS = {
    "bridge": Lazy("commlib.cli.bridge:bridge", "Connect brokers, as a file says."),
    "broker": Lazy("commlib.cli.broker:broker", "Run a broker on this machine."),
    "demo": Lazy("commlib.cli.demo:demo", "Show what commlib does, in several processes."),
    "node": Lazy("commlib.cli.node:node", "List nodes, look at one, see whether it answers."),
}


class LazyGroup(click.Group):
    """A group whose commands are those of `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _load(COMMANDS[cmd_name].target) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # click's own would import every command for its help.
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].help) for name in self.list_commands(ctx)])


def _load(target: str) -> click.Command:
    module, _, attribute = target.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command), f"{target} is no click command"
    return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="commlib %(version)s")
def commlib() -> None:
    """Talk to robots and devices over a message broker."""
