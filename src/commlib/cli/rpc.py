"""`commlib rpc`: which services there are, what one takes and gives, and calling it."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

import click

from commlib._params import BaseParameters
from commlib.cli._common import INTERRUPTED, command, connected, paced, until_stopped
from commlib.cli._figures import in_ms, spread
from commlib.cli._groups import Group
from commlib.cli._options import (
    JSON,
    NO_CHECK,
    WAIT,
    count_option,
    rate_option,
    timeout_option,
)
from commlib.cli._payload import HELP, read_payload
from commlib.cli._printing import print_json, print_line, say
from commlib.cli._served import (
    SERVICE,
    add_views,
    ask_served,
    check_message,
    name_of_served,
    unanswered,
)
from commlib.cli._shown import lines, printable
from commlib.exceptions import CommlibError, RPCRemoteError, RPCTimeout

WINDOW = 10_000  # of the last calls, whose latency is told


@click.group(cls=Group)
def rpc() -> None:
    """List services, look at one, call it."""


add_views(rpc, SERVICE)


@rpc.command(epilog=HELP)
@name_of_served(SERVICE)
@click.argument("message", default="{}")
@timeout_option("How long to wait for each response.", default=10.0)
@count_option("Call so often.  [default: 1]")
@rate_option("Call so often a second, until Ctrl-C if there is no --count.")
@NO_CHECK
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
    fit, and if any call brings no response.

    Several calls are made one after the other, each when the one before is answered, and at the end
    their latency is told. With --json there is a line for each, and one for all.
    """
    data = read_payload(message)
    async with connected(url) as node:
        client = node.create_rpc_client(name)  # first of all, for the name may be none
        known = None if no_check else await ask_served(node, wait, SERVICE)
        check_message(data, name, known, SERVICE)

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


def _print_response(response: Any) -> None:
    for line in lines(response, full=True):
        click.echo(line)


class _Calls:
    """The same call again and again, and how long each took."""

    def __init__(self, ask: Callable[[], Awaitable[Any]], as_json: bool) -> None:
        self._ask = ask
        self._as_json = as_json
        self._ms: deque[float] = deque(maxlen=WINDOW)
        self._answered = 0
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
        made = 0
        async for _ in paced(rate):
            await self._once()
            made += 1
            if made == count:
                return

    async def _once(self) -> None:
        begin = perf_counter()
        try:
            response = await self._ask()
        except (CommlibError, click.ClickException) as exc:
            self._failed += 1
            text = exc.message if isinstance(exc, click.ClickException) else str(exc)
            if self._as_json:
                print_line({"error": text, "latency_ms": _since(begin)})
            else:
                say(f"failed: {text}", err=True)
            return
        took = _since(begin)
        self._answered += 1
        self._ms.append(took)
        if self._as_json:
            print_line({"response": response, "latency_ms": took})
        else:
            _print_response(response)

    def _summarise(self) -> None:
        found = spread(self._ms)
        if self._as_json:
            print_line({"answered": self._answered, "failed": self._failed, "latency_ms": found})
            return
        failed = f", {self._failed} failed" if self._failed else ""
        latency = f", latency {in_ms(found, 'min', 'p50', 'p99', 'max')}" if found else ""
        click.echo(f"in all: {self._answered} answered{failed}{latency}")


def _since(begin: float) -> float:
    """How many ms have passed since then."""
    return (perf_counter() - begin) * 1000
