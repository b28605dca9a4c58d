"""The one event loop thread behind the synchronous face, shared by all of a process.

It is started on first use. At exit it flushes and leaves every connection, within a second. A
forked child begins without it and starts its own on first use.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from commlib._courtesy import Courtesy
from commlib._turns import end_tasks, loops_of_ours
from commlib.aio._hub import Hub, hubs
from commlib.exceptions import BlockingCall, EndpointClosed

T = TypeVar("T")
log = logging.getLogger("commlib")

FIRST_PIECE, LONGEST_PIECE = 0.25, 64.0  # s of a wait, after which signals are looked for
LOCK_PAUSE = 0.001  # s after which the loop looks again whether a lock is free
END_SECONDS = 0.3  # for callbacks on the loop to end when they are cancelled
EXIT_SECONDS = 1.5  # all that leaving may take at exit; the flush in it takes less than one


def new_loop() -> asyncio.AbstractEventLoop:
    """An event loop, the quickest that is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    _take_standard_streams()
    return uvloop.new_event_loop()


def _take_standard_streams() -> None:
    """Have nothing else take the numbers 0, 1 and 2, if the program was started without them.

    libuv ends the process when it is to close a descriptor of its own with such a number.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            taken = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            if taken > 2:  # another thread has been quicker
                os.close(taken)


@contextmanager
def _taken(lock: threading.RLock) -> Iterator[bool]:
    """A lock for as long as this lasts, unless somebody else has it just now."""
    is_taken = lock.acquire(blocking=False)
    try:
        yield is_taken
    finally:
        if is_taken:
            lock.release()


class Portal:
    """A running loop in a daemon thread, and the ways into it."""

    def __init__(self) -> None:
        self.hubs: set[Hub] = set()
        self._errands: set[asyncio.Task[Any]] = set()
        """What threads have begun and wait for. On the loop."""
        self.loop = new_loop()
        loops_of_ours.add(self.loop)
        self.courtesy = Courtesy(self.loop)
        self._lock = threading.RLock()
        self.ending = False
        self.thread = threading.Thread(target=self._run, name="commlib-loop", daemon=True)
        self._begun = threading.Event()
        try:
            self.thread.start()
        except RuntimeError:  # the system has no more threads, or the program is ending
            raise
        except BaseException:  # Ctrl-C
            self._end_before_use()
            raise

    def _end_before_use(self) -> None:
        """Nobody will know of it, so it ends now; if the program ended first Python would crash.

        Python 3.11 frees at its end what a thread needs that was started and has not begun.
        """
        self.ending = True
        if self._begun.wait(EXIT_SECONDS):  # if not, it was not started
            with suppress(RuntimeError):  # it has ended already
                self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(EXIT_SECONDS)

    def _run(self) -> None:
        self._begun.set()
        asyncio.set_event_loop(self.loop)
        while not self.ending:
            try:
                self.loop.run_forever()
            except (SystemExit, KeyboardInterrupt):  # of a task: all nodes need the loop yet
                log.exception("something on the event loop wanted to end it")
        try:
            self.loop.run_until_complete(_end_tasks())
            if self in _former and self.hubs:
                # What was cancelled just now had begun anew in the last turn.
                self.loop.run_until_complete(self._leave())
        finally:
            self.loop.close()
            loops_of_ours.discard(self.loop)
            _former.discard(self)

    def post(self, callback: Callable[..., object], *args: Any) -> None:
        """Have something called on the loop soon; returns at once.

        Raises EndpointClosed when the portal has ended.
        """
        with self._lock:
            self.check_open()
            self.loop.call_soon_threadsafe(callback, *args)

    def check_open(self) -> None:
        """Raises EndpointClosed when the portal has ended."""
        # Callers hold the lock, so that nothing is posted behind the end, to be waited for in vain.
        if self.ending:
            raise EndpointClosed("it was stopped meanwhile, or the program is ending")

    def run(
        self, work: Callable[..., Coroutine[Any, Any, T]], *args: Any, timeout: float | None = None
    ) -> T:
        """Call a coroutine function on the loop and wait for what it returns.

        Raises BlockingCall on the loop itself, TimeoutError after ``timeout`` seconds, and
        EndpointClosed when the portal ends.
        """
        self.refuse_on_loop("this")
        errand: _Errand[T] = _Errand(work, args)
        try:
            self.post(self._begin, errand)
            return errand.wait(timeout)
        except BaseException:
            with suppress(EndpointClosed):
                self.post(errand.abandon)
            raise

    def _begin(self, errand: _Errand[Any]) -> None:
        """Begin an errand, but not between the end and the last turn of the loop.

        What it begins there would be bound to a loop that turns no more.
        """
        if self.ending:
            errand.refuse()
            return
        task = errand.begin()
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    def refuse_on_loop(self, what: str) -> None:
        """Raise BlockingCall if the caller is the loop, which must never wait for itself."""
        # Idents are given away again.
        if threading.get_ident() == self.thread.ident and self.thread.is_alive():
            raise BlockingCall(
                f"{what} would block the event loop that has to answer it. In an 'async def' "
                "callback use commlib.aio, or 'await asyncio.wrap_future(client.call_async(msg))'; "
                "or make the callback a plain function, without inline=True"
            )

    def close(self) -> None:
        """Leave all brokers, stop the loop, join the thread; at exit."""
        deadline = time.monotonic() + EXIT_SECONDS
        with suppress(TimeoutError, EndpointClosed):
            self.run(self._leave, timeout=EXIT_SECONDS)
        with suppress(EndpointClosed):
            self.post(self._end)
        self.thread.join(max(0.1, deadline - time.monotonic()))

    async def end_if_unused(self) -> bool:
        """End the loop and its thread if no hub lives here any more; whether it did. On the loop.

        It never waits for a lock, but looks again: a signal may have interrupted the thread that
        holds it, and its handler may wait for this loop.

        Errands end first. They may run or stop what another portal takes in once this one ends,
        and would do so in the last turn here, beside that one: of a node, each had its half.
        """
        while True:
            while self._errands and not self.hubs:
                _, late = await asyncio.wait(self._errands, timeout=END_SECONDS)
                if not self.hubs:
                    await end_tasks(late, END_SECONDS, "the event loop")
                    self._errands -= late
            with _taken(_lock) as is_first, _taken(self._lock) as is_second:
                if is_first and is_second:
                    return self._end_unless_used()
            await asyncio.sleep(LOCK_PAUSE)

    def _end_unless_used(self) -> bool:
        """As ``end_if_unused``, with both locks."""
        global _portal
        if self.hubs or self.ending:
            return False
        if _portal is self:
            _portal = None
            _former.add(self)
        self._end()
        return True

    def _end(self) -> None:
        if self.ending:
            return
        with _taken(self._lock) as is_mine:
            if is_mine:
                self.ending = True
                self.loop.stop()
            else:
                self.loop.call_later(LOCK_PAUSE, self._end)

    async def _leave(self) -> None:
        closing = [hub.close() for hub in list(self.hubs)]
        for result in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(result, Exception):
                log.warning("at exit: %r", result)


def get_heeding_signals(queue: SimpleQueue[T], timeout: float | None = None) -> T:
    """What comes through a queue, as its ``get``; raises Empty after ``timeout`` seconds.

    A signal that arrives while Python is on its way into a wait does not interrupt it: its handler
    is called when the wait is over. So this one is cut into pieces, each twice as long as the last.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    piece = FIRST_PIECE
    while True:
        left = piece if deadline is None else min(piece, deadline - time.monotonic())
        try:
            return queue.get(timeout=max(0, left))
        except Empty:
            if deadline is not None and left < piece:
                raise
        piece = min(2 * piece, LONGEST_PIECE)


class _Errand(Generic[T]):
    """A coroutine that is made and run on the loop while a thread waits for its outcome.

    A signal may interrupt that thread anywhere. A coroutine made there could be left behind without
    ever having been awaited, and the lock of a ``concurrent.futures.Future`` could be left taken,
    with the loop waiting for it. So the outcome comes through a queue, which has no such lock.
    """

    def __init__(self, work: Callable[..., Coroutine[Any, Any, T]], args: tuple[Any, ...]) -> None:
        self._work = work
        self._args = args
        self._task: asyncio.Task[T] | None = None
        self._ended: SimpleQueue[asyncio.Task[T] | None] = SimpleQueue()

    def begin(self) -> asyncio.Task[T]:
        """Start it. On the loop."""
        self._task = asyncio.get_running_loop().create_task(self._work(*self._args))
        self._task.add_done_callback(self._ended.put)
        return self._task

    def refuse(self) -> None:
        """It is too late to begin."""
        self._ended.put(None)

    def abandon(self) -> None:
        """Nobody waits any more: cancel it. On the loop."""
        if self._task is not None:
            self._task.cancel()

    def wait(self, timeout: float | None) -> T:
        """What the coroutine returns or raises."""
        try:
            task = get_heeding_signals(self._ended, timeout)
        except Empty:
            raise TimeoutError(f"not done within {timeout} s") from None
        try:
            if task is not None:
                return task.result()
        except asyncio.CancelledError:
            pass
        raise EndpointClosed("it was stopped meanwhile, or the program is ending") from None


async def _end_tasks() -> None:
    """Cancel what is left on the loop, callbacks for the most part."""
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    await end_tasks(tasks, END_SECONDS, "the event loop")


_portal: Portal | None = None
_former: set[Portal] = set()
"""Those that nobody needed any more, until their threads end."""
_finalizer: object = None
_lock = threading.RLock()
_inherited: list[object] = []  # what a fork brought along: kept, so that nobody finalizes it


def enter(hub: Hub) -> Portal:
    """The portal, on which this hub is now at home and at least on its way to its broker.

    Raises EndpointClosed when the program is ending.
    """
    portal = _portal
    if portal is not None and hub.started and hub.loop is portal.loop and not portal.ending:
        return portal  # as nearly always; if it is about to end, it may do so after this as well
    with _lock:
        portal = take_in(hub)
        if not hub.started and hub.loop is portal.loop:
            portal.post(hub.start)
        return portal


def take_in(hub: Hub) -> Portal:
    """The portal, on which this hub is now at home; one that a loop has left behind begins anew.

    Raises EndpointClosed when the program is ending.
    """
    global _portal
    with _lock:
        if _portal is None:
            _portal = Portal()
            _heed_multiprocessing()
        _portal.check_open()
        for former in tuple(_former):
            if hub.loop is former.loop:
                former.check_open()  # the hub is about to leave it
        hub.leave_loop()
        if hub.loop is None:
            hub.home = _portal.hubs
            hub.bind(_portal.loop, _portal.courtesy)
        return _portal


def home_of(hub: Hub) -> Portal | None:
    """The portal on which this hub lives, None if it was never used, or closed since."""
    with _lock:
        return _portal if _portal is not None and hub in _portal.hubs else None


def unused() -> Portal | None:
    """The portal if nothing lives there any more, for another thread than its own."""
    with _lock:
        portal = _portal
    if portal is None or portal.hubs or threading.current_thread() is portal.thread:
        return None
    return portal


def leave(portal: Portal) -> None:
    """A hub was closed; after the last one the portal ends, and its thread has on return."""
    ending = _Errand(portal.end_if_unused, ())
    with suppress(EndpointClosed, TimeoutError):
        portal.post(ending.begin)
        ending.wait(EXIT_SECONDS)
    if portal.ending:
        portal.thread.join(EXIT_SECONDS)


# From the import on, so that what the program registers after that is called before it.
@atexit.register
def _close_at_exit() -> None:
    if _portal is not None:
        _portal.close()


def _heed_multiprocessing() -> None:
    """A child that multiprocessing has forked ends without atexit, before Python 3.14."""
    global _finalizer
    process = sys.modules.get("multiprocessing.process")
    if _finalizer is None and process is not None and process.parent_process() is not None:
        from multiprocessing.util import Finalize

        _finalizer = Finalize(None, _close_at_exit, exitpriority=100)


def _after_fork_in_child() -> None:
    """Forget the parent's loop and connections; nothing of it is closed through asyncio."""
    global _portal, _finalizer, _lock
    _lock = threading.RLock()
    _finalizer = None
    _inherited.extend(_former)
    _former.clear()
    if _portal is not None:
        _portal.courtesy.end_here()
        _inherited.append(_portal)
        _portal = None
    for hub in list(hubs):
        _inherited.append(hub.transport)
        if hub.loop is not None:
            # None of them ends any more, and asyncio complains of those that are collected.
            _inherited.append(asyncio.all_tasks(hub.loop))
        hub.abandon()


os.register_at_fork(after_in_child=_after_fork_in_child)
