"""One connection to a Redis or Valkey server: RESP2, pipelined, answers in the order of requests.

Source: the Redis serialization protocol specification, version 2, and the server's own replies.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from commlib._dial import connect
from commlib.exceptions import AuthError, CommlibError, ConnectError, ConnectionLost

if TYPE_CHECKING:
    from commlib.transports._redis_params import ConnectionParameters

log = logging.getLogger("commlib.redis")

READ_BYTES = 128 * 1024  # of one read; pages that are never filled cost no memory

_AUTH_CODES = ("NOAUTH", "WRONGPASS", "NOPERM", "DENIED")
_AUTH_TEXTS = ("invalid password", "AUTH", "'auth'", "invalid username")


def command(*words: str | bytes | int) -> bytes:
    """A command as the server reads it: an array of bulk strings."""
    out = [b"*%d\r\n" % len(words)]
    for word in words:
        if not isinstance(word, bytes):
            word = str(word).encode()
        out.append(b"$%d\r\n%b\r\n" % (len(word), word))
    return b"".join(out)


def push(queue: str, payload: bytes) -> bytes:
    """RPUSH; as ``command``, but it is sent for every call."""
    name = queue.encode()
    return b"*3\r\n$5\r\nRPUSH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
        *(len(name), name),
        *(len(payload), payload),
    )


def expire(queue: str, seconds: int) -> bytes:
    """EXPIRE; as ``push``."""
    name, time = queue.encode(), b"%d" % seconds
    return b"*3\r\n$6\r\nEXPIRE\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
        *(len(name), name),
        *(len(time), time),
    )


def error_from(reply: Exception, what: str) -> CommlibError:
    """The server's error reply as one of ours."""
    text = str(reply)
    error = AuthError if text.startswith(_AUTH_CODES) or _is_auth_text(text) else ConnectError
    return error(f"{what}: the server says: {text}")


def _is_auth_text(text: str) -> bool:
    return text.startswith("ERR") and any(part in text for part in _AUTH_TEXTS)


class RedisLink(asyncio.BufferedProtocol):
    """An open connection.

    Every frame written has one note in ``_pending``, and answers come in that order: a future
    gets the answer; for any other note only an error is of interest, ``on_refused(note, error)``
    is told. A tuple is the note of a frame with several commands. ``on_reply`` takes every answer
    and what the server pushes, ``on_idle`` is called when all that had come was taken.

    Only the loop writes, with one exception: on a link that ``allow_direct`` was called for,
    another thread may put a frame on the wire itself while nothing else is on its way there. That
    saves the thread a wait for the loop to wake up. A lock keeps frames whole and notes in order.
    """

    def __init__(self, name: str) -> None:
        import hiredis

        self.name = name
        loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[Exception | None] = loop.create_future()
        self.heard = loop.time()
        self.on_reply: Callable[[Any], None] = self._take_reply
        self.on_refused: Callable[[object, Exception], None] = lambda note, error: None
        self.on_idle: Callable[[], None] = lambda: None
        self.on_room: Callable[[bool], None] = lambda room: None
        self.probe: Callable[[], None] = self._ping
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._reader = hiredis.Reader()
        # Of our own: asyncio's loop would allocate 256 KiB from the system for every read.
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._pending: deque[object] = deque()
        self._transport: asyncio.Transport | None = None
        self._write_lock = threading.Lock()
        self._direct: socket.socket | None = None
        self._rest = b""  # of a direct write, for which the socket had no room

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.heard = self._loop.time()
        reader, on_reply = self._reader, self.on_reply
        # Its stubs do not know that it takes any buffer.
        reader.feed(self._buffer, 0, nbytes)  # type: ignore[arg-type]
        try:
            while (reply := reader.gets()) is not False:
                on_reply(reply)
        except _protocol_error() as exc:
            self.abort(ConnectionLost(f"{self.name} does not speak RESP: {exc}"))
            return
        self.on_idle()

    def pause_writing(self) -> None:
        self.on_room(False)

    def resume_writing(self) -> None:
        self.on_room(True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)

    # What a session and its outbox call.

    def write(self, frames: Iterable[bytes], notes: Iterable[object]) -> None:
        with self._write_lock:
            # Noted even if the connection is about to be lost: then they count as unconfirmed.
            self._pending.extend(notes)
            self._write_out(b"".join(frames))

    def _write_out(self, data: bytes) -> None:
        rest, self._rest = self._rest, b""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(rest + data)

    def write_now(self, frame: bytes, note: object) -> bool:
        """Write a frame from another thread, if nothing is under way. True: now it is."""
        if self._direct is None or self._pending or threading.get_ident() == self._loop_thread:
            return False
        if not self._write_lock.acquire(blocking=False):
            return False
        try:
            transport = self._transport
            if transport is None or self._rest or transport.get_write_buffer_size():
                return False
            if self._direct is None:  # it was closed while this thread came to the lock
                return False
            self._pending.append(note)
            self._rest = frame[self._send_directly(frame) :]
            if self._rest:
                self._loop.call_soon_threadsafe(self.write, (), ())
            return True
        finally:
            self._write_lock.release()

    def _send_directly(self, frame: bytes) -> int:
        assert self._direct is not None, "looked at under the lock"
        try:
            return self._direct.send(frame)
        except BlockingIOError:
            return 0
        except OSError:
            return len(frame)  # the connection is going: it counts as unconfirmed

    def allow_direct(self) -> None:
        """Let other threads write, too; not possible with TLS, whose state is the loop's."""
        if self.extra("ssl_object") is None:
            # A descriptor of our own: asyncio's may be closed, and its number given away, any time.
            self._direct = socket.socket(fileno=os.dup(self.extra("socket").fileno()))
            self._direct.setblocking(False)

    def ask(self, *words: str | bytes | int) -> asyncio.Future[Any]:
        """Send a command; the future brings its answer, or its error as an exception."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        if self.closed.done():
            answer.set_exception(ConnectionLost(f"{self.name} is away"))
        else:
            self.write([command(*words)], [answer])
        return answer

    def abort(self, reason: Exception | None) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._end(reason)

    @property
    def unconfirmed(self) -> int:
        """How many messages the server has not answered yet."""
        return sum(1 for note in self._pending if isinstance(note, str | tuple))

    def extra(self, name: str) -> Any:
        """What asyncio knows about the connection, such as ``peername``."""
        return self._transport.get_extra_info(name) if self._transport is not None else None

    def abandon(self) -> None:
        """After a fork, in the child: put /dev/null in the place of the shared socket.

        Closing it through asyncio would take the parent's socket off the shared epoll set.
        """
        null = os.open(os.devnull, os.O_RDWR)
        for sock in (self.extra("socket"), self._direct):
            if sock is not None and sock.fileno() >= 0:
                os.dup2(null, sock.fileno())
        os.close(null)

    # Inside.

    def _take_reply(self, reply: Any) -> None:
        if not self._pending:
            self.abort(ConnectionLost(f"{self.name} answers what nobody has asked: {reply!r:.100}"))
            return
        note = self._pending.popleft()
        if reply.__class__ is int and note.__class__ is str:
            return  # a PUBLISH or RPUSH that went well: nearly every reply
        if isinstance(note, tuple):
            note, *others = note
            self._pending.extendleft(reversed(others))
        if isinstance(note, asyncio.Future):
            if note.done():
                return
            if isinstance(reply, Exception):
                note.set_exception(error_from(reply, self.name))
            else:
                note.set_result(reply)
        elif isinstance(reply, Exception) and note is not None:
            self.on_refused(note, error_from(reply, str(note)))

    def _ping(self) -> None:
        self.write([command("PING")], [None])

    def _end(self, reason: Exception | None) -> None:
        if self.closed.done():
            return
        self.closed.set_result(reason)
        with self._write_lock:
            if self._direct is not None:
                self._direct.close()
                self._direct = None
        for note in self._pending:
            if isinstance(note, asyncio.Future) and not note.done():
                note.set_exception(ConnectionLost(f"{self.name} was lost"))


def _protocol_error() -> type[Exception]:
    import hiredis

    return hiredis.ProtocolError


async def dial(name: str, params: ConnectionParameters) -> RedisLink:
    """Open a connection, authenticate, select the database.

    Raises AuthError, ConnectError or OSError.
    """
    link = await _open(name, params)
    try:
        await _greet(link, params)
    except BaseException:
        link.abort(None)
        raise
    return link


async def _open(name: str, params: ConnectionParameters) -> RedisLink:
    if params.unix_socket:
        loop = asyncio.get_running_loop()
        _, link = await loop.create_unix_connection(lambda: RedisLink(name), params.unix_socket)
    else:
        link = await connect(
            *(lambda: RedisLink(name), params.host, params.port),
            *(params.ssl_context(), params.connect_timeout),
        )
        if _is_own_end(link):
            link.abort(None)
            raise ConnectError(f"{name} cannot be reached: the socket was connected to itself")
    return link


def _is_own_end(link: RedisLink) -> bool:
    """Whether the kernel has joined the socket to itself.

    That happens to a client that tries a dead port of this machine again and again, when the port
    is among those that the kernel gives to outgoing connections.
    """
    ends = [link.extra(name) for name in ("sockname", "peername")]
    return bool(ends[0] == ends[1])


async def _greet(link: RedisLink, params: ConnectionParameters) -> None:
    user, password = params.credentials
    answers = []
    if password or user:
        words = ("AUTH", user, password) if user else ("AUTH", password)
        answers.append(link.ask(*words))
    if params.db:
        answers.append(link.ask("SELECT", params.db))
    answers.append(link.ask("PING"))
    results = await asyncio.gather(*answers, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
