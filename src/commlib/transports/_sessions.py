"""The connections of one transport, each supervised on its own, as one state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from commlib._params import BaseParameters
from commlib._session import Link, Session
from commlib.transports._stream_link import StreamLink
from commlib.transports.base import LinkStats, StateHandler


class Ending:
    """A subscription as its owner sees it: something that ends."""

    def __init__(self, end: Callable[[], object]) -> None:
        self._end = end

    async def close(self) -> None:
        self._end()


class Sessions:
    """All sessions of a transport: connected when each that was ever linked is.

    ``on_state`` is told when that changes. The first session is the one that speaks of trouble.
    """

    def __init__(self, params: BaseParameters, stats: LinkStats, on_state: StateHandler) -> None:
        self.connected = False
        self.was_connected = False
        self._params = params
        self._stats = stats
        self._on_state = on_state
        self._sessions: list[Session] = []

    def add(
        self, role: str, dial: Callable[[], Awaitable[Link]], on_link: Callable[[Link | None], None]
    ) -> Session:
        """One more connection; ``dial`` and ``on_link`` as for a ``Session``."""

        def note(link: Link | None, reason: Exception | None) -> None:
            on_link(link)
            self._note(reason)

        name = f"{self._params} ({role})" if self._sessions else str(self._params)
        session = Session(name, self._params, dial, note, quiet=bool(self._sessions))
        self._sessions.append(session)
        return session

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
            self.connected = connected
            if connected:
                self._stats.reconnects += self.was_connected
                self.was_connected = True
            self._on_state(connected, reason)

    def abandon(self) -> None:
        """After a fork, in the child: let go of the sockets without a word to the broker."""
        for session in self._sessions:
            if isinstance(session.link, StreamLink):
                session.link.abandon()
