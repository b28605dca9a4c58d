"""What nodes tell of themselves, and what of it does not go together. Pure.

The topics are the same on every broker, and their messages are JSON in the usual envelope:

* ``commlib.discovery``: an ``Announcement``, when nodes begin, change or end.
* ``commlib.discovery.alive``: a ``Sign``, a third of the lease after the other.
* ``commlib.discovery.probe``: a ``Probe``, which makes everybody answer.
* ``commlib.discovery.answer.<asker>``: an ``Announcement``, for who has asked.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from itertools import combinations
from typing import Literal, NamedTuple

from msgspec import Struct

from commlib._last_word import ANNOUNCE as ANNOUNCE
from commlib._schemas import Schema, conflicts
from commlib._topics import has_control

ALIVE = f"{ANNOUNCE}.alive"
PROBE = f"{ANNOUNCE}.probe"
ANSWER = f"{ANNOUNCE}.answer"

LEASE = 30.0  # s after its last word that a process is taken for gone

Kind = Literal["publisher", "subscriber", "service", "client", "action", "action_client"]
Direction = Literal["in", "out"]
Event = Literal["birth", "change", "present", "death"]

MAX_ID = 64  # characters of an id
MAX_SHOWN = 200  # characters of a name, where strangers may have chosen it
MAX_UNLIKE = 64  # ports of one name that are compared with each other

WRITERS: dict[str, tuple[Kind, Kind]] = {
    "message": ("publisher", "subscriber"),
    "request": ("client", "service"),
    "response": ("service", "client"),
    "goal": ("action_client", "action"),
    "result": ("action", "action_client"),
    "feedback": ("action", "action_client"),
}
"""Who writes each part of a pattern's messages, and who reads it."""

DOES = {
    "publisher": "publishes",
    "subscriber": "reads",
    "service": "serves",
    "client": "calls",
    "action": "serves",
    "action_client": "calls",
}


class EndpointInfo(Struct, frozen=True, omit_defaults=True, gc=False):
    """A port of a node.

    ``parts`` has the fingerprint of the schema of each message that goes through it: of
    ``message``, of ``request`` and ``response``, or of ``goal``, ``result`` and ``feedback``; there
    is none for plain data. ``type`` is the name of the message class. ``qos`` and ``retain`` are
    those of a publisher.
    """

    kind: Kind
    name: str
    type: str = ""
    parts: dict[str, str] = {}
    qos: int = 0
    retain: bool = False

    @property
    def direction(self) -> Direction:
        """``in`` for what takes something, ``out`` for the others."""
        return "in" if self.kind in ("subscriber", "service", "action") else "out"


class NodeInfo(Struct, frozen=True, omit_defaults=True):
    """A node in one of its lives: ``id`` is another one after each start.

    ``link`` is the connection that it uses, ``process`` what the lease is of. ``started`` is in ms
    since 1970, by the clock of its host. ``schemas`` has the JSON Schemas by fingerprint.
    """

    name: str
    id: str
    process: str = ""
    link: str = ""
    namespace: str = ""
    host: str = ""
    pid: int = 0
    version: str = ""
    started: int = 0
    endpoints: tuple[EndpointInfo, ...] = ()
    schemas: dict[str, Schema] = {}

    def schema(self, endpoint: EndpointInfo, part: str) -> Schema | None:
        """The JSON Schema of a part of an endpoint's messages, None if there is none."""
        return self.schemas.get(endpoint.parts.get(part, ""))

    @property
    def label(self) -> str:
        """Its name and where it runs, for people."""
        return f"{shown(self.name)} (pid {self.pid} on {shown(self.host)})"


class Announcement(Struct, omit_defaults=True):
    """What has become of nodes.

    ``birth``, ``change`` and ``present`` (an answer) tell all of ``nodes``; ``death`` has their
    ``ids``, or the ``link`` by which all of them were there: the last will of a connection.
    ``lease`` (s) is how long this holds unless the process gives a sign.
    """

    event: Event
    process: str = ""
    lease: float = LEASE
    nodes: tuple[NodeInfo, ...] = ()
    ids: tuple[str, ...] = ()
    link: str = ""


class Outline(Struct):
    """An ``Announcement`` without its nodes, which take long to read if there are many."""

    event: Event
    process: str = ""
    ids: tuple[str, ...] = ()
    link: str = ""


class Sign(Struct):
    """A process is still there, and so are its nodes. ``nodes`` is their number."""

    process: str
    nodes: int = 0
    lease: float = LEASE


class Probe(Struct):
    """Who is there? Answers go to the topic that ends in ``asker``, which is letters and digits.

    With ``process`` only that one answers.
    """

    asker: str
    process: str = ""


def is_id(text: str) -> bool:
    """Whether this can be an id: what strangers send becomes a part of topics."""
    return 0 < len(text) <= MAX_ID and text.isascii() and text.isalnum()


def is_sound(node: NodeInfo) -> bool:
    """Whether its texts are such as a node can have: no control characters, which terminals obey.

    Of endpoints those that are used as names.
    """
    texts = [node.name, node.host, node.namespace, node.version]
    for endpoint in node.endpoints:
        texts += endpoint.name, endpoint.type
    return is_id(node.id) and not any(has_control(text) for text in texts)


def shown(text: str) -> str:
    """A text as it may be shown: strangers must not write to logs and terminals as they like."""
    text = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
    return text if text.isprintable() else ascii(text)[1:-1]


def answer_topic(asker: str) -> str:
    """Where the answers to a probe go."""
    return f"{ANSWER}.{asker}"


# ---- what does not go together ----


class Mismatch(NamedTuple):
    """Two ports of one name that do not go together."""

    name: str
    one: str
    other: str
    why: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.one}, but {self.other}: {'; '.join(self.why)}"


Port = tuple[NodeInfo, EndpointInfo]


def is_comparable(endpoint: EndpointInfo) -> bool:
    """Whether it has one name, and not those of a pattern."""
    return "*" not in endpoint.name


def look(endpoint: EndpointInfo) -> Hashable:
    """All of an endpoint that can be at odds with another one of its name."""
    mark_of = endpoint.parts.get
    marks = [mark_of(part, "")[:MAX_ID] for part in WRITERS]
    return endpoint.kind, *marks, endpoint.qos, endpoint.retain


def are_alike(one: EndpointInfo, other: EndpointInfo) -> bool:
    """Whether two endpoints of one name look the same."""
    return (one.kind, one.qos, one.retain) == (
        other.kind,
        other.qos,
        other.retain,
    ) and one.parts == other.parts


def go_together(one: EndpointInfo, other: EndpointInfo) -> bool:
    """Whether two endpoints of one name are not at odds, as far as that is plain at once."""
    if one.kind == other.kind == "publisher":
        return (one.qos, one.retain) == (other.qos, other.retain)
    return not (one.parts and other.parts) or one.parts == other.parts


def mismatch(one: Port, other: Port) -> Mismatch | None:
    """Why two ports of one name do not go together, None if they do."""
    why = [*_delivery(one[1], other[1]), *_conflicts_between(one, other)]
    if not why:
        return None
    return Mismatch(shown(one[1].name), _told(one), _told(other), tuple(map(shown, why)))


def _conflicts_between(one: Port, other: Port) -> Iterator[str]:
    for (writing, writer), (reading, reader) in ((one, other), (other, one)):
        for part, (writes, reads) in WRITERS.items():
            if (writer.kind, reader.kind) != (writes, reads):
                continue
            if writer.parts.get(part) == reader.parts.get(part):
                continue
            for text in conflicts(writing.schema(writer, part), reading.schema(reader, part)):
                yield text if part == "message" else f"{part}: {text}"


def _told(port: Port) -> str:
    node, endpoint = port
    return f"{node.label} {DOES[endpoint.kind]} {shown(endpoint.type) or 'plain data'}"


def _delivery(one: EndpointInfo, other: EndpointInfo) -> Iterator[str]:
    """Who reads gets some messages in one way and some in another."""
    if one.kind == other.kind == "publisher":
        if one.qos != other.qos:
            yield f"the one at QoS {one.qos}, the other at QoS {other.qos}"
        if one.retain != other.retain:
            yield "only one of them has the broker keep the last message"


def mismatches(nodes: Iterable[NodeInfo]) -> list[Mismatch]:
    """All that does not go together among these nodes, patterns left aside."""
    by_name: dict[str, list[Port]] = {}
    for node in nodes:
        for endpoint in node.endpoints:
            if is_comparable(endpoint):
                by_name.setdefault(endpoint.name, []).append((node, endpoint))
    found = []
    for ports in by_name.values():
        unlike = list({look(endpoint): (node, endpoint) for node, endpoint in ports}.values())
        for one, other in combinations(unlike[:MAX_UNLIKE], 2):
            if (wrong := mismatch(one, other)) is not None:
                found.append(wrong)
    return found
