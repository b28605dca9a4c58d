"""`commlib event`: tell that something has happened."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import click
import msgspec

from commlib._params import BaseParameters
from commlib._topics import check_topic, is_pattern, matcher, split
from commlib.aio.discovery import NodeInfo
from commlib.aio.events import Event
from commlib.cli._common import JSON, WAIT, command, connected, discovering, print_json
from commlib.cli._payload import HELP, check_payload, read_payload
from commlib.exceptions import ConnectionLost

FLUSH_SECONDS = 5.0  # for the broker to take the event


@click.group()
def event() -> None:
    """Tell that something has happened."""


@event.command(epilog=HELP)
@click.argument("uri")
@click.argument("payload", default="{}")
@click.option("--name", metavar="NAME", help="What has happened.  [default: the last word of URI]")
@click.option("--description", metavar="TEXT", default="", help="The same, for people.")
@click.option("--no-check", is_flag=True, help="Send it without asking who reads what.")
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
    the messages that they read at URI, and then sent; --wait is for that question. --json prints
    the event that was sent.
    """
    data = read_payload(payload)
    if not isinstance(data, dict):
        raise click.ClickException("the payload of an event is an object, such as 'who: a friend'")
    told = Event(name=name or _last_word(uri), uri=uri, description=description, payload=data)
    async with connected(url) as node:
        if not no_check:
            async with discovering(node, wait) as discovery:
                _check(msgspec.to_builtins(told), uri, discovery.nodes)
        await node.create_event_emitter().send_event(told)
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await node.hub.transport.flush()
        except TimeoutError:
            raise ConnectionLost(
                f"the broker has not confirmed the event within {FLUSH_SECONDS:g} s"
            ) from None
    if as_json:
        print_json(told)


def _last_word(uri: str) -> str:
    return split(check_topic(uri, "uri"))[-1]


def _check(message: Any, uri: str, nodes: Iterable[NodeInfo]) -> None:
    """Raises ClickException if one of those who read at ``uri`` would not understand it."""
    for node in nodes:
        for port in node.endpoints:
            if port.kind == "subscriber" and _takes(port.name, uri):
                check_payload(message, node.schema(port, "message"), f"{port.name} on {node.label}")


def _takes(name: str, uri: str) -> bool:
    matches = matcher(name) if is_pattern(name) else None
    return name == uri if matches is None else matches(uri)
