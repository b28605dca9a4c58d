"""A connection to a broker in this process that breaks, loses and delays as the broker says.

While it is away it does what those to real brokers do: what is published waits, or is refused, by
the same outbox and offline policy; what others publish is not heard; consumers are gone; and who
subscribes or calls waits until it is back.

Its own gate is taken before the broker's lock. So what the broker calls under its lock, which is
``push``, must not take the gate.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from commlib._outbox import Outbox
from commlib._packet import Packet
from commlib._parts import Frame
from commlib.exceptions import CommlibError, ConnectError, ConnectionLost
from commlib.testing._faults import Fate
from commlib.transports.base import Address, Handler
from commlib.transports.memory import ConnectionParameters, MemoryTransport, _Consumer

if TYPE_CHECKING:
    from commlib.testing._tested import TestedBroker

NO_ROOM_PAUSE = 0.001  # s until it is tried again to hand over what a subscriber has no room for


class _Errand(NamedTuple):
    """A packet on its way to a topic or a queue, and what will become of it."""

    is_topic: bool
    name: str
    packet: Packet
    fate: Fate = Fate()


class _FickleConsumer(_Consumer):
    """One that its transport puts back to work when the connection returns."""

    transport: FickleTransport

    async def close(self) -> None:
        self.transport.consumers.pop(self, None)
        await super().close()


class FickleTransport(MemoryTransport):
    """The seven verbs on a broker of a test."""

    broker: TestedBroker

    def __init__(self, params: ConnectionParameters, broker: TestedBroker) -> None:
        super().__init__(params)
        self.broker = broker
        self.consumers: dict[_FickleConsumer, None] = {}
        self._is_cut = broker.is_down
        self._is_broken = False
        self._up = False
        self._was_up = False
        self._failure: CommlibError | None = None
        self._news = asyncio.Event()
        self._gate = threading.RLock()
        self._rest: deque[_Errand] = deque()
        """What waited while it was away, and goes before all that is published now."""
        self._late: dict[str, deque[_Errand]] = {}
        self._due: dict[str, float] = {}
        self._outbox = Outbox(
            str(params),
            params.offline_policy,
            self.stats,
            failure=lambda: self._failure,
            connecting=lambda: not self._was_up and not self._is_cut,
        )

    # It comes and goes.

    @property
    def connected(self) -> bool:
        return self._up

    async def connect(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            if self._is_cut and not self.params.reconnect:
                self._failure = ConnectError(f"{self.params} cannot be reached: the test cut it")
            self._come_back()
        while not self._up:
            if self._failure is not None:
                raise self._failure
            self._news.clear()
            await self._news.wait()

    def cut(self) -> None:
        """The connection breaks, until ``mend``. From any thread; idempotent."""
        with self._gate:
            self._is_cut = True
            self._go_down()

    def mend(self) -> None:
        """The connection may be there again, and soon is. From any thread; idempotent."""
        self._is_cut = False
        self._post(self._come_back)

    def _break_for(self, seconds: float) -> None:
        """A fault: the connection breaks, and heals by itself. Under the gate."""
        self._is_broken = True
        self._go_down()
        if self._loop is not None:
            self._post(self._loop.call_later, seconds, self._heal)

    def _heal(self) -> None:
        self._is_broken = False
        self._come_back()

    def _go_down(self) -> None:
        if self._up:
            self._up = False
            for consumer in self.consumers:
                self.broker.leave(consumer)
            reason = ConnectionLost(f"{self.params} was lost: the test has cut it")
            if not self.params.reconnect:
                self._failure = reason
            self._post(self._tell_cut, reason)

    def _tell_cut(self, reason: ConnectionLost) -> None:
        self._news.set()  # where nothing is tried again, who waits is told so
        self._outbox.wake()
        self.on_state(False, reason)

    def _come_back(self) -> None:
        with self._gate:
            is_held = self._is_cut or self._is_broken or self._failure is not None or self._closed
            if self._up or is_held:
                return
            self._up = True
            for consumer in self.consumers:
                self.broker.join(consumer)
            self._outbox.set_link(self)  # which writes all that waits to the rest
            self._outbox.set_link(None)
        self._drain()
        self.stats.reconnects += self._was_up
        self._was_up = True
        self._news.set()
        self.on_state(True, None)

    def _post(self, work: Callable[..., object], *args: Any) -> None:
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # a loop that was closed: nobody is there to be told
                loop.call_soon_threadsafe(work, *args)

    # What the outbox writes to.

    def write(self, frames: Sequence[Frame], notes: Iterable[object]) -> None:
        self._rest.extend(note for note in notes if isinstance(note, _Errand))

    def may_be_now(self, urgent: bool) -> bool:
        return False

    def write_now(self, frame: Frame, note: object, urgent: bool) -> bool:
        return False

    def write_all_now(self, frames: Sequence[Frame], notes: Iterable[object]) -> bool:
        return False

    # The verbs.

    def publish(self, topic: str, packet: Packet) -> bool:
        return self._put(_Errand(True, topic, packet))

    def send(self, to: str | Address, packet: Packet) -> bool:
        return self._put(_Errand(False, to if isinstance(to, str) else to.reply_to, packet))

    async def consume(self, queue: str, handler: Handler, prefetch: int) -> _Consumer:
        await self.connect()
        consumer = _FickleConsumer(self, queue, handler, prefetch)
        with self._gate:
            self.consumers[consumer] = None
            if self._up:
                self.broker.join(consumer)
        return consumer

    async def room(self, packet: Packet) -> None:
        if self._up and not self._rest:
            await super().room(packet)
        else:
            await self._outbox.room()

    async def flush(self) -> None:
        while not self._closed and self._failure is None:
            if self._up and not (self._rest or self._late):
                return
            await self._outbox.room()

    async def close(self) -> None:
        with self._gate:
            for queue in self._late.values():
                for errand in queue:
                    self._hand(errand)
            self._late.clear()
            self._outbox.close()
        await self.drained()
        was_up, self._up = self._up, False
        if not was_up:
            self._loop = None  # that it is away was told before
        await super().close()

    @property
    def ahead(self) -> float:
        """How many seconds the clock of its loop has jumped, which may be a ``VirtualLoop``."""
        seconds: float = getattr(self._loop, "ahead", 0.0)
        return seconds

    def clock(self) -> int:
        return super().clock() + int(1000 * self.ahead)

    def push(self, handler: Handler, packet: Packet) -> None:
        if self._up:
            super().push(handler, packet)

    # From a caller to the broker.

    def _put(self, errand: _Errand) -> bool:
        with self._gate:
            self._check_open()
            if self._up and self._rest:
                return False  # those are before it
            fate = self.broker.fate(errand.name)
            try:
                is_taken = self._take(errand._replace(fate=fate))
            except CommlibError:
                self.broker.count(errand.name, fate)
                raise
            if is_taken:
                self.broker.count(errand.name, fate)
            return is_taken

    def _take(self, errand: _Errand) -> bool:
        if self._up and errand.fate.is_cut:
            self._break_for(self.broker.away)
        if self._up:
            return self._meet_fate(errand)
        return self._outbox.put(errand.packet.payload, errand)

    def _meet_fate(self, errand: _Errand) -> bool:
        """Pass it on, or not; False when the broker has no room for it now."""
        if errand.fate.is_dropped:
            return True
        times = 2 if errand.fate.is_doubled else 1
        if errand.fate.delay or errand.name in self._late:
            for _ in range(times):
                self._put_late(errand)
            return True
        is_taken = self._hand(errand)
        if is_taken and times == 2:
            self._hand(errand)
        return is_taken

    def _hand(self, errand: _Errand) -> bool:
        give = super().publish if errand.is_topic else super().send
        return give(errand.name, errand.packet)

    def _put_late(self, errand: _Errand) -> None:
        loop = self._loop
        assert loop is not None, "there is one where it is up"
        due = max(loop.time() + errand.fate.delay, self._due.get(errand.name, 0.0))
        self._due[errand.name] = due
        self._late.setdefault(errand.name, deque()).append(errand)
        self._post(loop.call_at, due, self._hand_late, errand.name)

    def _hand_late(self, name: str) -> None:
        """Pass on the first of those that are late; a timer for each of them comes here."""
        with self._gate:
            queue = self._late.get(name)
            if not queue:
                return  # closing has passed it on
            if not self._hand(queue[0]):
                asyncio.get_running_loop().call_later(NO_ROOM_PAUSE, self._hand_late, name)
                return
            queue.popleft()
            if not queue:
                del self._late[name], self._due[name]
        if not self._late:
            self._outbox.wake()

    def _drain(self) -> None:
        """Pass on what waited while the connection was away."""
        with self._gate:
            while self._rest and self._up:
                if not self._meet_fate(self._rest[0]):
                    asyncio.get_running_loop().call_later(NO_ROOM_PAUSE, self._drain)
                    return
                self._rest.popleft()
        self._outbox.wake()
