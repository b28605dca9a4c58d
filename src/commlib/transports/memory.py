"""A broker in this process: messages between nodes of one program, and for tests.

Features: everything that the other transports promise, without a server. Messages are encoded and
decoded as on a wire, so what works here works there.

Parameters: see ``ConnectionParameters``. URL: ``memory://name``; nodes that name the same broker
hear each other, on whatever thread or event loop they are.

What it cannot do: leave the process. A queue exists as long as somebody consumes it; what is sent
to a queue without consumers is dropped, as AMQP and MQTT do.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from commlib import events, pubsub, rpc
from commlib._anchors import Anchors
from commlib._packet import Packet
from commlib._params import BaseParameters
from commlib._params import Credentials as Credentials
from commlib._params import Offline as Offline
from commlib._topics import is_pattern, matcher, split
from commlib._typing import Req, Resp, T
from commlib.exceptions import EndpointClosed
from commlib.transports import ACTION_CLASSES, loaded_when_needed
from commlib.transports.base import (
    Address,
    Handler,
    LinkStats,
    ReplyHandler,
    StateHandler,
    Traits,
)

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from commlib.transports._memory_actions import ActionClient as ActionClient
    from commlib.transports._memory_actions import ActionService as ActionService


MAX_INBOUND = 20_000  # packets on their way to one event loop; then publishers wait
MAX_PENDING = 10_000  # packets that wait for a free consumer of one queue; the oldest is dropped
MAX_RETIRED = 64  # addresses of calls that ended without a reply, heard to count the late ones

_process = os.urandom(8).hex()  # a process id alone may be that of another machine's


@dataclass
class ConnectionParameters(BaseParameters):
    """Which of the brokers in this process; one is made for each name."""

    name: str = ""

    schemes: ClassVar[tuple[str, ...]] = ("memory",)

    @property
    def address(self) -> str:
        return f"memory://{_process}-{os.getpid()}/{self.name}"

    def make_transport(self) -> MemoryTransport:
        """A new transport to the broker of this name."""
        broker = _brokers.get(self.name)
        return MemoryTransport(self) if broker is None else broker.new_transport(self)

    @classmethod
    def _from_url_parts(cls, parts: SplitResult) -> dict[str, Any]:
        return {"name": parts.netloc + parts.path}

    def __str__(self) -> str:
        return f"memory://{self.name}"


class _Subscription:
    """A handler behind a topic or pattern."""

    working = True

    def __init__(self, transport: MemoryTransport, topic: str, handler: Handler) -> None:
        self.transport = transport
        self.topic = topic
        self.matches = matcher(topic) if is_pattern(topic) else None
        self.open = True
        self._handler = handler

    def take(self, packet: Packet) -> None:
        """Hand a packet over, on the loop of the subscriber."""
        if self.open:
            self._handler(packet)

    def end(self) -> None:
        self.open = False
        self.transport.broker.remove(self)

    async def close(self) -> None:
        self.transport.taking.pop(self, None)
        self.end()


class _Consumer:
    """A handler behind a queue, with so many packets to take as it has credit for."""

    def __init__(
        self, transport: MemoryTransport, queue: str, handler: Handler, credit: float
    ) -> None:
        self.transport = transport
        self.queue = queue
        self.credit = credit
        self.working = True
        self._handler = handler

    def take(self, packet: Packet) -> None:
        # What was taken off the queue is handed over even if the consumer is being closed.
        self._handler(packet)

    def done(self, packet: Packet) -> None:
        self.transport.broker.give_back(self)

    def end(self) -> None:
        self.transport.broker.leave(self)

    async def close(self) -> None:
        self.transport.taking.pop(self, None)
        self.end()
        await self.transport.drained()


class _Broker:
    """Topics and queues under one lock, used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._topics: dict[str, dict[_Subscription, None]] = {}  # in the order of their coming
        self._patterns: Anchors[_Subscription] = Anchors()
        self._consumers: dict[str, list[_Consumer]] = {}
        self._pending: dict[str, deque[tuple[float, Packet]]] = {}

    def new_transport(self, params: ConnectionParameters) -> MemoryTransport:
        """A transport that leads here; brokers of ``commlib.testing`` have one of their own."""
        return MemoryTransport(params)

    def now(self) -> float:
        """The time in seconds that requests grow old by."""
        return time.monotonic()

    def add(self, subscription: _Subscription) -> None:
        with self._lock:
            if subscription.matches is not None:
                self._patterns.add(split(subscription.topic), subscription)
            else:
                self._topics.setdefault(subscription.topic, {})[subscription] = None

    def remove(self, subscription: _Subscription) -> None:
        with self._lock:
            if subscription.matches is not None:
                self._patterns.discard(subscription)
                return
            others = self._topics.get(subscription.topic, {})
            others.pop(subscription, None)
            if not others:
                self._topics.pop(subscription.topic, None)

    def publish(self, topic: str, packet: Packet) -> MemoryTransport | None:
        """Hand out copies; if somebody has no room nobody gets one, and it is returned who."""
        packet = Packet(packet.payload, topic, packet.header)
        with self._lock:
            targets = list(self._topics.get(topic, ()))
            if self._patterns:
                patterns = self._patterns.find(split(topic))
                targets += [s for s in patterns if s.matches is not None and s.matches(topic)]
            for target in targets:
                if not target.transport.has_room:
                    return target.transport
            for target in targets:
                target.transport.push(target.take, packet)
        return None

    def send(self, queue: str, packet: Packet) -> MemoryTransport | None:
        """Hand to one consumer, or keep it until one is free; as ``publish``."""
        with self._lock:
            consumers = self._living(queue)
            if not consumers:
                return None
            free = max(consumers, key=lambda consumer: consumer.credit)
            if not free.transport.has_room:
                return free.transport
            if free.credit > 0:
                self._hand_over(free, packet, packet.ttl)
                return None
            pending = self._pending.setdefault(queue, deque())
            if len(pending) >= MAX_PENDING:
                pending.popleft()
                free.transport.stats.overflow += 1
            expires = float("inf") if packet.ttl is None else self.now() + packet.ttl
            pending.append((expires, packet))
        return None

    def _hand_over(self, consumer: _Consumer, packet: Packet, ttl: float | None) -> None:
        consumer.credit -= 1
        packet = Packet(packet.payload, consumer.queue, packet.header, ttl)
        consumer.transport.push(consumer.take, packet)

    def join(self, consumer: _Consumer) -> None:
        with self._lock:
            self._living(consumer.queue)
            self._consumers.setdefault(consumer.queue, []).append(consumer)
            self._feed(consumer)

    def _living(self, queue: str) -> list[_Consumer]:
        """The consumers of a queue, without those whose loop has ended. Under the lock."""
        consumers = self._consumers.get(queue, [])
        if any(each.transport.is_deaf for each in consumers):
            consumers[:] = [each for each in consumers if not each.transport.is_deaf]
        return consumers

    def leave(self, consumer: _Consumer) -> None:
        with self._lock:
            consumers = self._consumers.get(consumer.queue, [])
            if consumer in consumers:
                consumers.remove(consumer)
            if not consumers:
                self._consumers.pop(consumer.queue, None)
                self._pending.pop(consumer.queue, None)

    def give_back(self, consumer: _Consumer) -> None:
        with self._lock:
            consumer.credit += 1
            if consumer in self._consumers.get(consumer.queue, ()):
                self._feed(consumer)

    def _feed(self, consumer: _Consumer) -> None:
        pending = self._pending.get(consumer.queue)
        while pending and consumer.credit > 0:
            expires, packet = pending.popleft()
            left = expires - self.now()
            if left > 0:
                self._hand_over(consumer, packet, None if packet.ttl is None else left)
            else:
                consumer.transport.stats.expired += 1


_brokers: dict[str, _Broker] = {}


class _Inbox:
    """Return addresses: a queue of its own for each call."""

    capacity = 10_000

    def __init__(self, transport: MemoryTransport, handler: ReplyHandler) -> None:
        self._transport = transport
        self._handler = handler
        self._prefix = f"rpc-{os.urandom(12).hex()}/"
        self._open: dict[str, _Consumer] = {}
        self._retired: deque[_Consumer] = deque()

    def address(self, token: str) -> Address:
        queue = self._prefix + token

        def take(packet: Packet) -> None:
            consumer = self._open.pop(token, None)
            if consumer is not None:
                self._transport.broker.leave(consumer)
            self._handler(None if consumer is None else token, packet)

        consumer = _Consumer(self._transport, queue, take, 1)
        self._open[token] = consumer
        self._transport.broker.join(consumer)
        return Address(queue)

    def release(self, token: str, *, unused: bool = False) -> None:
        consumer = self._open.pop(token, None)
        if consumer is not None and unused:
            self._transport.broker.leave(consumer)
        elif consumer is not None:
            self._retired.append(consumer)
            if len(self._retired) > MAX_RETIRED:
                self._transport.broker.leave(self._retired.popleft())

    async def close(self) -> None:
        for consumer in (*self._open.values(), *self._retired):
            self._transport.broker.leave(consumer)
        self._open.clear()
        self._retired.clear()


class MemoryTransport:
    """The seven verbs on a broker in this process."""

    traits = Traits(native_headers=True)

    def __init__(self, params: ConnectionParameters) -> None:
        self.params = params
        self.broker = _brokers.setdefault(params.name, _Broker())
        self.stats = LinkStats()
        self.on_state: StateHandler = lambda connected, reason: None
        self.on_refused: Callable[[str, Exception], None] = lambda target, error: None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inbound: deque[tuple[Handler, Packet]] = deque()
        self._wake_pending = False
        self._drained: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._blocked_by: MemoryTransport | None = None
        self._inboxes: list[_Inbox] = []
        self.taking: dict[_Subscription | _Consumer, None] = {}
        """What takes packets here, and ends with the connection if nobody has closed it before."""
        self._closed = False

    # The verbs.

    async def connect(self) -> None:
        self._check_open()
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self.on_state(True, None)

    async def close(self) -> None:
        await self.drained()
        self._closed = True
        for inbox in self._inboxes:
            await inbox.close()
        for each in self.taking:
            each.end()
        self.taking.clear()
        if self._loop is not None:
            self._loop = None
            self.on_state(False, None)

    def publish(self, topic: str, packet: Packet) -> bool:
        self._check_open()
        return self._note_room(self.broker.publish(topic, packet))

    async def subscribe(self, topic: str, handler: Handler) -> _Subscription:
        await self.connect()
        subscription = _Subscription(self, topic, handler)
        self.broker.add(subscription)
        self.taking[subscription] = None
        return subscription

    def send(self, to: str | Address, packet: Packet) -> bool:
        queue = to if isinstance(to, str) else to.reply_to
        self._check_open()
        return self._note_room(self.broker.send(queue, packet))

    async def consume(self, queue: str, handler: Handler, prefetch: int) -> _Consumer:
        await self.connect()
        consumer = _Consumer(self, queue, handler, prefetch)
        self.broker.join(consumer)
        self.taking[consumer] = None
        return consumer

    async def open_inbox(self, handler: ReplyHandler) -> _Inbox:
        await self.connect()
        inbox = _Inbox(self, handler)
        self._inboxes.append(inbox)
        return inbox

    # Beside the verbs.

    @property
    def connected(self) -> bool:
        return self._loop is not None

    async def room(self, packet: Packet) -> None:
        if self._blocked_by is not None:
            await self._blocked_by.drained()

    async def flush(self) -> None:
        """Nothing waits on this side: what is published is with its subscribers."""

    def clock(self) -> int:
        return int(time.time() * 1000)

    def abandon(self) -> None:
        """The child's copies of the subscribers are as deaf as its copy of the loop."""
        if _brokers.get(self.params.name) is self.broker:
            del _brokers[self.params.name]

    def _check_open(self) -> None:
        if self._closed:
            raise EndpointClosed("the connection was closed")

    def _note_room(self, blocked_by: MemoryTransport | None) -> bool:
        self._blocked_by = blocked_by
        return blocked_by is None

    # What arrives here.

    @property
    def has_room(self) -> bool:
        return len(self._inbound) < MAX_INBOUND or self.is_deaf  # then nothing is kept for it

    @property
    def is_deaf(self) -> bool:
        """Whether its loop has ended without it. From any thread."""
        loop = self._loop
        return loop is not None and loop.is_closed()

    def push(self, handler: Handler, packet: Packet) -> None:
        """Queue a packet for a handler on this loop. Under the broker's lock, any thread."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        self._inbound.append((handler, packet))
        if not self._wake_pending:
            self._wake_pending = True
            loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._wake_pending = False
        try:
            for _ in range(len(self._inbound)):
                handler, packet = self._inbound.popleft()
                handler(packet)
        except BaseException:  # Ctrl-C: the rest is for the next turn
            self._wake_pending = True
            asyncio.get_running_loop().call_soon(self._deliver)
            raise
        waiting, self._drained = self._drained, []
        for loop, waiter in waiting:
            with suppress(RuntimeError):  # a loop that was closed: its publisher waits no more
                loop.call_soon_threadsafe(_resolve, waiter)

    async def drained(self) -> None:
        """Return when what was under way to this transport has been handed over; on any loop."""
        if self._inbound and self._loop is not None:
            loop = asyncio.get_running_loop()
            waiter: asyncio.Future[None] = loop.create_future()
            self._drained.append((loop, waiter))
            if not self._inbound:
                _resolve(waiter)  # it was drained between the look and the note
            await waiter


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Publisher(pubsub.Publisher[T]):
    """``commlib.pubsub.Publisher`` in this process."""

    scheme = "memory"


class MPublisher(pubsub.MPublisher[T]):
    """``commlib.pubsub.MPublisher`` in this process."""

    scheme = "memory"


class Subscriber(pubsub.Subscriber[T]):
    """``commlib.pubsub.Subscriber`` in this process."""

    scheme = "memory"


class PSubscriber(pubsub.PSubscriber[T]):
    """``commlib.pubsub.PSubscriber`` in this process."""

    scheme = "memory"


class WPublisher(pubsub.WPublisher[T]):
    """``commlib.pubsub.WPublisher`` in this process."""

    scheme = "memory"


class WSubscriber(pubsub.WSubscriber):
    """``commlib.pubsub.WSubscriber`` in this process."""

    scheme = "memory"


class RPCService(rpc.RPCService):
    """``commlib.rpc.RPCService`` in this process."""

    scheme = "memory"


class RPCServer(rpc.RPCServer):
    """``commlib.rpc.RPCServer`` in this process."""

    scheme = "memory"


class RPCClient(rpc.RPCClient[Req, Resp]):
    """``commlib.rpc.RPCClient`` in this process."""

    scheme = "memory"


class EventEmitter(events.EventEmitter):
    """``commlib.events.EventEmitter`` in this process."""

    scheme = "memory"


if not TYPE_CHECKING:
    __getattr__ = loaded_when_needed("commlib.transports._memory_actions", *ACTION_CLASSES)
