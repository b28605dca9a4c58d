"""Services and actions as discovery knows them: who serves each, and who calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import click

from commlib._discovery import EndpointInfo, Kind, NodeInfo, Port, mismatches
from commlib._params import BaseParameters, nearest
from commlib._schemas import Schema
from commlib._topics import check_topic
from commlib.aio import Node
from commlib.cli._common import command, discovering, nodes_on, unknown
from commlib.cli._complete import names_of
from commlib.cli._fields import Field, fields_of
from commlib.cli._options import JSON, WAIT, Option
from commlib.cli._payload import check_payload
from commlib.cli._printing import print_json, print_table, say
from commlib.exceptions import RPCTimeout

SILENT = "nobody that tells of itself"


class Pattern(NamedTuple):
    """One of the two patterns that are served: its word, the kinds of its ends, its messages."""

    word: str
    article: str
    server: Kind
    client: Kind
    asked: str
    """The part of its messages that a caller writes."""
    parts: tuple[str, ...]


SERVICE = Pattern("service", "a", "service", "client", "request", ("request", "response"))
ACTION = Pattern("action", "an", "action", "action_client", "goal", ("goal", "result", "feedback"))


class Served(NamedTuple):
    """What has one name: the ports that serve it, and those that call it."""

    name: str
    servers: list[Port]
    clients: list[Port]

    @property
    def type(self) -> str:
        """The names of its message classes; empty for plain data."""
        ports = self.servers or self.clients
        return ", ".join(dict.fromkeys(port.type for _, port in ports if port.type))

    def schemas(self, part: str) -> list[tuple[NodeInfo, Schema]]:
        """The schemas of a part of its messages, of those who serve it, else of its clients.

        Of those that are the same there is one, with the first node that has it.
        """
        found: dict[str, tuple[NodeInfo, Schema]] = {}
        for node, port in self.servers or self.clients:
            schema = node.schema(port, part)
            if schema is not None:
                found.setdefault(port.parts[part], (node, schema))
        return list(found.values())


def all_served(nodes: Iterable[NodeInfo], pattern: Pattern) -> dict[str, Served]:
    """All that these nodes serve or call, by name."""
    found: dict[str, Served] = {}
    for node in nodes:
        for port in node.endpoints:
            if port.kind in (pattern.server, pattern.client):
                served = found.setdefault(port.name, Served(port.name, [], []))
                side = served.servers if port.kind == pattern.server else served.clients
                side.append((node, port))
    return dict(sorted(found.items()))


async def ask_served(node: Node, wait: float, pattern: Pattern) -> dict[str, Served]:
    """The same of the nodes that answer within ``wait`` s."""
    async with discovering(node, wait) as discovery:
        return all_served(discovery.nodes, pattern)


def find(served: dict[str, Served], name: str, pattern: Pattern) -> Served:
    """What has this name. Raises ClickException if nobody tells of it."""
    if name not in served:
        raise click.ClickException(
            f"no node tells of {pattern.article} {pattern.word} {name!r}; {unknown(name, served)}"
        )
    return served[name]


def check_message(data: Any, name: str, known: dict[str, Served] | None, pattern: Pattern) -> None:
    """Raises ClickException for what one of those who serve it would not understand.

    That nobody is known to serve it is told on standard error. ``known`` is None where it was not
    asked.
    """
    if known is None:
        return
    served = known.get(name, Served(name, [], []))
    if not served.servers:
        say(f"no node tells that it serves {name}; asking all the same", err=True)
    for node, schema in served.schemas(pattern.asked):
        check_payload(data, schema, f"{served.name} on {node.label}")


def unanswered(
    exc: RPCTimeout, name: str, known: dict[str, Served] | None, pattern: Pattern
) -> click.ClickException:
    """The error for a name at which nobody answers, with what discovery knows of it.

    ``known`` is None where it was not asked.
    """
    text = str(exc)
    if known is None:
        return click.ClickException(text)
    if name in known and known[name].servers:
        there = ", ".join(node.label for node, _ in known[name].servers)
        return click.ClickException(f"{text}, though {there} serves it")
    near = nearest(name, [each for each, served in known.items() if served.servers])
    hint = f"; {near}" if near.startswith("did you mean") else ""
    return click.ClickException(f"{text}; no node tells that it serves it{hint}")


# ---- the commands ----


def add_views(group: click.Group, pattern: Pattern) -> None:
    """Give a group its commands ``list`` and ``info``."""

    @command
    async def list_all(url: BaseParameters, wait: float, as_json: bool) -> None:
        served = all_served(await nodes_on(url, wait), pattern)
        if as_json:
            print_json(list_as_json(served))
        else:
            print_list(served, pattern)

    @command
    async def info(url: BaseParameters, name: str, wait: float, as_json: bool) -> None:
        check_topic(name, pattern.word)
        nodes = await nodes_on(url, wait)
        served = find(all_served(nodes, pattern), name, pattern)
        if as_json:
            print_json(info_as_json(served, nodes, pattern))
        else:
            print_info(served, nodes, pattern)

    list_help = f"""List the {pattern.word}s that nodes serve or call.

    Nodes with discovery=False, and those of commlib-py before 1.0, tell nobody of theirs; they can
    be called all the same.
    """
    info_help = (
        f"Show who serves and who calls the {pattern.word} NAME, and the fields of its messages."
    )
    group.command("list", help=list_help)(WAIT(JSON(list_all)))
    group.command("info", help=info_help)(name_of_served(pattern)(WAIT(JSON(info))))


def name_of_served(pattern: Pattern) -> Option:
    """The argument NAME, which a shell completes."""
    return click.argument("name", shell_complete=names_of(pattern.server))


# ---- what is printed ----


def print_list(served: dict[str, Served], pattern: Pattern) -> None:
    """A line for each."""
    rows = [
        (each.name, each.type or "-", _names(each.servers), _names(each.clients))
        for each in served.values()
    ]
    head = (pattern.word.upper(), "TYPE", "SERVED BY", "CALLED BY")
    print_table(head, rows, f"no node tells of {pattern.article} {pattern.word}")


def _names(ports: Sequence[Port]) -> str:
    counts = Counter(node.name for node, _ in ports)
    return ", ".join(n if k == 1 else f"{n} ({k})" for n, k in counts.items()) or "-"


def list_as_json(served: dict[str, Served]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [
        {
            "name": each.name,
            "type": each.type,
            "servers": [_as_json(*port) for port in each.servers],
            "clients": [_as_json(*port) for port in each.clients],
        }
        for each in served.values()
    ]


def _as_json(node: NodeInfo, port: EndpointInfo) -> dict[str, Any]:
    return {
        "node": node.name,
        "id": node.id,
        "host": node.host,
        "pid": node.pid,
        "type": port.type,
    }


def print_info(served: Served, nodes: Sequence[NodeInfo], pattern: Pattern) -> None:
    """Who is at its ends, the fields of its messages, and what does not go together."""
    kind = served.type or "plain data"
    say(f"{served.name}, {pattern.article} {pattern.word} of {kind}")
    say(f"served by {_labels(served.servers)}")
    say(f"called by {_labels(served.clients)}")
    for part in pattern.parts:
        _print_part(part, served)
    for wrong in _mismatches(served, nodes):
        say(f"\nmismatch: {wrong}")


def _labels(ports: Sequence[Port]) -> str:
    return ", ".join(dict.fromkeys(node.label for node, _ in ports)) or SILENT


def _print_part(part: str, served: Served) -> None:
    schemas = served.schemas(part)
    for node, schema in schemas:
        click.echo()
        if len(schemas) > 1:
            say(f"as {node.label} has it:")
        rows = [(field.name, field.type, field.default_text) for field in fields_of(schema)]
        print_table((part.upper(), "TYPE", "DEFAULT"), rows, f"{part}: it has no fields")
    if not schemas:
        click.echo(f"\n{part}: nothing is told of its fields")


def _mismatches(served: Served, nodes: Sequence[NodeInfo]) -> list[str]:
    return [str(wrong) for wrong in mismatches(nodes) if wrong.name == served.name]


def info_as_json(served: Served, nodes: Sequence[NodeInfo], pattern: Pattern) -> dict[str, Any]:
    """The same for programs; of different schemas the first."""
    fields: dict[str, list[Field] | None] = {}
    for part in pattern.parts:
        schemas = served.schemas(part)
        fields[part] = fields_of(schemas[0][1]) if schemas else None
    (entry,) = list_as_json({served.name: served})
    return {**entry, **fields, "mismatches": _mismatches(served, nodes)}
