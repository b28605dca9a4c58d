"""`commlib info`: what is in a recording, and what is missing there."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from commlib.cli._common import JSON, print_json, print_table
from commlib.cli.record import clock, size_text
from commlib.exceptions import CommlibError


@click.command()
@click.argument("file", metavar="FILE.mcap", type=click.Path(path_type=Path, dir_okay=False))
@JSON
def info(file: Path, as_json: bool) -> None:
    """Tell what is in a recording: its topics, how much of each, and how much is missing.

    For each topic, what is recorded (but for what came twice) and what is lost is what was
    published. LOST is what was lost on the way to the recorder, by the numbers of the senders, and
    DROPPED what the recorder had no room for. A '?' beside LOST: some messages have no number, so
    that nobody knows what was lost among them.
    """
    try:
        from commlib.recording import read_summary

        summary = read_summary(file)
    except CommlibError as exc:
        raise click.ClickException(str(exc)) from exc
    if as_json:
        topics = [
            {**_fields(each), "published": each.published, "schema": each.schema}
            for each in summary.topics
        ]
        print_json({**_fields(summary), "duration": summary.duration, "topics": topics})
        return
    click.echo(f"{summary.path}, {size_text(summary.size)}")
    if not summary.complete:
        click.echo("cut off: it was not finished, and is read up to its last whole chunk")
    if summary.messages:
        begin = datetime.fromtimestamp(summary.start / 1e9).strftime("%Y-%m-%d %H:%M:%S")
        click.echo(f"from {begin}, {clock(summary.duration)} ({summary.duration:.3f} s)")
    if broker := summary.recording.get("broker"):
        click.echo(f"recorded at {broker} on {summary.recording.get('host', '?')}")
    size = sum(each.bytes for each in summary.topics)
    lost = sum(each.lost_before + each.lost_inside for each in summary.topics)
    click.echo(f"{summary.messages} messages, {size_text(size)}; {lost} lost")
    columns = (
        *("TOPIC", "TYPE", "MESSAGES", "SIZE", "RATE", "LOST", "DROPPED", "TWICE", "PUBLISHED"),
    )
    rows = [
        (
            each.name,
            each.type or "-",
            each.messages,
            size_text(each.bytes),
            f"{each.rate:.1f}/s" if each.rate else "-",
            f"{each.lost_before}{'?' if each.unnumbered else ''}",
            each.lost_inside,
            each.duplicates,
            f"{each.published}{'?' if each.unnumbered else ''}",
        )
        for each in summary.topics
    ]
    print_table(columns, rows, "there is no message in it")


def _fields(struct: object) -> dict[str, object]:
    from msgspec.structs import asdict

    return asdict(struct)  # type: ignore[arg-type]
