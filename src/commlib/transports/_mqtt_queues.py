"""Requests and replies on MQTT: queues are topics, and a reply is told by the topic it comes on."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from commlib._packet import Packet
from commlib.transports._mqtt_board import Boards
from commlib.transports._mqtt_channel import Channel
from commlib.transports._mqtt_link import MqttLink
from commlib.transports.base import Address, Handler, LinkStats, ReplyHandler

MAX_PENDING = 10_000  # requests that wait for a consumer that is busy; the oldest is dropped
LEAVE_SECONDS = 0.3  # how long the broker is waited for when the last consumer leaves


def _link_of(channel: Channel) -> MqttLink | None:
    """The link that brings what was subscribed so, if there is one now."""
    wanted = channel.wanted
    return None if wanted is None else wanted.board.link


class Consumer:
    """Takes packets from a queue, so many at once as it has credit for."""

    reads_bursts = False  # the loop gathers more of them, and what is sent back is less work then

    def __init__(self, queue: Queue, handler: Handler, credit: int) -> None:
        self.credit = credit
        self.handler = handler
        self._queue = queue

    @property
    def working(self) -> bool:
        """False while the broker refuses the topic of the queue."""
        return self._queue.channel.working

    def done(self, packet: Packet) -> None:
        self._queue.give_back(self)

    def read(self, is_wanted: Callable[[], bool], seconds: float, keep: bool) -> Sequence[Packet]:
        return self._queue.read(self, is_wanted, seconds, keep)

    def resume_reading(self) -> None:
        self._queue.resume_reading()

    def send_reader_away(self) -> None:
        self._queue.send_reader_away()

    async def close(self) -> None:
        await self._queue.leave(self)


class Queue:
    """The consumers of one queue on one transport, and what waits for a free one of them.

    It is in ``queues`` by its name, until the last one has gone. ``give_back`` is called with what
    is left then: on a broker where others share the queue they get it, elsewhere they have it.
    """

    def __init__(
        self,
        name: str,
        queues: dict[str, Queue],
        boards: Boards,
        stats: LinkStats,
        give_back: Callable[[str, Packet], None],
    ) -> None:
        self._queues = queues
        self._name = name
        self._boards = boards
        self._stats = stats
        self._give_back = give_back
        self._consumers: list[Consumer] = []
        self._pending: deque[tuple[float, Packet]] = deque()
        # Filled from any thread, emptied on the loop, which is woken only if something waits.
        self._freed: deque[Consumer] = deque()
        self._wake_pending = False
        self._read_link: MqttLink | None = None
        """On which a thread has read last; the channel may have left it since."""
        self._loop = asyncio.get_running_loop()
        self.channel: Channel = boards.add(name, self.take, is_queue=True)
        queues[name] = self

    def give_back(self, consumer: Consumer) -> None:
        """A consumer can take one packet more. From any thread."""
        self._freed.append(consumer)
        # Who finds nothing waiting here is found by `feed`, which looks in the other order.
        if self._pending and not self._wake_pending:
            self._wake_pending = True
            self._loop.call_soon_threadsafe(self.feed)

    def join(self, handler: Handler, credit: int) -> Consumer:
        """One more consumer."""
        consumer = Consumer(self, handler, credit)
        self._consumers.append(consumer)
        self.feed()
        return consumer

    def take(self, packet: Packet) -> None:
        """One more packet; on the loop."""
        if not self._pending and packet.ttl != 0 and (free := self._free()) is not None:
            free.credit -= 1
            free.handler(packet)
            return
        if len(self._pending) >= MAX_PENDING:
            self._pending.popleft()
            self._stats.overflow += 1
        expires = float("inf") if packet.ttl is None else time.monotonic() + packet.ttl
        self._pending.append((expires, packet))
        self.feed()

    def read(
        self, consumer: Consumer, is_wanted: Callable[[], bool], seconds: float, keep: bool
    ) -> Sequence[Packet]:
        """The next that comes, read in this thread, if this consumer can take it.

        See ``ReadingConsumer``.
        """
        link = _link_of(self.channel)
        if link is None:
            return ()
        self._read_link = link
        find = partial(self._find, link, consumer)
        return link.read_here(is_wanted, find, [], seconds, keep) or ()

    def resume_reading(self) -> None:
        """A thread that was about to read on does not. From any thread."""
        if self._read_link is not None:
            self._read_link.resume_reading()

    def send_reader_away(self) -> None:
        """A thread that waits in ``read`` returns. On the loop."""
        if self._read_link is not None:
            self._read_link.send_reader_away()

    def _find(self, link: MqttLink, consumer: Consumer, data: bytes) -> list[Packet] | None:
        packet = link.sole_request(data, self.take)
        if packet is None or packet.ttl == 0 or self._pending or self._free() is not consumer:
            return None  # that is for the loop
        consumer.credit -= 1
        return [packet]

    def feed(self) -> None:
        """Hand over what waits, to those who have the most credit."""
        self._wake_pending = False
        while self._pending and (free := self._free()) is not None:
            expires, packet = self._pending.popleft()
            if expires > time.monotonic():
                free.credit -= 1
                free.handler(packet)
            else:
                self._stats.expired += 1

    def _free(self) -> Consumer | None:
        """Who can take most, if anybody can take something.

        On the loop, or on a thread while the loop does not read.
        """
        with suppress(IndexError):  # until there are none: both may be at this
            while True:
                self._freed.popleft().credit += 1
        consumers = tuple(self._consumers)  # the last one may leave meanwhile
        if len(consumers) != 1:
            if not consumers:
                return None
            free = max(consumers, key=lambda consumer: consumer.credit)
        else:
            free = consumers[0]
        return free if free.credit > 0 else None

    async def leave(self, consumer: Consumer) -> None:
        """One consumer less; with the last one the subscription ends."""
        if consumer not in self._consumers:
            return
        self._consumers.remove(consumer)
        if self._consumers:
            return
        del self._queues[self._name]
        ended = self._boards.remove(self.channel, self.take, keep_until_confirmed=True)
        link = self._boards.main.link
        if ended is not None and link is not None and link.is_heard:
            _, waiting = await asyncio.wait([ended], timeout=LEAVE_SECONDS)
            link.is_heard = not waiting  # if not, nobody else has to wait as long
        while self._pending:
            expires, packet = self._pending.popleft()
            if expires > time.monotonic():
                self._give_back(self._name, packet)
            else:
                self._stats.expired += 1


class Inbox:
    """Return addresses: topics behind one subscription.

    A late reply is known by its topic, too, so all that comes is handed over or counted.
    """

    capacity = 10_000

    def __init__(self, boards: Boards, prefix: str, handler: ReplyHandler) -> None:
        self._boards = boards
        self._prefix = prefix
        self._handler = handler
        self._open: set[str] = set()
        self.channel: Channel = boards.add(f"{prefix}/+", self.take, is_queue=True)

    def address(self, token: str) -> Address:
        self._open.add(token)
        return Address(f"{self._prefix}/{token}")

    def release(self, token: str, *, unused: bool = False) -> None:
        self._open.discard(token)

    def take(self, packet: Packet) -> None:
        """One more reply; on the loop."""
        token = packet.topic.rpartition("/")[2]
        if token not in self._open:
            self._handler(None, packet)
        elif self._handler(token, packet):
            self._open.discard(token)

    def read(self, token: str, seconds: float) -> Packet | None:
        link = _link_of(self.channel)
        if link is None or not link.routes.siblings:
            return None  # nor would a reply be known as one
        find = partial(self._find, link, f"{self._prefix}/{token}")
        return link.read_here(partial(self._open.__contains__, token), find, [], seconds)

    def _find(self, link: MqttLink, topic: str, data: bytes) -> Packet | None:
        found = link.sole_reply(data, topic.encode())
        return None if found is None else Packet(found[0], topic, None, found[1])

    def hand_on(self, token: str, following: str) -> Address:
        self.release(token)
        return self.address(following)

    async def close(self) -> None:
        self._boards.remove(self.channel, self.take)
        self._open.clear()
