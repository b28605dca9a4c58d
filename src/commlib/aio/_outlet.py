"""The far side of a bridge: hands messages to the sink in order, and keeps them while it is away.

A hub has an outgoing queue of its own, which drops what is older than a few seconds. So nothing is
given to it unless the sink is there. A broken connection takes with it what was written and not
confirmed by the broker. So that this is never much, even on a link that is dead and not known to
be, the broker is asked now and then to confirm what was written, and beyond a window of what it
has not confirmed messages wait here, too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from commlib._bridge_stats import BridgeStats
from commlib._lanes import Bounds
from commlib._packet import Packet
from commlib._session import LONGEST_PAUSE
from commlib._store import Keep, Store
from commlib.aio._hub import Hub
from commlib.exceptions import CommlibError, ConnectionLost

log = logging.getLogger("commlib.bridges")

WINDOW = 20_000  # messages, and bytes of them, that may be unconfirmed at once
WINDOW_BYTES = 4 * 1024 * 1024
TURN = 2000  # messages of those that wait before others get their turn; more than come meanwhile
RESUME_SECONDS = 2 * LONGEST_PAUSE
"""How long what has waited is held back when the sink is there again.

A broker that was restarted has no subscribers at first. Those of ours come back within one and a
half times the longest pause between two attempts, and after a short outage within three times its
length.
"""


class Outlet:
    """Sends packets to the topics of one hub, in the order in which they were put.

    Bridges that share one keep the order of what they put together. All methods are for the loop.
    ``report`` is told of what can never be sent.
    """

    def __init__(
        self,
        sink: Hub,
        name: str,
        keep: Keep,
        resume_after: float,
        stats: BridgeStats,
        report: Callable[[Packet, BaseException], None],
    ) -> None:
        self._sink = sink
        self._name = name
        self._keep = keep
        # A burst that the sink cannot take at once has as much room as before a slow callback.
        self._keep_briefly = keep.with_room_for(Bounds().max_messages, Bounds().max_bytes)
        self._resume_after = resume_after
        self._stats = stats
        self._report = report
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send, as soon as the sink is there; after ``stop()`` it can be started again."""
        # All of it anew: the last run may have been on another connection, and another loop.
        self._transport = self._sink.transport
        self._loop = asyncio.get_running_loop()
        self._store = Store(self._keep)
        self._is_open = self._overflowing = False
        self._away_since = self._loop.time()
        self._resuming: asyncio.TimerHandle | None = None
        self._unconfirmed = self._unconfirmed_bytes = 0
        self._confirming: asyncio.Task[None] | None = None
        self._news, self._moved = asyncio.Event(), asyncio.Event()
        self._stored = self._held = 0  # how many have ever waited; and when it was opened
        self._sink.listeners.add(self._note_state)
        if self._transport.connected:
            self._open()
        self._task = self._sink.spawn(self._work())

    async def stop(self, grace: float) -> None:
        """Send what waits, for as long as ``grace`` seconds; the rest is dropped and counted."""
        if self._task is None:
            return
        if self._loop is not asyncio.get_running_loop():  # in a forked child: the parent's goes on
            self._sink.listeners.discard(self._note_state)
            self._task = None
            return
        if self._transport.connected:
            self._open()
            with suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    while self._store and self._is_open:
                        self._moved.clear()
                        await self._moved.wait()
        self._sink.listeners.discard(self._note_state)
        self._shut()
        self._task.cancel()
        await asyncio.wait([self._task])
        self._task = None
        if self._store:
            count = len(self._store)
            what = "1 message was" if count == 1 else f"{count} messages were"
            log.warning("%s: %s never sent on", self._name, what)
            self._stats.dropped += len(self._store)
            self._stats.waiting = 0

    async def opened(self) -> None:
        """Return when nothing waits because the sink was away; what has come since then may."""
        while self._store and not (self._is_open and self._stored - len(self._store) >= self._held):
            self._moved.clear()
            await self._moved.wait()

    def put(self, topic: str, packet: Packet) -> None:
        """Send a packet, now or when the sink is there and those before it are sent."""
        if self._is_open and not self._store and self._has_window and self._send(topic, packet):
            return
        self._stored += 1
        dropped = self._store.put(topic, packet, self._loop.time())
        self._stats.waiting = len(self._store)
        if dropped:
            self._note_overflow(dropped)
        self._news.set()

    def _note_overflow(self, dropped: int) -> None:
        self._stats.dropped += dropped
        if not self._overflowing:
            self._overflowing = True
            log.warning(
                "%s: %s is away for long, or too slow: the oldest messages are dropped",
                *(self._name, self._sink.params),
            )

    # Whether the sink is there.

    def _note_state(self, connected: bool, reason: Exception | None) -> None:
        if not connected:
            if self._is_open:
                self._away_since = self._loop.time()
            self._shut()
        elif not self._is_open and self._resuming is None:
            outage = self._loop.time() - self._away_since
            self._resuming = self._loop.call_later(min(self._resume_after, 3 * outage), self._open)

    def _open(self) -> None:
        self._end_wait()
        self._is_open = True
        self._held = self._stored
        self._store.keep = self._keep_briefly
        self._unconfirmed = self._unconfirmed_bytes = 0
        self._news.set()

    def _shut(self) -> None:
        self._end_wait()
        self._is_open = False
        self._store.keep = self._keep
        self._moved.set()

    def _end_wait(self) -> None:
        if self._confirming is not None:
            self._confirming.cancel()
            self._confirming = None
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None

    # Sending.

    @property
    def _has_window(self) -> bool:
        return self._unconfirmed < WINDOW and self._unconfirmed_bytes < WINDOW_BYTES

    def _send(self, topic: str, packet: Packet) -> bool:
        """Hand a packet over; False when there is no room, or no connection."""
        try:
            if not self._transport.publish(topic, packet):
                return False
        except ConnectionLost:
            self._note_state(False, None)
            return False
        except (CommlibError, ValueError) as exc:  # ValueError: the sink has no such topic
            self._report(packet, exc)
            return True
        self._stats.forwarded += 1
        self._unconfirmed += 1
        self._unconfirmed_bytes += len(packet.payload)
        if self._confirming is None and self._is_half_used:
            self._confirming = self._sink.spawn(self._confirm())
        return True

    @property
    def _is_half_used(self) -> bool:
        return 2 * self._unconfirmed >= WINDOW or 2 * self._unconfirmed_bytes >= WINDOW_BYTES

    async def _confirm(self) -> None:
        count, size = self._unconfirmed, self._unconfirmed_bytes
        with suppress(CommlibError):  # the connection has broken: what it took is counted there
            await self._transport.flush()
        self._unconfirmed -= count
        self._unconfirmed_bytes -= size
        self._confirming = None
        self._news.set()

    async def _work(self) -> None:
        """Send what waits, whenever there is news."""
        while True:
            await self._news.wait()
            self._news.clear()
            turn = 0
            while self._is_open and self._store and self._has_window:
                if not self._send_first() and self._is_open:
                    self._moved.set()
                    await self._transport.room(self._store.first()[1])
                turn += 1
                if turn % TURN == 0:
                    self._moved.set()
                    await asyncio.sleep(0)
            if not self._store:
                self._overflowing = False
            self._moved.set()

    def _send_first(self) -> bool:
        """Send the oldest that waits, if it is not too old; False when there is no room."""
        self._stats.expired += self._store.expire(self._loop.time())
        if self._store:
            if not self._send(*self._store.first()):
                return False
            self._store.pop()
        self._stats.waiting = len(self._store)
        return True
