"""What there is to tell of a node and its endpoints."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from functools import lru_cache
from operator import is_not
from os import getpid, urandom
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct

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
NAMED: dict[Kind, str] = {
    "publisher": "topic",
    "subscriber": "topic",
    "service": "rpc_name",
    "client": "rpc_name",
    "action": "action_uri",
    "action_client": "action_uri",
}
"""Which attribute has the name."""
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

    __slots__ = ("_described", "_ports", "id", "info", "node", "started")

    def __init__(self, node: Node, started: int) -> None:
        self.node = node
        self.id = urandom(6).hex()
        self.started = started
        self.info: NodeInfo | None = None
        self._ports: tuple[Endpoint, ...] = ()
        self._described: dict[int, Described | None] = {}
        """By the ``id`` of each of these ports: some classes have an equality of their own."""

    def describe(self, process: str) -> None:
        """Note what there is to tell of it now; each port is looked at once."""
        known, ports = self._described, ports_of(self.node)
        self._described = {
            id(port): known[id(port)] if id(port) in known else described(port) for port in ports
        }
        self._ports = ports
        endpoints = []
        schemas: dict[str, Schema] = {}
        for port in filter(None, self._described.values()):
            endpoints.append(port.info)
            schemas.update(port.schemas)
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
            endpoints=tuple(endpoints),
            schemas=schemas,
        )

    @property
    def has_changed(self) -> bool:
        """Whether its ports are others than those that were described."""
        ports = ports_of(self.node)
        return len(ports) != len(self._ports) or any(map(is_not, ports, self._ports))


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


class Described(Struct, frozen=True, gc=False):
    """What there is to tell of an endpoint, and the schemas of its messages."""

    info: EndpointInfo
    schemas: dict[str, Schema]


def described(port: Any) -> Described | None:
    """What there is to tell of an endpoint; None if nothing is."""
    cls: Any = type(port)
    msg_type = getattr(port, "msg_type", None)
    try:
        of_class = _of_class(cls, msg_type)
    except TypeError:  # a message type with something in it that cannot be a key
        of_class = _of_class.__wrapped__(cls, msg_type)
    if of_class is None:
        return None
    if port.serializer is not None and own_reader(port.serializer) is not None:
        of_class = of_class._replace(parts={}, schemas={})  # no schema tells how that is read
    kind = of_class.kind
    name = getattr(port, NAMED[kind], None)
    qos, retain = (port._qos, port._retain) if kind == "publisher" else (0, False)
    info = EndpointInfo(
        kind, ANY_TOPIC if name is None else str(name), of_class.type, of_class.parts, qos, retain
    )
    return Described(info, of_class.schemas)


class OfClass(NamedTuple):
    """What there is to tell of all ports of one class for one message class; never changed."""

    kind: Kind
    type: str
    parts: dict[str, str]
    schemas: dict[str, Schema]


@lru_cache(maxsize=1024)
def _of_class(cls: Any, msg_type: Any) -> OfClass | None:
    kind = kind_of(cls)
    if kind is None:
        return None
    parts: dict[str, str] = {}
    schemas: dict[str, Schema] = {}
    for part in PARTS[kind]:
        of_part = msg_type if part == "message" else getattr(msg_type, part.capitalize(), None)
        mark, schema = marked_schema(of_part)
        if schema is not None:
            parts[part], schemas[mark] = mark, schema
    return OfClass(kind, _type_name(msg_type), parts, schemas)


def _type_name(kind: Any) -> str:
    if kind is None or kind is Any:
        return ""
    name = kind.__name__ if isinstance(kind, type) else str(kind)  # list[float] is no class
    return str(name).removeprefix("typing.")
