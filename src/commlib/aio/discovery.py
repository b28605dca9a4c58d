"""Discovery: which nodes there are on a broker, what their ports are, and what does not fit.

::

    async with Discovery("redis://localhost") as discovery:
        for node in await discovery.ask():
            print(node.name, [endpoint.name for endpoint in node.endpoints])

A node announces itself on its own, and says when it changes and goes; with ``discovery=False`` it
does not. One that goes without a word is forgotten when its lease is over, 30 s after its last
sign of life, on MQTT as soon as the broker tells. Nothing here is signed: who may publish on the
broker can say anything. ``docs/discovery.md`` has all of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from math import inf
from os import urandom
from time import perf_counter
from typing import Any, Unpack
from weakref import WeakSet

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
    is_sound,
    mismatches,
)
from commlib._discovery import EndpointInfo as EndpointInfo
from commlib._discovery import Mismatch as Mismatch
from commlib._lanes import Lane
from commlib._packet import Packet
from commlib._wire import Reader, Refused
from commlib.aio._endpoint import Input, Options, Params
from commlib.aio._leases import Leases
from commlib.aio.pubsub import Sender
from commlib.transports.base import Subscription

__all__ = ["Discovery", "EndpointInfo", "Mismatch", "NodeInfo"]

log = logging.getLogger("commlib.discovery")

MAX_NODES = 100_000  # that are remembered; anybody can tell of some
MAX_BYTES = 64 * 1024 * 1024  # of what was told of those
LONGEST_LEASE = 3600.0  # s that is believed
QUIET = 0.2  # s without an answer after which no more are expected
ASK_AGAIN = 2.0  # s between two probes of one process; it has answered by then

ChangeHandler = Callable[[Event, NodeInfo], Any]
"""Told of a node that came (``birth``), changed (``change``) or went (``death``)."""


class _Change(Packet):
    """What has become of a node, on its way to the callback."""

    event: Event = "birth"
    node: Any = None


class Discovery(Input):
    """The nodes on a broker, kept up to date from ``run()`` to ``stop()``.

    ``on_change(event, node)`` is called as other callbacks are: one at a time and in order, a plain
    function on a worker thread, a coroutine function on the loop, with ``inline`` a plain one
    there, too. Options: ``Options``.
    """

    def __init__(
        self,
        conn_params: Params = None,
        on_change: ChangeHandler | None = None,
        *,
        inline: bool = False,
        **options: Unpack[Options],
    ) -> None:
        if on_change is not None and not callable(on_change):
            raise TypeError(f"on_change={on_change!r} cannot be called with (event, node)")
        super().__init__("discovery", conn_params, **options)
        self._on_change = on_change
        self._inline = inline
        self._lane: Lane | None = None
        self._asker = urandom(8).hex()
        self._nodes: dict[str, NodeInfo] = {}
        self._sizes: dict[str, int] = {}
        self._bytes = 0
        self._of: dict[str, dict[str, float]] = {}
        """The ids of the nodes of each process, and when each was heard of, in the loop's time."""
        self._leases = Leases(self._forget_process, MAX_NODES, LONGEST_LEASE)
        self._asked: dict[str, float] = {}
        self._settling: set[asyncio.TimerHandle] = set()
        self._asking: WeakSet[asyncio.Event] = WeakSet()
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._subscriptions: list[Subscription] = []
        self._announcements: Reader[Announcement] = self._make_reader(Announcement)
        self._signs: Reader[Sign] = self._make_reader(Sign)
        self._probes: Sender[Probe] = Sender(PROBE, Probe, None, hub=self.hub, sequence=False)

    @property
    def nodes(self) -> list[NodeInfo]:
        """The nodes that are known now, by name."""
        known = list(self._nodes.values())
        return sorted(known, key=lambda node: (node.name, node.started, node.id))

    @property
    def mismatches(self) -> list[Mismatch]:
        """The ports that do not go together."""
        return mismatches(self.nodes)

    async def ask(self, wait: float = 1.0) -> list[NodeInfo]:
        """Ask who is there: the nodes, as soon as no more answers come, after ``wait`` s at most.

        Those that were known before and are not heard of meanwhile are among them. One that does
        not run yet is run. Raises EndpointClosed after ``stop()``, and what ``run`` raises by then.
        """
        self.check_open()
        answer = asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._begun()
                self._asking.add(answer)
                self._probe("")
                await answer.wait()
                await _silence(answer)
        return self.nodes

    async def ping(self, node: NodeInfo, timeout: float = 1.0) -> float:
        """How many seconds the process of a node takes to answer.

        Raises TimeoutError, and what ``ask`` raises.
        """
        self.check_open()
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(node.process, [])
        waiting.append(answered)
        try:
            async with asyncio.timeout(timeout):
                await self._begun()
                begin = perf_counter()  # uvloop's own clock counts milliseconds
                self._probe(node.process)
                await answered
        except TimeoutError:
            raise TimeoutError(f"{node.label} has not answered within {timeout:g} s") from None
        finally:
            waiting.remove(answered)
            if not waiting:
                self._waiting.pop(node.process, None)
        return perf_counter() - begin

    async def _begun(self) -> None:
        """Return when it hears the answers."""
        self.hub.check_here()
        if not self.ready:
            await self.run()

    def _probe(self, process: str) -> None:
        probe = Probe(self._asker, process)
        self._probes.offer(self._probes.pack(probe, PROBE), PROBE)

    async def _begin(self) -> None:
        self._nodes.clear()  # of a former life
        self._sizes.clear()
        self._bytes = 0
        if self._on_change is not None:
            self._lane = self._make_lane(self._on_change, self._call, inline=self._inline)
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
        for timer in self._settling:
            timer.cancel()
        self._leases.clear()
        for known in (self._settling, self._of, self._asked):
            known.clear()
        if self._lane is not None:
            await self._lane.close(self._given.grace)

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
        if said.event == "death":
            self._hear_death(said)
            return
        if not is_id(said.process) or not self._renew(said.process, said.lease):
            return
        if said.event == "present":
            for answer in self._asking:
                answer.set()
            for answered in self._waiting.get(said.process, ()):
                if not answered.done():
                    answered.set_result(None)
        size = len(packet.payload) // max(len(said.nodes), 1)
        for node in said.nodes:
            if node.process == said.process and is_sound(node):
                self._note(node, size)

    def _hear_death(self, said: Announcement) -> None:
        gone = [self._nodes[each] for each in {*said.ids} if each in self._nodes]
        if said.link:
            gone += [node for node in self._nodes.values() if node.link == said.link]
        for node in {node.id: node for node in gone}.values():
            self._forget(node)

    def _note(self, node: NodeInfo, size: int) -> None:
        known = self._nodes.get(node.id)
        if known is None and len(self._nodes) >= MAX_NODES:
            return
        total = self._bytes + size - self._sizes.get(node.id, 0)
        if total > MAX_BYTES:
            return
        if known is not None and known.process != node.process:
            return  # it is another one's
        self._of.setdefault(node.process, {})[node.id] = asyncio.get_running_loop().time()
        if known != node:
            self._nodes[node.id] = node
            self._sizes[node.id], self._bytes = size, total
            self._tell("birth" if known is None else "change", node)

    def _hear_sign(self, packet: Packet) -> None:
        try:
            sign = self._signs.read(packet).data
        except Refused as exc:
            self._report(packet, exc)
            return
        if not is_id(sign.process):
            return
        known = len(self._of.get(sign.process, ()))
        if known:
            self._renew(sign.process, sign.lease)
        if known != sign.nodes:
            self._ask_again(sign.process)

    def _ask_again(self, process: str) -> None:
        """Something of this process was missed: that a node came, or that it went."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now < self._asked.get(process, -inf) + ASK_AGAIN:
            return
        if len(self._asked) >= MAX_NODES:
            self._asked.clear()
        self._asked[process] = now
        self._probe(process)
        if process in self._of:
            self._settle_later(process, now)

    def _settle_later(self, process: str, asked: float) -> None:
        """Forget the nodes of which it says nothing in its answer."""

        def settle() -> None:
            self._settling.discard(timer)
            heard = self._of.get(process, {})
            if any(when >= asked for when in heard.values()):
                for each in [each for each, when in heard.items() if when < asked]:
                    self._forget(self._nodes[each])

        timer = asyncio.get_running_loop().call_later(ASK_AGAIN, settle)
        self._settling.add(timer)

    def _renew(self, process: str, lease: float) -> bool:
        """Whether a process is believed for a while longer; False: there are too many."""
        return self._leases.renew(process, lease if lease > 0 else LEASE)

    def _forget_process(self, process: str) -> None:
        for each in list(self._of.get(process, ())):
            self._forget(self._nodes[each])

    def _forget(self, node: NodeInfo) -> None:
        del self._nodes[node.id]
        self._bytes -= self._sizes.pop(node.id)
        of_process = self._of[node.process]
        del of_process[node.id]
        if not of_process:
            del self._of[node.process]
        self._tell("death", node)

    def _tell(self, event: Event, node: NodeInfo) -> None:
        if self._lane is not None:
            self._lane.put(_Change(b"", ANNOUNCE, event=event, node=node))

    def _call(self, packet: Packet) -> Any:
        assert isinstance(packet, _Change), "nothing else is put"
        assert self._on_change is not None, "there is a lane"
        return self._on_change(packet.event, packet.node)


async def _silence(answer: asyncio.Event) -> None:
    """Return when for a while no more answers have come."""
    while True:
        answer.clear()
        try:
            async with asyncio.timeout(QUIET):
                await answer.wait()
        except TimeoutError:
            return
