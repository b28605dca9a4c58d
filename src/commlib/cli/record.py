"""`commlib record`: topics to a file that Foxglove opens and `commlib replay` plays."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import Context, Parameter

from commlib._params import BaseParameters
from commlib.cli._common import command, connected, console, until_stopped

if TYPE_CHECKING:
    from commlib.recording import Progress, Recorder

REFRESH_SECONDS = 0.25
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)?")
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def as_size(ctx: Context, param: Parameter, value: str | None) -> int | None:
    """The bytes that an option as ``500MB``, ``2GiB`` or ``1000`` says."""
    if value is None:
        return None
    found = _SIZE.fullmatch(value.strip())
    size = 0
    if found is not None:
        base = 1024 if found[3] else 1000
        size = int(float(found[1]) * base ** " kmgt".index(found[2].lower() or " "))
    if size < 1:
        raise click.BadParameter(f"{value!r} is no size; it is one as 500MB or 2GiB")
    return size


def as_seconds(ctx: Context, param: Parameter, value: str | None) -> float | None:
    """The seconds that an option as ``90``, ``90s``, ``5m`` or ``1h`` says."""
    if value is None:
        return None
    seconds = seconds_of(value)
    if not seconds:
        raise click.BadParameter(f"{value!r} is no time; it is one as 90s, 5m or 1h")
    return seconds


def as_split(ctx: Context, param: Parameter, value: str | None) -> tuple[int | None, float | None]:
    """The size or the time at which another file begins."""
    if value is None:
        return None, None
    if value.strip().isdigit():
        raise click.BadParameter(f"{value} of what? It is a size as 500MB, or a time as 10m")
    if seconds := seconds_of(value):
        return None, seconds
    try:
        return as_size(ctx, param, value), None
    except click.BadParameter:
        text = f"{value!r} is no size as 500MB, and no time as 10m"
        raise click.BadParameter(text) from None


def seconds_of(text: str) -> float | None:
    """How many seconds a text as ``5m`` says; None if it is none."""
    found = _SECONDS.fullmatch(text.strip())
    return None if found is None else float(found[1]) * _UNITS[found[2] or ""]


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
@click.option(
    "--duration",
    "-d",
    callback=as_seconds,
    metavar="TIME",
    help="Stop after this time: 90s, 5m, 1h.",
)
@click.option(
    "--max-size",
    callback=as_size,
    metavar="SIZE",
    help="Stop at this size of all files: 500MB, 2GiB.",
)
@click.option(
    "--split", metavar="SIZE|TIME", callback=as_split,
    help="Begin another file at this size, or after this time: FILE-0001.mcap and so on.",
)  # fmt: skip
@click.option(
    "--compression", type=click.Choice(["zstd", "lz4", "none"]), default="zstd", show_default=True,
    help="How the file is compressed.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Write over a file that is there.")
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
    split: tuple[int | None, float | None],
    compression: Any,
    overwrite: bool,
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
    async with connected(url, "record") as node:
        recorder = Recorder(
            output,
            topics,
            hub=node.hub,
            rpc=rpc,
            actions=actions,
            split_size=split[0],
            split_seconds=split[1],
            max_size=max_size,
            file_compression=compression,
            overwrite=overwrite,
        )
        if actions and not recorder.hears_calls:
            from commlib.recording._recorder import no_calls

            click.echo(f"note: {no_calls(url)}", err=True)
        try:
            await recorder.run()
            works = [recorder.wait(), _show(recorder)]
            if duration is not None:
                works.append(asyncio.sleep(duration))
            await until_stopped(*works)
        finally:
            await recorder.stop()
    click.echo(told(recorder.progress))


async def _show(recorder: Recorder) -> None:
    """Show on a terminal how far it has come, for ever."""
    screen = console()
    if not screen.is_terminal:
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
                f"{progress.topics} topics  {progress.messages} messages ({rate:.0f}/s)  "
                f"{size_text(progress.bytes)}  file {size_text(progress.size)}  ",
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
        f"{progress.path}: {progress.messages} messages of {progress.topics} topics, "
        f"{size_text(progress.size)}; lost before the recorder {progress.lost_before}, "
        f"inside {progress.lost_inside}"
    )


def clock(seconds: float) -> str:
    """A time as 0:01:30."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def size_text(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"
