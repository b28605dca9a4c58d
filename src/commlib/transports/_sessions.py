"""The connections of one transport, each supervised on its own, as one state."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from commlib import _tls
from commlib._outbox import Outbox
from commlib._params import NetworkParameters
from commlib._session import SLOW, Link, Session
from commlib.exceptions import CommlibError, ConnectError
from commlib.transports._stream_link import StreamLink
from commlib.transports.base import LinkStats, StateHandler

log = logging.getLogger("commlib.session")

P = TypeVar("P", bound=NetworkParameters)
"""The parameters of one kind of broker."""

FLUSH_SECONDS = 0.8  # how long closing waits for what is not written yet
LONGEST_FLUSH_SECONDS = 5.0  # the same if the other machine takes it, but slowly
FLUSH_LOOKS = 8  # at its progress, in the time that is given for it


class Sessions(Generic[P]):
    """All sessions of a transport: connected when each that was ever linked is.

    ``on_state`` is told when that changes. The first session is the one that speaks of trouble.
    All of them are with the same broker: the next of several is tried when one cannot be reached
    and no session has a link.
    """

    def __init__(self, params: P, stats: LinkStats, on_state: StateHandler) -> None:
        self.connected = False
        self.was_connected = False
        self._places = deque(params.each_place())
        self._stats = stats
        self._on_state = on_state
        self._sessions: list[Session] = []

    @property
    def params(self) -> P:
        """Those of the broker that is used, or tried."""
        return self._places[0]

    def add(
        self, role: str, dial: Callable[[], Awaitable[Link]], on_link: Callable[[Link | None], None]
    ) -> Session:
        """One more connection; ``dial`` and ``on_link`` as for a ``Session``."""

        def note(link: Link | None, reason: Exception | None) -> None:
            on_link(link)
            self._note(reason)

        suffix = f" ({role})" if self._sessions else ""

        async def dial_here() -> Link:
            # Where nothing is tried again, each of the brokers is tried once at least.
            left = 1 if self.params.reconnect else len(self._places)
            while True:
                left -= 1
                session.name = f"{self.params}{suffix}"
                try:
                    return await self._dial_place(dial)
                except (CommlibError, OSError) as exc:
                    if left == 0 or not _is_away(exc):
                        raise

        name = f"{self.params}{suffix}"
        first = self._sessions[0] if self._sessions else None
        session = Session(name, self.params, dial_here, note, first=first)
        self._sessions.append(session)
        return session

    async def _dial_place(self, dial: Callable[[], Awaitable[Link]]) -> Link:
        """A link to the broker of now; if that is away, the next one is tried from then on."""
        place = self.params
        try:
            # A share for each: one that does not answer must leave time for the others.
            share = place.connect_timeout / len(self._places) if len(self._places) > 1 else None
            async with asyncio.timeout(share):
                link = await dial()
        except BaseException as exc:  # that it was given up for lack of an answer, too
            if _is_away(exc):
                self._move_on(place)
            raise
        if place is not self.params:
            link.abort(None)
            raise ConnectError(f"{place} is back, but {self.params} is used by now")
        return link

    def _move_on(self, place: P) -> None:
        """Try the next broker from now on, if nobody uses this one or has moved on before."""
        if place is self.params and not any(session.link for session in self._sessions):
            self._places.rotate(-1)

    def leave(self, place: P, reason: Exception) -> bool:
        """Leave a broker that is there, and is the wrong one, with all connections.

        False: no other one stands in for it.
        """
        if len(self._places) == 1 or not place.reconnect:
            return False
        if place is self.params:
            self._places.rotate(-1)
            for session in self._sessions:
                if session.link is not None:
                    session.link.abort(reason)
        return True

    async def drop(self, session: Session) -> None:
        """Close a connection that is needed no more; it counts no longer."""
        self._sessions.remove(session)
        await session.close()

    def _note(self, reason: Exception | None) -> None:
        if reason is None:
            for session in self._sessions:
                session.hurry()
        used = [session for session in self._sessions if session.was_linked]
        connected = bool(used) and all(session.link is not None for session in used)
        if connected != self.connected:
            if connected:  # counted before anybody can see it
                self._stats.reconnects += self.was_connected
                self.was_connected = True
            self.connected = connected
            self._on_state(connected, reason)

    def abandon(self) -> None:
        """After a fork, in the child: let go of the sockets without a word to the broker."""
        for session in self._sessions:
            if isinstance(session.link, StreamLink):
                session.link.abandon()


class SupervisedTransport(Generic[P]):
    """What all transports have in common whose connections are supervised."""

    def __init__(self, params: P) -> None:
        self.params = params
        self.stats = LinkStats()
        self.on_state: StateHandler = lambda connected, reason: None
        self.on_refused: Callable[[str, Exception], None] = lambda target, error: None
        self._name = str(params)
        self._sessions = Sessions(
            params, self.stats, lambda connected, reason: self.on_state(connected, reason)
        )

    def _make_outbox(self, session: Session) -> Outbox:
        """For what is written to the connection of this session."""
        return Outbox(
            self._name,
            self.params.offline_policy,
            self.stats,
            failure=lambda: session.failure,
            connecting=lambda: not (session.failed or self._sessions.was_connected),
        )

    async def flush(self) -> None:
        """Return when the broker has confirmed all that was published so far."""
        raise NotImplementedError

    async def _flush_last(self, link: Link | None, seconds: float) -> bool:
        """Have all that was published confirmed, before the connection ends; whether it is."""
        is_under_way = isinstance(link, StreamLink) and link.unsent_bytes > 0
        is_done = False
        try:
            with suppress(TimeoutError, CommlibError):
                await self._flush_patiently(link, seconds)
                is_done = True
        finally:  # cancelled, too
            if is_under_way and not is_done:
                log.warning("%s: left before the broker had taken all that was sent", self._name)
        return is_done

    async def _flush_patiently(self, link: Link | None, seconds: float) -> None:
        """Flush within so many seconds, and longer if bytes have left within so many.

        Raises TimeoutError, CommlibError.
        """
        loop = asyncio.get_running_loop()
        flushing = asyncio.ensure_future(self.flush())
        try:
            until, last = loop.time() + seconds, loop.time() + LONGEST_FLUSH_SECONDS
            left = _bytes_left(link)
            while not flushing.done():
                before, left = left, _bytes_left(link)
                if left > before:
                    until = loop.time() + seconds
                if loop.time() >= min(until, last):
                    raise TimeoutError
                await asyncio.wait([flushing], timeout=seconds / FLUSH_LOOKS)
            flushing.result()
        finally:
            flushing.cancel()

    @property
    def connected(self) -> bool:
        return self._sessions.connected

    def abandon(self) -> None:
        self._sessions.abandon()


def _is_away(exc: BaseException) -> bool:
    """Whether a broker was not reached; where it was, a person has to mend something."""
    return not (isinstance(exc, SLOW) or (_tls.fault(exc) and not _tls.heals(exc)))


def _bytes_left(link: Link | None) -> int:
    """How many bytes that were written there have left."""
    return link.written_bytes - link.unsent_bytes if isinstance(link, StreamLink) else 0
