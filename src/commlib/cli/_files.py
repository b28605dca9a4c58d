"""What a command has made goes to a file, or to the standard output."""

from __future__ import annotations

from pathlib import Path

import click


def write(text: str, file: str | None) -> None:
    """Write to a file; to the standard output for None and ``-``.

    Raises ClickException where it cannot be written.
    """
    if file is None or file == "-":
        click.echo(text, nl=False)
        return
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as exc:
        raise click.ClickException(f"{file}: {exc.strerror or exc}") from exc
