"""Keeps one connection to a broker alive.

A ``Session`` supervises any driver: it dials, tells when the link is there, watches it, and dials
again with growing, jittered pauses.

The driver is a ``Link``: something that can be written to, is probed when it has been silent for
too long, and says by ``closed`` when and why it ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from os import urandom
from socket import gaierror
from typing import Protocol
from weakref import ref

from commlib import _tls
from commlib._params import BaseParameters, NetworkParameters
from commlib._parts import Frame
from commlib._patience import Patience, Written
from commlib.exceptions import (
    AuthError,
    CertificateError,
    CommlibError,
    ConnectError,
    ConnectionLost,
)

log = logging.getLogger("commlib.session")

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0  # s between attempts; a restarted broker is back in ~1 s
SETTLING_SECONDS = 5.0  # a longest pause, drawn as long as can be, and time to dial
AUTH_PAUSE = 30.0  # s; a person has to mend it, and brokers count failed logins (and take-overs)
ALONE_PAUSE = 0.1  # s after which most that end together have ended
LOOK_AGAIN = 1.0  # s until one looks again whether the main connection is still there
PROBE_GRACE = 5.0  # s from when the broker has the probe of a silent link to the end of it


class TakenOver(ConnectionLost):
    """Another client has taken our connection over, by the name that the broker knows us by.

    Who tried again at once would throw that one out, which would try again: a fight without an end.
    """


SLOW = (AuthError, TakenOver)
"""Errors after which the next attempt is not worth much, or does harm, before AUTH_PAUSE."""


def jitter() -> float:
    """What a pause is to be multiplied by, from 0.5 to 1.5."""
    # Nothing is imported for it: where descriptors have run out that would fail, and end the
    # supervision just when it is needed.
    return 0.5 + int.from_bytes(urandom(2)) / 0xFFFF


class Sink(Protocol):
    """What an outbox writes to."""

    def write(self, frames: Sequence[Frame], notes: Iterable[object], /) -> None:
        """Write frames in one go; each note stands for the answer to its frame."""

    def may_be_now(self, urgent: bool, /) -> bool:
        """Whether this thread may write at once, not the loop in its next turn, by a first look.

        ``urgent``: somebody waits for the answer, so that it is not better to write it together
        with what may come next; the loop writes nothing else at once.
        """
        ...

    def write_now(self, frame: Frame, note: object, urgent: bool, /) -> bool:
        """Write at once, if that may be and nothing else is under way. False: it was not."""
        ...

    def write_all_now(self, frames: Sequence[Frame], notes: Iterable[object], /) -> bool:
        """The same for what other threads have brought meanwhile, urgent or not."""
        ...


class Link(Sink, Written, Protocol):
    """An open connection, as a session sees it."""

    closed: asyncio.Future[Exception | None]

    @property
    def keepalive(self) -> float | None:
        """Seconds of silence that the broker allows; None: those of the parameters."""
        ...

    @property
    def heard(self) -> float:
        """When the broker last said anything, in the loop's time."""
        ...

    def probe(self) -> None:
        """Make the broker say something, if it is not about to anyway."""

    def abort(self, reason: Exception | None) -> None:
        """Cut the connection; idempotent."""


class Session:
    """One supervised connection.

    ``dial`` opens a link, authenticates and restores what the broker must know; it raises
    AuthError or ConnectError. ``on_link`` is told of each new link, and None when it is away.
    ``first`` is given to the second and further connections of a transport, whose troubles are
    mostly those of the first one.
    """

    def __init__(
        self,
        name: str,
        params: BaseParameters,
        dial: Callable[[], Awaitable[Link]],
        on_link: Callable[[Link | None, Exception | None], None],
        *,
        first: Session | None = None,
    ) -> None:
        self.name = name
        self.link: Link | None = None
        self.was_linked = False
        self.failure: CommlibError | None = None
        """Why there is no link, where only a person can mend it."""
        self._back_since: float | None = None
        """When the link came, in the loop's time, if it had been away or out of reach before."""
        self._reported = False
        self._first = first
        self._level = logging.INFO if first is not None else logging.WARNING
        self._params = params
        self._dial = dial
        self._on_link = on_link
        self.failed = False
        """Whether the last attempt has failed; the first one may still be under way."""
        self.on_failure: Callable[[], None] = lambda: None
        """Told when an attempt has failed."""
        self.on_cancelled: Callable[[], None] = lambda: None
        """Told when it ends because its loop does, and nobody has closed it."""
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._hurry = asyncio.Event()

    def start(self) -> None:
        """Begin to connect, in the background; idempotent."""
        if self._task is None or self._task.done():
            self.failure = None
            self._task = asyncio.get_running_loop().create_task(self._supervise())
            self._task.add_done_callback(self._ended)

    async def ready(self) -> None:
        """Return when the link is there.

        Raises AuthError when the broker refuses, until one of the attempts that go on has another
        end; and what else has ended an attempt where nothing is tried again: that is then one
        attempt each time.
        """
        self.start()
        while self.link is None:
            if self.failure is not None:
                raise self.failure
            self._news.clear()
            await self._news.wait()

    async def close(self) -> None:
        """End the connection and its supervision; idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self.failure, self.failed, self.was_linked = None, False, False
        self._back_since = None

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE
        while True:
            begun = loop.time()
            error = await self._attempt()
            if not self._params.reconnect:
                return
            if error is None and loop.time() - begun > pause:
                pause = FIRST_PAUSE  # it was connected, for longer than a pause to breathe
            elif isinstance(error, SLOW):
                pause = AUTH_PAUSE
            self._hurry.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause * jitter()):
                    await self._hurry.wait()
            pause = min(pause * 2, LONGEST_PAUSE)

    @property
    def is_just_back(self) -> bool:
        """Whether others may not have found the broker yet after it was away. On the loop."""
        since = self._back_since
        return since is not None and asyncio.get_running_loop().time() - since < SETTLING_SECONDS

    def hurry(self) -> None:
        """Try again at once: another connection has just found the broker."""
        self._hurry.set()

    async def _attempt(self) -> CommlibError | None:
        """One life of the link; returns why there was none, or should be no other one soon."""
        try:
            async with asyncio.timeout(self._params.connect_timeout):
                link = await self._dial()
        except (CommlibError, OSError) as exc:
            return self._note_failure(exc)
        except Exception as exc:  # no more threads, no memory, a TLS context of the program's own
            level = logging.DEBUG if self._reported else logging.ERROR
            log.log(level, "%s: cannot connect", self.name, exc_info=exc)
            # Not its repr, which shows a password that cannot be encoded.
            return self._note_failure(OSError(f"{type(exc).__name__}: {exc}"))
        reason: Exception | None = None
        try:
            self._note_link(link, None)
            reason = await self._watch(link)
            self._note_loss(reason or ConnectionLost("closed by the broker"))
        except asyncio.CancelledError:
            left = link.unsent_bytes
            if left and self._task is not None:  # it is the loop that ends, not `close`
                log.warning(
                    "%s: the event loop ends with %d bytes on their way, which may get lost; "
                    "stop() the node before that, as 'async with' does",
                    *(self.name, left),
                )
            raise
        finally:
            link.abort(None)
            self._note_link(None, reason or ConnectionLost(f"{self.name} was closed"))
        return reason if isinstance(reason, SLOW) else None

    def _note_failure(self, exc: CommlibError | OSError) -> CommlibError:
        error = exc if isinstance(exc, CommlibError) else self._connect_error(exc)
        is_own = self._first is None or self._first.link is not None
        level = logging.WARNING if is_own and isinstance(error, AuthError) else self._level
        is_final = isinstance(error, AuthError) or not self._params.reconnect
        again = "; trying again, twice a minute" if is_final and self._params.reconnect else ""
        log.log(logging.DEBUG if self._reported else level, "%s%s", error, again)
        error.logged = True
        self._reported = self.failed = True
        if is_final:
            self._fail(error)
        else:
            self.on_failure()
        return error

    def _fail(self, error: CommlibError) -> None:
        self.failure = error
        self._news.set()
        self.on_failure()

    def _note_loss(self, reason: Exception) -> None:
        again = "trying again" if self._params.reconnect else "reconnect=False"
        log.log(self._level, "%s lost: %s; %s", self.name, reason, again)
        if self._first is not None:
            loop, link = asyncio.get_running_loop(), self._first.link
            # Not kept for so long: where links break all the time they would pile up.
            beside = None if link is None else ref(link)
            told = (self._first, beside, reason, loop.time())
            loop.call_later(ALONE_PAUSE, self._tell_if_alone, *told)
        if not self._params.reconnect:
            self._fail(ConnectionLost(f"{self.name} was lost: {reason}; {again}"))

    def _tell_if_alone(
        self, first: Session, beside: ref[Link] | None, reason: Exception, lost: float
    ) -> None:
        """Of a loss that nobody else tells of: the main connection has been heard since then."""
        link = None if beside is None else beside()
        if self._task is None or link is None or first.link is not link:
            return
        if link.heard > lost:
            log.warning("%s was lost, and %s was not: %s", self.name, first.name, reason)
            return
        later = asyncio.get_running_loop().call_later
        later(LOOK_AGAIN, self._tell_if_alone, first, beside, reason, lost)

    @property
    def _uses_tls(self) -> bool:
        return isinstance(self._params, NetworkParameters) and bool(self._params.ssl)

    def _connect_error(self, exc: OSError) -> ConnectError:
        kind = ConnectError
        text = str(exc)
        if not text:
            speaks = "TLS" if self._uses_tls else "this protocol"
            text = (
                f"no answer within {self._params.connect_timeout:g} s; is the machine on, and does "
                f"it speak {speaks}?"
            )
        elif getattr(exc, "reason", None) == "WRONG_VERSION_NUMBER":  # of ssl
            text += "; does it speak TLS?"
        elif isinstance(exc, ConnectionRefusedError):
            text += "; is a broker running there?"
        elif isinstance(exc, gaierror):
            text += "; is the name right?"
        elif advice := _tls.fault(exc):
            text += f"; {advice}"
            kind = ConnectError if _tls.heals(exc) else CertificateError
        elif isinstance(exc, ConnectionResetError):
            text += f"; does it {'speak' if self._uses_tls else 'want'} TLS?"
        if kind is ConnectError and self._uses_tls:
            port = _tls.PORTS.get(getattr(self._params, "port", 0))
            text += f" TLS is mostly spoken on port {port}" if port else ""
        error = kind(f"{self.name} cannot be reached: {text}")
        error.__cause__ = exc
        return error

    def _note_link(self, link: Link | None, reason: Exception | None) -> None:
        self.link = link
        if link is not None:
            if self.was_linked or self._reported:
                log.log(self._level, "%s: connected", self.name)
                self._back_since = asyncio.get_running_loop().time()
            self.failure, self.failed = None, False
            self._reported, self.was_linked = False, True
            log.debug("%s is there", self.name)
        self._on_link(link, reason)
        self._news.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            if self._task is task:
                self.on_cancelled()
        elif (exc := task.exception()) is not None:
            log.error("%s: supervision ended", self.name, exc_info=exc)
            self._fail(ConnectError(f"{self.name}: {type(exc).__name__}: {exc}"))

    async def _watch(self, link: Link) -> Exception | None:
        """Wait for the end of the link; probe it when it is silent, cut it when it stays so."""
        loop = asyncio.get_running_loop()
        patience: Patience | None = None
        while not link.closed.done():
            keepalive = link.keepalive or self._params.keepalive
            grace = min(PROBE_GRACE, keepalive)
            now = loop.time()
            silent = now - link.heard
            if silent < keepalive:
                wake = keepalive - silent
            elif patience is None or patience.begun <= link.heard:
                # Not cut for the silence alone: it may be this process that was asleep.
                link.probe()
                patience = Patience(link, grace, now)
                wake = patience.wait(now)
            elif (wake := patience.wait(now)) <= 0:
                link.abort(ConnectionLost(f"{self.name}: no sign of life for {silent:.0f} s"))
                break
            await asyncio.wait([link.closed], timeout=wake)
        return await link.closed
