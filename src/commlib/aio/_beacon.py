"""Tells of the nodes of this process, and hears what others tell.

One beacon does it for all nodes on a loop that use the same broker: it listens on the connection of
one of them, and when that leaves, on that of another. So what a node hears from others costs its
process once, however many nodes there are.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from os import getpid, urandom
from random import random
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from commlib import __version__
from commlib._discovery import (
    ALIVE,
    ANNOUNCE,
    LEASE,
    PROBE,
    Announcement,
    EndpointInfo,
    Event,
    Kind,
    NodeInfo,
    Port,
    Probe,
    Sign,
    answer_topic,
    is_id,
    look,
    mismatch,
)
from commlib._packet import Packet, now_ms
from commlib._schemas import Schema, fingerprint, schema_of
from commlib._wire import Reader, Refused
from commlib.aio._endpoint import Endpoint
from commlib.aio._group import Group
from commlib.aio._hub import Hub
from commlib.aio.pubsub import Sender
from commlib.exceptions import CommlibError, SerializationError
from commlib.transports.base import Subscription

if TYPE_CHECKING:
    from commlib.aio.node import Node

log = logging.getLogger("commlib.discovery")

GATHER = 0.05  # s in which what is to be told is gathered
SHARE = 20  # times as long as it took to tell all is waited before it is told again
JITTER = 0.1  # s within which the answers to a probe are spread
ASKERS = 32  # probes that wait for their answers; more are not answered
NODES_AT_ONCE = 16  # in one announcement
WARNINGS = 1000  # mismatches of one beacon that are logged
STRIKE_SECONDS, STRIKES = 1.0, 3
"""A connection that breaks so soon after an announcement, so often in a row, breaks because of it:
some brokers end the connection of who publishes what he may not."""

EVENTS: tuple[Event, ...] = ("birth", "change", "present")  # as they are told one after another

KINDS: dict[str, Kind] = {
    "Publisher": "publisher",
    "MPublisher": "publisher",
    "WPublisher": "publisher",
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
PARTS = {
    "publisher": ("message",),
    "subscriber": ("message",),
    "service": ("request", "response"),
    "client": ("request", "response"),
    "action": ("goal", "result", "feedback"),
    "action_client": ("goal", "result", "feedback"),
}

_beacons: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Beacon]] = WeakKeyDictionary()


def beacon_for(hub: Hub) -> Beacon:
    """The beacon of this loop for the broker of a hub."""
    loop = asyncio.get_running_loop()
    beacons = _beacons.setdefault(loop, {})
    address = hub.params.address
    if address not in beacons:
        beacons[address] = Beacon(loop, address)
    return beacons[address]


class Beacon:
    """Announces nodes, answers probes, and warns where others do not go together with them.

    All of it is for the loop that it was made on.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, address: str) -> None:
        self.loop = loop
        self.address = address
        self.id = urandom(4).hex()
        self._lives: dict[Node, _Life] = {}
        self._hubs: Counter[Hub] = Counter()
        self._news: dict[Node, Event] = {}
        self._changed: set[Hub] = set()
        self._ear: _Ear | None = None
        self._telling: asyncio.TimerHandle | None = None
        self._signing: asyncio.TimerHandle | None = None
        self._askers: dict[str, asyncio.TimerHandle] = {}
        self._ports: dict[str, dict[object, Port]] = {}
        self._warned: set[object] = set()
        self._pause = GATHER
        self._told_at = -STRIKE_SECONDS
        self._strikes = 0
        self._is_off = False
        self._read_announcement: Reader[Announcement] = Reader(Announcement)
        self._read_probe: Reader[Probe] = Reader(Probe)

    def add(self, node: Node) -> None:
        """Announce a node, and answer for it."""
        self._lives[node] = _Life(urandom(4).hex(), now_ms())
        self._hubs[node.hub] += 1
        node.hub.on_change = self._note_change
        self._news[node] = "birth"
        if self._ear is None:
            self._listen_on(node.hub)
        self._tell_soon()

    def remove(self, node: Node) -> None:
        """Say that a node goes, while its connection is still there."""
        life = self._lives.pop(node, None)
        if life is None:
            return
        self._news.pop(node, None)
        if life.info is not None:
            death = Announcement("death", self.id, ids=(life.id,))
            self._post(node.hub, ANNOUNCE, death)
            self._index()
        self._hubs[node.hub] -= 1
        if not self._hubs[node.hub]:
            del self._hubs[node.hub]
            node.hub.on_change = None
            self._move_from(node.hub)
        if not self._lives:
            self._end()

    def _end(self) -> None:
        for timer in (self._telling, self._signing, *self._askers.values()):
            if timer is not None:
                timer.cancel()
        self._askers.clear()
        beacons = _beacons.get(self.loop, {})
        if beacons.get(self.address) is self:
            del beacons[self.address]

    # ---- where it listens ----

    def _listen_on(self, hub: Hub) -> None:
        if not self._is_off:
            self._ear = _Ear(self, hub)
            hub.spawn(self._ear.open())

    def _move_from(self, hub: Hub) -> None:
        """Listen somewhere else, if it was there."""
        ear = self._ear
        if ear is None or ear.hub is not hub:
            return
        self._ear = None
        ear.close()
        for other in self._hubs:
            self._listen_on(other)
            return

    def note_open(self, ear: _Ear) -> None:
        """It is heard what others say, so it can be told what there is here."""
        if ear is self._ear:
            self._tell_soon()
            self._sign_later()

    def note_state(self, ear: _Ear, connected: bool) -> None:
        """The connection of the ear has come or gone."""
        if ear is not self._ear:
            return
        if connected:
            self._news.update(dict.fromkeys(self._lives, "birth"))  # nobody may know them any more
            self._tell_soon()
            return
        quick = self.loop.time() - self._told_at < STRIKE_SECONDS
        self._strikes = self._strikes + 1 if quick else 0
        if self._strikes >= STRIKES:
            self.give_up("the connection ends whenever nodes are announced")

    def give_up(self, why: object) -> None:
        """Announce nothing any more: the broker does not let us."""
        if self._is_off:
            return
        self._is_off = True
        log.warning(
            "%s: no discovery: %s. Give the user the right to publish and subscribe to %s and "
            "what is below it, or make nodes with discovery=False",
            *(self.address, why, ANNOUNCE),
        )
        if self._ear is not None:
            self._ear.close()
            self._ear = None

    # ---- what is told ----

    def _note_change(self, hub: Hub) -> None:
        """Endpoints of one of the nodes on a connection have begun or ended."""
        self._changed.add(hub)
        self._tell_soon()

    def _tell_soon(self) -> None:
        if self._telling is None:
            self._telling = self.loop.call_later(self._pause, self._tell)

    def _tell(self) -> None:
        """Announce what is new, in as few messages as there can be."""
        self._telling = None
        ear = self._ear
        if ear is None or not ear.is_open or not ear.hub.transport.connected:
            return  # it will be told when there is one
        begin = self.loop.time()
        self._find_changes()
        for node in self._news:
            self._lives[node] = self._lives[node].described(node, self.id)
        self._index()
        told = True
        for event in EVENTS:
            lives = [self._lives[node] for node, what in self._news.items() if what == event]
            infos = [life.info for life in lives if life.info is not None]
            told = self._announce(ear.hub, ANNOUNCE, event, infos) and told
        if told:
            self._news.clear()
        self._told_at = self.loop.time()
        self._pause = max(GATHER, SHARE * (self._told_at - begin))
        if not told:
            self._tell_soon()

    def _find_changes(self) -> None:
        changed, self._changed = self._changed, set()
        for node, life in self._lives.items():
            if node.hub in changed and node not in self._news and life.ports != _ports_of(node):
                self._news[node] = "change"

    def _announce(self, hub: Hub, topic: str, event: Event, infos: Sequence[NodeInfo]) -> bool:
        """Tell of nodes; whether the connection has taken all of it."""
        some = [infos[at : at + NODES_AT_ONCE] for at in range(0, len(infos), NODES_AT_ONCE)]
        sayings = [Announcement(event, self.id, nodes=tuple(nodes)) for nodes in some]
        return all(self._post(hub, topic, said) for said in sayings)

    def _post(self, hub: Hub, topic: str, message: Announcement | Sign) -> bool:
        kind: Any = type(message)
        sender: Sender[Any] = Sender(topic, kind, None, hub=hub, sequence=False)
        try:
            packet = sender.pack(message, topic)
        except SerializationError as exc:  # more than ``max_payload`` has room for
            log.debug("%s: %s", topic, exc)
            return True
        return sender.offer(packet, topic)

    def _sign_later(self) -> None:
        if self._signing is not None:
            self._signing.cancel()
        self._signing = self.loop.call_later(LEASE / 3, self._sign)

    def _sign(self) -> None:
        if self._ear is not None and self._ear.is_open:
            self._post(self._ear.hub, ALIVE, Sign(self.id, len(self._lives)))
        self._sign_later()

    # ---- what is heard ----

    def hear_probe(self, packet: Packet) -> None:
        """Somebody asks who is there."""
        try:
            probe = self._read_probe.read(packet).data
        except Refused as exc:
            log.debug("%s: %s", PROBE, exc)
            return
        asker = probe.asker
        if not is_id(asker) or asker in self._askers or len(self._askers) >= ASKERS:
            return
        if probe.process in ("", self.id):
            # Many do not answer in one moment.
            wait = 0.0 if probe.process else random() * JITTER
            self._askers[asker] = self.loop.call_later(wait, self._answer, asker)

    def _answer(self, asker: str) -> None:
        del self._askers[asker]
        if self._ear is None:
            return
        infos = [life.info for life in self._lives.values() if life.info is not None]
        self._announce(self._ear.hub, answer_topic(asker), "present", infos)

    def hear_announcement(self, packet: Packet) -> None:
        """Somebody tells of nodes: warn where they do not go together with ours."""
        try:
            said = self._read_announcement.read(packet).data
        except Refused as exc:
            log.debug("%s: %s", ANNOUNCE, exc)
            return
        for node in said.nodes:
            for endpoint in node.endpoints:
                for own in self._ports.get(endpoint.name, {}).values():
                    if own[0].id != node.id:
                        self._compare(own, (node, endpoint), said)

    def _compare(self, own: Port, other: Port, said: Announcement) -> None:
        key = frozenset({look(own[1]), look(other[1])}), own[1].name
        if key in self._warned or len(self._warned) >= WARNINGS:
            return
        wrong = mismatch(own, other)
        if wrong is None:
            return
        self._warned.add(key)
        log.warning("%s", wrong)
        if said.event == "birth" and said.process != self.id:
            # The newcomer is to know as well; it has not heard of us.
            for node, life in self._lives.items():
                if life.id == own[0].id:
                    self._news.setdefault(node, "present")
                    self._tell_soon()

    def _index(self) -> None:
        """What ours publish, read, serve and call, by name; of those that look alike one each."""
        self._ports = {}
        for life in self._lives.values():
            if life.info is None:
                continue
            for endpoint in life.info.endpoints:
                if endpoint.name != ANY_TOPIC:
                    of_name = self._ports.setdefault(endpoint.name, {})
                    of_name.setdefault(look(endpoint), (life.info, endpoint))


class _Ear:
    """The subscriptions of a beacon, on the connection of a node."""

    def __init__(self, beacon: Beacon, hub: Hub) -> None:
        self.beacon = beacon
        self.hub = hub
        self.is_open = False
        self._subscriptions: list[Subscription] = []
        self._is_closed = False

    async def open(self) -> None:
        """Begin to listen, as soon as the broker is there."""
        transport = self.hub.transport
        hears = ((PROBE, self.beacon.hear_probe), (ANNOUNCE, self.beacon.hear_announcement))
        self.hub.refusals.update(dict.fromkeys((ANNOUNCE, ALIVE, PROBE), self.beacon.give_up))
        try:
            for topic, hear in hears:
                self._subscriptions.append(await transport.subscribe(topic, hear))
        except CommlibError as exc:
            self.beacon.give_up(exc)
        if self._is_closed:
            await self._close()
            return
        self.is_open = True
        self.hub.listeners.add(self._note_state)
        self.beacon.note_open(self)

    def _note_state(self, connected: bool, reason: Exception | None) -> None:
        self.beacon.note_state(self, connected)

    def close(self) -> None:
        """Listen no more."""
        self._is_closed = True
        self.hub.listeners.discard(self._note_state)
        if self.is_open and self.hub.loop is not None:
            self.is_open = False
            self.hub.spawn(self._close())

    async def _close(self) -> None:
        for subscription in self._subscriptions:
            await subscription.close()


class _Life(NamedTuple):
    """A node from its start to its end: its id, and what was told of it."""

    id: str
    started: int
    ports: tuple[Endpoint, ...] = ()
    info: NodeInfo | None = None

    def described(self, node: Node, process: str) -> _Life:
        """The same, with what there is to tell of it now."""
        ports = _ports_of(node)
        endpoints, schemas = describe(ports)
        info = NodeInfo(
            name=node.node_name,
            id=self.id,
            process=process,
            link=node.hub.link,
            namespace=node.namespace,
            host=socket.gethostname(),
            pid=getpid(),
            version=__version__,
            started=self.started,
            endpoints=endpoints,
            schemas=schemas,
        )
        return self._replace(ports=ports, info=info)


def _ports_of(node: Node) -> tuple[Endpoint, ...]:
    """The endpoints of a node that are at work, those of groups one by one."""
    return tuple(_flat(part for part in node.endpoints if not part.stopped))


def _flat(parts: Iterable[Endpoint]) -> Iterator[Endpoint]:
    for part in parts:
        if isinstance(part, Group):
            yield from _flat(one for one in part.parts if not one.stopped)
        else:
            yield part


def describe(
    ports: Iterable[Endpoint],
) -> tuple[tuple[EndpointInfo, ...], dict[str, Schema]]:
    """What there is to tell of endpoints, and the schemas of their messages."""
    schemas: dict[str, Schema] = {}
    infos = []
    for port in ports:
        kind = KINDS.get(type(port).__name__)
        if kind is None:
            continue
        parts = {}
        for part in PARTS[kind]:
            schema = schema_of(_type_of(port, part))
            if schema is not None:
                mark = parts[part] = fingerprint(schema)
                schemas[mark] = schema
        infos.append(
            EndpointInfo(
                kind=kind,
                name=_name_of(port),
                type=getattr(_msg_type(port), "__name__", ""),
                parts=parts,
                qos=getattr(port, "_qos", 0),
                retain=getattr(port, "_retain", False),
            )
        )
    return tuple(infos), schemas


def _msg_type(port: Any) -> Any:
    return getattr(port, "msg_type", None)


def _type_of(port: Endpoint, part: str) -> Any:
    """The class of a part of its messages, None for plain data."""
    kind = _msg_type(port)
    return kind if part == "message" else getattr(kind, part.capitalize(), None)


def _name_of(port: Any) -> str:
    for name in ("topic", "rpc_name", "action_uri"):
        found = getattr(port, name, None)
        if found is not None:
            return str(found)
    return ANY_TOPIC
