"""`commlib event`: tell that something has happened."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click
import msgspec

from commlib._discovery import Port
from commlib._params import BaseParameters
from commlib._topics import check_topic, split
from commlib.aio.events import Event
from commlib.cli._common import command, confirmed, connected, discovering
from commlib.cli._complete import names_of
from commlib.cli._groups import Group
from commlib.cli._options import JSON, NO_CHECK, WAIT
from commlib.cli._payload import HELP, check_payload, read_payload
from commlib.cli._printing import print_json
from commlib.cli._topic_ports import concerned
from commlib.cli._wrong_words import WrongWords


@click.group(cls=Group)
def event() -> None:
    """Tell that something has happened."""


@event.command(epilog=HELP)
@click.argument("uri", shell_complete=names_of("subscriber"))
@click.argument("payload", default="{}")
@click.option("--name", metavar="TEXT", help="What has happened.  [default: the last word of URI]")
@click.option("--description", metavar="TEXT", default="", help="The same, for people.")
@NO_CHECK
@WAIT
@JSON
@command
async def emit(
    url: BaseParameters,
    uri: str,
    payload: str,
    name: str | None,
    description: str,
    no_check: bool,
    wait: float,
    as_json: bool,
) -> None:
    """Send an event to whoever listens at URI, and return when the broker has it.

    PAYLOAD is an object; without it there is none. The event is checked against what nodes tell of
    the messages that they read at URI, and then sent. --json prints the event that was sent.
    """
    data = read_payload(payload)
    if not isinstance(data, dict):
        raise WrongWords("the payload of an event is an object, such as 'who: a friend'")
    told = Event(name=name or _last_word(uri), uri=uri, description=description, payload=data)
    async with connected(url) as node:
        if not no_check:
            async with discovering(node, wait) as discovery:
                ports = concerned(discovery.nodes, uri, node.hub.transport.traits)
            _check(msgspec.to_builtins(told), ports)
        await node.create_event_emitter().send_event(told)
        await confirmed(node)
    if as_json:
        print_json(told)


def _last_word(uri: str) -> str:
    return split(check_topic(uri, "uri"))[-1]


def _check(message: Any, ports: Iterable[Port]) -> None:
    """Raises ClickException if one of those who read it would not understand it."""
    for node, port in ports:
        if port.kind == "subscriber":
            check_payload(message, node.schema(port, "message"), f"{port.name} on {node.label}")
