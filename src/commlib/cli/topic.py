"""`commlib topic`: which topics there are, whose they are, and what comes on them."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import nullcontext
from typing import Any

import click

from commlib import _topics
from commlib._discovery import Port
from commlib._params import BaseParameters
from commlib._schemas import Schema
from commlib.aio import Node
from commlib.cli import topic_meters, topic_pub
from commlib.cli._common import (
    JSON,
    WAIT,
    command,
    connected,
    discovering,
    print_json,
    print_table,
    until_stopped,
)
from commlib.cli._echo import Echo
from commlib.cli._fields import fields_of
from commlib.cli._topic_ports import (
    ANY,
    Topic,
    concerned,
    is_hidden,
    mismatches_of,
    ports_of,
    topics_of,
)
from commlib.cli._watch import Watch
from commlib.cli.node import quality

NOTHING = (
    "no node that answers publishes or reads anything; "
    "--live SECONDS listens to what others publish"
)
MAX_KNOWN = 20  # names in an error
TOPIC = click.argument("name", metavar="TOPIC", shell_complete=topic_meters.TOPICS)
PATTERN = topic_meters.PATTERN


@click.group()
def topic() -> None:
    """List topics, see what comes on them, publish, measure."""


for _command in (topic_pub.pub, *topic_meters.COMMANDS):
    topic.add_command(_command)


# ---- list ----


@topic.command("list")
@click.option(
    "--live",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="Listen for so long, count messages, and add the topics that no node tells of.",
)
@click.option("--all", "is_all", is_flag=True, help="With the topics of commlib itself.")
@WAIT
@JSON
@command
async def list_topics(
    url: BaseParameters, live: float | None, is_all: bool, wait: float, as_json: bool
) -> None:
    """List the topics and patterns that nodes publish and read."""
    counts: Counter[str] = Counter()
    async with connected(url) as node:
        traits = node.hub.transport.traits
        watch = nullcontext() if live is None else _counting(node, counts)
        async with watch, discovering(node, wait) as discovery:
            if live is not None:
                await until_stopped(asyncio.sleep(live))
            nodes = discovery.nodes
    found = topics_of(nodes, None if live is None else counts, traits)
    found = [each for each in found if is_all or not is_hidden(each.topic)]
    if as_json:
        print_json(found)
        return
    heads = ["TOPIC", "TYPE", "PUBLISHERS", "SUBSCRIBERS", *(["MESSAGES"] if live else [])]
    print_table(heads, map(_row, found), NOTHING)


def _counting(node: Node, counts: Counter[str]) -> Watch:
    return Watch(node, "*", lambda packet: counts.update((packet.topic,)))


def _row(each: Topic) -> tuple[object, ...]:
    row = (each.topic, ", ".join(each.types) or "-", each.publishers, each.subscribers)
    return row if each.messages is None else (*row, each.messages)


# ---- info ----


@topic.command()
@TOPIC
@WAIT
@JSON
@command
async def info(url: BaseParameters, name: str, wait: float, as_json: bool) -> None:
    """Show who publishes and reads TOPIC, what its messages are, and what does not fit.

    Subscribers of a pattern that the topic matches are among them.
    """
    _topics.check_pattern(name)
    async with connected(url) as node, discovering(node, wait) as discovery:
        ports = concerned(discovery.nodes, name, node.hub.transport.traits)
        known = sorted({port.name for _, port in ports_of(discovery.nodes) if port.name != ANY})
    if not ports:
        raise click.ClickException(
            f"no node that answers publishes or reads {name!r}; known are: "
            f"{', '.join(known[:MAX_KNOWN]) or 'none'}{', …' if len(known) > MAX_KNOWN else ''}. "
            f"`commlib topic hz {name}` sees what others publish"
        )
    if as_json:
        print_json(_info(name, ports))
    else:
        _print_info(ports)


def _info(name: str, ports: list[Port]) -> dict[str, Any]:
    return {
        "topic": name,
        **{
            f"{kind}s": [
                {
                    **{"node": node.name, "id": node.id, "host": node.host, "pid": node.pid},
                    **{"name": port.name, "type": port.type, "qos": port.qos},
                    **{"retain": port.retain, "schema": port.parts.get("message")},
                }
                for node, port in ports
                if port.kind == kind
            ]
            for kind in ("publisher", "subscriber")
        },
        "schemas": {
            mark: {"type": kind, "fields": fields_of(schema), "schema": schema}
            for mark, (kind, schema) in _schemas(ports).items()
        },
        "mismatches": list(map(str, mismatches_of(ports))),
    }


def _print_info(ports: list[Port]) -> None:
    rows = [
        (port.kind, node.label, port.name, port.type or "-", quality(port))
        for node, port in sorted(ports, key=lambda each: (each[1].kind, each[0].name))
    ]
    print_table(("PORT", "NODE", "NAME", "TYPE", "QOS"), rows, "")
    for kind, schema in _schemas(ports).values():
        click.echo(f"\n{kind}")
        fields = [(each.name, each.type, each.default_text) for each in fields_of(schema)]
        print_table(("FIELD", "TYPE", "DEFAULT"), fields, f"{kind} has no fields")
    for wrong in mismatches_of(ports):
        click.echo(f"\nmismatch: {wrong}")


def _schemas(ports: list[Port]) -> dict[str, tuple[str, Schema]]:
    """The schemas of the messages and the names of their classes, by fingerprint."""
    found: dict[str, tuple[str, Schema]] = {}
    for node, port in ports:
        schema = node.schema(port, "message")
        if schema is not None:
            found.setdefault(port.parts["message"], (port.type, schema))
    return found


# ---- echo ----


@topic.command()
@PATTERN
@click.option("--count", "-c", type=click.IntRange(min=1), help="End after so many messages.")
@click.option("--field", metavar="A.B", help="Show this field alone; items of a list by number.")
@click.option("--full", is_flag=True, help="Do not cut long values.")
@click.option("--raw", is_flag=True, help="Write the payloads as they came, with nothing between.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@command
async def echo(
    url: BaseParameters, name: str, count: int | None, field: str | None, full: bool, **form: bool
) -> None:
    """Show the messages on TOPIC as they come; * in it stands for one word, at the end for more.

    What was lost on the way is told on standard error.
    """
    raw, as_json = form["raw"], form["as_json"]
    if raw and (as_json or field):
        raise click.UsageError("--raw shows all of the payload: leave out --json and --field")
    async with connected(url) as node, Watch(node, name) as watch:
        is_pattern = _topics.is_pattern(name, node.hub.transport.traits.native_wildcards)
        show = Echo(is_pattern, field=field, full=full, raw=raw, as_json=as_json)
        try:
            was_stopped = await until_stopped(_echo(watch, show, count))
        finally:
            show.close()
    if was_stopped and count:
        raise SystemExit(130)


async def _echo(watch: Watch, show: Echo, count: int | None) -> None:
    number = 0
    async for heard in watch.messages():
        show(heard)
        number += 1
        if number == count:
            return
