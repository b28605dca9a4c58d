"""What transports have in common that do all on one main connection.

It has two outboxes: what is written once and forgotten, and what the broker is to confirm.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from commlib._outbox import Outbox
from commlib._packet import Packet
from commlib._session import Link, Session
from commlib.exceptions import CommlibError, ConnectionLost
from commlib.transports._deliveries import Deliveries
from commlib.transports._sessions import P, Sessions
from commlib.transports._stream_link import StreamLink
from commlib.transports.base import LinkStats, StateHandler

log = logging.getLogger("commlib.session")

FLUSH_SECONDS = 0.8  # how long closing waits for what is not written yet
UNANSWERED_FLUSH_SECONDS = 0.1


D = TypeVar("D", bound=Deliveries[Any])


class MainTransport(ABC, Generic[D, P]):
    """A main connection, its outboxes, and how they are flushed and closed."""

    _question: bytes
    """What the broker answers when it has taken over all that was written before."""
    _deliveries: D

    def __init__(self, params: P) -> None:
        self.stats = LinkStats()
        self.on_state: StateHandler = lambda connected, reason: None
        self.on_refused: Callable[[str, Exception], None] = lambda target, error: None
        self._name = str(params)
        self._policy = params.offline_policy
        self._sessions = Sessions(
            params, self.stats, lambda connected, reason: self.on_state(connected, reason)
        )
        self._main = self._sessions.add("main", self._dial_main, self._on_main)
        self._outbox = self._make_outbox()
        self._reliable = self._make_outbox()
        self._main.on_failure = self._wake
        self._main.on_cancelled = self._give_up
        self._warned: set[str] = set()

    def _make_outbox(self) -> Outbox:
        return Outbox(
            self._name,
            self._policy,
            self.stats,
            failure=lambda: self._main.failure,
            connecting=lambda: not (self._main.failed or self._sessions.was_connected),
        )

    def _wake(self) -> None:
        self._outbox.wake()
        self._reliable.wake()

    # What each transport has of its own.

    @abstractmethod
    async def _dial_main(self) -> Link:
        """Open the main connection, and restore what the broker must know."""

    @abstractmethod
    def _on_main(self, link: Link | None) -> None:
        """The main connection is there, or away."""

    async def _close_rest(self) -> None:
        """Close what is beside the main connection, before that."""

    # The verbs that all have alike.

    async def connect(self) -> None:
        self._outbox.attend()
        self._reliable.attend()
        await self._main.ready()

    async def close(self) -> None:
        link = self._main.link
        if link is not None or not (self._is_empty or self._main.failed):
            # A broker that was already waited for in vain is given no more time than it needs.
            is_heard = not isinstance(link, StreamLink) or link.is_heard
            try:
                async with asyncio.timeout(FLUSH_SECONDS if is_heard else UNANSWERED_FLUSH_SECONDS):
                    await self.flush()
                is_heard = True
            except (TimeoutError, CommlibError):
                is_heard = False
            if isinstance(link, StreamLink):
                link.is_heard = is_heard
        await self._close_rest()
        await self._leave(self._main)
        self._outbox.close()
        self._reliable.close()

    def _give_up(self) -> None:
        self._outbox.give_up()
        self._reliable.give_up()

    async def _leave(self, session: Session) -> None:
        """Close a connection, and return when it is."""
        link = session.link
        if session is self._main:
            await session.close()
        else:
            await self._sessions.drop(session)
        if isinstance(link, StreamLink):
            await link.gone

    @property
    def _is_empty(self) -> bool:
        return self._outbox.empty and self._reliable.empty

    def _outbox_for(self, packet: Packet) -> Outbox:
        return self._reliable if packet.qos else self._outbox

    async def room(self, packet: Packet) -> None:
        await self._outbox_for(packet).room()

    async def flush(self) -> None:
        await self._main.ready()
        link = self._main.link
        if link is None:
            return
        while not (self._reliable.empty and self._deliveries.is_idle):
            if self._main.link is not link:
                raise ConnectionLost(f"{self._name} was lost")
            await (self._deliveries.drained() if self._reliable.empty else self._reliable.room())
        await self._outbox.confirm(self._question, link.closed)

    def clock(self) -> int:
        return int(time.time() * 1000)

    @property
    def connected(self) -> bool:
        return self._sessions.connected

    def abandon(self) -> None:
        self._sessions.abandon()

    def _take_back(self) -> None:
        """The main connection is away: what it has not confirmed may have to go again."""
        self._outbox.set_link(None)
        self._reliable.set_link(None)
        lost = self._deliveries.detach()
        self._reliable.put_back(
            [delivery.frame for delivery in lost],
            list(lost),
            [delivery.born for delivery in lost],
        )

    def _note_refused(self, topic: str, error: Exception) -> None:
        self.stats.refused += 1
        self.on_refused(topic, error)

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            log.warning("%s: %s", self._name, text)
