"""How the subcommands look: text, tables and JSON, on a terminal and elsewhere.

What strangers have sent reaches the terminal through here alone, with control characters escaped.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import click
import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from commlib.cli._shown import json_text, printable, printable_lines


class Screen(Console):
    """A console whose reader may leave, as `head` does."""

    def on_broken_pipe(self) -> None:
        # rich would end the process here, with status 1. It calls this while it handles the error.
        raise


def console() -> Console:
    """Where to print: with colour on a terminal only, and not where ``NO_COLOR`` is set."""
    return Screen(highlight=False, soft_wrap=not sys.stdout.isatty())


def draws(screen: Console) -> bool:
    """Whether what is there can be drawn over: it is a terminal, and not a dumb one."""
    return screen.is_terminal and not screen.is_dumb_terminal


def say(text: str, *, err: bool = False) -> None:
    """Print text that may hold what strangers say."""
    click.echo(printable_lines(text), err=err)


def print_json(data: Any) -> None:
    """JSON as people and programs read it: indented."""
    click.echo(msgspec.json.format(json_text(data), indent=2))


def print_line(data: Any) -> None:
    """JSON on one line."""
    click.echo(json_text(data))


def date(seconds: float) -> str:
    """A time, in s since 1970, as the clock of this machine has it."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


# ---- tables ----


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """A table, or the sentence ``empty`` where there are no rows.

    Where nobody looks (no terminal) it is as wide as it must be, for other programs to read.
    """
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    if not cells:
        say(empty, err=True)
        return
    screen = console()
    if not screen.is_terminal:
        _print_plain([list(columns), *cells])
        return
    table = new_table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in cells:
        # As it is: `list[int]` would be taken for markup, and strangers choose names.
        table.add_row(*map(Text, row))
    screen.print(table)


def new_table() -> Table:
    """A table as all of them look, without its columns."""
    return Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))


def _print_plain(rows: Sequence[Sequence[str]]) -> None:
    """Columns side by side, whatever that takes: rich would cut them at 80 characters."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = (
            cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)
        )
        click.echo("  ".join(padded).rstrip())
