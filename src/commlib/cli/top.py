"""`commlib top`: what is published now, topic by topic."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import click
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from commlib._packet import now_ms
from commlib._params import BaseParameters
from commlib.aio import Node
from commlib.aio.discovery import Discovery
from commlib.cli._common import INTERRUPTED, command, connected, discovering, until_stopped
from commlib.cli._options import ALL, JSON_LINES, Time, duration_option
from commlib.cli._printing import console, draws, new_table, print_line, print_table
from commlib.cli._rates import ORDERS, Rate, Tallies, count_ports, with_silent
from commlib.cli._shown import printable
from commlib.cli._topic_ports import REPLIES, is_inner, topics_of
from commlib.cli._traffic import Overheard, age_of, hearing
from commlib.cli._watch import Watch

COLUMNS = ("TOPIC", "MSG/S", "BYTES/S", "LATENCY", "WORST", "LOST", "PUBS", "SUBS")
NOTHING = "nothing was published, and no node tells of a topic"
LINES_BESIDE = 5  # of the terminal, that are not for topics
TOPIC_WIDTH, NUMBER_WIDTH = 24, 7  # characters that a topic wants, and a number beside it takes
NODES_SECONDS = 0.5  # that nodes have to answer before the first look


@click.command()
@click.option(
    "--interval",
    type=Time(least=0.1),
    default=1.0,
    show_default=True,
    help="How long to count between two looks.",
)
@duration_option()
@click.option("--once", is_flag=True, help="Look once, after one interval.")
@click.option(
    "--sort", type=click.Choice(list(ORDERS)), default="rate", show_default=True, help="By what."
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Show N topics at most.")
@ALL
@JSON_LINES
@command
async def top(
    url: BaseParameters,
    interval: float,
    duration: float | None,
    once: bool,
    sort: str,
    limit: int | None,
    show_all: bool,
    as_json: bool,
) -> None:
    """Watch what is published: rates, latencies and losses of each topic. Ctrl-C or q ends it.

    LATENCY is the mean, and WORST the longest, time in ms from the timestamp of a message to its
    coming here, by the clocks of both. LOST counts by the senders' numbers what did not come here.
    PUBS and SUBS are ports of the nodes that tell of themselves.

    Without a terminal it looks once, or for --duration. --json prints one line for each look.
    """
    is_live = draws(console()) and not (once or as_json)
    if once or not (duration or sys.stdout.isatty()):
        duration = interval
    async with connected(url) as node, discovering(node, NODES_SECONDS) as discovery:
        tallies, begin = Tallies(), now_ms()

        def hear(heard: Overheard) -> None:
            topic = heard.packet.topic
            if show_all or not is_inner(topic):
                # On MQTT each call has an address of its own for its reply.
                topic = "(replies)" if topic.startswith(REPLIES) else topic
                tallies.note(topic, heard.size, heard.lost, age_of(heard.header, begin))

        async with hearing(node, hear) as watch:
            look = _Look(tallies, node, discovery, watch, sort, limit, show_all)
            if is_live:
                was_stopped = await until_stopped(_show(look, interval, duration), _key("q"))
            else:
                was_stopped = await until_stopped(_print(look, interval, duration, as_json))
    if was_stopped and duration is not None:
        raise SystemExit(INTERRUPTED)


class _Look:
    """What there is to see at a time."""

    def __init__(
        self,
        tallies: Tallies,
        node: Node,
        discovery: Discovery,
        watch: Watch,
        sort: str,
        limit: int | None,
        show_all: bool,
    ) -> None:
        self.tallies = tallies
        self.node = node
        self.discovery = discovery
        self.watch = watch
        self.sort = sort
        self.limit = limit
        self.show_all = show_all
        self.known = 0
        self.rate = 0.0

    def take(self, seconds: float, most: int | None = None) -> list[Rate]:
        """The topics of the last so many seconds, sorted, ``most`` of them at most."""
        traits = self.node.hub.transport.traits
        topics = topics_of(self.discovery.nodes, None, traits)
        if not self.show_all:
            topics = [topic for topic in topics if not is_inner(topic.topic)]
        rates = with_silent(self.tallies.take(seconds), topics, traits)
        rates.sort(key=ORDERS[self.sort])
        self.known, self.rate = len(rates), sum(rate.rate for rate in rates)
        some = rates[: self.limit or most]
        count_ports(some, topics, traits)
        return some

    @property
    def headline(self) -> str:
        """What is above the table."""
        text = (
            f"{self.node.hub.params}   {self.known} topics   {self.rate:,.0f} messages/s   "
            f"{len(self.discovery.nodes)} nodes"
        )
        if not self.node.connected:
            text += "   no connection, still trying"
        if self.watch.stats.dropped:
            text += f"   {self.watch.stats.dropped} messages were too many for this program"
        return text


async def _looks(look: _Look, interval: float, duration: float | None) -> AsyncIterator[float]:
    """Give the seconds since the last look at each, until the time is up."""
    loop = asyncio.get_running_loop()
    begin = last = loop.time()
    while duration is None or last < begin + duration - 1e-3:
        end = last + interval if duration is None else min(last + interval, begin + duration)
        await asyncio.sleep(end - loop.time())
        now = loop.time()
        yield max(now - last, 0.001)  # uvloop's clock counts ms
        last = now


async def _print(look: _Look, interval: float, duration: float | None, json: bool) -> None:
    async for seconds in _looks(look, interval, duration):
        rates = look.take(seconds)
        if json:
            print_line({"time": now_ms(), "seconds": round(seconds, 3), "topics": rates})
        else:
            print_table(COLUMNS, map(_cells, rates), NOTHING)
        sys.stdout.flush()


async def _show(look: _Look, interval: float, duration: float | None) -> None:
    screen = console()
    with Live(console=screen, screen=True, auto_refresh=False) as live:
        live.update(Text(f"counting for {interval:g} s ..."), refresh=True)
        async for seconds in _looks(look, interval, duration):
            rates = look.take(seconds, max(1, screen.height - LINES_BESIDE))
            live.update(_picture(look, rates, screen), refresh=True)


def columns_in(width: int) -> tuple[str, ...]:
    """The columns for which so many characters are enough; what is last goes first."""
    return COLUMNS[: 1 + max(1, (width - TOPIC_WIDTH) // NUMBER_WIDTH)]


def _picture(look: _Look, rates: list[Rate], screen: Console) -> Group:
    table = new_table()
    columns = columns_in(screen.width)
    for index, column in enumerate(columns):
        table.add_column(
            column, justify="right" if index else "left", no_wrap=True, overflow="ellipsis"
        )
    for rate in rates:
        cells = [Text(cell) for cell in _cells(rate)[: len(columns)]]
        table.add_row(*cells, style="" if rate.rate else "dim")
    foot = Text("q ends it", style="dim")
    return Group(Text(look.headline, style="bold", no_wrap=True), "", table, "", foot)


def _cells(rate: Rate) -> tuple[str, ...]:
    return (
        printable(rate.topic),
        _number(rate.rate),
        _number(rate.bytes_rate),
        "-" if rate.latency is None else f"{rate.latency:.1f}",
        "-" if rate.latency_max is None else f"{rate.latency_max:.0f}",
        *map(str, (rate.lost, rate.publishers, rate.subscribers)),
    )


def _number(number: float) -> str:
    return f"{number:.1f}" if number < 100 else f"{number:.0f}"


async def _key(wanted: str) -> None:
    """Return when this key is pressed; never where there is no keyboard."""
    loop = asyncio.get_running_loop()
    pressed = asyncio.Event()
    if not sys.stdin.isatty():
        await pressed.wait()
    stdin = sys.stdin.fileno()

    def read() -> None:
        keys = os.read(stdin, 64)
        if wanted.encode() in keys or not keys:
            pressed.set()

    with _each_key(stdin):
        loop.add_reader(stdin, read)
        try:
            await pressed.wait()
        finally:
            loop.remove_reader(stdin)


@contextmanager
def _each_key(stdin: int) -> Iterator[None]:
    """Let keys come one by one, and unseen; Ctrl-C is what it always is."""
    import termios
    import tty

    before = termios.tcgetattr(stdin)
    tty.setcbreak(stdin)
    try:
        yield
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
