"""`commlib bench`: how fast commlib is on this machine, with this broker."""

from __future__ import annotations

import click

from commlib._params import BaseParameters
from commlib.cli._common import command, connected
from commlib.cli._measure import Bench, Line
from commlib.cli._options import JSON, duration_option
from commlib.cli._printing import print_json, print_table, say

PUBLISH, RECEIVE, CALL = 0.25, 0.35, 0.4  # of the time; the last is for two measurements


@click.command()
@duration_option("How long to measure, all in all.", default=5.0)
@click.option(
    "--size",
    type=click.IntRange(min=0, max=1_000_000),
    default=100,
    show_default=True,
    metavar="BYTES",
    help="Of the text that each message holds.",
)
@JSON
@command
async def bench(url: BaseParameters, duration: float, size: int, as_json: bool) -> None:
    """Measure publishing, receiving and calling over the broker.

    One process is both ends, so that two programs on two cores are faster; numbers of a busy
    machine or broker say little. The topics are random names below commlib.bench, and nothing stays
    behind. A broker that others use is loaded as much as it can take meanwhile.

    Exit status 1 if a message or a call came to nothing.
    """
    async with connected(url) as node:
        measured = Bench(node, size)
        lines = [
            *await measured.publish(duration * PUBLISH),
            *await measured.receive(duration * RECEIVE),
            *await measured.call(duration * CALL),
        ]
    if as_json:
        figures = {line.key: round(line.value, 4) for line in lines}
        print_json({"broker": str(url), "size": size, **figures, "failed": measured.wrong})
    else:
        rows = [(line.what, _spelled(line), line.unit) for line in lines]
        print_table(("WHAT", "VALUE", "UNIT"), rows, "nothing was measured")
    if measured.wrong:
        say(f"{measured.wrong} messages or calls came to nothing", err=True)
        raise SystemExit(1)


def _spelled(line: Line) -> str:
    return f"{line.value:,.0f}" if line.value >= 100 else f"{line.value:.3f}"
