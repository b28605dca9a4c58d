"""`commlib topic`: which topics there are, whose they are, and what comes on them."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import nullcontext, suppress
from typing import Any

import click

from commlib import _topics
from commlib._discovery import Port
from commlib._packet import Packet
from commlib._params import BaseParameters
from commlib._schemas import Schema
from commlib.aio import Node
from commlib.cli import topic_meters, topic_pub
from commlib.cli._common import (
    INTERRUPTED,
    command,
    connected,
    discovering,
    unknown,
    until_stopped,
)
from commlib.cli._echo import Echo
from commlib.cli._fields import fields_of
from commlib.cli._groups import Group
from commlib.cli._options import ALL, JSON, JSON_LINES, WAIT, count_option, listen_option
from commlib.cli._printing import print_json, print_table, say
from commlib.cli._rates import MAX_TOPICS, OTHERS
from commlib.cli._topic_ports import (
    ANY,
    Topic,
    concerned,
    is_inner,
    is_published,
    mismatches_of,
    ports_of,
    topics_of,
)
from commlib.cli._watch import Watch
from commlib.cli.node import quality
from commlib.exceptions import CommlibError

NOTHING = "no node that answers publishes or reads anything; --listen 3s finds what others publish"
TOPIC = click.argument("name", metavar="TOPIC", shell_complete=topic_meters.TOPICS)
PATTERN = topic_meters.PATTERN
ANSWERS = 1.0  # s that nodes have to tell whether they publish what is waited for


@click.group(cls=Group)
def topic() -> None:
    """List topics, see what comes on them, publish, measure."""


for _command in (topic_pub.pub, *topic_meters.COMMANDS):
    topic.add_command(_command)


# ---- list ----


@topic.command("list")
@listen_option("Listen for so long, count messages, and add topics that no node tells of.")
@ALL
@WAIT
@JSON
@command
async def list_topics(
    url: BaseParameters, listen: float | None, show_all: bool, wait: float, as_json: bool
) -> None:
    """List the topics and patterns that nodes publish and read."""
    counts: Counter[str] = Counter()
    was_stopped = False
    async with connected(url) as node:
        traits = node.hub.transport.traits
        watch = nullcontext() if listen is None else _counting(node, counts)
        async with watch, discovering(node, wait) as discovery:
            if listen is not None:
                was_stopped = await until_stopped(asyncio.sleep(listen))
            nodes = discovery.nodes
    found = topics_of(nodes, None if listen is None else counts, traits)
    found = [each for each in found if show_all or not is_inner(each.topic)]
    if as_json:
        print_json(found)
    else:
        heads = ["TOPIC", "TYPE", "PUBLISHERS", "SUBSCRIBERS", *(["MESSAGES"] if listen else [])]
        print_table(heads, map(_row, found), NOTHING)
    if was_stopped:
        raise SystemExit(INTERRUPTED)


def _counting(node: Node, counts: Counter[str]) -> Watch:
    def count(packet: Packet) -> None:
        topic = packet.topic
        counts[topic if topic in counts or len(counts) < MAX_TOPICS else OTHERS] += 1

    return Watch(node, ANY, count)


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
        known = sorted(port.name for _, port in ports_of(discovery.nodes) if port.name != ANY)
    if not ports:
        raise click.ClickException(
            f"no node that answers publishes or reads {name!r}, and `commlib topic hz` sees what "
            f"others publish; {unknown(name, known)}"
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
        say(f"\n{kind}")
        fields = [(each.name, each.type, each.default_text) for each in fields_of(schema)]
        print_table(("FIELD", "TYPE", "DEFAULT"), fields, f"{kind} has no fields")
    for wrong in mismatches_of(ports):
        say(f"\nmismatch: {wrong}")


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
@count_option("End after so many messages.")
@click.option("--field", metavar="A.B", help="Show this field alone; items of a list by number.")
@click.option("--full", is_flag=True, help="Do not cut long values.")
@click.option(
    "--raw",
    is_flag=True,
    help="Write the payloads as they came, with nothing between; a terminal gets lines.",
)
@JSON_LINES
@command
async def echo(
    url: BaseParameters, name: str, count: int | None, field: str | None, full: bool, **form: bool
) -> None:
    """Show the messages on TOPIC as they come; * in it stands for one word, at the end for more.

    What was lost on the way is told on standard error, and so is that no node tells of publishing
    there. Exit status 1 if none of --count messages has the --field, or can be read.
    """
    raw, as_json = form["raw"], form["as_json"]
    if raw and (as_json or field):
        raise click.UsageError("--raw shows all of the payload: leave out --json and --field")
    async with connected(url) as node, Watch(node, name) as watch:
        is_pattern = _topics.is_pattern(name, node.hub.transport.traits.native_wildcards)
        show = Echo(is_pattern, field=field, full=full, raw=raw, as_json=as_json)
        try:
            was_stopped = await until_stopped(_echo(node, watch, show, count))
        finally:
            show.close()
    if was_stopped and count:
        raise SystemExit(INTERRUPTED)
    if not was_stopped and not show.shown:
        raise SystemExit(1)  # why, is told


async def _echo(node: Node, watch: Watch, show: Echo, count: int | None) -> None:
    number = 0
    looking = asyncio.create_task(_tell_of_silence(node, watch.topic))
    try:
        async for heard in watch.messages():
            looking.cancel()
            show(heard)
            number += 1
            if number == count:
                return
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking


async def _tell_of_silence(node: Node, name: str) -> None:
    """Tell if no node publishes what is waited for: mostly the name is misspelt."""
    try:
        async with discovering(node, ANSWERS) as discovery:
            is_told = is_published(discovery.nodes, name, node.hub.transport.traits)
    except CommlibError as exc:
        say(f"whether a node publishes {name} is not known: {exc}", err=True)
        return
    if not is_told:
        say(f"no node tells that it publishes {name}; waiting", err=True)
