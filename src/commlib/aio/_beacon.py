"""Tells of the nodes of this process, and hears what others tell.

One beacon does it for all nodes on a loop that use the same broker: it listens on the connection of
one of them, and when that leaves, on that of another. So what a node hears from others costs its
process once, however many nodes there are.

What it tells it tells seldom: no more than a twentieth of its time goes by with telling, so that
neither nodes by the thousand nor a stranger who asks without end can keep a process from its work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from os import urandom
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from commlib._discovery import (
    ALIVE,
    ANNOUNCE,
    LEASE,
    PROBE,
    Announcement,
    Event,
    NodeInfo,
    Probe,
    Sign,
    answer_topic,
    is_id,
)
from commlib._packet import Packet
from commlib._params import BaseParameters
from commlib._wire import Reader, Refused
from commlib.aio._described import Life, ports_of
from commlib.aio._ear import Ear
from commlib.aio._hub import Hub
from commlib.aio._matching import Matching
from commlib.aio._sayings import announcements, offer, sign_of_life

if TYPE_CHECKING:
    from commlib.aio.node import Node

log = logging.getLogger("commlib.discovery")

GATHER = 0.05  # s in which what is to be told is gathered
PAUSE = 0.5  # s between two announcements at least
SHARE = 20  # times as long as it took to tell all is waited before it is told again
JITTER = 0.1  # s within which the answers to a probe are spread
ASKERS = 32  # probes that wait for their answers; more are not answered
STRIKE_SECONDS, STRIKES = 1.0, 3
"""A connection that breaks so soon after something was told, so often in a row, breaks because of
it: some brokers end the connection of who publishes what he may not."""
CALM_SECONDS = 1.0  # for each strike, in which nothing is told: does the connection break anyway?

EVENTS: tuple[Event, ...] = ("birth", "change", "present")  # as they are told one after another

_beacons: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakValueDictionary[str, Beacon]] = (
    WeakKeyDictionary()
)
"""By loop, and by the broker's address; they live as long as their nodes."""


def beacon_for(hub: Hub) -> Beacon:
    """The beacon of this loop for the broker of a hub."""
    loop = asyncio.get_running_loop()
    beacons = _beacons.setdefault(loop, WeakValueDictionary())
    address = hub.params.address
    beacon = beacons.get(address)
    if beacon is None:
        beacon = beacons[address] = Beacon(loop)
    return beacon


class Beacon:
    """Announces nodes, answers probes, and warns where others do not go together with them.

    All of it is for the loop that it was made on.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.lease = LEASE
        """How long what was told holds without a sign of life (s); three are given in that time."""
        self.id = urandom(6).hex()
        self._hubs: dict[str, Hub] = {}
        """The connections on which there are nodes, by their link."""
        self._on_hub: dict[Hub, dict[Node, Life]] = {}
        self._nodes: dict[str, Node] = {}
        """By the id of their life."""
        self._news: dict[Node, Event] = {}
        self._changed: set[Hub] = set()
        self._matching = Matching()
        self._ear: Ear | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._askers: set[str] = set()
        self._tell_from = self._answer_from = self._told_at = -STRIKE_SECONDS
        self._strikes = 0
        self._may_not: list[BaseParameters] = []
        """The brokers do not let who connects with these."""
        self._read_announcement: Reader[Announcement] = Reader(Announcement)
        self._read_probe: Reader[Probe] = Reader(Probe)

    def add(self, node: Node, started: int) -> None:
        """Announce a node that was started at that time (ms since 1970), and answer for it."""
        hub = node.hub
        if hub not in self._on_hub:
            self._on_hub[hub] = {}
            self._hubs[hub.link] = hub
            hub.witness = self
            hub.listeners.add(self._note_state_of(hub))
        life = Life(node, urandom(6).hex(), started)
        self._on_hub[hub][node] = life
        self._nodes[life.id] = node
        self._news[node] = "birth"
        self._tell_soon()
        self._listen_soon()

    def remove(self, node: Node) -> None:
        """Say that a node goes, while its connection is still there."""
        life = self._on_hub.get(node.hub, {}).pop(node, None)
        if life is None:
            return
        self._forget(life)
        if life.info is not None:
            self._say_last(node.hub, Announcement("death", self.id, ids=(life.id,)))
        if not self._on_hub[node.hub]:
            self._leave(node.hub)

    def note_closing(self, hub: Hub) -> None:
        """A connection is closed on which there are nodes that nobody has stopped: at exit."""
        if asyncio.get_running_loop() is not self.loop:
            return  # that has ended without a word
        lives = list(self._on_hub[hub].values())
        for life in lives:
            self._forget(life)
        if any(life.info is not None for life in lives):
            self._say_last(hub, Announcement("death", self.id, link=hub.link))
        self._leave(hub)

    def _forget(self, life: Life) -> None:
        del self._nodes[life.id]
        self._news.pop(life.node, None)
        self._matching.note_change()

    def _leave(self, hub: Hub) -> None:
        """No node is left on a connection."""
        del self._on_hub[hub], self._hubs[hub.link]
        self._changed.discard(hub)
        hub.witness = None
        hub.listeners.discard(self._note_state_of(hub))
        if self._ear is not None and self._ear.hub is hub:
            self._ear.close()
            self._ear = None
            self._listen_soon()
        if not self._on_hub:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()
            self._askers.clear()

    def _lives(self) -> Iterator[Life]:
        for lives in self._on_hub.values():
            yield from lives.values()

    def _known(self) -> list[NodeInfo]:
        """The nodes that others were told of."""
        return [life.info for life in self._lives() if life.info is not None]

    def _at(self, what: str, due: float, act: Any) -> None:
        """Do it at that time, or when it was to be done before."""
        timer = self._timers.get(what)
        if timer is not None:
            # The handle that uvloop gives for what is due at once does not know when that is.
            if getattr(timer, "when", self.loop.time)() <= due:
                return
            timer.cancel()

        def ring() -> None:
            del self._timers[what]
            act()

        self._timers[what] = self.loop.call_at(due, ring)

    # ---- where it listens ----

    def _listen_soon(self) -> None:
        """Listen somewhere, if it is not listened yet; many may just be leaving."""
        if self._ear is None:
            self._at("listen", self.loop.time() + GATHER, self._listen)

    def _listen(self) -> None:
        hub = next((hub for hub in self._on_hub if self._may_use(hub)), None)
        if self._ear is None and hub is not None:
            hears = {PROBE: self.hear_probe, ANNOUNCE: self.hear_announcement}
            self._ear = Ear(hub, hears, self._note_open, self.give_up)
            self._ear.open()

    def _may_use(self, hub: Hub) -> bool:
        return hub.params not in self._may_not

    def _note_open(self) -> None:
        """It is heard what others say, so it can be told what there is here."""
        self._tell_soon()
        self._sign()  # what was asked meanwhile was not heard: now it will be asked again

    def _note_state_of(self, hub: Hub) -> _StateOf:
        return _StateOf(self, hub)

    def note_state(self, hub: Hub, connected: bool) -> None:
        """A connection has come or gone."""
        is_ear = self._ear is not None and self._ear.hub is hub
        if connected:
            if is_ear and self._ear is not None:
                self._ear.open()
            # Nobody may know them any more: that they were gone was told by the broker, or to it.
            lives = self._lives() if is_ear else iter(self._on_hub[hub].values())
            self._news.update({life.node: "birth" for life in lives})
            if is_ear:
                self._tell_from = self.loop.time() + self._strikes * CALM_SECONDS
            self._tell_soon()
        elif is_ear:
            quick = self.loop.time() - self._told_at < STRIKE_SECONDS
            self._strikes = self._strikes + 1 if quick else 0
            if self._strikes >= STRIKES:
                self.give_up(hub, "the connection ends whenever something is told")

    def note_refusal(self, hub: Hub, topic: str, error: Exception) -> bool:
        """The broker has refused a message of some topic; whether it is one of discovery."""
        if topic != ANNOUNCE and not topic.startswith(f"{ANNOUNCE}."):
            return False
        self.give_up(hub, error)
        return True

    def give_up(self, hub: Hub, why: object) -> None:
        """Say nothing any more as this user: the broker does not let us."""
        if not self._may_use(hub):
            return
        self._may_not.append(hub.params)
        self._strikes = 0
        log.warning(
            "%s: no discovery: %s. Give the user the right to publish and subscribe to %s and "
            "what is below it, or make nodes with discovery=False",
            *(hub.params, why, ANNOUNCE),
        )
        if self._ear is not None and not self._may_use(self._ear.hub):
            self._ear.close()
            self._ear = None
            self._listen_soon()  # as another user, if there is one

    # ---- what is told ----

    def note_change(self, hub: Hub) -> None:
        """Endpoints of one of the nodes on a connection have begun or ended."""
        self._changed.add(hub)
        self._tell_soon()

    def _tell_soon(self) -> None:
        self._at("tell", max(self.loop.time() + GATHER, self._tell_from), self._tell)

    def _voice(self) -> Hub | None:
        """The connection on which it is told now."""
        ear = self._ear
        if ear is None or not ear.is_open or not ear.hub.transport.connected:
            return None
        return ear.hub

    def _tell(self) -> None:
        """Announce what is new, in as few messages as there can be."""
        hub = self._voice()
        if hub is None or not (self._news or self._changed):
            return  # it will be told when there is one
        begin = self.loop.time()
        self._find_changes()
        self._describe_news()
        told = True
        for event in EVENTS:
            lives = [self._life_of(node) for node, what in self._news.items() if what == event]
            infos = [life.info for life in lives if life.info is not None]
            if infos:
                packets = announcements(hub, self._said(event, infos))
                told = self._post(hub, ANNOUNCE, packets) and told
        if told:
            self._news.clear()
        self._tell_from = begin + max(PAUSE, SHARE * (self.loop.time() - begin))
        if not told:
            self._tell_soon()

    def _find_changes(self) -> None:
        changed, self._changed = self._changed, set()
        for hub in changed:
            for node, life in self._on_hub[hub].items():
                # Nobody answers what is present, so what has changed has precedence.
                if self._news.get(node) != "birth" and life.ports != ports_of(node):
                    self._news[node] = "change"

    def _describe_news(self) -> None:
        for node in self._news:
            life = self._life_of(node)
            self._on_hub[node.hub][node] = life.described(self.id, node.hub.link)
        self._matching.note_change()

    def _life_of(self, node: Node) -> Life:
        return self._on_hub[node.hub][node]

    def _post(self, hub: Hub, topic: str, packets: Sequence[Packet]) -> bool:
        """Hand packets to a connection; whether it has taken all of them."""
        if packets:
            self._told_at = self.loop.time()
        return offer(hub, topic, packets)

    def _said(self, event: Event, infos: Sequence[NodeInfo]) -> Announcement:
        return Announcement(event, self.id, self.lease, nodes=tuple(infos))

    def _say_last(self, hub: Hub, said: Announcement) -> None:
        """Say that nodes are gone, on their own connection: it is closed behind that."""
        voice = hub if self._may_use(hub) else self._voice()
        if voice is not None and voice.transport.connected:
            self._post(voice, ANNOUNCE, announcements(voice, said))

    def _sign(self) -> None:
        hub = self._voice()
        if hub is not None:
            sign = Sign(self.id, len(self._known()), self.lease)
            self._post(hub, ALIVE, sign_of_life(hub, sign))
        if (timer := self._timers.pop("sign", None)) is not None:
            timer.cancel()
        self._at("sign", self.loop.time() + self.lease / 3, self._sign)

    # ---- what is heard ----

    def hear_probe(self, packet: Packet) -> None:
        """Somebody asks who is there."""
        try:
            probe = self._read_probe.read(packet).data
        except Refused as exc:
            log.debug("%s: %s", PROBE, exc)
            return
        asker = probe.asker
        if not is_id(asker) or len(self._askers) >= ASKERS or probe.process not in ("", self.id):
            return
        self._askers.add(asker)
        # Many do not answer in one moment.
        wait = 0.0 if probe.process else JITTER * urandom(1)[0] / 256
        self._at("answer", max(self.loop.time() + wait, self._answer_from), self._answer)

    def _answer(self) -> None:
        askers, self._askers = self._askers, set()
        hub = self._voice()
        if hub is None:
            return
        begin = self.loop.time()
        packets = announcements(hub, self._said("present", self._known()))
        for asker in askers:
            self._post(hub, answer_topic(asker), packets)
        self._answer_from = begin + SHARE * (self.loop.time() - begin)

    def hear_announcement(self, packet: Packet) -> None:
        """Somebody tells of nodes: warn where they do not go together with ours."""
        try:
            said = self._read_announcement.read(packet).data
        except Refused as exc:
            log.debug("%s: %s", ANNOUNCE, exc)
            return
        if said.event == "death":
            self._contradict(said)
            return
        mismatched = self._matching.compare(said, self._known)
        if said.event in ("birth", "change") and said.process != self.id:
            # The other one is to know as well, and may not have heard of us.
            for own in mismatched:
                self._news.setdefault(self._nodes[own.id], "present")
            if mismatched:
                self._tell_soon()

    def _contradict(self, said: Announcement) -> None:
        """Tell of those again that are said to be gone, and are not.

        A broker does that which has found out late that a former connection has ended.
        """
        hub = self._hubs.get(said.link)
        living = [] if hub is None else list(self._on_hub[hub])
        living += [self._nodes[known] for known in said.ids if known in self._nodes]
        if living:
            self._news.update(dict.fromkeys(living, "birth"))
            self._tell_soon()


class _StateOf:
    """Tells a beacon of one of its connections; equal to any other one that does the same."""

    __slots__ = ("_key",)

    def __init__(self, beacon: Beacon, hub: Hub) -> None:
        self._key = beacon, hub

    def __call__(self, connected: bool, reason: Exception | None) -> None:
        beacon, hub = self._key
        beacon.note_state(hub, connected)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _StateOf) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)
