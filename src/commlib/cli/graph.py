"""`commlib graph`: nodes, and the topics, services and actions between them, as a drawing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from shutil import which
from subprocess import PIPE

import click

from commlib._params import BaseParameters
from commlib.cli._common import command, connected, discovering
from commlib.cli._drawing import as_dot, as_mermaid, draw
from commlib.cli._files import write
from commlib.cli._options import JSON, OUTPUT, WAIT
from commlib.cli._printing import print_json

SUFFIXES = {".dot": "dot", ".gv": "dot", ".mmd": "mermaid", ".mermaid": "mermaid", ".svg": "svg"}
DOT_SECONDS = 60.0  # a layout of thousands of boxes takes its time
NO_DOT = (
    "an SVG is drawn by the program dot, which is not there: apt-get install graphviz (Debian, "
    "Ubuntu) or brew install graphviz (macOS). --format mermaid needs no other program"
)


@click.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(["dot", "mermaid", "svg"]),
    help="By default what the name of FILE ends in, else dot.",
)
@OUTPUT
@WAIT
@JSON
@command
async def graph(
    url: BaseParameters, form: str | None, file: str | None, wait: float, as_json: bool
) -> None:
    """Draw who publishes, reads, serves and calls what, as nodes tell of themselves.

    Arrows go as messages, requests and goals do. A dashed box is a pattern, with dashed arrows from
    the topics that it takes.
    """
    async with connected(url) as node, discovering(node, wait) as discovery:
        drawing = draw(discovery.nodes, node.hub.transport.traits)
    if as_json:
        print_json(drawing)
        return
    form = form or SUFFIXES.get(Path(file or "").suffix.lower(), "dot")
    text = as_mermaid(drawing) if form == "mermaid" else as_dot(drawing)
    write(await as_svg(text) if form == "svg" else text, file)


async def as_svg(dot: str) -> str:
    """What Graphviz draws of it. Raises ClickException where there is none, or it fails."""
    program = which("dot")
    if program is None:
        raise click.ClickException(NO_DOT)
    # Another font has other widths than dot reckons with, and what it names is rarely installed.
    arguments = ("-Tsvg", "-Nfontname=Helvetica,Arial,sans-serif")
    process = await asyncio.create_subprocess_exec(
        program, *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    try:
        async with asyncio.timeout(DOT_SECONDS):
            svg, errors = await process.communicate(dot.encode())
    except TimeoutError:
        raise click.ClickException(
            f"dot has drawn for {DOT_SECONDS:g} s and is not done; --format dot has the same text"
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise click.ClickException(f"dot has failed: {errors.decode(errors='replace').strip()}")
    return svg.decode()
