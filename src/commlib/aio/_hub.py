"""What the endpoints of one node share: one transport, its workers, one return address."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
import weakref
from collections.abc import Coroutine, Mapping
from os import urandom
from typing import Any, Protocol

from commlib._courtesy import Courtesy
from commlib._last_word import ANNOUNCE, last_word
from commlib._params import BaseParameters
from commlib._records import about
from commlib._turns import end_tasks, is_for_program
from commlib._workers import Workers
from commlib.aio._caller import Caller
from commlib.aio._listeners import Listeners
from commlib.exceptions import EndpointClosed
from commlib.transports.base import BlockableTransport, LinkStats, Transport

log = logging.getLogger("commlib")

TASK_SECONDS = 0.5  # for our own tasks to end when they are cancelled; they take µs
LAST_WORD_SECONDS = 1.0  # that an attempt may last beyond its time, to say what it was
MAX_REASONS, MAX_REFUSED = 20, 10  # of a broker, and topics for each that are logged, once

hubs: weakref.WeakSet[Hub] = weakref.WeakSet()
"""All hubs of this process, for the one moment when all must act: a fork."""


_shared: weakref.WeakSet[Hub] = weakref.WeakSet()
_shared_lock = threading.Lock()


def shared_hub(params: BaseParameters, loop: asyncio.AbstractEventLoop | None) -> Hub:
    """The hub that nodes with these parameters share.

    ``loop`` is the one that they run on, None for that of the synchronous face.
    """
    with _shared_lock:
        for hub in _shared:
            if hub.params == params and hub.shared_on is loop:
                return hub
        hub = Hub(params, str(params))
        hub.shared_on = loop
        _shared.add(hub)
        return hub


class Witness(Protocol):
    """Who tells others of the nodes on a connection. On the loop."""

    def note_change(self, hub: Hub) -> None:
        """An endpoint has begun or ended."""

    def note_state(self, hub: Hub, connected: bool) -> None:
        """The connection has come or gone."""

    def note_closing(self, hub: Hub) -> None:
        """The connection is about to be closed."""

    def note_refusal(self, hub: Hub, topic: str, error: Exception) -> bool:
        """The broker has refused a message; whether that was a message of the witness's own."""
        ...


def copied(some: weakref.WeakSet[Any]) -> list[Any]:
    """What is in a set that other threads may change meanwhile."""
    while True:
        try:
            return list(some)
        except RuntimeError:  # it has changed under our hands
            continue


class Hub:
    """A connection to one broker and the threads that work for it.

    All methods are for the loop it was started on, but for ``transport.publish`` and ``send``.
    ``has_last_word``: where a broker can do that, it tells that the nodes here are gone when the
    connection ends without a word.
    """

    def __init__(self, params: BaseParameters, name: str, *, has_last_word: bool = False) -> None:
        self.params = params
        self.name = name
        self._has_last_word = has_last_word
        self.shared_on: asyncio.AbstractEventLoop | None = None
        self.listeners = Listeners()
        """Told when the connection comes and goes."""
        self.leaving: list[threading.Thread] = []
        """The workers of the life that ``close`` has ended; they are about to end, too."""
        self.past = LinkStats()
        """The counters of the connections before this one."""
        self.users: weakref.WeakSet[object] = weakref.WeakSet()
        """The nodes that share it, until each is stopped; the last one closes it."""
        self.home: set[Hub] = set()
        """Where it is noted as long as it lives on a loop."""
        self._reset()
        hubs.add(self)

    def _reset(self) -> None:
        self.home.discard(self)  # first: who sees no loop may begin its next life at once
        self.link = urandom(6).hex()
        """By which others know this life of the connection."""
        params = self.params
        if self._has_last_word:
            params = params.with_will(ANNOUNCE, last_word(self.link))
        self.transport: Transport = params.make_transport()
        self.transport.on_state = self._note_state
        self.transport.on_refused = self._note_refused
        self.workers = Workers(self.name)
        self.caller = Caller(self.transport)
        self.loop: asyncio.AbstractEventLoop | None = None
        self.started = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._refused: dict[str, set[str]] = {}
        """For which topics it is told, by reasons."""
        self._news = asyncio.Event()
        self._done: asyncio.Future[None] | None = None
        self.witness: Witness | None = None
        """Who tells others of the nodes here."""

    def nodes(self) -> list[Any]:
        """The nodes that use it and are not stopped. From any thread."""
        return copied(self.users)

    def node_of(self, endpoint: object | None) -> str:
        """The name of the node that an endpoint belongs to; empty if it has none.

        None: of the only node that uses this connection.
        """
        nodes = self.nodes()
        if len(nodes) > 1:  # they share it
            nodes = [] if endpoint is None else [node for node in nodes if node.has(endpoint)]
        return str(nodes[0].node_name) if nodes else ""

    def note_change(self) -> None:
        """An endpoint on this connection has begun or ended."""
        if self.witness is not None:
            self.witness.note_change(self)

    def start(self) -> None:
        """Begin to connect, in the background; idempotent.

        Raises what ``check_loop`` raises.
        """
        loop = asyncio.get_running_loop()
        if self.loop is not loop:
            self.bind(loop)
            self.check_loop()
        if not self.started:
            self.started = True
            self.spawn(self.transport.connect())

    async def reopen(self) -> None:
        """Return when it may be started: not while it is still being closed. On the loop.

        Raises what ``check_loop`` raises.
        """
        self.check_loop()
        while self._closing is not None and not self._closing.done():
            await asyncio.shield(self._closing)

    @property
    def is_left_behind(self) -> bool:
        """Whether the loop on which it lived has ended without it. From any thread."""
        loop = self.loop
        return loop is not None and loop.is_closed()

    def leave_loop(self) -> None:
        """Forget a loop that has ended without it, and the connection there."""
        if self.is_left_behind:
            self.workers.close()
            self.past = self.link_stats
            self._reset()

    def check_loop(self) -> None:
        """Whether it can be used on the loop that runs here, or none does.

        Raises EndpointClosed if the loop on which it lived has ended without it, and what
        ``check_here`` raises.
        """
        if self.is_left_behind:
            raise EndpointClosed(
                f"{self.name}: the event loop on which it ran is closed; stop() it, best before "
                "that, and it can be run on another one"
            )
        self.check_here()

    def check_here(self) -> None:
        """Raises RuntimeError if it lives on another loop than this, which is not closed.

        What is awaited here would be done there, and often nobody would ever be told.
        """
        loop = self.loop
        if loop is not None and loop is not asyncio._get_running_loop() and not loop.is_closed():
            raise RuntimeError(
                f"{self.name} lives on another event loop; use it there, or by "
                "asyncio.run_coroutine_threadsafe from here, or stop() it there first"
            )

    def bind(self, loop: asyncio.AbstractEventLoop, courtesy: Courtesy | None = None) -> None:
        """Say on which loop this hub lives, before it is started there. From any thread.

        ``courtesy``: of the loop, if it has a thread to itself.
        """
        if self.loop is None:
            self.home.add(self)
            self.caller.courtesy = self.workers.courtesy = courtesy
            self.loop = self.caller.loop = self.workers.loop = loop

    async def settle(self, what: str, task: asyncio.Future[Any], *, quiet: bool = False) -> None:
        """Wait for a task that needs the broker, but no longer than ``connect_timeout``.

        Raises what the task raises in that time; after it the task goes on in the background.
        ``quiet``: somebody else warns that the broker is away.
        """
        await self.settle_all({task: what}, quiet=quiet)

    async def settle_all(
        self, tasks: Mapping[asyncio.Future[Any], str], *, quiet: bool = False
    ) -> None:
        """``settle`` for many tasks, each with what it is for: one wait for all of them.

        It raises what the first of them raises; what others raise after that is logged.
        """
        timeout = self.params.connect_timeout
        if not self.params.reconnect:
            timeout += (
                LAST_WORD_SECONDS  # its only attempt ends at about that time, with the reason
            )
        if tasks:
            first = asyncio.FIRST_EXCEPTION
            await asyncio.wait(tasks, timeout=timeout, return_when=first)
        ended = (task for task in tasks if task.done() and not task.cancelled())
        failed = next((task for task in ended if task.exception() is not None), None)
        for task, what in tasks.items():
            if task.done():
                continue  # if cancelled, by somebody else who has stopped what began
            self.tell_errors(task)
            if failed is None:
                level = logging.INFO if quiet else logging.WARNING
                why = self.trouble or f"there is no answer from {self.params}"
                log.log(level, "%s: %s, for %g s; still trying", what, why, timeout)
        if failed is not None:
            failed.result()

    @property
    def trouble(self) -> str:
        """Why nothing gets to the broker now; empty where nothing is known to be wrong.

        From any thread.
        """
        transport = self.transport
        if not transport.connected:
            return f"there is no connection to {self.params}"
        if isinstance(transport, BlockableTransport) and transport.is_blocked:
            return f"{self.params} takes no messages now"
        return ""

    async def wait_connected(self, timeout: float) -> bool:
        """Begin to connect if need be; whether the connection is there within ``timeout`` seconds.

        Raises AuthError when the broker says no, ConnectError where nothing is tried again, and
        EndpointClosed when it is closed meanwhile.
        """
        await self.reopen()
        self.start()
        transport, news = self.transport, self._news
        if transport.connected:
            return True  # a timeout of 0 would not let anybody find out
        try:
            async with asyncio.timeout(timeout):
                await self._connected(transport)
                while transport is self.transport and not transport.connected:
                    news.clear()
                    await news.wait()
        except TimeoutError:
            return False
        if transport is not self.transport:
            raise EndpointClosed(f"{self.name} was stopped meanwhile")
        return True

    async def _connected(self, transport: Transport) -> None:
        """Return when the broker was reached, or this is being closed."""
        connecting = self.spawn(transport.connect())
        try:
            await asyncio.wait([connecting])
        finally:
            connecting.cancel()
        if not connecting.cancelled():
            connecting.result()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Let work go on in the background; ``close`` ends it. Its errors are for ``settle``."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    @property
    def done(self) -> asyncio.Future[None]:
        """Stands for any work that has been done. On the loop."""
        if self._done is None:
            self._done = asyncio.get_running_loop().create_future()
            self._done.set_result(None)
        return self._done

    def let_go(self, task: asyncio.Task[Any]) -> None:
        """Let a task outlive ``close``: it is the one that wants to close."""
        self._tasks.discard(task)

    async def watch(self, task: asyncio.Task[None]) -> None:
        """Wait for a task that goes on if this is cancelled; its errors are logged then."""
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():  # nobody else may be told
                self.tell_errors(task)
            raise

    def tell_errors(self, task: asyncio.Future[Any]) -> None:
        """Log the errors of a task that nobody waits for."""
        task.add_done_callback(self._tell)

    def _reap(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # it has been seen

    def _tell(self, task: asyncio.Future[Any]) -> None:
        if not task.cancelled() and (exc := task.exception()) is not None:
            level = logging.DEBUG if getattr(exc, "logged", False) else logging.ERROR
            log.log(level, "%s: %s", self.name, exc)

    async def close(self) -> None:
        """Leave the broker, let the workers go; idempotent, and it can be started again."""
        if self.loop is None:
            return
        if self._closing is None or self._closing.done():
            self._closing = asyncio.get_running_loop().create_task(self._close())
        # Who comes second waits with the first, and who gives up waiting leaves nothing half done.
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self.witness is not None:
            self.witness.note_closing(self)
        await self._cancel_tasks()
        try:
            await self.caller.close()
        finally:
            await self.transport.close()
            await self._cancel_tasks()  # what has begun meanwhile would wait for ever
            self.leaving = self.workers.close()
            self.past = self.link_stats
            news = self._news
            self._reset()
            news.set()

    async def _cancel_tasks(self) -> None:
        await end_tasks(list(self._tasks), TASK_SECONDS, self.name)

    @property
    def link_stats(self) -> LinkStats:
        """The counters of all connections so far."""
        now = dataclasses.astuple(self.transport.stats)
        past = dataclasses.astuple(self.past)
        return LinkStats(*(a + b for a, b in zip(past, now, strict=True)))

    def abandon(self) -> None:
        """After a fork, in the child: forget the connection, open afresh on first use."""
        self.transport.abandon()
        self._reset()

    def _note_state(self, connected: bool, reason: Exception | None) -> None:
        self._news.set()
        for listener in self.listeners:
            try:
                listener(connected, reason)
            except BaseException as exc:
                if is_for_program(exc):
                    raise
                log.exception("%s: on_state failed", self.name)
        if self.witness is not None:
            self.witness.note_state(self, connected)

    def _note_refused(self, target: str, error: Exception) -> None:
        if self.witness is not None and self.witness.note_refusal(self, target, error):
            return
        reason = str(error).partition(":")[2][:30]  # what is wrong, without where
        told = self._refused.get(reason)
        if told is None and len(self._refused) < MAX_REASONS:
            told = self._refused[reason] = set()
        is_news = told is not None and target not in told and len(told) < MAX_REFUSED
        if told is not None and is_news:
            told.add(target)
        log.log(
            logging.ERROR if is_news else logging.DEBUG,
            "%s: a message was refused by the broker: %s",
            *(self.name, error),
            extra=about(target, node=self.node_of(None)),
        )
