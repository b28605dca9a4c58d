"""`commlib replay`: publishes what was recorded, in the same order and at the same distances."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from commlib._params import BaseParameters
from commlib.cli._common import INTERRUPTED, command, connected, until_stopped
from commlib.cli._figures import clock, counted, in_bytes
from commlib.cli._options import JSON, Time, url_option
from commlib.cli._printing import console, draws, print_json, say
from commlib.exceptions import CommlibError

if TYPE_CHECKING:
    from commlib.recording import Played, Player

REFRESH_SECONDS = 0.1


@click.command()
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE.mcap...",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
)  # fmt: skip
@click.option(
    "--rate", "-r", type=click.FloatRange(min=0), default=1.0, show_default=True,
    help="How many times as fast; 0 is without pauses.",
)  # fmt: skip
@click.option("--loop", "-l", is_flag=True, help="Begin again at the end, until Ctrl-C.")
@click.option(
    "--topics", "-t", multiple=True, metavar="TOPIC", help="These alone; may be patterns."
)
@click.option("--start", type=Time(), help="Leave out what comes before this time: 90s, 5m.")
@click.option("--end", type=Time(), help="Leave out what comes after this time.")
@click.option(
    "--keep-headers", is_flag=True,
    help="Send sender, number, time and signature as they were recorded.",
)  # fmt: skip
@JSON
@functools.partial(command, url=url_option("--to"))
async def replay(
    url: BaseParameters,
    files: tuple[Path, ...],
    rate: float,
    loop: bool,
    topics: tuple[str, ...],
    start: float | None,
    end: float | None,
    keep_headers: bool,
    as_json: bool,
) -> None:
    """Publish a recording again: the same messages, in the same order, at the same distances.

    Several files are played one after the other. The messages are new ones of this sender, with
    numbers without gaps and the time of now; --keep-headers leaves them as they were. The broker
    may be another one, also of another kind. Recorded calls of services are not repeated. It ends
    when the broker has confirmed all. Of a file that is damaged all is published that can be read,
    and the exit status is 1; one that was cut off is told, and that is all.
    """
    from commlib.recording import Player

    # So that it waits for a broker that is slow, or away for a moment, instead of dropping.
    params = dataclasses.replace(url, offline="wait")
    async with connected(params) as node:
        player = Player(
            files,
            hub=node.hub,
            rate=rate,
            loop=loop,
            topics=topics,
            start=start or 0.0,
            end=end,
            keep_headers=keep_headers,
        )
        playing = asyncio.ensure_future(player.play())
        try:
            was_stopped = await until_stopped(playing, _show(player, files, end))
        finally:
            await player.stop()
    if as_json:
        print_json(player.played)
    else:
        _tell(player.played)
    _check(player.played)
    if was_stopped:
        if not loop:
            raise SystemExit(INTERRUPTED)
        return
    if damaged := player.played.damaged:
        them = "it" if damaged == 1 else "them"
        raise CommlibError(
            f"damaged: {counted(damaged, 'file')}; what could be read of {them} was played"
        )
    if not player.played.messages:
        raise CommlibError(_why_nothing(player.played, topics, start, end))


def _tell(played: Played) -> None:
    say(f"{counted(played.messages, 'message')} published, {in_bytes(played.bytes)}")
    if played.calls:
        say(f"{played.calls} requests and responses were left out", err=True)
    if played.foreign:
        say(f"{played.foreign} messages of other programs are no JSON: left out", err=True)
    for fault in played.faults:
        say(fault, err=True)


def _check(played: Played) -> None:
    """Raises CommlibError where not all has arrived."""
    if played.refused:
        raise CommlibError(f"{played.refused} messages were refused; the last: {played.reason}")
    if played.lost:
        raise CommlibError(f"{played.lost} messages were not confirmed by the broker")


def _why_nothing(
    played: Played, topics: tuple[str, ...], start: float | None, end: float | None
) -> str:
    if played.calls or played.foreign:
        return "there is nothing to be published among the messages"
    if topics or start or end is not None:
        return "no message is of these topics and times; `commlib info FILE` tells what there is"
    return "there is no message in it"


async def _show(player: Player, files: tuple[Path, ...], end: float | None) -> None:
    """Show on a terminal how far it has come, for ever."""
    screen = console()
    if not draws(screen):
        await asyncio.get_running_loop().create_future()
    from rich.progress import BarColumn, Progress, TextColumn

    from commlib.recording import read_summary

    summaries = [await asyncio.to_thread(read_summary, file) for file in files]
    last = max(each.end for each in summaries)
    first = min((each.start for each in summaries if each.messages), default=last)
    length = (last - first) / 1e9
    length = length if end is None else min(length, end)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[at]} of {task.fields[length]}  {task.fields[messages]} messages"),
    )
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task("replay", total=length, at="", length=clock(length), messages=0)
        while True:
            played = player.played
            bar.update(
                task,
                completed=played.position,
                at=clock(played.position),
                messages=played.messages,
                description=f"round {played.rounds + 1}" if played.rounds else "replay",
            )
            await asyncio.sleep(REFRESH_SECONDS)
