"""`commlib node`: which nodes there are, what a node has, and whether it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime

import click

from commlib._params import BaseParameters
from commlib.aio.discovery import EndpointInfo, NodeInfo
from commlib.cli._common import (
    JSON,
    WAIT,
    command,
    connected,
    discovering,
    nodes_on,
    print_json,
    print_table,
)
from commlib.cli._complete import node_names

NOBODY = (
    "no node answers; those with discovery=False, and those of commlib-py before 1.0, "
    "tell nobody of themselves"
)
PING_PAUSE = 0.2  # s between two questions
NAME = click.argument("name", shell_complete=node_names)


@click.group()
def node() -> None:
    """List nodes, look at one, see whether it answers."""


@node.command("list")
@WAIT
@JSON
@command
async def list_nodes(url: BaseParameters, wait: float, as_json: bool) -> None:
    """List the nodes that run on the broker."""
    nodes = await nodes_on(url, wait)
    if as_json:
        print_json(nodes)
        return
    rows = [
        (each.name, each.id, each.host, each.pid, len(each.endpoints), _since(each))
        for each in nodes
    ]
    print_table(("NODE", "ID", "HOST", "PID", "PORTS", "SINCE"), rows, NOBODY)


@node.command()
@NAME
@WAIT
@JSON
@command
async def info(url: BaseParameters, name: str, wait: float, as_json: bool) -> None:
    """Show the ports of the node NAME; an id will do as well."""
    found = find(await nodes_on(url, wait), name)
    if as_json:
        print_json(found)
        return
    for index, each in enumerate(found):
        if index:
            click.echo()
        click.echo(f"{each.name}, id {each.id}, commlib {each.version}")
        click.echo(f"pid {each.pid} on {each.host}, since {_since(each)}")
        rows = [
            (port.kind.replace("_", " "), port.name, port.type or "-", quality(port))
            for port in sorted(each.endpoints, key=lambda port: (port.kind, port.name))
        ]
        print_table(("PORT", "NAME", "TYPE", "QOS"), rows, "it has no ports")


@node.command()
@NAME
@click.option("--count", "-c", type=click.IntRange(min=1), default=4, show_default=True)
@WAIT
@JSON
@command
async def ping(url: BaseParameters, name: str, count: int, wait: float, as_json: bool) -> None:
    """See how fast the process of the node NAME answers. Exit status 1 if it does not."""
    times: list[float | None] = []
    async with connected(url) as own, discovering(own, wait) as discovery:
        there = find(discovery.nodes, name)[0]
        for index in range(count):
            took = None
            with suppress(TimeoutError):
                took = await discovery.ping(there, wait)
            times.append(took)
            if not as_json:
                text = "no answer" if took is None else f"{took * 1000:.1f} ms"
                click.echo(f"{there.label}: {text}")
            if index < count - 1:
                await asyncio.sleep(PING_PAUSE)
    if as_json:
        print_json({"node": there.name, "id": there.id, "seconds": times})
    if times == [None] * count:
        raise SystemExit(1)


def find(nodes: Iterable[NodeInfo], name: str) -> list[NodeInfo]:
    """The nodes of this name or id. Raises ClickException if there is none."""
    nodes = list(nodes)
    found = [each for each in nodes if name in (each.name, each.id)]
    if not found:
        names = ", ".join(dict.fromkeys(each.name for each in nodes)) or "none"
        raise click.ClickException(f"no node {name!r} answers; those that do: {names}")
    return found


def quality(port: EndpointInfo) -> str:
    """How a publisher has its messages delivered."""
    if port.kind != "publisher":
        return ""
    return f"{port.qos}{', retained' if port.retain else ''}"


def _since(each: NodeInfo) -> str:
    return datetime.fromtimestamp(each.started / 1000).strftime("%Y-%m-%d %H:%M:%S")
