"""`commlib asyncapi`: the running system as an AsyncAPI document."""

from __future__ import annotations

import json
from pathlib import Path

import click

from commlib._params import BaseParameters
from commlib.cli._asyncapi import document
from commlib.cli._common import command, connected, discovering
from commlib.cli._files import write
from commlib.cli._options import OUTPUT, WAIT
from commlib.cli._shown import escaped_json

YAML = (".yaml", ".yml")


@click.command()
@OUTPUT
@click.option(
    "--yaml/--json", "as_yaml", default=None, help="By default YAML if FILE ends in .yaml."
)
@click.option("--title", metavar="TEXT", default="", help="Of the document.")
@click.option(
    "--api-version",
    metavar="TEXT",
    default="1.0.0",
    show_default=True,
    help="Of what is described.",
)
@WAIT
@command
async def asyncapi(
    url: BaseParameters,
    file: str | None,
    as_yaml: bool | None,
    title: str,
    api_version: str,
    wait: float,
) -> None:
    """Describe what runs on the broker as an AsyncAPI 3.0 document.

    It has the topics, services and actions of all nodes that tell of themselves, who sends and
    receives there (x-nodes), and the JSON Schemas of the messages. User name and password are not
    in it.
    """
    async with connected(url) as node, discovering(node, wait) as discovery:
        traits = node.hub.transport.traits
        found = document(discovery.nodes, url, traits, title=title, version=api_version)
    if as_yaml is None:
        as_yaml = Path(file or "").suffix.lower() in YAML
    write(_yaml(found) if as_yaml else _json(found), file)


def _json(data: object) -> str:
    return escaped_json(json.dumps(data, indent=2, ensure_ascii=False)) + "\n"


def _yaml(data: object) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes out what is said twice: others read no anchors there."""

        def ignore_aliases(self, data: object) -> bool:
            return True

    text: str = yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text
