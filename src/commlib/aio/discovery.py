"""Discovery: which nodes there are on a broker, what their ports are, and what does not fit.

::

    async with Discovery("redis://localhost") as discovery:
        for node in await discovery.ask():
            print(node.name, [endpoint.name for endpoint in node.endpoints])

A node announces itself on its own, and says when it changes and goes; with ``discovery=False`` it
does not. One that goes without a word is forgotten when its lease is over, 30 s after its last
sign, on MQTT when the broker tells. Nothing here is signed: who may publish on the broker can say
anything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from math import inf
from os import urandom
from time import perf_counter
from typing import Any, Unpack

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
    mismatches,
)
from commlib._discovery import EndpointInfo as EndpointInfo
from commlib._discovery import Mismatch as Mismatch
from commlib._lanes import CALLBACK_ERRORS
from commlib._packet import Packet
from commlib._wire import Reader, Refused
from commlib.aio._endpoint import Endpoint, Options, Params
from commlib.aio.pubsub import Sender
from commlib.transports.base import Subscription

__all__ = ["Discovery", "EndpointInfo", "Mismatch", "NodeInfo"]

log = logging.getLogger("commlib.discovery")

MAX_NODES = 100_000  # that are remembered; anybody can tell of some
LONGEST_LEASE = 3600.0  # s that is believed
QUIET = 0.2  # s without an answer after which no more are expected
ASK_AGAIN = 2.0  # s between two probes of one process

ChangeHandler = Callable[[Event, NodeInfo], Any]
"""Told of a node that came (``birth``), changed or went (``death``), on the loop."""


class Discovery(Endpoint):
    """The nodes on a broker, kept up to date from ``run()`` to ``stop()``.

    ``on_change(event, node)`` is a plain function, called on the loop. Options: ``Options``.
    """

    def __init__(
        self,
        conn_params: Params = None,
        on_change: ChangeHandler | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__("discovery", conn_params, **options)
        self._on_change = on_change
        self._asker = urandom(8).hex()
        self._nodes: dict[str, NodeInfo] = {}
        self._leases: dict[str, float] = {}
        """When a process is to be forgotten, by the clock of the loop."""
        self._asked: dict[str, float] = {}
        self._expiring: asyncio.TimerHandle | None = None
        self._answered_at = -inf
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._subscriptions: list[Subscription] = []
        self._announcements: Reader[Announcement] = self._make_reader(Announcement)
        self._signs: Reader[Sign] = self._make_reader(Sign)
        self._probes: Sender[Probe] = Sender(PROBE, Probe, None, hub=self.hub, sequence=False)

    @property
    def nodes(self) -> list[NodeInfo]:
        """The nodes that are known now, by name."""
        return sorted(self._nodes.values(), key=lambda node: (node.name, node.started, node.id))

    @property
    def mismatches(self) -> list[Mismatch]:
        """The ports that do not go together."""
        return mismatches(self.nodes)

    async def ask(self, wait: float = 1.0) -> list[NodeInfo]:
        """Ask who is there: the nodes, as soon as no more answers come, after ``wait`` s at most.

        Those that were known before and are not heard of meanwhile are among them.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + wait
        begin = self._answered_at = loop.time()
        self._probe("")
        while (now := loop.time()) < end:
            # The first answers may take their time, the others are spread over a tenth of a second.
            quiet = QUIET if self._answered_at > begin else 2 * QUIET
            if now >= self._answered_at + quiet:
                break
            await asyncio.sleep(min(self._answered_at + quiet, end) - now)
        return self.nodes

    async def ping(self, node: NodeInfo, timeout: float = 1.0) -> float:
        """How many seconds the process of a node takes to answer. Raises TimeoutError."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[None] = loop.create_future()
        waiting = self._waiting.setdefault(node.process, [])
        waiting.append(answered)
        begin = perf_counter()  # uvloop's own clock counts milliseconds
        self._probe(node.process)
        try:
            async with asyncio.timeout(timeout):
                await answered
        finally:
            waiting.remove(answered)
            if not waiting:
                self._waiting.pop(node.process, None)
        return perf_counter() - begin

    def _probe(self, process: str) -> None:
        probe = Probe(self._asker, process)
        self._probes.offer(self._probes.pack(probe, PROBE), PROBE)

    async def _begin(self) -> None:
        transport = self.hub.transport
        hears = {
            ANNOUNCE: self._hear,
            answer_topic(self._asker): self._hear,
            ALIVE: self._hear_sign,
        }
        for topic, hear in hears.items():
            self._subscriptions.append(await transport.subscribe(topic, hear))
        self.hub.listeners.add(self._ask_when_back)
        self._probe("")

    async def _end(self) -> None:
        self.hub.listeners.discard(self._ask_when_back)
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            await subscription.close()
        if self._expiring is not None:
            self._expiring.cancel()
            self._expiring = None

    def _ask_when_back(self, connected: bool, reason: Exception | None) -> None:
        if connected:
            self._probe("")

    # ---- what is heard ----

    def _hear(self, packet: Packet) -> None:
        try:
            said = self._announcements.read(packet).data
        except Refused as exc:
            self._report(packet, exc)
            return
        self._answered_at = asyncio.get_running_loop().time()
        if said.event == "death":
            gone = {*said.ids}
            for node in list(self._nodes.values()):
                if node.id in gone or (said.link and node.link == said.link):
                    self._forget(node)
            return
        if not is_id(said.process):
            return
        self._renew(said.process, said.lease)
        if said.event == "present":
            for answered in self._waiting.get(said.process, ()):
                if not answered.done():
                    answered.set_result(None)
        for node in said.nodes:
            if node.process == said.process and is_id(node.id):
                self._note(node)

    def _note(self, node: NodeInfo) -> None:
        known = self._nodes.get(node.id)
        if known == node or (known is None and len(self._nodes) >= MAX_NODES):
            return
        self._nodes[node.id] = node
        self._tell("birth" if known is None else "change", node)

    def _hear_sign(self, packet: Packet) -> None:
        try:
            sign = self._signs.read(packet).data
        except Refused as exc:
            self._report(packet, exc)
            return
        if not is_id(sign.process):
            return
        known = [node for node in self._nodes.values() if node.process == sign.process]
        if known:
            self._renew(sign.process, sign.lease)
        if len(known) != sign.nodes:
            self._ask_again(sign.process)

    def _ask_again(self, process: str) -> None:
        """Something of this process was missed."""
        now = asyncio.get_running_loop().time()
        if now < self._asked.get(process, -inf) + ASK_AGAIN:
            return
        if len(self._asked) >= MAX_NODES:
            self._asked.clear()
        self._asked[process] = now
        self._probe(process)

    # ---- leases ----

    def _renew(self, process: str, lease: float) -> None:
        lease = min(lease, LONGEST_LEASE) if lease > 0 else LEASE
        if process not in self._leases and len(self._leases) >= MAX_NODES:
            return
        now = asyncio.get_running_loop().time()
        self._leases[process] = now + lease
        if self._expiring is None:
            self._expire_later()

    def _expire_later(self) -> None:
        loop = asyncio.get_running_loop()
        due = min(self._leases.values())
        # A little later: many leases that end together are looked at once.
        self._expiring = loop.call_at(max(due, loop.time()) + 0.1, self._expire)

    def _expire(self) -> None:
        self._expiring = None
        now = asyncio.get_running_loop().time()
        over = {process for process, end in self._leases.items() if end <= now}
        for process in over:
            del self._leases[process]
        for node in [node for node in self._nodes.values() if node.process in over]:
            self._forget(node)
        if self._leases:
            self._expire_later()

    def _forget(self, node: NodeInfo) -> None:
        del self._nodes[node.id]
        self._tell("death", node)

    def _tell(self, event: Event, node: NodeInfo) -> None:
        if self._on_change is None:
            return
        try:
            self._on_change(event, node)
        except CALLBACK_ERRORS as exc:
            self._report(Packet(b"", ANNOUNCE), exc)
