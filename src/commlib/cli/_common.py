"""What the subcommands share: the connection, what they wait for, and how they end.

A subcommand is a coroutine function under ``@command``: it gets the broker as ``url``, and its
errors that are the user's to mend are told in one line. Exit status: 0, 1 for such an error, 2 for
wrong words (a name, a URL or a message that can be none, an option that this kind of broker cannot
serve), 130 after Ctrl-C in what would have come to an end by itself.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import shlex
import signal
import sys
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
)
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Self

import click
from click.core import ParameterSource

from commlib._pace import Pace
from commlib._params import BaseParameters, NetworkParameters, nearest
from commlib._portal import new_loop
from commlib.aio import Node
from commlib.aio.discovery import Discovery, NodeInfo
from commlib.cli._options import URL, Option
from commlib.cli._output import OutputLost
from commlib.cli._shown import printable, printable_lines
from commlib.cli._wrong_words import WrongWords
from commlib.exceptions import CommlibError, ConnectError, ConnectionLost
from commlib.transports import resolve

INTERRUPTED = 130  # the exit status after Ctrl-C in what would have come to an end by itself
CONNECT_SECONDS = 5.0  # that a command waits for its broker; a person waits with it
CONFIRM_SECONDS = 10.0  # that the broker has to confirm what was published
CATCH_UP = 0.1  # s that somebody who does something at a rate may be late and make up for
TURN = 64  # times in a row before others on the loop have theirs, Ctrl-C among them
MAX_KNOWN = 20  # names in an error


def command(
    work: Callable[..., Coroutine[Any, Any, None]], *, url: Option = URL
) -> Callable[..., None]:
    """A coroutine function as the body of a click command with ``--url``."""

    @url
    @functools.wraps(work)
    def run(*args: Any, url: str | None, **options: Any) -> None:
        with ending_well():
            params = as_visitor(resolve(url), click.get_current_context())
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(work(*args, url=params, **options))

    return run


def as_visitor(params: BaseParameters, context: click.Context) -> BaseParameters:
    """The parameters of a node's connection for one that is not to take its place at the broker.

    Nothing is kept there for a command. ``COMMLIB_URL`` is that of a program, whose ``client_id``
    no other connection may have; one that stands behind ``--url`` is meant for the command.
    """
    left_out: dict[str, Any] = {"session_expiry": 0.0}
    if context.get_parameter_source("url") is not ParameterSource.COMMANDLINE:
        left_out["client_id"] = ""
    changed = {name: none for name, none in left_out.items() if getattr(params, name, none) != none}
    return dataclasses.replace(params, **changed) if changed else params


@contextmanager
def ending_well() -> Iterator[None]:
    """End as a command does, whatever is raised: with a line for people, and an exit status."""
    try:
        yield
    except click.UsageError:
        raise
    except click.ClickException as exc:
        kind = WrongWords if isinstance(exc, WrongWords) else click.ClickException
        raise kind(printable_lines(exc.message)) from exc
    except CommlibError as exc:  # some are ValueErrors, too, of what came
        raise click.ClickException(printable(str(exc))) from exc
    except (ValueError, TypeError) as exc:  # of what was to be made of the words
        raise WrongWords(printable(str(exc))) from exc
    except OutputLost:  # is told once for all
        raise
    except BrokenPipeError:  # `| head` has seen enough
        with suppress(BrokenPipeError):
            sys.stdout.close()
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def same_broker(params: BaseParameters) -> str:
    """The option for another command to find this broker; empty where it does anyway."""
    context = click.get_current_context()
    if context.get_parameter_source("url") is not ParameterSource.COMMANDLINE:
        return ""
    if isinstance(params, NetworkParameters) and any(params.credentials):
        return " --url ... (the same, which has a password)"
    return f" --url {shlex.quote(context.params['url'])}"


def unknown(name: str, known: Iterable[str]) -> str:
    """What was probably meant by a name that is not there, or what there is; for an error."""
    names = list(dict.fromkeys(known))
    near = nearest(name, names)
    if near.startswith("did you mean"):
        return near
    more = ", ..." if len(names) > MAX_KNOWN else ""
    return f"known are: {', '.join(names[:MAX_KNOWN]) or 'none'}{more}"


# ---- the broker, and who is there ----


@asynccontextmanager
async def connected(url: BaseParameters) -> AsyncIterator[Node]:
    """A node of the command's own, which tells nobody of itself. Raises ConnectError, AuthError."""
    node = Node("commlib", url, heartbeats=False, discovery=False)
    try:
        with _LastWord() as log:
            if not await node.wait_connected(CONNECT_SECONDS):
                why = log.text.removeprefix(str(url)).lstrip(": ") or "no answer"
                starts_one = "; `commlib broker` starts one" if "redis" in url.schemes else ""
                raise ConnectError(
                    f"no broker at {url} within {CONNECT_SECONDS:g} s: {why}"
                    f"{'' if why.endswith('?') else '.'} Another one is named by --url or "
                    f"COMMLIB_URL{starts_one}"
                )
        await node.run()
        yield node
    finally:
        await node.stop()


class _LastWord(logging.Handler):
    """Keeps the last thing that is logged while it is entered, instead of printing it."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()

    def __enter__(self) -> Self:
        logging.getLogger("commlib").addHandler(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        logging.getLogger("commlib").removeHandler(self)


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


async def confirmed(node: Node) -> None:
    """Return when the broker has all that was published. Raises ConnectionLost."""
    try:
        async with asyncio.timeout(CONFIRM_SECONDS):
            await node.hub.transport.flush()
    except TimeoutError:
        raise ConnectionLost(
            f"the broker has not confirmed within {CONFIRM_SECONDS:g} s what was published; it is "
            "overloaded, or blocks publishers, and nobody knows what has arrived"
        ) from None


# ---- time, and Ctrl-C ----


async def paced(rate: float | None) -> AsyncGenerator[None, None]:
    """Give turns at a rate, in Hz, or one after the other; for ever.

    What was missed is made up for only if it is little: nobody wants a flood after Ctrl-Z.
    """
    pace, turns = Pace(asyncio.get_running_loop().time, CATCH_UP), 0
    while True:
        yield
        turns += 1
        if rate is not None:
            await asyncio.sleep(pace.pause(turns / rate))
        elif turns % TURN == 0:
            await asyncio.sleep(0)


@contextmanager
def on_signals(act: Callable[[], None]) -> Iterator[None]:
    """Have Ctrl-C, SIGTERM and SIGHUP call ``act`` on the loop meanwhile, and do nothing else.

    SIGHUP, of a terminal that is closed, comes from the system and again from the shell: it is
    heard once, and ignored from then on. `nohup` has it ignored from the beginning.
    """
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    for number in numbers:
        loop.add_signal_handler(number, act)

    def hang_up(number: signal.Signals) -> None:
        # Left to the loop until that is closed: taken from it, the next one would end the process.
        if number in numbers:  # else both have come in one turn of the loop
            numbers.remove(number)
            signal.signal(number, signal.SIG_IGN)
            act()

    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
        loop.add_signal_handler(signal.SIGHUP, hang_up, signal.SIGHUP)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def until_stopped(*works: Awaitable[Any]) -> bool:
    """Return when such a signal comes, or one of ``works`` has ended; raise what it raises.

    True: it was a signal.
    """
    stop = asyncio.Event()
    with on_signals(stop.set):
        return await until_set(stop, *works)


async def until_set(stop: asyncio.Event, *works: Awaitable[Any]) -> bool:
    """Return when ``stop`` is set, or one of ``works`` has ended; raise what it raises.

    The others are cancelled. True: none had ended.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    stopping = asyncio.ensure_future(stop.wait())
    try:
        done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        return done == {stopping}
    finally:
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.gather(*tasks, stopping, return_exceptions=True)
