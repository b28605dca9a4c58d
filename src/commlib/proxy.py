"""A relay of TCP connections: how a broker is reached by those who cannot see it.

It listens at one endpoint and joins every connection it gets to a new one to the other endpoint.
What it relays it neither reads nor keeps: no more than a few chunks of each connection are here at
a time, and who sends faster than the other side reads has to wait.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

from commlib._face import Runnable
from commlib.exceptions import EndpointClosed

__all__ = ["TCPProxy"]

CHUNK = 64 * 1024  # bytes that are read at a time
BACKLOG = 128  # connections that may wait to be taken
CONNECT_SECONDS = 10.0
RETRY_SECONDS = 1.0  # after a connection could not be taken; as asyncio does

log = logging.getLogger("commlib.proxy")

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Relay = Callable[[socket.socket], Coroutine[Any, Any, None]]


class TCPProxy(Runnable):
    """Listens at endpoint 1 from the beginning, and relays what connects there to endpoint 2.

    Bytes go both ways until both sides have ended: who has ended to send can still receive. When
    one side breaks, or cannot be reached, the other is reset, so that it does not take what it
    got for the whole. That is logged, and concerns no other connection.

    Every method is for any thread. ``run()`` serves in a thread of its own, ``run_forever()``
    until a signal comes, and a ``with`` block as long as it lasts.

    ``port_ep1`` 0 takes a free port, see ``server_address``. Raises OSError where it cannot listen
    at endpoint 1, ValueError or TypeError for what is no port.
    """

    def __init__(self, host_ep1: str, port_ep1: int, host_ep2: str, port_ep2: int) -> None:
        super().__init__()
        _check_port("port_ep1", port_ep1, 0)
        _check_port("port_ep2", port_ep2, 1)
        self.host_ep1, self.port_ep1 = host_ep1, port_ep1
        self.host_ep2, self.port_ep2 = host_ep2, port_ep2
        self._lock = threading.RLock()  # a signal handler may stop it amid any of this
        self._listener = _listen(host_ep1, port_ep1)
        self._address: tuple[str, int] = self._listener.getsockname()[:2]
        self._serving: _Serving | None = None
        self._thread: threading.Thread | None = None
        self._is_unreachable = False

    @property
    def server_address(self) -> tuple[str, int]:
        """Host and port that it listens at."""
        return self._address

    # ---- to serve, and to end it ----

    def run(self, wait: bool = True) -> None:
        """Serve in a thread of its own; idempotent, and after ``stop()`` it listens again.

        Connections are taken when this returns, with ``wait`` or without. Raises OSError where it
        cannot listen any more.
        """
        with self._lock:
            if self._serving is not None:
                return
            if self._listener.fileno() == -1:
                self._listener = _listen(*self._address)
            serving = _Serving()
            serving.thread = threading.Thread(
                target=self._serve_in_background, args=(serving,), name="commlib-proxy", daemon=True
            )
            serving.thread.start()
            self._serving, self._thread = serving, serving.thread

    def serve_forever(self, poll_interval: float | None = None) -> None:
        """Serve in this thread until ``shutdown()`` or ``stop()`` of another one.

        ``poll_interval`` is accepted for the programs of commlib-py 0.6 and not needed: nothing
        polls here. Raises EndpointClosed after ``server_close()``, RuntimeError while it serves
        already, or on an event loop.
        """
        with self._lock:
            if self._serving is not None:
                raise RuntimeError("it is serving already")
            if self._listener.fileno() == -1:
                raise EndpointClosed("the proxy was closed; run() it again or make a new one")
            serving = self._serving = _Serving()
        self._serve_until_asked(serving)

    def shutdown(self) -> None:
        """End serving, and every relay; returns when that is done, at once if nobody serves.

        It goes on to listen, so who connects now waits until it serves again, or is closed.
        """
        with self._lock:
            serving = self._serving
        if serving is not None:
            serving.ask_to_end()
            # A signal handler may have interrupted the very thread that serves.
            if serving.thread is not threading.current_thread():
                serving.has_ended.wait()

    def server_close(self) -> None:
        """Listen no more; to be called after ``shutdown()``. Idempotent."""
        self._listener.close()

    def stop(self) -> None:
        """End serving and every relay, listen no more; no thread is left. Idempotent."""
        self._note_stop()
        with self._lock:
            serving = self._serving
        if serving is not None and serving.thread is threading.current_thread():
            # A signal handler has interrupted it: it can only end after this has returned.
            serving.closes_after = True
            serving.ask_to_end()
            return
        while not self._close_unless_serving():
            self.shutdown()
        if self._thread is not None:
            self._thread.join()

    def _close_unless_serving(self) -> bool:
        with self._lock:
            if self._serving is None:
                self.server_close()
            return self._serving is None

    def _serve_in_background(self, serving: _Serving) -> None:
        try:
            self._serve_until_asked(serving)
        except Exception:  # out of files, for instance: nobody is there to catch it
            log.exception("%s:%d: nothing is relayed any more", *self.server_address)

    def _serve_until_asked(self, serving: _Serving) -> None:
        try:
            # Not the loop of the program's choice: not every one can watch a listener.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(serving.serve(self._listener, self._relay))
        finally:
            with self._lock:
                self._serving = None
                if serving.closes_after:
                    self.server_close()
            serving.has_ended.set()

    # ---- on the loop ----

    async def _relay(self, taken: socket.socket) -> None:
        """One connection, from its beginning to its end."""
        ends: list[Streams] = []
        is_whole = False
        try:
            ends.append(await asyncio.open_connection(sock=taken))
            if (far := await self._reach()) is not None:
                ends.append(far)
                await _pump_both_ways(*ends)
                is_whole = True
        except asyncio.CancelledError:
            pass  # by `_Serving`, which waits until this has closed what it has
        except OSError as exc:
            log.info("a connection to %s:%d broke: %s", self.host_ep2, self.port_ep2, exc)
        except Exception:
            log.exception("a connection to %s:%d broke", self.host_ep2, self.port_ep2)
        await _close([writer for _, writer in ends], is_whole)

    async def _reach(self) -> Streams | None:
        """A connection to endpoint 2. None if there is none, which is a warning the first time."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                far = await asyncio.open_connection(self.host_ep2, self.port_ep2)
        except (OSError, UnicodeError) as exc:  # the latter for a name that can be no host's
            log.log(
                logging.DEBUG if self._is_unreachable else logging.WARNING,
                "%s:%d cannot be reached: %s",
                *(self.host_ep2, self.port_ep2),
                str(exc) or f"no answer within {CONNECT_SECONDS:g} s",
            )
            self._is_unreachable = True
            return None
        self._is_unreachable = False
        return far


class _Serving:
    """A stretch of serving, which any thread may end, before it has begun as well."""

    def __init__(self) -> None:
        self.has_ended = threading.Event()
        self.closes_after = False
        self.thread = threading.current_thread()
        self._asked_to_end: Future[None] = Future()
        self._relays: set[asyncio.Task[None]] = set()

    def ask_to_end(self) -> None:
        with suppress(InvalidStateError):  # it was asked before, or ends by itself
            self._asked_to_end.set_result(None)

    async def serve(self, listener: socket.socket, relay: Relay) -> None:
        """Take connections and relay them until it is asked to end; then cut those there are."""
        loop = asyncio.get_running_loop()
        # asyncio's own servers lose a connection that they take in the moment they are closed.
        loop.add_reader(listener, self._take, listener, relay)
        try:
            await asyncio.wrap_future(self._asked_to_end)
        finally:
            loop.remove_reader(listener)
            for task in self._relays:
                task.cancel()
            if self._relays:
                await asyncio.wait(self._relays)

    def _take(self, listener: socket.socket, relay: Relay) -> None:
        loop = asyncio.get_running_loop()
        try:
            taken, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # who came has left again
        except OSError as exc:  # out of files for the most part; the listener would not let go
            log.error("no connection can be taken for %g s: %s", RETRY_SECONDS, exc)
            loop.remove_reader(listener)
            loop.call_later(RETRY_SECONDS, self._take_again, listener, relay)
            return
        taken.setblocking(False)
        task = loop.create_task(relay(taken))
        self._relays.add(task)
        task.add_done_callback(self._relays.discard)
        # A task that is cancelled before it has begun does not get to close anything.
        task.add_done_callback(lambda _: taken.close())

    def _take_again(self, listener: socket.socket, relay: Relay) -> None:
        if not self._asked_to_end.done():
            asyncio.get_running_loop().add_reader(listener, self._take, listener, relay)


def _check_port(name: str, port: object, least: int) -> None:
    # What create_server raises otherwise leaves its socket open.
    if not isinstance(port, int) or isinstance(port, bool):
        raise TypeError(f"{name}={port!r}: it is a number from {least} to 65535")
    if not least <= port <= 65_535:
        raise ValueError(f"{name}={port!r}: it is a number from {least} to 65535")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    listener.setblocking(False)
    return listener


# ---- one connection ----


async def _pump_both_ways(near: Streams, far: Streams) -> None:
    """Raises the OSError of the side that breaks."""
    try:
        async with asyncio.TaskGroup() as ways:
            ways.create_task(_pump(near[0], far[1]))
            ways.create_task(_pump(far[0], near[1]))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """All that comes, and that it has ended."""
    # Each chunk is with the system before the next is read, and so all of them before the end.
    writer.transport.set_write_buffer_limits(0)
    # A peer that vanished without a word is noticed some day.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def _close(writers: list[asyncio.StreamWriter], is_whole: bool) -> None:
    for writer in writers:
        if is_whole:
            writer.close()
        else:
            _reset(writer)
    for writer in writers:
        with suppress(OSError):  # what has broken says so once more
            await writer.wait_closed()


def _reset(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):  # closed already
        # Without lingering the peer is told of a reset, not of an end (socket(7)).
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
