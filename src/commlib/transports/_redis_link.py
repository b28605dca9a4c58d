"""One connection to a Redis or Valkey server: RESP2, pipelined, answers in the order of requests.

Source: the Redis serialization protocol specification, version 2, and the server's own replies.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from commlib._parts import LONG, Frame, Parts, parts_of
from commlib.exceptions import AuthError, CommlibError, ConnectError, ConnectionLost
from commlib.transports._stream_link import StreamLink, early_end_hint, open_stream

if TYPE_CHECKING:
    from commlib.transports._redis_params import ConnectionParameters

UNASKED = "an answer to what nobody has asked"
_AUTH_CODES = ("NOAUTH", "WRONGPASS", "NOPERM", "DENIED")
# A database that there is not will not be there later; RabbitMQ says as much of a virtual host.
_AUTH_TEXTS = ("invalid password", "AUTH", "'auth'", "invalid username", "DB index")


def command(*words: str | bytes | int) -> bytes:
    """A command as the server reads it: an array of bulk strings."""
    out = [b"*%d\r\n" % len(words)]
    for word in words:
        if not isinstance(word, bytes):
            word = str(word).encode()
        out.append(b"$%d\r\n%b\r\n" % (len(word), word))
    return b"".join(out)


def bulk(head: bytes, payload: Frame) -> Parts:
    """The end of a command: a long payload behind what comes before its size."""
    return Parts(b"%b%d\r\n" % (head, len(payload)), *parts_of(payload), b"\r\n")


def push(queue: str, payload: bytes) -> Frame:
    """RPUSH; as ``command``, but it is sent for every call."""
    name = queue.encode()
    if len(payload) >= LONG:
        head = b"*3\r\n$5\r\nRPUSH\r\n$%d\r\n%b\r\n$" % (len(name), name)
        return bulk(head, payload)
    return b"*3\r\n$5\r\nRPUSH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
        *(len(name), name),
        *(len(payload), payload),
    )


def take_out(queue: str, payload: bytes) -> Frame:
    """LREM of one such item; the oldest, of those that are alike."""
    if len(payload) < LONG:
        return command("LREM", queue, 1, payload)
    return bulk(command("LREM", queue, 1, b"").removesuffix(b"0\r\n\r\n"), payload)


def expire(queue: str, seconds: int) -> bytes:
    """EXPIRE; as ``push``."""
    name, time = queue.encode(), b"%d" % seconds
    return b"*3\r\n$6\r\nEXPIRE\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
        *(len(name), name),
        *(len(time), time),
    )


class Replica(ConnectError):
    """The server follows another one: it takes no requests, and tells that one nothing."""


def error_from(reply: Exception, what: str) -> CommlibError:
    """The server's error reply as one of ours."""
    text = str(reply)
    if text.startswith("READONLY"):
        return Replica(f"{what}: the server says: {text}")
    error = AuthError if text.startswith(_AUTH_CODES) or _is_auth_text(text) else ConnectError
    return error(f"{what}: the server says: {text}")


def _is_auth_text(text: str) -> bool:
    return text.startswith("ERR") and any(part in text for part in _AUTH_TEXTS)


class Asking(str):
    """The queue of a call, as the note of its request; ``token`` is that of the call."""

    __slots__ = ("token",)
    token: str


class Unexpected(ValueError):
    """An answer that no server gives to what it was asked, or that nobody has asked for."""

    def __init__(self, reply: object, what: str = "an answer that makes no sense") -> None:
        super().__init__(f"{what}: {reply!r:.100}")


class RedisLink(StreamLink):
    """An open connection.

    Every frame written has one note in ``_pending``, and answers come in that order: a future
    gets the answer; for any other note only an error is of interest, ``on_refused(note, error)``
    is told. A tuple is the note of a frame with several commands. ``on_reply`` takes every answer
    and what the server pushes, and raises Unexpected for what makes no sense, or with what the
    server says the CommlibError that ends the connection; ``on_idle`` is called when all that had
    come was taken, ``on_asked`` when somebody waits for an answer.
    """

    def __init__(self, name: str) -> None:
        import hiredis

        super().__init__(name)
        self.heard = self._loop.time()
        self.on_reply: Callable[[Any], None] = self._take_reply
        self.on_refused: Callable[[object, CommlibError], None] = lambda note, error: None
        self.on_idle: Callable[[], None] = lambda: None
        self.on_asked: Callable[[], None] = lambda: None
        self.probe: Callable[[], None] = self._ping
        self.answered: object = None
        """The note of the last answer."""
        self._reader = hiredis.Reader()
        self._pending: deque[object] = deque()

    def buffer_updated(self, nbytes: int) -> None:
        self.heard = self._loop.time()
        reader, on_reply = self._reader, self.on_reply
        # Its stubs do not know that it takes any buffer.
        reader.feed(self._buffer, 0, nbytes)  # type: ignore[arg-type]
        try:
            while True:
                try:
                    reply = reader.gets()
                except TypeError as exc:  # a map of RESP3 with a list for a key
                    raise Unexpected(exc) from exc
                if reply is False:
                    break
                on_reply(reply)
        except (_protocol_error(), Unexpected, MemoryError) as exc:  # a list of 2^32 items, it says
            self.abort(ConnectionLost(f"{self.name} does not speak RESP: {exc}"))
            return
        except CommlibError as exc:
            self.abort(exc)
            return
        self.on_idle()

    def heard_now(self) -> None:
        """Something has come."""
        self.heard = self._loop.time()

    def _is_clear(self) -> bool:
        return not self._reader.has_data()

    def ask(self, *words: str | bytes | int) -> asyncio.Future[Any]:
        """Send a command; the future brings its answer, or its error as an exception."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        if self.closed.done():
            answer.set_exception(ConnectionLost(f"{self.name} is away"))
        else:
            self.write([command(*words)], [answer])
            self.on_asked()
        return answer

    @property
    def unanswered(self) -> int:
        """How many commands were written whose answers were not read."""
        return len(self._pending)

    @property
    def unconfirmed(self) -> int:
        """How many messages the server has not answered yet."""
        return sum(1 for note in self._pending if isinstance(note, str | tuple))

    def pause(self) -> None:
        """Leave what comes where it is, until it is to ``go_on``. On the loop."""
        assert self._transport is not None, "it was connected"
        self._transport.pause_reading()

    def go_on(self) -> None:
        """Read again. On the loop."""
        assert self._transport is not None, "it was connected"
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _note(self, notes: Iterable[object]) -> None:
        self._pending.extend(notes)

    def _is_idle(self) -> bool:
        return not self._pending

    def _take_reply(self, reply: Any) -> None:
        if not self._pending:
            if isinstance(reply, Exception):  # why it is about to close the connection
                raise error_from(reply, self.name)
            raise Unexpected(reply, UNASKED)
        self.answered = note = self._pending.popleft()
        if reply.__class__ is int and isinstance(note, str):
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

    def connection_lost(self, exc: Exception | None) -> None:
        try:
            self._take_rest()
        finally:
            super().connection_lost(exc)

    def _take_rest(self) -> None:
        """Take what had come when the connection was lost: it may say why."""
        while self._direct is not None and self._reading is None and not self.closed.done():
            try:
                nbytes = self._direct.recv_into(self.get_buffer(-1))
            except OSError:
                return
            if not nbytes:
                return
            self.buffer_updated(nbytes)

    def _ended(self) -> None:
        for note in self._pending:
            if isinstance(note, asyncio.Future) and not note.done():
                note.set_exception(ConnectionLost(f"{self.name} was lost"))


def _protocol_error() -> type[Exception]:
    import hiredis

    return hiredis.ProtocolError


async def dial(name: str, params: ConnectionParameters) -> RedisLink:
    """Open a connection, authenticate, select the database.

    Raises AuthError, ConnectError or OSError. A replica is refused where others stand in for it.
    """
    link = await open_stream(lambda: RedisLink(name), params)
    try:
        await _greet(link, params)
    except ConnectionLost as exc:
        reason = link.closed.result() if link.closed.done() else None
        link.abort(None)
        # What the system or the server has said.
        if isinstance(reason, OSError) and not isinstance(reason, ConnectionLost):
            raise reason from exc
        if reason is not None:
            raise ConnectError(str(reason)) from exc
        hint = early_end_hint(params, "rediss")
        text = f"{name}: the server has closed the connection at once{hint}"
        raise ConnectError(text) from exc
    except BaseException:
        await link.give_up()
        raise
    return link


async def _greet(link: RedisLink, params: ConnectionParameters) -> None:
    user, password = params.credentials
    who = f"as {user or 'default'!r}" if password or user else "without a password"
    answers = []
    if password or user:
        words = ("AUTH", user, password) if user else ("AUTH", password)
        answers.append(link.ask(*words))
    if params.db:
        answers.append(link.ask("SELECT", params.db))
    answers.append(link.ask("PING"))
    role = link.ask("ROLE") if params.fallbacks else None
    if role is not None:  # seen, also where the other answers are not what they should be
        role.add_done_callback(lambda answer: answer.cancelled() or answer.exception())
    results = await asyncio.gather(*answers, return_exceptions=True)
    for result in results:
        if isinstance(result, AuthError) and "DB index" not in str(result):
            raise AuthError(f"{result} ({who})") from result
        if isinstance(result, BaseException):
            raise result
    if role is not None and await is_replica(role):
        raise Replica(f"{link.name} is a replica")


async def is_replica(role: asyncio.Future[Any]) -> bool | None:
    """Whether the answer to ROLE tells so; None for a user who may not ask for it.

    Not, as far as is known, where the server is too busy to say so, or knows no such question.

    Raises ConnectionLost.
    """
    try:
        answer = await role
    except AuthError:
        return None
    except ConnectError:  # it is busy, or has no such command
        return False
    return isinstance(answer, list) and answer[:1] == [b"slave"]
