"""The command's group: each subcommand lies in a module that only its own call imports.

A subcommand may need an extra that is not installed, or take a while to import; neither is to
trouble the others, nor `commlib --help`. So its one line of help stands here, beside its place.
"""

from __future__ import annotations

import importlib
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem

from commlib import __version__
from commlib.cli._groups import Group


class Lazy(NamedTuple):
    """Where a subcommand lies (`module:attribute`), and its line in `commlib --help`."""

    target: str
    help: str


COMMANDS = {
    "action": Lazy("commlib.cli.action:action", "List actions, look at one, send goals, end them."),
    "asyncapi": Lazy("commlib.cli.asyncapi:asyncapi", "Describe what runs, as AsyncAPI."),
    "bench": Lazy("commlib.cli.bench:bench", "Measure how fast this broker is with commlib."),
    "bridge": Lazy("commlib.cli.bridge:bridge", "Connect brokers, as a file says."),
    "broker": Lazy("commlib.cli.broker:broker", "Run a broker on this machine."),
    "completion": Lazy("commlib.cli.completion:completion", "Let the shell complete words."),
    "demo": Lazy("commlib.cli.demo:demo", "Show what commlib does, in several processes."),
    "doctor": Lazy("commlib.cli.doctor:doctor", "Find out what is wrong, and how to mend it."),
    "event": Lazy("commlib.cli.event:event", "Tell that something has happened."),
    "graph": Lazy("commlib.cli.graph:graph", "Draw nodes, and what is between them."),
    "node": Lazy("commlib.cli.node:node", "List nodes, look at one, see whether it answers."),
    "rpc": Lazy("commlib.cli.rpc:rpc", "List services, look at one, call it."),
    "topic": Lazy("commlib.cli.topic:topic", "List topics, see what comes, publish, measure."),
    "top": Lazy("commlib.cli.top:top", "Watch what is published, topic by topic."),
    "info": Lazy("commlib.cli.info:info", "Tell what is in a recording."),
    "record": Lazy("commlib.cli.record:record", "Record topics to a file."),
    "replay": Lazy("commlib.cli.replay:replay", "Publish a recording again."),
}


class LazyGroup(Group):
    """A group whose commands are those of `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _load(COMMANDS[cmd_name].target) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # click's own would import every command for its help.
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].help) for name in self.list_commands(ctx)])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # So would this.
        named = [
            CompletionItem(name, help=COMMANDS[name].help)
            for name in self.list_commands(ctx)
            if name.startswith(incomplete)
        ]
        return [*named, *click.Command.shell_complete(self, ctx, incomplete)]


def _load(target: str) -> click.Command:
    module, _, attribute = target.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command), f"{target} is no click command"
    return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="commlib %(version)s")
def commlib() -> None:
    """Talk to robots and devices over a message broker.

    Each command takes the broker's --url, at its end; COMMLIB_URL in the environment says it for
    all of them.

    TIME is in seconds, or with a unit: 500ms, 90s, 5m, 1h, 1d. Exit status: 0, 1 if it came to
    nothing, 2 for wrong words, 130 after Ctrl-C in what would have come to an end by itself.
    """
