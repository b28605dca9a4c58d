"""A broker in this process that can be listened to, and fails as it is told."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakSet

from commlib._packet import Packet
from commlib.aio._hub import copied, hubs
from commlib.testing._faults import REPLIES, Fate, Faults
from commlib.testing._fickle import FickleTransport
from commlib.transports.memory import ConnectionParameters, MemoryTransport, _Broker

CALM = Fate()
_REPLY_ADDRESS = re.compile(r"rpc-[0-9a-f]{24}/")


class Tap(NamedTuple):
    """Who is told of what is published, under the broker's lock; quick, never raises."""

    matches: Callable[[str], bool]
    take: Callable[[Packet], None]


class TestedBroker(_Broker):
    """Topics and queues as on any ``memory://`` broker, with taps and faults."""

    __test__ = False  # it is none, though its name begins so

    def __init__(self) -> None:
        super().__init__()
        self.is_down = False
        self.changed = threading.Condition(self._lock)
        """Of what was published: whoever waits with it sees all of that, or nothing."""
        self.taps: list[Tap] = []
        self.published: Counter[str] = Counter()
        """How many messages there were on each topic."""
        self.suffered: Counter[str] = Counter()
        """How often each kind of fault has struck."""
        self._transports: WeakSet[FickleTransport] = WeakSet()
        self._faults: Faults | None = None
        self._sent: Counter[str] = Counter()

    def new_transport(self, params: ConnectionParameters) -> MemoryTransport:
        transport = FickleTransport(params, self)
        with self._lock:
            self._transports.add(transport)
        return transport

    def now(self) -> float:
        return super().now() + max((link.ahead for link in self._transports), default=0.0)

    def publish(self, topic: str, packet: Packet) -> MemoryTransport | None:
        with self._lock:
            no_room = super().publish(topic, packet)
            if no_room is None:
                self._tell(topic, packet)
            return no_room

    def _tell(self, topic: str, packet: Packet) -> None:
        self.published[topic] += 1
        packet = Packet(packet.payload, topic, packet.header)
        for tap in self.taps:
            if tap.matches(topic):
                tap.take(packet)
        self.changed.notify_all()

    # Faults.

    @property
    def faults(self) -> Faults | None:
        return self._faults

    @faults.setter
    def faults(self, faults: Faults | None) -> None:
        with self._lock:
            self._faults = faults
            self._sent.clear()

    @property
    def away(self) -> float:
        return 0.0 if self._faults is None else self._faults.away

    def fate(self, name: str) -> Fate:
        """What becomes of the next message of this name."""
        faults = self._faults
        if faults is None:
            return CALM
        name = _counted_as(name)
        return faults.fate(name, self._sent[name] + 1)

    def count(self, name: str, fate: Fate) -> None:
        """A message of this name has met its fate, or will."""
        if self._faults is None:
            return
        with self._lock:
            self._sent[_counted_as(name)] += 1
            self.suffered["cut"] += fate.is_cut
            self.suffered["dropped"] += fate.is_dropped
            self.suffered["doubled"] += fate.is_doubled and not fate.is_dropped
            self.suffered["delayed"] += fate.delay > 0 and not fate.is_dropped

    def transports(self, node_name: str | None) -> list[FickleTransport]:
        """The connections of a node, or all of them. Raises ValueError where there is none."""
        with self._lock:
            found = list(self._transports)
        if node_name is None:
            return found
        names: dict[object, str] = {hub.transport: hub.name for hub in copied(hubs)}
        chosen = [transport for transport in found if names.get(transport) == node_name]
        if not chosen:
            there = ", ".join(sorted(names[t] for t in found if t in names)) or "nobody"
            raise ValueError(f"no node {node_name!r} on this broker; there is {there}")
        return chosen


def _counted_as(name: str) -> str:
    return REPLIES if _REPLY_ADDRESS.match(name) else name
