"""What transports have in common that do all on one main connection.

It has two outboxes: what is written once and forgotten, and what the broker is to confirm.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

from commlib._outbox import Outbox
from commlib._packet import Packet
from commlib._session import Link, Session
from commlib.exceptions import ConnectionLost
from commlib.transports._deliveries import Deliveries
from commlib.transports._sessions import FLUSH_SECONDS, P, SupervisedTransport
from commlib.transports._stream_link import StreamLink

log = logging.getLogger("commlib.session")

UNANSWERED_FLUSH_SECONDS = 0.1


D = TypeVar("D", bound=Deliveries[Any])


class MainTransport(SupervisedTransport[P], ABC, Generic[D, P]):
    """A main connection, its outboxes, and how they are flushed and closed."""

    _question: bytes
    """What the broker answers when it has taken over all that was written before."""
    _deliveries: D

    def __init__(self, params: P) -> None:
        super().__init__(params)
        self._main = self._sessions.add("main", self._dial_main, self._on_main)
        self._outbox = self._make_outbox(self._main)
        self._reliable = self._make_outbox(self._main)
        self._main.on_failure = self._wake
        self._main.on_cancelled = self._give_up
        self._warned: set[str] = set()

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
            seconds = FLUSH_SECONDS if is_heard else UNANSWERED_FLUSH_SECONDS
            is_heard = await self._flush_last(link, seconds)
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

    def let_go(self) -> None:
        self._outbox.let_go()

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
