"""`commlib topic hz`, `bw`, `delay` and `latency`: what is measured, and for how long."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from os import urandom
from time import perf_counter, time
from typing import Any

import click

from commlib._packet import Packet
from commlib._params import BaseParameters
from commlib._wire import Refused
from commlib.aio import Node, Publisher
from commlib.cli._common import INTERRUPTED, command, connected, paced, until_stopped
from commlib.cli._complete import names_of
from commlib.cli._meters import AgeMeter, Meter, RateMeter, SizeMeter, TripMeter
from commlib.cli._options import JSON_LINES, duration_option, rate_option
from commlib.cli._printing import print_line, say
from commlib.cli._watch import Watch

PAUSE = 1.0  # s between two lines
TRIP_SECONDS = 2.0  # after which a message that went to the broker is taken for lost
CLOCKS = (
    "delays are as true as the clocks of this machine and of the senders go together (NTP): "
    "those of one machine do"
)

TOPICS = names_of("publisher", "subscriber")
PATTERN = click.argument("name", metavar="TOPIC|PATTERN", shell_complete=TOPICS)
WINDOW = click.option(
    "--window",
    type=click.IntRange(min=2, max=10_000_000),
    default=10_000,
    show_default=True,
    metavar="N",
    help="How many of the last messages are looked at.",
)
DURATION = duration_option("End after so long; with exit status 1 if there was nothing to measure.")


def measuring(work: Callable[..., Any]) -> Callable[..., None]:
    """The body of a command that measures; it has the options of all of them."""
    return WINDOW(DURATION(JSON_LINES(command(work))))


@click.command()
@PATTERN
@measuring
async def hz(
    url: BaseParameters, name: str, window: int, duration: float | None, as_json: bool
) -> None:
    """Measure how many messages come a second on TOPIC, and how regularly.

    All that match a pattern are taken together.
    """
    meter = RateMeter(window)
    async with connected(url) as node:
        watch = Watch(node, name, lambda packet: meter.note(perf_counter()))
        await _measure(watch, meter, duration, as_json)


@click.command()
@PATTERN
@measuring
async def bw(
    url: BaseParameters, name: str, window: int, duration: float | None, as_json: bool
) -> None:
    """Measure how many bytes come a second on TOPIC, and how large payloads are.

    A payload is what the broker takes for one: its own protocol around it does not count, nor on
    AMQP the header of commlib, which travels beside it.
    """
    meter = SizeMeter(window)
    async with connected(url) as node:
        watch = Watch(node, name, lambda packet: meter.note(perf_counter(), len(packet.payload)))
        await _measure(watch, meter, duration, as_json)


@click.command()
@PATTERN
@measuring
async def delay(
    url: BaseParameters, name: str, window: int, duration: float | None, as_json: bool
) -> None:
    """Measure how old the messages on TOPIC are when they come here, in ms.

    It is the time that the sender has written into the message against the clock of this machine:
    both must be right, or the delay is not. A negative one says that they differ.
    """
    meter = AgeMeter(window)
    say(CLOCKS, err=True)
    async with connected(url) as node:
        watch = Watch(node, name, lambda packet: meter.note(packet, time() * 1000))
        await _measure(watch, meter, duration, as_json)


@click.command()
@rate_option(
    "So many messages a second at most; there is never more than one on its way.", default=50.0
)
@click.option(
    "--size",
    type=click.IntRange(min=0, max=10_000_000),
    default=0,
    metavar="BYTES",
    help="Make each message so much longer.",
)
@measuring
async def latency(
    url: BaseParameters,
    rate: float,
    size: int,
    window: int,
    duration: float | None,
    as_json: bool,
) -> None:
    """Measure how long messages take from here to the broker and back.

    They go to a topic that nobody else knows.
    """
    meter = TripMeter(window)
    async with connected(url) as node:
        trips = Trips(node, meter, size)
        await _measure(trips.watch, meter, duration, as_json, trips.travel(rate))


class Trips:
    """Messages to the broker and back, one after the other."""

    def __init__(self, node: Node, meter: TripMeter, size: int) -> None:
        topic = f"commlib.latency.{urandom(8).hex()}"
        self.watch = Watch(node, topic, self._hear)
        self._publisher = Publisher[Any](topic, hub=node.hub)
        self._meter = meter
        self._padding = "x" * size
        self._number = 0
        self._back: asyncio.Future[float] | None = None

    async def travel(self, rate: float) -> None:
        """Send messages until it is cancelled, while ``watch`` runs."""
        async for _ in paced(rate):
            await self._send()

    async def _send(self) -> None:
        self._number += 1
        self._back = asyncio.get_running_loop().create_future()
        begin = perf_counter()
        await self._publisher.publish([self._number, self._padding])
        try:
            async with asyncio.timeout(TRIP_SECONDS):
                self._meter.note(await self._back - begin)
        except TimeoutError:
            self._meter.lost += 1

    def _hear(self, packet: Packet) -> None:
        now = perf_counter()
        try:
            data = self.watch.read(packet).data
        except Refused:
            return  # none of ours
        is_it = isinstance(data, list) and data[:1] == [self._number]
        if is_it and self._back is not None and not self._back.done():
            self._back.set_result(now)


async def _measure(
    watch: AbstractAsyncContextManager[Any],
    meter: Meter,
    duration: float | None,
    as_json: bool,
    *works: Any,
) -> None:
    """Measure for ``duration`` s, or until Ctrl-C; tell of it each second, and in the end."""
    async with watch:
        was_stopped = await until_stopped(_tell_often(meter, duration, as_json), *works)
    if as_json:
        print_line({**meter.measured(), "summary": True})
    else:
        if was_stopped and sys.stderr.isatty():
            click.echo(err=True)  # the terminal has written ^C
        click.echo(f"in all: {meter.told() or 'nothing came'}")
    if was_stopped and duration is not None:
        raise SystemExit(INTERRUPTED)
    if duration is not None and not meter.messages:
        raise SystemExit(1)


async def _tell_often(meter: Meter, duration: float | None, as_json: bool) -> None:
    loop = asyncio.get_running_loop()
    now = loop.time()
    end = float("inf") if duration is None else now + duration
    seen = 0
    while now < end:
        due = min(now + PAUSE, end)
        await asyncio.sleep(due - loop.time())
        now = due
        if now >= end:
            return  # the summary comes
        if as_json:
            print_line({**meter.measured(), "summary": False})
        else:
            click.echo(meter.told() if meter.messages != seen else "no new messages")
        seen = meter.messages


COMMANDS: tuple[click.Command, ...] = (hz, bw, delay, latency)
