"""The reference of the `commlib` command, written by the command itself when the site is built."""

from __future__ import annotations

from collections.abc import Iterator

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

MARK = "<!-- commlib --help -->"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put what the command says of itself in the place of the mark."""
    if MARK not in markdown:
        return markdown
    from commlib.cli._main import commlib

    return markdown.replace(MARK, "\n".join(sections(commlib, "commlib", None)))


def sections(command: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
    """The Markdown of a command and of all below it."""
    word = name.rpartition(" ")[2]
    context = click.Context(command, parent, info_name=word, **command.context_settings)
    if parent is not None:
        yield f"\n{'#' * len(name.split())} {name}\n"
    yield f"```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None, f"{name} lists {below} and has it not"
            yield from sections(found, f"{name} {below}", context)
