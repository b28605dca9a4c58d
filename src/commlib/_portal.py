"""The one event loop thread behind the synchronous face, shared by all of a process.

It is started on first use. At exit it flushes and leaves every connection, within a second. A
forked child begins without it and starts its own on first use.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from commlib.aio._hub import Hub, hubs
from commlib.exceptions import BlockingCall, CommlibError, EndpointClosed

T = TypeVar("T")
log = logging.getLogger("commlib")

EXIT_SECONDS = 1.5  # all that leaving may take at exit; the flush in it takes less than one


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class Portal:
    """A running loop in a daemon thread, and the ways into it."""

    def __init__(self) -> None:
        self.hubs: set[Hub] = set()
        self.loop = _new_loop()
        self._lock = threading.RLock()
        self.ending = False
        self.thread = threading.Thread(target=self._run, name="commlib-loop", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.run_until_complete(_end_tasks())

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

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Wait for a coroutine on the loop.

        Raises BlockingCall on the loop itself, TimeoutError after ``timeout`` seconds, and
        EndpointClosed when the portal ends.
        """
        try:
            self.refuse_on_loop("this")
            with self._lock:
                self.check_open()
                future = asyncio.run_coroutine_threadsafe(work, self.loop)
        except CommlibError:
            work.close()
            raise
        try:
            return future.result(timeout)
        except concurrent.futures.CancelledError:
            raise EndpointClosed("it was stopped meanwhile, or the program is ending") from None
        except BaseException:
            future.cancel()
            raise

    def refuse_on_loop(self, what: str) -> None:
        """Raise BlockingCall if the caller is the loop, which must never wait for itself."""
        if threading.current_thread() is self.thread:
            raise BlockingCall(
                f"{what} would block the event loop that has to answer it. In an 'async def' "
                "callback use commlib.aio, or 'await asyncio.wrap_future(client.call_async(msg))'; "
                "or make the callback a plain function, without inline=True"
            )

    def close(self) -> None:
        """Leave all brokers, stop the loop, join the thread; at exit."""
        deadline = time.monotonic() + EXIT_SECONDS
        with suppress(TimeoutError, EndpointClosed):
            self.run(self._leave(), EXIT_SECONDS)
        with self._lock:
            if self.ending:
                return
            self.ending = True
            self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(max(0.1, deadline - time.monotonic()))
        if not self.thread.is_alive():
            self.loop.close()

    async def _leave(self) -> None:
        closing = [hub.close() for hub in list(self.hubs)]
        for result in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(result, Exception):
                log.warning("at exit: %r", result)


async def _end_tasks() -> None:
    """Cancel what is left on the loop, callbacks for the most part."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


_portal: Portal | None = None
_finalizer: object = None
_lock = threading.RLock()
_inherited: list[object] = []  # what a fork brought along: kept, so that nobody finalizes it


def enter(hub: Hub) -> Portal:
    """The portal, on which this hub is now at home and at least on its way to its broker.

    Raises EndpointClosed when the program is ending.
    """
    global _portal
    with _lock:
        if _portal is None:
            _portal = Portal()
            _heed_multiprocessing()
        _portal.check_open()
        if hub not in _portal.hubs:
            _portal.hubs.add(hub)
            hub.bind(_portal.loop)
            _portal.post(hub.start)
        return _portal


def is_home(hub: Hub) -> bool:
    """Whether this hub has entered the portal and not left it."""
    with _lock:
        return _portal is not None and hub in _portal.hubs and not _portal.ending


def leave(hub: Hub) -> None:
    """A hub was closed; the last one ends the portal and its thread."""
    global _portal
    with _lock:
        portal = _portal
        if portal is None or hub not in portal.hubs:
            return
        portal.hubs.discard(hub)
        if portal.hubs:
            return
        _portal = None
    portal.close()


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
    if _portal is not None:
        _inherited.append(_portal)
        _portal = None
    for hub in list(hubs):
        _inherited.append(hub.transport)
        hub.abandon()


os.register_at_fork(after_in_child=_after_fork_in_child)
