"""`commlib rpc`: which services there are, what one takes and gives, and calling it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from statistics import fmean, median
from time import perf_counter
from typing import Any

import click

from commlib._params import BaseParameters
from commlib.aio import Node
from commlib.cli._common import (
    INTERRUPTED,
    JSON,
    WAIT,
    command,
    connected,
    discovering,
    nodes_on,
    print_json,
    until_stopped,
)
from commlib.cli._common import as_json as json_line
from commlib.cli._complete import names_of
from commlib.cli._payload import HELP, read_payload
from commlib.cli._served import (
    SERVICE,
    Served,
    all_served,
    check_message,
    find,
    info_as_json,
    list_as_json,
    print_info,
    print_list,
    unanswered,
)
from commlib.cli._shown import lines, printable
from commlib.exceptions import CommlibError, RPCRemoteError, RPCTimeout

NAME = click.argument("name", shell_complete=names_of("service"))


@click.group()
def rpc() -> None:
    """List services, look at one, call it."""


@rpc.command("list")
@WAIT
@JSON
@command
async def list_services(url: BaseParameters, wait: float, as_json: bool) -> None:
    """List the services that nodes serve or call.

    Nodes with discovery=False, and those of commlib-py before 1.0, tell nobody of theirs; they can
    be called all the same.
    """
    services = all_served(await nodes_on(url, wait), SERVICE)
    if as_json:
        print_json(list_as_json(services))
    else:
        print_list(services, SERVICE)


@rpc.command()
@NAME
@WAIT
@JSON
@command
async def info(url: BaseParameters, name: str, wait: float, as_json: bool) -> None:
    """Show who serves and who calls the service NAME, and the fields of its messages."""
    nodes = await nodes_on(url, wait)
    service = find(all_served(nodes, SERVICE), name, SERVICE)
    if as_json:
        print_json(info_as_json(service, nodes, SERVICE))
    else:
        print_info(service, nodes, SERVICE)


@rpc.command(epilog=HELP)
@NAME
@click.argument("message", default="{}")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for each response.",
)
@click.option("--count", "-c", type=click.IntRange(min=1), help="Call so many times.  [default: 1]")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="HZ",
    help="Call so many times a second, until Ctrl-C if there is no --count.",
)
@click.option("--no-check", is_flag=True, help="Send MESSAGE without asking who takes what.")
@WAIT
@JSON
@command
async def call(
    url: BaseParameters,
    name: str,
    message: str,
    timeout: float,
    count: int | None,
    rate: float | None,
    no_check: bool,
    wait: float,
    as_json: bool,
) -> None:
    """Call the service NAME with MESSAGE and print its response.

    Without MESSAGE the request is empty; what it leaves out, the service fills in. It is checked
    against what nodes tell of the service, if one does, and then sent. Exit status 1 if it does not
    fit, and if any call brings no response. --wait is for the question who takes what.

    Several calls are made one after the other, each when the one before is answered, and at the end
    their latency is told. With --json there is a line for each, and one for all.
    """
    data = read_payload(message)
    async with connected(url) as node:
        known = None if no_check else await _services(node, wait)
        check_message(data, (known or {}).get(name), SERVICE)
        client = node.create_rpc_client(name)

        async def ask() -> Any:
            try:
                return await client.call(data, timeout)
            except RPCTimeout as exc:
                raise unanswered(exc, name, known, SERVICE) from exc
            except RPCRemoteError as exc:
                raise click.ClickException(printable(f"{name} raised {exc}")) from exc

        if count is None and rate is None:
            response = await ask()
            if as_json:
                print_json(response)
            else:
                _print_response(response)
        else:
            await _Calls(ask, as_json).run(count, rate)


async def _services(node: Node, wait: float) -> dict[str, Served]:
    async with discovering(node, wait) as discovery:
        return all_served(discovery.nodes, SERVICE)


def _print_response(response: Any) -> None:
    for line in lines(response, full=True):
        click.echo(line)


class _Calls:
    """The same call again and again, and how long each took."""

    def __init__(self, ask: Callable[[], Awaitable[Any]], as_json: bool) -> None:
        self._ask = ask
        self._as_json = as_json
        self._seconds: list[float] = []
        self._failed = 0

    async def run(self, count: int | None, rate: float | None) -> None:
        """Call, and tell at the end, or after Ctrl-C. Raises SystemExit."""
        was_stopped = await until_stopped(self._call(count, rate))
        self._summarise()
        if was_stopped and count is not None:
            raise SystemExit(INTERRUPTED)
        if self._failed:
            raise SystemExit(1)

    async def _call(self, count: int | None, rate: float | None) -> None:
        now = asyncio.get_running_loop().time
        due = now()
        made = 0
        while count is None or made < count:
            if rate is not None:
                await asyncio.sleep(max(0.0, due - now()))
                due = max(due + 1 / rate, now())  # what was missed is not made up for
            await self._once()
            made += 1

    async def _once(self) -> None:
        begin = perf_counter()
        try:
            response = await self._ask()
        except (CommlibError, click.ClickException) as exc:
            self._failed += 1
            text = exc.message if isinstance(exc, click.ClickException) else str(exc)
            if self._as_json:
                click.echo(json_line({"error": text, "seconds": perf_counter() - begin}))
            else:
                click.echo(f"failed: {printable(text)}", err=True)
            return
        took = perf_counter() - begin
        self._seconds.append(took)
        if self._as_json:
            click.echo(json_line({"response": response, "seconds": took}))
        else:
            _print_response(response)

    def _summarise(self) -> None:
        figures = _figures(sorted(self._seconds))
        if self._as_json:
            total = {"answered": len(self._seconds), "failed": self._failed, "seconds": figures}
            click.echo(json_line(total))
            return
        failed = f", {self._failed} failed" if self._failed else ""
        click.echo(f"{len(self._seconds)} answered{failed}")
        if figures is not None:
            each = ", ".join(f"{name} {value * 1000:.2f}" for name, value in figures.items())
            click.echo(f"latency in ms: {each}")


def _figures(seconds: list[float]) -> dict[str, float] | None:
    """Of latencies in order; None if there are none."""
    if not seconds:
        return None
    nearly_all = seconds[min(len(seconds) - 1, len(seconds) * 99 // 100)]
    return {
        "min": seconds[0],
        "median": median(seconds),
        "mean": fmean(seconds),
        "p99": nearly_all,
        "max": seconds[-1],
    }
