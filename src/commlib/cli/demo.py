"""`commlib demo`: PubSub, a pattern and RPC between separate processes, counted and measured.

Exit status: 0 if no message was lost and no reply wrong, 130 after Ctrl-C, else 1.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import urandom

import click

from commlib import aio
from commlib.cli._common import ending_well
from commlib.cli._options import Time
from commlib.cli._valkey import ValkeyProcess
from commlib.cli._wrong_words import WrongWords
from commlib.cli.demo_children import Child, ChildFailed, children, unless_one_ends
from commlib.cli.demo_orders import Burst, Call, Called, Expect, Latency, Pace, Published, Received
from commlib.exceptions import ConnectError
from commlib.transports import resolve

LIMIT = 27.0  # s after which the demo gives up, whatever happens
CONNECT_TIMEOUT = 3.0  # s for the broker to answer at all
PATIENCE = 3.0  # s for messages to arrive that the broker has confirmed
PACE = 200  # messages/s while latency is measured
BURST = 50_000  # messages; the queue in front of a callback holds twice as many
THREADS, TASKS = 8, 64  # calls under way at once


@click.command()
@click.option(
    "--url", metavar="URL", help="The broker to use; without it, one is started for the demo."
)
@click.option(
    "--duration",
    "-d",
    type=Time(least=1, most=20),
    default=6.0,
    show_default=True,
    help="How long to measure.",
)
def demo(url: str | None, duration: float) -> None:
    """Show what commlib does, in several processes.

    A sonar publishes, a watcher subscribes to it by a pattern, and an adder is called from threads
    and from asyncio. Every message and every reply is accounted for.
    """
    deadline = time.monotonic() + LIMIT
    # What there is to say is said here, in one line.
    logging.getLogger("commlib").addHandler(logging.NullHandler())
    with ending_well(), _broker(url) as (address, whose):
        problems = asyncio.run(_run(address, whose, duration, deadline))
        if problems:
            raise click.ClickException("not all was as promised: " + "; ".join(problems))
        click.echo("All as promised: lost = 0, wrong replies = 0.")


@contextmanager
def _broker(url: str | None) -> Iterator[tuple[str, str]]:
    """The URL of the broker to use, and whose it is."""
    if url is None:
        with ValkeyProcess.start() as server:
            yield server.url, "Valkey, started for the demo"
    elif url.startswith("memory:"):
        raise WrongWords(
            "memory:// stays within one process, and the demo needs several; leave out --url, or "
            "give it the URL of a broker"
        )
    else:
        resolve(url)  # raises for what is no URL, which is not the fault of a child
        yield url, "as given"


# -- what is measured -----------------------------------------------------------------------------


@dataclass
class Traffic:
    """Messages that were published, and what came of them."""

    sent: Published = field(default_factory=lambda: Published(0, 0.0))
    received: Received = field(default_factory=lambda: Received(0, 0.0, Latency(), 0))

    @property
    def lost(self) -> int:
        """How many did not arrive; below 0, more arrived than were sent."""
        return self.sent.count - self.received.count

    def add(self, sent: Published, received: Received) -> None:
        """Take one more burst into the sums; what is irregular is a sum already."""
        self.sent.count += sent.count
        self.sent.seconds += sent.seconds
        self.received.count += received.count
        self.received.seconds += received.seconds
        self.received.latency = received.latency
        self.received.irregular = received.irregular


@dataclass
class Result:
    """What the processes have reported."""

    paced: Traffic = field(default_factory=Traffic)
    bursts: Traffic = field(default_factory=Traffic)
    calls: dict[str, Called] = field(default_factory=dict)

    def problems(self) -> list[str]:
        """What did not hold."""
        found = [
            f"{name}: lost = {traffic.lost}"
            for name, traffic in (("paced messages", self.paced), ("bursts", self.bursts))
            if traffic.lost
        ]
        if irregular := self.bursts.received.irregular:
            found.append(f"irregular messages = {irregular} (doubled, overtaken, dropped, refused)")
        for name, called in self.calls.items():
            if called.wrong:
                found.append(f"{name}: wrong replies = {called.wrong} ({called.error})")
            elif not called.count:
                found.append(f"{name}: no reply at all")
        return found


async def _run(url: str, whose: str, seconds: float, deadline: float) -> list[str]:
    """Start the processes, have them measure, show it, end them; what did not hold."""
    loop = asyncio.get_running_loop()
    # SIGTERM as Ctrl-C, which asyncio.run() turns into a cancellation: all is cleaned up.
    loop.add_signal_handler(signal.SIGTERM, signal.raise_signal, signal.SIGINT)
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            click.echo(f"broker      {await _checked(url)} ({whose})")
            async with children(f"commlib_demo_{urandom(4).hex()}", url) as roles:
                click.echo(f"processes   {', '.join(roles)}")
                click.echo(f"measuring   for {seconds:g} s\n")
                result = await unless_one_ends(_measure(roles, seconds), roles.values())
                click.echo(f"{_table(result)}\n")
            return result.problems()
    except TimeoutError:
        raise ChildFailed(f"not done after {LIMIT:g} s: broker or machine are too slow") from None


async def _checked(url: str) -> str:
    """The broker's name, without a password, once it has answered."""
    params = dataclasses.replace(resolve(url), reconnect=False, connect_timeout=CONNECT_TIMEOUT)
    async with aio.Node("demo", params) as node:
        if not node.connected:
            raise ConnectError(f"{params} cannot be reached")
    return str(params)


async def _measure(roles: dict[str, Child], seconds: float) -> Result:
    """Messages at a quiet pace and in bursts, then single calls, then many at once."""
    result, part = Result(), seconds / 4
    await _publish(roles, Pace(round(PACE * part), part), result.paced)
    end = time.monotonic() + part
    while (left := end - time.monotonic()) > 0 and not result.bursts.lost:
        await _publish(roles, Burst(BURST, left), result.bursts)
    for name, role, at_once in (
        ("calls, one at a time", "threads", 1),
        (f"calls from {THREADS} threads", "threads", THREADS),
        (f"calls from asyncio, {TASKS} at once", "tasks", TASKS),
    ):
        result.calls[name] = await roles[role].ask(Call(at_once, part * 2 / 3), Called)
    # Whatever has come meanwhile was not published by the sonar.
    result.bursts.add(Published(0, 0.0), await roles["watcher"].ask(Expect(0, 0.0), Received))
    return result


async def _publish(roles: dict[str, Child], order: Pace | Burst, traffic: Traffic) -> None:
    sent = await roles["sonar"].ask(order, Published)
    received = await roles["watcher"].ask(Expect(sent.count, PATIENCE), Received)
    traffic.add(sent, received)


# -- what is shown --------------------------------------------------------------------------------

WIDTHS = (32, 11, 12, 10, 10)


def _table(result: Result) -> str:
    """One line for each thing that was measured."""
    paced, bursts = result.paced, result.bursts
    lines = [
        _line("", "count", "per second", "p50 ms", "p99 ms"),
        _row(f"messages, {PACE} a second", paced.sent, paced.received.latency)
        + f"   lost {paced.lost}",
        # No latency here: it would only tell how long a burst is.
        _row("messages in bursts: published", bursts.sent),
        _row("messages in bursts: received", bursts.received) + f"   lost {bursts.lost}",
    ]
    for name, called in result.calls.items():
        lines.append(_row(name, called, called.latency) + f"   wrong {called.wrong}")
    return "\n".join(line.rstrip() for line in lines)


def _row(what: str, report: Published | Received | Called, latency: Latency | None = None) -> str:
    rate = report.count / report.seconds if report.seconds else 0.0
    times = [f"{x * 1000:.2f}" for x in (latency.p50, latency.p99)] if latency else ["", ""]
    return _line(what, f"{report.count:,}", f"{rate:,.0f}", *times)


def _line(what: str, *figures: str) -> str:
    cells = [figure.rjust(width) for figure, width in zip(figures, WIDTHS[1:], strict=True)]
    return what.ljust(WIDTHS[0]) + "".join(cells)
