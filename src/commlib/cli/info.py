"""`commlib info`: what is in a recording, and what is missing there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from commlib.cli._common import ending_well
from commlib.cli._figures import clock, counted, in_bytes
from commlib.cli._options import JSON
from commlib.cli._printing import date, print_json, print_table, say

if TYPE_CHECKING:
    from commlib.recording import Summary


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
    with ending_well():
        from commlib.recording import read_summary

        _tell(read_summary(file), as_json)


def _tell(summary: Summary, as_json: bool) -> None:
    if as_json:
        topics = [
            {**_fields(each), "published": each.published, "schema": each.schema}
            for each in summary.topics
        ]
        print_json({**_fields(summary), "duration": summary.duration, "topics": topics})
        return
    say(f"{summary.path}, {in_bytes(summary.size)}")
    for fault in summary.faults:
        say(fault)
    if summary.messages:
        begin = date(summary.start / 1e9)
        say(f"from {begin}, {clock(summary.duration)} ({summary.duration:.3f} s)")
    if broker := summary.recording.get("broker"):
        say(f"recorded at {broker} on {summary.recording.get('host', '?')}")
    size = sum(each.bytes for each in summary.topics)
    lost = sum(each.lost_before + each.lost_inside for each in summary.topics)
    say(f"{counted(summary.messages, 'message')}, {in_bytes(size)}; {lost} lost")
    columns = (
        *("TOPIC", "TYPE", "MESSAGES", "SIZE", "RATE", "LOST", "DROPPED", "TWICE", "PUBLISHED"),
    )
    rows = [
        (
            each.name,
            each.type or "-",
            each.messages,
            in_bytes(each.bytes),
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
