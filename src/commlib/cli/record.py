"""`commlib record`: topics to a file that Foxglove opens and `commlib replay` plays."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commlib._params import BaseParameters
from commlib.cli._common import INTERRUPTED, command, connected, until_stopped
from commlib.cli._figures import clock, counted, in_bytes
from commlib.cli._options import JSON, Size, duration_option, seconds_of, size_of
from commlib.cli._printing import console, draws, print_json, say

if TYPE_CHECKING:
    from commlib.recording import Progress, Recorder

REFRESH_SECONDS = 0.25


class Part(click.ParamType):  # type: ignore[type-arg]
    """The size or the time at which another file begins: 500MB, 10m."""

    name = "SIZE|TIME"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int | None, float | None]:
        text = str(value).strip()
        if text.isdigit():
            self.fail(f"{text} of what? It is a size as 500MB, or a time as 10m", param, ctx)
        if seconds := seconds_of(text):
            return None, seconds
        if size := size_of(text):
            return size, None
        self.fail(f"{value!r} is no size as 500MB, and no time as 10m", param, ctx)


@click.command()
@click.argument("topics", nargs=-1, metavar="[TOPIC]...")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.mcap", help="The file to write.",
)  # fmt: skip
@click.option("--all", "-a", "all_topics", is_flag=True, help="Record all topics.")
@click.option("--rpc", multiple=True, metavar="NAME", help="Record the calls of a service, too.")
@click.option(
    "--action", "actions", multiple=True, metavar="NAME",
    help="Record status and feedback of an action, and on MQTT its calls.",
)  # fmt: skip
@duration_option()
@click.option("--max-size", type=Size(), help="End at this size of all files: 500MB, 2GiB.")
@click.option(
    "--split",
    type=Part(),
    default=None,
    help="Begin another file at this size, or after this time: FILE-0001.mcap and so on.",
)
@click.option(
    "--compression", type=click.Choice(["zstd", "lz4", "none"]), default="zstd", show_default=True,
    help="How the file is compressed.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Write over files that are there.")
@JSON
@command
async def record(
    url: BaseParameters,
    topics: tuple[str, ...],
    output: Path,
    all_topics: bool,
    rpc: tuple[str, ...],
    actions: tuple[str, ...],
    duration: float | None,
    max_size: int | None,
    split: tuple[int | None, float | None] | None,
    compression: Any,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Record topics to an MCAP file, until Ctrl-C.

    A TOPIC may be a pattern: 'robot.*' is all below robot. The file opens in Foxglove; `commlib
    replay` publishes it again, `commlib info` tells what is in it. What was lost on the way is
    counted for each topic. If the power fails, all but the last second can be read.

    The calls of services and actions can be recorded on MQTT alone: with other brokers, who looks
    at a request takes it away from the service.
    """
    from commlib.recording import Recorder

    if all_topics:
        topics = ("*",)
    if not (topics or rpc or actions):
        raise click.UsageError("name a TOPIC, or record --all of them")
    split_size, split_seconds = split or (None, None)
    async with connected(url) as node:
        recorder = Recorder(
            output,
            topics,
            hub=node.hub,
            rpc=rpc,
            actions=actions,
            split_size=split_size,
            split_seconds=split_seconds,
            max_size=max_size,
            file_compression=compression,
            overwrite=overwrite,
        )
        if actions and not recorder.hears_calls:
            from commlib.recording._choice import no_calls

            say(f"note: {no_calls(url)}", err=True)
        try:
            await recorder.run()
            works = [recorder.wait(), _show(recorder)]
            if duration is not None:
                works.append(asyncio.sleep(duration))
            was_stopped = await until_stopped(*works)
        finally:
            await recorder.stop()
    if as_json:
        print_json(recorder.progress)
    else:
        say(told(recorder.progress))
    if was_stopped and (duration or max_size):
        raise SystemExit(INTERRUPTED)


async def _show(recorder: Recorder) -> None:
    """Show on a terminal how far it has come, for ever."""
    screen = console()
    if not draws(screen):
        await asyncio.get_running_loop().create_future()
    from rich.live import Live
    from rich.text import Text

    loop = asyncio.get_running_loop()
    begin = loop.time()
    before, at = 0, begin
    with Live(console=screen, refresh_per_second=8, transient=True) as live:
        while True:
            progress, now = recorder.progress, loop.time()
            rate = (progress.messages - before) / (now - at) if now > at else 0.0
            text = Text.assemble(
                (f"{clock(now - begin)}  ", "bold"),
                f"{counted(progress.topics, 'topic')}  "
                f"{counted(progress.messages, 'message')} ({rate:.0f}/s)  "
                f"{in_bytes(progress.bytes)}  file {in_bytes(progress.size)}  ",
                _lost(progress),
            )
            live.update(text)
            if now - at >= 1:
                before, at = progress.messages, now
            await asyncio.sleep(REFRESH_SECONDS)


def _lost(progress: Progress) -> tuple[str, str]:
    lost = progress.lost_before + progress.lost_inside
    return (f"lost {lost}", "red" if lost else "green")


def told(progress: Progress) -> str:
    """How a recording has ended, in one line."""
    return (
        f"{progress.path}: {counted(progress.messages, 'message')} of "
        f"{counted(progress.topics, 'topic')}, "
        f"{in_bytes(progress.size)}; lost before the recorder {progress.lost_before}, "
        f"inside {progress.lost_inside}"
    )
