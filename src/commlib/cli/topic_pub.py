"""`commlib topic pub`: a message of one's own, checked, sent, and confirmed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from commlib._discovery import DOES
from commlib._params import BaseParameters
from commlib.aio import Node, Publisher
from commlib.cli._common import (
    INTERRUPTED,
    command,
    confirmed,
    connected,
    discovering,
    paced,
    until_stopped,
)
from commlib.cli._complete import names_of
from commlib.cli._figures import counted
from commlib.cli._options import JSON, NO_CHECK, WAIT, count_option, rate_option
from commlib.cli._payload import HELP, check_payload, read_payload, read_text
from commlib.cli._printing import print_json, say
from commlib.cli._topic_ports import concerned
from commlib.serializer import TextSerializer


def _publisher_options(work: Callable[..., Any]) -> Callable[..., Any]:
    """How a message is sent."""
    options = [
        click.option(
            "--qos",
            type=click.IntRange(0, 2),
            default=0,
            show_default=True,
            help="Delivery: 0 at most once, 1 at least once, 2 once.",
        ),
        click.option("--retain", is_flag=True, help="The broker keeps it for later subscribers."),
        click.option("--bare", is_flag=True, help="No envelope, for what is not commlib."),
        click.option(
            "--text", is_flag=True, help="MESSAGE is text as it stands, neither JSON nor YAML."
        ),
    ]
    return functools.reduce(lambda done, option: option(done), reversed(options), work)


@click.command(epilog=HELP)
@click.argument("name", metavar="TOPIC", shell_complete=names_of("publisher", "subscriber"))
@click.argument("message")
@count_option("Publish so often.  [default: 1]")
@rate_option("Publish so often a second, until Ctrl-C if there is no --count.")
@_publisher_options
@NO_CHECK
@WAIT
@JSON
@command
async def pub(
    url: BaseParameters,
    name: str,
    message: str,
    count: int | None,
    rate: float | None,
    no_check: bool,
    wait: float,
    as_json: bool,
    text: bool,
    **how: Any,
) -> None:
    """Publish MESSAGE on TOPIC, as soon as it is known to be what others there take.

    Ends when the broker has confirmed.
    """
    data = read_text(message)[0] if text else read_payload(message)
    how["envelope"] = not how.pop("bare")
    async with connected(url) as node:
        serializer = TextSerializer if text else None
        publisher = Publisher[Any](name, hub=node.hub, serializer=serializer, **how)
        async with publisher:
            if not no_check:
                await _check(node, name, data, wait)
            times = count or (None if rate else 1)
            was_stopped = await until_stopped(_publish(publisher, data, times, rate))
            await _confirm(node, publisher)
    sent = publisher.stats.sent
    if as_json:
        print_json({"topic": name, "published": sent})
    else:
        say(f"published {counted(sent, 'message')} on {name}")
    if was_stopped and times:
        raise SystemExit(INTERRUPTED)


async def _check(node: Node, name: str, data: Any, wait: float) -> None:
    """Raises ClickException if somebody there takes other messages."""
    async with discovering(node, wait) as discovery:
        ports = concerned(discovery.nodes, name, node.hub.transport.traits)
    readers = [port for port in ports if port[1].kind == "subscriber"]
    if not readers:
        say(f"no node that is there now reads {name}", err=True)
    seen: set[str] = set()
    for info, port in (*readers, *(port for port in ports if port not in readers)):
        mark = port.parts.get("message", "")
        if mark not in seen:
            seen.add(mark)
            whose = f"{info.label}, which {DOES[port.kind]} {port.type},"
            does = "sends" if port.kind == "publisher" else "takes"
            check_payload(data, info.schema(port, "message"), whose, does)


async def _publish(
    publisher: Publisher[Any], data: Any, count: int | None, rate: float | None
) -> None:
    number = 0
    async for _ in paced(rate):
        await publisher.publish(data)
        number += 1
        if number == count:
            return


async def _confirm(node: Node, publisher: Publisher[Any]) -> None:
    """Return when the broker has all of it. Raises ConnectionLost, ClickException if it has not."""
    await confirmed(node)
    stats = publisher.stats
    if stats.lost:
        raise click.ClickException(
            f"{stats.lost} of {stats.sent} messages did not get to the broker"
        )
