"""What there is to tell of a node and its endpoints."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from os import getpid, urandom
from typing import TYPE_CHECKING, Any

from commlib import __version__
from commlib._discovery import EndpointInfo, Kind, NodeInfo
from commlib._forms import own_reader
from commlib._schemas import Schema, marked_schema
from commlib.aio._endpoint import Endpoint
from commlib.aio._group import Group

if TYPE_CHECKING:
    from commlib.aio.node import Node

KINDS: dict[str, Kind] = {
    "Publisher": "publisher",
    "MPublisher": "publisher",
    "EventEmitter": "publisher",
    "Subscriber": "subscriber",
    "PSubscriber": "subscriber",
    "RPCService": "service",
    "RPCClient": "client",
    "ActionService": "action",
    "ActionClient": "action_client",
}
"""By the names of the classes: a node without actions does without that module."""
ANY_TOPIC = "*"  # of a publisher that has none of its own
PARTS: dict[Kind, tuple[str, ...]] = {
    "publisher": ("message",),
    "subscriber": ("message",),
    "service": ("request", "response"),
    "client": ("request", "response"),
    "action": ("goal", "result", "feedback"),
    "action_client": ("goal", "result", "feedback"),
}


class Life:
    """A node from its start (ms since 1970) to its end: its id, and what was told of it."""

    __slots__ = ("id", "info", "node", "ports", "started")

    def __init__(self, node: Node, started: int) -> None:
        self.node = node
        self.id = urandom(6).hex()
        self.started = started
        self.ports: tuple[Endpoint, ...] = ()
        self.info: NodeInfo | None = None

    def describe(self, process: str) -> None:
        """Note what there is to tell of it now."""
        self.ports = ports_of(self.node)
        endpoints, schemas = describe(self.ports)
        self.info = NodeInfo(
            name=self.node.node_name,
            id=self.id,
            process=process,
            link=self.node.hub.link,
            namespace=self.node.namespace,
            host=socket.gethostname(),
            pid=getpid(),
            version=__version__,
            started=self.started,
            endpoints=endpoints,
            schemas=schemas,
        )


def ports_of(node: Node) -> tuple[Endpoint, ...]:
    """The endpoints of a node that are at work, those of groups one by one, an action as one."""
    parts = (*node.endpoints, *node.control_services)
    return tuple(_flat(part for part in parts if not part.stopped))


def _flat(parts: Iterable[Endpoint]) -> Iterator[Endpoint]:
    for part in parts:
        if isinstance(part, Group) and kind_of(type(part)) is None:
            yield from _flat(one for one in part.parts if not one.stopped)
        else:
            yield part


def kind_of(kind: type) -> Kind | None:
    """What a class of endpoints is told as; None for what is not told, as bridges are."""
    names = (base.__name__ for base in kind.__mro__)
    return next((KINDS[name] for name in names if name in KINDS), None)


def describe(
    ports: Iterable[Endpoint],
) -> tuple[tuple[EndpointInfo, ...], dict[str, Schema]]:
    """What there is to tell of endpoints, and the schemas of their messages."""
    schemas: dict[str, Schema] = {}
    infos = []
    for port in ports:
        kind = kind_of(type(port))
        if kind is None:
            continue
        parts = {}
        for part in PARTS[kind] if _has_schema(port) else ():
            mark, schema = marked_schema(_type_of(port, part))
            if schema is not None:
                parts[part], schemas[mark] = mark, schema
        infos.append(
            EndpointInfo(
                kind=kind,
                name=_name_of(port),
                type=_type_name(_msg_type(port)),
                parts=parts,
                qos=getattr(port, "_qos", 0),
                retain=getattr(port, "_retain", False),
            )
        )
    return tuple(infos), schemas


def _has_schema(port: Endpoint) -> bool:
    """Whether its messages are written as a JSON Schema says, in JSON or MessagePack."""
    return own_reader(port.serializer) is None


def _msg_type(port: Any) -> Any:
    return getattr(port, "msg_type", None)


def _type_of(port: Endpoint, part: str) -> Any:
    """The class of a part of its messages, None for plain data."""
    kind = _msg_type(port)
    return kind if part == "message" else getattr(kind, part.capitalize(), None)


def _type_name(kind: Any) -> str:
    if kind is None or kind is Any:
        return ""
    name = kind.__name__ if isinstance(kind, type) else str(kind)  # list[float] is no class
    return str(name).removeprefix("typing.")


def _name_of(port: Any) -> str:
    for name in ("topic", "rpc_name", "action_uri"):
        found = getattr(port, name, None)
        if found is not None:
            return str(found)
    return ANY_TOPIC
