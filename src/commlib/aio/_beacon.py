"""Tells of the nodes of this process, and hears what others tell.

One beacon does it for all nodes on a loop that use the same broker: it listens on the connection of
one of them, and when that leaves, on that of another. So what a node hears from others costs its
process once, however many nodes there are.

What it tells it tells seldom: no more than a twentieth of its time goes by with telling, so that
neither nodes by the thousand nor a stranger who asks without end can keep a process from its work.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence, Set
from itertools import chain
from math import inf
from os import urandom
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakValueDictionary

from commlib._discovery import (
    ALIVE,
    ANNOUNCE,
    LEASE,
    PROBE,
    Announcement,
    Event,
    NodeInfo,
    Outline,
    Sign,
    answer_topic,
)
from commlib._packet import Packet
from commlib._wire import Reader
from commlib.aio._alarms import SHARE, Alarms
from commlib.aio._asked import Asked
from commlib.aio._described import Life
from commlib.aio._ear import Ear
from commlib.aio._hub import Hub
from commlib.aio._matching import Matching
from commlib.aio._rights import Rights
from commlib.aio._sayings import announcements, in_portions, offer, said_in, sign_of_life

if TYPE_CHECKING:
    from commlib.aio.node import Node

GATHER = 0.05  # s in which what is to be told is gathered
PAUSE = 0.5  # s between two announcements at least

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
        self._on_hub: dict[Hub, dict[Node, Life]] = {}
        self._lives: dict[str, Life] = {}
        """The same by their ids."""
        self._news: dict[Life, Event] = {}
        """What is yet to be told."""
        self._changed: set[Hub] = set()
        self._matching = Matching()
        self._rights = Rights()
        self._ear: Ear | None = None
        self._alarms = Alarms(loop)
        self._answers: deque[tuple[str, Packet]] = deque()
        """Those that wait for room, with their topics."""
        self._asked = Asked(self.id, self._alarms, self._answer)
        self._tell_from = -inf
        self._reader: Reader[Announcement] = Reader(Announcement)
        self._outlines: Reader[Outline] = Reader(Outline)

    # ---- nodes and their connections ----

    def add(self, node: Node, started: int) -> None:
        """Announce a node that was started at that time (ms since 1970), and answer for it."""
        life = Life(node, started)
        self._on_hub.setdefault(node.hub, {})[node] = life
        node.hub.witness = self
        self._lives[life.id] = life
        self._news[life] = "birth"
        self._tell_soon()
        self._listen_soon()

    def remove(self, node: Node) -> None:
        """Say that a node goes, while its connection is still there."""
        hub = node.hub
        life = self._on_hub.get(hub, {}).pop(node, None)
        if life is not None:
            self._bury(hub, [life], Announcement("death", self.id, ids=(life.id,)))

    def note_closing(self, hub: Hub) -> None:
        """A connection is closed on which there are nodes that nobody has stopped: at exit."""
        if asyncio.get_running_loop() is not self.loop:
            return  # that has ended without a word
        lives = list(self._on_hub[hub].values())
        self._on_hub[hub].clear()
        self._bury(hub, lives, Announcement("death", self.id, link=hub.link))

    def _bury(self, hub: Hub, lives: Sequence[Life], said: Announcement) -> None:
        """Say that nodes are gone, on their own connection: it is closed behind that."""
        for life in lives:
            del self._lives[life.id]
            self._news.pop(life, None)
        self._matching.note_change()
        voice = hub if self._rights.may(hub.params) else self._voice()
        if voice is not None and voice.transport.connected and any(life.info for life in lives):
            self._post(voice, ANNOUNCE, announcements(voice, said))
        if not self._on_hub[hub]:
            self._leave(hub)

    def _leave(self, hub: Hub) -> None:
        """No node is left on a connection."""
        del self._on_hub[hub]
        self._changed.discard(hub)
        hub.witness = None
        if self._ear is not None and self._ear.hub is hub:
            self._close_ear()
        if not self._on_hub:
            self._alarms.clear()
            self._asked.clear()
            self._answers.clear()

    def note_change(self, hub: Hub) -> None:
        """Endpoints of one of the nodes on a connection have begun or ended."""
        self._changed.add(hub)
        self._tell_soon()

    def note_state(self, hub: Hub, connected: bool) -> None:
        """A connection has come or gone."""
        now = self.loop.time()
        if connected:
            # Nobody may know them any more: that they were gone was told by the broker, or to it.
            self._news.update(dict.fromkeys(self._on_hub[hub].values(), "birth"))
            if self._ear is None:
                self._tell_from = max(self._tell_from, now + self._rights.calm())
            self._tell_soon()
            self._listen_soon()
        elif self._ear is not None and self._ear.hub is hub:
            self._close_ear()  # what was told last may be lost
            self._news.update(dict.fromkeys(self._lives.values(), "birth"))
            if self._rights.are_missing(now):
                self._give_up(hub, "the connection ends whenever something is told")

    def note_refusal(self, hub: Hub, topic: str, error: Exception) -> bool:
        """The broker has refused a message of some topic; whether it is one of discovery."""
        is_ours = topic == ANNOUNCE or topic.startswith(f"{ANNOUNCE}.")
        if is_ours:
            self._give_up(hub, error)
        return is_ours

    def _give_up(self, hub: Hub, why: object) -> None:
        """Say nothing any more as this user: the broker does not let us."""
        self._rights.refuse(hub.params, why)
        if self._ear is not None and not self._rights.may(self._ear.hub.params):
            self._close_ear()

    # ---- where it listens ----

    def _listen_soon(self) -> None:
        """Listen somewhere, if it is not listened yet; many may just be leaving."""
        if self._ear is None:
            self._alarms.set("listen", self.loop.time() + GATHER, self._listen)

    def _listen(self) -> None:
        hub = next((hub for hub in self._on_hub if self._can_listen(hub)), None)
        if self._ear is None and hub is not None:
            hears = {PROBE: self._asked.hear, ANNOUNCE: self._hear_announcement}
            self._ear = Ear(hub, hears, self._note_open, self._give_up)

    def _can_listen(self, hub: Hub) -> bool:
        return hub.transport.connected and self._rights.may(hub.params)

    def _close_ear(self) -> None:
        """Listen on another connection, or as another user, as soon as there is one."""
        if self._ear is not None:
            self._ear.close()
            self._ear = None
            self._listen_soon()

    def _note_open(self) -> None:
        """It is heard what others say, so it can be told what there is here."""
        self._tell_soon()
        self._sign()  # what was asked meanwhile was not heard: now it will be asked again

    def _voice(self) -> Hub | None:
        """The connection on which it is told now."""
        ear = self._ear
        if ear is None or not ear.is_open or not ear.hub.transport.connected:
            return None
        return ear.hub

    # ---- what is told ----

    def _tell_soon(self) -> None:
        self._alarms.set("tell", max(self.loop.time() + GATHER, self._tell_from), self._tell)

    def _tell(self) -> None:
        """Announce what is new, in as few messages as there can be."""
        hub = self._voice()
        if hub is None or not (self._news or self._changed):
            return  # it will be told when there is one
        begin = self.loop.time()
        self._find_changes()
        for life in self._news:
            life.describe(self.id)
        self._matching.note_change()
        self._compare_own()
        self._announce(hub)
        self._tell_from = begin + max(PAUSE, SHARE * (self.loop.time() - begin))
        if self._news:
            self._tell_soon()

    def _compare_own(self) -> None:
        begin = self.loop.time()
        if not self._matching.compare_own(self._known):
            now = self.loop.time()
            self._alarms.set("compare", now + SHARE * (now - begin), self._compare_own)

    def _find_changes(self) -> None:
        changed, self._changed = self._changed, set()
        for hub in changed:
            for life in self._on_hub[hub].values():
                # Nobody answers what is present, so what has changed has precedence.
                if self._news.get(life) != "birth" and life.has_changed:
                    self._news[life] = "change"

    def _announce(self, hub: Hub) -> None:
        """Tell the news, as much of it as the connection has room for."""
        for event in EVENTS:
            lives = [life for life, what in self._news.items() if what == event]
            for some in in_portions(lives):
                if not self._post(hub, ANNOUNCE, self._said(hub, event, self._told_of(some))):
                    return
                for life in some:
                    del self._news[life]

    def _told_of(self, lives: Iterable[Life]) -> tuple[NodeInfo, ...]:
        return tuple(life.info for life in lives if life.info is not None)

    def _known(self) -> tuple[NodeInfo, ...]:
        """The nodes that others were told of."""
        return self._told_of(self._lives.values())

    def _said(self, hub: Hub, event: Event, infos: Sequence[NodeInfo]) -> list[Packet]:
        return announcements(hub, Announcement(event, self.id, self.lease, nodes=tuple(infos)))

    def _post(self, hub: Hub, topic: str, packets: Sequence[Packet]) -> bool:
        """Hand packets to a connection; whether it has taken all of them."""
        if packets:
            self._rights.note_told(self.loop.time())
        return all(offer(hub, topic, packet) for packet in packets)

    def _sign(self) -> None:
        hub = self._voice()
        if hub is not None:
            sign = Sign(self.id, len(self._known()), self.lease)
            self._post(hub, ALIVE, sign_of_life(hub, sign))
        self._alarms.cancel("sign")
        self._alarms.set("sign", self.loop.time() + self.lease / 3, self._sign)

    def _answer(self, askers: Set[str]) -> None:
        hub = self._voice()
        if hub is not None:
            said = [self._said(hub, "present", infos) for infos in in_portions(self._known())]
            packets = list(chain.from_iterable(said))
            for asker in askers:
                self._answers.extend((answer_topic(asker), packet) for packet in packets)
            self._send_answers()

    def _send_answers(self) -> None:
        """Send the answers that wait, as many as the connection has room for."""
        hub = self._voice()
        while hub is not None and self._answers:
            topic, packet = self._answers[0]
            if not self._post(hub, topic, [packet]):
                self._alarms.set("send answers", self.loop.time() + GATHER, self._send_answers)
                return
            self._answers.popleft()
        self._answers.clear()  # without a connection: who asks will ask again

    # ---- what is heard ----

    def _hear_announcement(self, packet: Packet) -> None:
        """Somebody tells of nodes: warn where they do not go together with ours."""
        outline = said_in(packet, self._outlines)
        if outline is None:
            return
        if outline.event == "death":
            self._contradict(outline)
            return
        if outline.process == self.id:
            return  # our own were compared when it was told
        said = said_in(packet, self._reader)
        if said is None:
            return
        mismatched = self._matching.compare(said.nodes, self._known)
        if mismatched and said.event in ("birth", "change"):
            # The other one is to know as well, and may not have heard of us.
            for own in mismatched:
                self._news.setdefault(self._lives[own.id], "present")
            self._tell_soon()

    def _contradict(self, said: Outline) -> None:
        """Tell of those again that are said to be gone, and are not.

        A broker does that which has found out late that a former connection has ended.
        """
        living = [self._lives[known] for known in said.ids if known in self._lives]
        if said.link:
            for hub, lives in self._on_hub.items():
                living += lives.values() if hub.link == said.link else ()
        if living:
            self._news.update(dict.fromkeys(living, "birth"))
            self._tell_soon()
