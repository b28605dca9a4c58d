"""`commlib node`: which nodes there are, what a node has, and whether it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

import click

from commlib._params import BaseParameters
from commlib.aio.discovery import EndpointInfo, NodeInfo
from commlib.cli._common import command, connected, discovering, nodes_on, unknown
from commlib.cli._complete import node_names
from commlib.cli._groups import Group
from commlib.cli._options import JSON, WAIT, count_option
from commlib.cli._printing import date, print_json, print_table, say

NOBODY = (
    "no node answers; those with discovery=False, and those of commlib-py before 1.0, "
    "tell nobody of themselves"
)
PING_PAUSE = 0.2  # s between two questions
NAME = click.argument("name", shell_complete=node_names)


@click.group(cls=Group)
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
        say(f"{each.name}, id {each.id}, commlib {each.version}")
        say(f"pid {each.pid} on {each.host}, since {_since(each)}")
        rows = [
            (port.kind.replace("_", " "), port.name, port.type or "-", quality(port))
            for port in sorted(each.endpoints, key=lambda port: (port.kind, port.name))
        ]
        print_table(("PORT", "NAME", "TYPE", "QOS"), rows, "it has no ports")


@node.command()
@NAME
@count_option("Ask so often.", default=4)
@WAIT
@JSON
@command
async def ping(url: BaseParameters, name: str, count: int, wait: float, as_json: bool) -> None:
    """See how fast the process of the node NAME answers; --wait is for each answer.

    Exit status 1 if it does not answer at all.
    """
    times: list[float | None] = []
    async with connected(url) as own, discovering(own, wait) as discovery:
        there = find(discovery.nodes, name)[0]
        for index in range(count):
            took = None
            with suppress(TimeoutError):
                took = await discovery.ping(there, wait)
            times.append(None if took is None else took * 1000)
            if not as_json:
                text = "no answer" if took is None else f"{took * 1000:.1f} ms"
                say(f"{there.label}: {text}")
            if index < count - 1:
                await asyncio.sleep(PING_PAUSE)
    if as_json:
        print_json({"node": there.name, "id": there.id, "round_trip_ms": times})
    if times == [None] * count:
        raise SystemExit(1)


def find(nodes: Iterable[NodeInfo], name: str) -> list[NodeInfo]:
    """The nodes of this name or id. Raises ClickException if there is none."""
    nodes = list(nodes)
    found = [each for each in nodes if name in (each.name, each.id)]
    if not found:
        hint = unknown(name, (each.name for each in nodes))
        raise click.ClickException(f"no node {name!r} answers; {hint}")
    return found


def quality(port: EndpointInfo) -> str:
    """How a publisher has its messages delivered."""
    if port.kind != "publisher":
        return ""
    return f"{port.qos}{', retained' if port.retain else ''}"


def _since(each: NodeInfo) -> str:
    return date(each.started / 1000)
