"""The lives of an endpoint: how each is begun and ended, whoever does so, and when."""

from __future__ import annotations

import asyncio
import logging
from typing import Self

from commlib._turns import Turn, spared, turn_of_callback
from commlib.aio._hub import Hub
from commlib.exceptions import EndpointClosed
from commlib.transports.base import StateHandler, Transport


class InContext:
    """What runs within ``async with``."""

    async def run(self, wait: bool = True) -> None:
        """Begin to work."""

    async def stop(self) -> None:
        """End the work."""

    async def __aenter__(self) -> Self:
        try:
            await self.run()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()


class Living(InContext):
    """What is run and stopped, any number of times. Its ``log`` is made by those who derive.

    ``has_own_hub``: nobody else uses the connection, which is closed at the end of each life.
    """

    log: logging.Logger

    def __init__(
        self, name: str, hub: Hub, has_own_hub: bool, on_state: StateHandler | None
    ) -> None:
        self.name = name
        self.hub = hub
        self._has_own_hub = has_own_hub
        self._on_state = on_state
        self._heed_state()
        self._begun_on: Transport | None = None
        self._beginning: asyncio.Future[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._stops = 0  # how often it was stopped
        self.stopped = False

    @property
    def _running(self) -> bool:
        # A hub that was closed, or inherited through a fork, has another transport since.
        return self._begun_on is self.hub.transport

    @property
    def connected(self) -> bool:
        """Whether the connection to the broker is there now."""
        return self.hub.transport.connected

    async def wait_connected(self, timeout: float = 30) -> bool:
        """Whether the connection to the broker is there, or comes within ``timeout`` seconds.

        Raises AuthError when the broker says no, ConnectError where nothing is tried again, and
        EndpointClosed after ``stop()``.
        """
        self.check_open()
        return await self.hub.wait_connected(timeout)

    async def run(self, wait: bool = True) -> None:
        """Begin to work; idempotent.

        With ``wait`` it returns when the broker has confirmed, or after ``connect_timeout`` with
        a warning, and goes on trying. Raises AuthError when the broker says no, and ConnectError
        with ``reconnect=False``.
        """
        if not await self.may_begin(turn_of_callback()):
            return
        beginning = self.begin(wait)
        if wait:
            await self.hub.settle(self.name, beginning, quiet=not self._has_own_hub)

    async def may_begin(self, turn: Turn | None) -> bool:
        """Return when the former life has ended; False: it was stopped meanwhile.

        ``turn``: of the callback that waits here, which that end does not wait for.
        """
        stops = self._stops
        with spared(turn):
            await self._until_ended()
        await self._reopen()
        return stops == self._stops

    async def _reopen(self) -> None:
        await self.hub.reopen()

    async def run_beside(self) -> None:
        """Begin to work beside others that do already; waits for the broker if it is there."""
        await self.run(self.connected)

    def begin(self, wait: bool) -> asyncio.Future[None]:
        """Begin; without ``wait`` nobody will wait for what it returns, so errors are logged."""
        is_new = not self._is_begun
        beginning = self.start()
        if is_new and not wait:
            self.hub.tell_errors(beginning)
        return beginning

    def start(self) -> asyncio.Future[None]:
        """Begin in the background, if that is not done yet. On the loop."""
        self.hub.check_here()
        self.stopped = False
        self._heed_state()
        if not self._is_begun or self._beginning is None:
            self._begun_on = self.hub.transport
            self.hub.start()
            self._beginning = self.hub.spawn(
                self._begin_after() if self._is_ending else self._begin()
            )
            self._beginning.add_done_callback(self._note_begun)
            self.hub.note_change()
        return self._beginning

    def _note_begun(self, beginning: asyncio.Future[None]) -> None:
        """Keep no task that has done its work: there may be thousands of endpoints."""
        if beginning is self._beginning and not has_failed(beginning):
            self._beginning = self.hub.done
            self.log.debug("%s: begun", self.name)

    @property
    def _is_begun(self) -> bool:
        beginning = self._beginning
        return self._running and beginning is not None and not has_failed(beginning)

    @property
    def ready(self) -> bool:
        """Whether it runs, is connected, and the broker has confirmed all that it needs."""
        return (
            self._is_begun
            and self._beginning is not None
            and self._beginning.done()
            and self.connected
        )

    def check_open(self) -> None:
        """Raises EndpointClosed if this was stopped and not run again. From any thread."""
        if self.stopped:
            raise EndpointClosed(f"{self.name} was stopped; run() it again or make a new one")

    def set_aside(self) -> None:
        """Wait for ``run()`` as after ``stop()``, though it has never begun. From any thread."""
        self.stopped = True

    async def _begin(self) -> None:
        await self.hub.transport.connect()

    async def _begin_after(self) -> None:
        await self._until_ended()
        self._heed_state()
        await self._begin()

    async def stop(self) -> None:
        """End the work: take nothing more, let callbacks finish within ``grace``, leave.

        Idempotent, and the endpoint can be run again.
        """
        self.hub.check_here()
        self.stopped = True
        self._stops += 1
        self.hub.leave_loop()
        with spared(turn_of_callback()):
            await self._stop()

    # A task of its own ends a life: who gives up waiting for that leaves nothing half done, who
    # stops it as well waits for the same, and the next life begins behind it.

    async def _stop(self) -> None:
        if self._has_own_hub:
            self.keep()
        beginning = self._give_up_beginning()
        former = self._ending if self._is_ending else None
        if beginning is not None or (former is None and self._is_apart):
            ending = asyncio.get_running_loop().create_task(self._end_life(beginning, former))
            self._ending = ending
            ending.add_done_callback(self._note_ended)
        elif former is not None:
            ending = former
        else:
            self._ignore_state()
            return
        await self.hub.watch(ending)

    def _give_up_beginning(self) -> asyncio.Future[None] | None:
        """Whatever has begun, or waits to begin, is not to go on; None: nothing has."""
        beginning = self._beginning if self._running else None
        if beginning is not None:
            self._begun_on = None
            beginning.cancel()
        return beginning

    def _note_ended(self, ending: asyncio.Task[None]) -> None:
        if ending is self._ending:
            self._ending = None

    async def _end_life(
        self, beginning: asyncio.Future[None] | None, former: asyncio.Task[None] | None
    ) -> None:
        try:
            if former is not None:
                await asyncio.wait([former])
            if beginning is not None:
                await asyncio.wait([beginning])
                self.hub.note_change()
                await self._end()
                self.log.debug("%s: stopped", self.name)
        finally:
            if self._has_own_hub:
                await self.hub.close()
            self._ignore_state()

    @property
    def _is_apart(self) -> bool:
        """Whether it has a connection of its own, which is to be closed though it never began."""
        return self._has_own_hub

    @property
    def _is_ending(self) -> bool:
        """Whether a life is being ended here; in a forked child, none of its parent's is."""
        ending = self._ending
        if ending is None or ending.done():
            return False
        return ending.get_loop() is asyncio.get_running_loop()

    async def _until_ended(self) -> None:
        """Return when nobody is stopping it any more."""
        while self._is_ending:
            assert self._ending is not None, "it is ending"
            await asyncio.wait([self._ending])

    def _heed_state(self) -> None:
        if self._on_state is not None:
            self.hub.listeners.add(self._on_state)

    def _ignore_state(self) -> None:
        if self._on_state is not None:
            self.hub.listeners.discard(self._on_state)

    def keep(self) -> None:
        """Its connection is about to be closed: ``stop`` leaves with the broker what can last."""

    async def _end(self) -> None:
        """What has to be undone of ``_begin``."""


def has_failed(beginning: asyncio.Future[None]) -> bool:
    """Whether it has come to an end, and not to a good one."""
    return beginning.done() and (beginning.cancelled() or beginning.exception() is not None)
