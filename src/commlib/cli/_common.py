"""What the subcommands share: where the broker is, what is printed, and how they end.

A subcommand is a coroutine function under ``@command``: it gets the URL as ``url``, and its errors
that are the user's to mend are told in one line. Exit status: 0, 1 for such an error, 2 for wrong
arguments, 130 after Ctrl-C in what would have come to an end by itself.
"""

from __future__ import annotations

import asyncio
import functools
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from commlib._params import BaseParameters
from commlib._portal import new_loop
from commlib.aio import Node
from commlib.aio.discovery import Discovery, NodeInfo
from commlib.cli._shown import printable
from commlib.exceptions import CommlibError, ConnectError
from commlib.transports import resolve

F = TypeVar("F", bound=Callable[..., Any])

INTERRUPTED = 130  # the exit status after Ctrl-C in what would have come to an end by itself
CONNECT_SECONDS = 5.0  # that a command waits for its broker; a person waits with it
WAIT = click.option(
    "--wait",
    type=click.FloatRange(min=0.1, min_open=False),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for answers at most.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
URL = click.option(
    "--url",
    envvar="COMMLIB_URL",
    show_envvar=True,
    metavar="URL",
    help="The broker, as redis://host, mqtt://user:password@host or amqp://host; "
    "by default Redis on this machine.",
)


def command(work: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A coroutine function as the body of a click command with ``--url``."""

    @URL
    @functools.wraps(work)
    def run(*args: Any, url: str | None, **options: Any) -> None:
        try:
            params = resolve(url)
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(work(*args, url=params, **options))
        except (CommlibError, ValueError, TypeError) as exc:
            raise click.ClickException(str(exc)) from exc
        except BrokenPipeError:  # `| head` has seen enough
            with suppress(BrokenPipeError):
                sys.stdout.close()
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None

    return run


@asynccontextmanager
async def connected(url: BaseParameters, name: str = "commlib") -> AsyncIterator[Node]:
    """A node of the command's own, which tells nobody of itself. Raises ConnectError, AuthError."""
    node = Node(name, url, heartbeats=False, discovery=False)
    try:
        if not await node.wait_connected(CONNECT_SECONDS):
            raise ConnectError(
                f"no broker at {url} within {CONNECT_SECONDS:g} s: is it running, and is that its "
                "address? Another one is named by --url or COMMLIB_URL; "
                "`commlib broker` starts one"
            )
        await node.run()
        yield node
    finally:
        await node.stop()


@asynccontextmanager
async def discovering(node: Node, wait: float) -> AsyncIterator[Discovery]:
    """Discovery on the connection of a node, after everybody has had ``wait`` s to answer."""
    async with Discovery(hub=node.hub) as discovery:
        await discovery.ask(wait)
        yield discovery


async def nodes_on(url: BaseParameters, wait: float) -> list[NodeInfo]:
    """The nodes that answer within ``wait`` s."""
    async with connected(url) as node, discovering(node, wait) as discovery:
        return discovery.nodes


async def until_stopped(*works: Awaitable[Any]) -> bool:
    """Return when Ctrl-C or SIGTERM comes, or one of ``works`` has ended; raise what it raises.

    True: it was a signal.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    tasks = [asyncio.ensure_future(work) for work in works]
    stopping = loop.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        return done == {stopping}
    finally:
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.gather(*tasks, stopping, return_exceptions=True)
        for number in numbers:
            loop.remove_signal_handler(number)


# ---- what is printed ----


def console() -> Console:
    """Where to print: with colour on a terminal only, and not where ``NO_COLOR`` is set."""
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def as_json(data: Any) -> str:
    """JSON on one line, of plain data, Structs and what else messages hold."""
    from commlib import _json

    return _json.write_json(data).decode()


def print_json(data: Any) -> None:
    """JSON as people and programs read it: indented."""
    click.echo(msgspec.json.format(as_json(data), indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """A table, or the sentence ``empty`` where there are no rows.

    Where nobody looks (no terminal) it is as wide as it must be, for other programs to read.
    """
    # As it is: `list[int]` would be taken for markup, and strangers choose names.
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    if not cells:
        click.echo(empty, err=True)
        return
    screen = console()
    if not screen.is_terminal:
        _print_plain([list(columns), *cells])
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    screen.print(table)


def _print_plain(rows: Sequence[Sequence[str]]) -> None:
    """Columns side by side, whatever that takes: rich would cut them at 80 characters."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(padded).rstrip())
