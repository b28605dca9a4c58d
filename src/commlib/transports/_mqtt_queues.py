"""Requests and replies on MQTT: queues are topics, and a reply is told by the topic it comes on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from commlib._packet import Packet
from commlib.transports._mqtt_board import Boards, Channel
from commlib.transports.base import Address, Handler, LinkStats, ReplyHandler

MAX_PENDING = 10_000  # requests that wait for a consumer that is busy; the oldest is dropped


class Consumer:
    """Takes packets from a queue; what comes while it is busy waits here."""

    working = True

    def __init__(self, handler: Handler, prefetch: int, stats: LinkStats) -> None:
        self._handler = handler
        self._credit = prefetch
        self._stats = stats
        self._pending: deque[tuple[float, Packet]] = deque()
        self._leave: Callable[[], None] = lambda: None

    def on_close(self, leave: Callable[[], None]) -> None:
        """What ends the subscription."""
        self._leave = leave

    def take(self, packet: Packet) -> None:
        """One more packet; on the loop."""
        if self._credit > 0:
            self._credit -= 1
            self._handler(packet)
            return
        if len(self._pending) >= MAX_PENDING:
            self._pending.popleft()
            self._stats.overflow += 1
        expires = float("inf") if packet.ttl is None else time.monotonic() + packet.ttl
        self._pending.append((expires, packet))

    def done(self, packet: Packet) -> None:
        self._credit += 1
        while self._pending and self._credit > 0:
            expires, packet = self._pending.popleft()
            if expires > time.monotonic():
                self._credit -= 1
                self._handler(packet)
            else:
                self._stats.expired += 1

    async def close(self) -> None:
        self._leave()
        self._stats.overflow += len(self._pending)
        self._pending.clear()


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
        self.channel: Channel = boards.add(f"{prefix}/+", self.take, passing=True)

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

    async def close(self) -> None:
        self._boards.remove(self.channel, self.take)
        self._open.clear()
