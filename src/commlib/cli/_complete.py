"""What a shell is told when it completes a name: those that nodes tell of, if that is quick."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable, Iterator

import click
from click.shell_completion import CompletionItem

from commlib._discovery import NodeInfo
from commlib.cli._shown import printable
from commlib.exceptions import CommlibError

ANSWERS_SECONDS = 0.4  # that nodes have to answer
LONGEST = 0.9  # s that a person waits for it at most

Names = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def node_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of nodes, each with where it runs."""
    found = {node.name: f"pid {node.pid} on {node.host}" for node in _nodes(ctx)}
    return _items(found, incomplete)


def names_of(*kinds: str) -> Names:
    """What completes the names of ports of some kinds, such as ``publisher``; no patterns."""

    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return _items(dict(_ports(_nodes(ctx), kinds)), incomplete)

    return complete


def _ports(nodes: list[NodeInfo], kinds: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for node in nodes:
        for port in node.endpoints:
            if port.kind in kinds and "*" not in port.name:
                yield port.name, port.type


def _items(found: dict[str, str], incomplete: str) -> list[CompletionItem]:
    # What a stranger calls itself is to do nothing to the shell.
    names = sorted(name for name in found if name.startswith(incomplete) and name.isprintable())
    return [CompletionItem(name, help=printable(found[name])) for name in names]


def _nodes(ctx: click.Context) -> list[NodeInfo]:
    """The nodes that answer at once; none where anything is wrong, for a shell shows no errors."""
    from commlib.cli._common import as_visitor, nodes_on
    from commlib.transports import resolve

    logging.getLogger("commlib").setLevel(logging.CRITICAL)

    async def ask() -> list[NodeInfo]:
        params = copy.copy(as_visitor(resolve(ctx.params.get("url")), ctx))
        params.reconnect = False
        async with asyncio.timeout(LONGEST):
            return await nodes_on(params, ANSWERS_SECONDS)

    try:
        return asyncio.run(ask())
    except (CommlibError, OSError, ValueError, TypeError):
        return []
