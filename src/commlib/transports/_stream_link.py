"""One connection to a broker as a stream of bytes: what links to all kinds of brokers share."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

from commlib._dial import connect
from commlib._long_bytes import LongBytes
from commlib._params import NetworkParameters
from commlib._parts import Frame, Part, Parts, in_parts, parts_of, rest_of
from commlib.exceptions import ConnectError, ConnectionLost
from commlib.transports._reading import CAN_BE_LENT, Reading, Taken

T = TypeVar("T")

READ_BYTES = 128 * 1024  # of one read
MOST_PARTS = 1024  # of one write (man 2 writev: IOV_MAX)


class StreamLink(asyncio.BufferedProtocol):
    """An open connection: what is written, by whom, and how it ends.

    Bursts are written by the loop. On a link that ``allow_direct`` was called for, a thread may
    also put a frame on the wire itself while nothing else is on its way there, and those that came
    meanwhile. That saves it a wait for the loop, or for its next turn. A lock keeps frames whole
    and notes in order.
    """

    keepalive: float | None = None
    """Seconds of silence that the broker allows; None: those of the parameters."""

    def __init__(self, name: str) -> None:
        self.name = name
        loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[Exception | None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        """Done when the socket is closed."""
        self.is_heard = True
        """False: the broker was waited for in vain, so nobody waits for it any more."""
        self.on_room: Callable[[bool], None] = lambda room: None
        self.written_bytes = 0
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._buffer = read_buffer(self._loop)
        self._long: LongBytes | None = None
        """Where what comes next belongs, if it is the rest of a long payload and nothing else."""
        self._transport: asyncio.Transport | None = None
        self._write_lock = threading.Lock()
        self._direct: socket.socket | None = None
        self._rest: list[Part] = []  # of a direct write, for which the socket had no room
        self._cut: asyncio.TimerHandle | None = None
        self._reading: Reading | None = None
        self._may_be_lent = CAN_BE_LENT

    # What each kind of link has of its own.

    @abstractmethod
    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes were received, into ``_buffer``, or into the room of ``_long``.

        What is in ``_buffer`` is gone when this returns.
        """

    @abstractmethod
    def _note(self, notes: Iterable[object]) -> None:
        """Keep what stands for the answers to frames that are being written, under the lock."""

    @abstractmethod
    def _is_idle(self) -> bool:
        """Whether nothing is under way: what comes next need not be written with other things."""

    @property
    def is_held(self) -> bool:
        """Whether nothing may be written by a thread now."""
        return False

    def _is_clear(self) -> bool:
        """Whether all that came is taken: what comes next begins something new."""
        return False

    @abstractmethod
    def _ended(self) -> None:
        """The link has ended: nothing that waits for an answer will get one."""

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get_buffer(self, sizehint: int) -> memoryview:
        long = self._long
        if long is not None and not long.missing:  # uvloop reads on before what it was told to call
            self._take_long()
            long = self._long
        return self._buffer if long is None else long.room()

    def _note_filled(self, long: LongBytes, nbytes: int) -> None:
        """So many bytes have come into the room of a long payload."""
        is_free = long.filled(nbytes)
        if not long.missing:
            if is_free:
                self._take_long()
            else:  # uvloop lets go of the room when we return: then it need not be copied
                self._loop.call_soon(self._take_long)

    def _take_long(self) -> None:
        """Take the long payload, if one is here: perhaps it was taken already."""

    def pause_writing(self) -> None:
        self.on_room(False)

    def resume_writing(self) -> None:
        self.on_room(True)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._cut is not None:
            self._cut.cancel()  # or it would keep the link until then
        self._end(exc)
        if not self.gone.done():
            self.gone.set_result(None)

    # What a session and its outbox call.

    def write(self, frames: Sequence[Frame], notes: Iterable[object], /) -> None:
        with self._write_lock:
            # Noted even if the connection is about to be lost: then they count as unconfirmed.
            self._note(notes)
            try:
                data = b"".join(frames)  # type: ignore[arg-type] # as nearly always
            except TypeError:
                self._write_out(in_parts(frames))
            else:
                self._write_out((data,))

    def _write_out(self, parts: Sequence[Part]) -> None:
        transport = self._transport
        if self._rest:
            parts, self._rest = [*self._rest, *parts], []
        if transport is None or transport.is_closing():
            return
        self.written_bytes += sum(map(len, parts))
        if len(parts) > 1 and self._direct is not None and not transport.get_write_buffer_size():
            parts = rest_of(parts, self._send_parts(parts))
        for part in parts:
            # One by one: before Python 3.12 `writelines` would join them first.
            transport.write(part)

    def may_be_now(self, urgent: bool, /) -> bool:
        if self._direct is None:
            return False
        if threading.get_ident() == self._loop_thread:
            return urgent and self._is_idle()
        return urgent or self._is_idle()

    def write_now(self, frame: Frame, note: object, urgent: bool, /) -> bool:
        return self._write_at_once(frame, (note,), urgent)

    def write_all_now(self, frames: Sequence[Frame], notes: Iterable[object], /) -> bool:
        try:
            data: Frame = b"".join(frames)  # type: ignore[arg-type] # as nearly always
        except (TypeError, MemoryError):
            return False  # long ones are not joined
        return self._write_at_once(data, notes, True)

    def _write_at_once(self, frame: Frame, notes: Iterable[object], urgent: bool) -> bool:
        """By another thread what is ``urgent`` is written if nothing else is being written.

        The loop writes nothing else, and that when nothing is under way: it can gather what comes.
        """
        # Ctrl-C may come on the return from any call.
        is_taken: list[bool] = []
        try:
            is_taken.extend(map(self._write_lock.acquire, (False,)))
            transport = self._transport
            if not is_taken[0]:
                return False
            if transport is None or self._rest or transport.get_write_buffer_size():
                return False
            # Here, too: it is so as long as nobody comes between.
            if not self.may_be_now(urgent) or self.is_held:
                return False
            sent: list[int] = []
            try:
                self._note(notes)
                self._send_directly(frame, sent)
                self.written_bytes += sent[0]
                if sent[0] < len(frame):
                    self._rest = rest_of(parts_of(frame), sent[0])
                    self._loop.call_soon_threadsafe(self.write, (), ())
            except BaseException as exc:
                # What follows would be taken for the rest, or its answer for one that never comes.
                if sent != [len(frame)]:
                    reason = ConnectionLost(f"writing was interrupted: {exc!r}")
                    self._loop.call_soon_threadsafe(self.abort, reason)
                raise
            return True
        finally:
            if is_taken == [True]:
                self._write_lock.release()

    def _send_directly(self, frame: Frame, sent: list[int]) -> None:
        """Note in ``sent`` how many bytes the socket has taken, in one step with that."""
        assert self._direct is not None, "looked at under the lock"
        try:
            if isinstance(frame, Parts):
                sent.extend(map(self._direct.sendmsg, (parts_of(frame)[:MOST_PARTS],)))
            else:
                sent.extend(map(self._direct.send, (frame,)))
        except BlockingIOError:
            sent.append(0)
        except OSError:
            sent.append(len(frame))  # the connection is going: it counts as unconfirmed

    def _send_parts(self, parts: Sequence[Part]) -> int:
        """Hand long parts to the socket as they are; how many bytes it has taken."""
        assert self._direct is not None, "looked at under the lock"
        try:
            return self._direct.sendmsg(parts[:MOST_PARTS])
        except OSError:
            return 0  # it is full, or going: asyncio will find out

    def allow_direct(self) -> None:
        """Let other threads write, too.

        Not with TLS or a websocket, where what is under way is the loop's, nor where there are no
        more descriptors.
        """
        if self.extra("ssl_object") is None and self.extra("websocket") is None:
            # A descriptor of our own: asyncio's may be closed, and its number given away, any time.
            with suppress(OSError):
                self._direct = socket.socket(fileno=os.dup(self.extra("socket").fileno()))
                self._direct.setblocking(False)

    @property
    def is_direct(self) -> bool:
        """Whether other threads may write, too."""
        return self._direct is not None

    # Reading by a thread that waits for an answer. Only then does a link need what that takes.

    def read_here(
        self,
        is_wanted: Callable[[], bool],
        find: Callable[[bytes], T | None],
        taken: Taken,
        seconds: float,
        keep: bool = False,
    ) -> T | None:
        """What ``find`` makes of the next that comes, read in this thread; None: the loop reads it.

        From any thread but the loop's, if nothing else is waited for. See ``Reading.read``.
        """
        reading = self._reading  # the loop may end it at any time
        if reading is not None:
            return reading.read(is_wanted, find, taken, seconds, keep)
        if self._may_be_lent and self._direct is not None:
            self._may_be_lent = False
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._lend)
        return None

    def resume_reading(self) -> None:
        """Who has kept the turn to read does not read on: the loop does. From any thread."""
        reading = self._reading
        if reading is not None:
            reading.resume()

    def send_reader_away(self) -> None:
        """What a thread reads for will not come; it was told why, or is about to be."""
        if self._reading is not None:
            self._reading.send_away()

    def _lend(self) -> None:
        transport = self._transport
        if self._direct is None or transport is None or transport.is_closing():
            return
        try:
            self._reading = Reading(
                *(self._direct, self._read_once, self._take_bytes, self.abort, self._is_clear),
                self._take_back,
            )
        except OSError:  # no more descriptors: asyncio reads on
            return
        transport.pause_reading()

    def _take_bytes(self, data: bytes) -> None:
        try:
            self.get_buffer(len(data))[: len(data)] = data
            self.buffer_updated(len(data))
        except Exception as exc:  # asyncio, too, ends the connection and logs what it was
            self.abort(exc)
            raise

    def _read_once(self, sock: socket.socket) -> None:
        try:
            buffer = self.get_buffer(-1)
            try:
                nbytes = sock.recv_into(buffer)
            except BlockingIOError:
                return
            except OSError as exc:
                self.abort(exc)
                return
            if nbytes:
                self.buffer_updated(nbytes)
                return
        except Exception as exc:  # as above
            self.abort(exc)
            raise
        self._end_lending()  # asyncio knows what to do at the end

    def _take_back(self) -> None:
        """No thread reads what it waits for, and the loop reads with less work by usual means."""
        self._end_lending()
        self._may_be_lent = True

    def _end_lending(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None and self._transport is not None:
            reading.stop()
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def abort(self, reason: Exception | None) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._end(reason)

    def _abort_after(self, seconds: float) -> None:
        """Cut the connection if the broker has not closed it by then."""
        assert self._transport is not None, "it was connected"
        self._cut = self._loop.call_later(seconds, self._transport.abort)

    async def give_up(self) -> None:
        """Cut a connection that nobody else knows of, and return when it is closed.

        The loop may end with what has brought us here.
        """
        self.abort(None)
        if self._transport is not None:
            await self.gone

    def extra(self, name: str) -> Any:
        """What asyncio knows about the connection, such as ``peername``."""
        return self._transport.get_extra_info(name) if self._transport is not None else None

    @property
    def unsent_bytes(self) -> int:
        """How many bytes the other machine has not acknowledged, as far as this one can tell.

        With TLS those are left out that asyncio keeps between TLS and the socket. They wait there
        only while the socket is full, so this is none only when all have left.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            return 0
        return transport.get_write_buffer_size() + _unacknowledged(self.extra("socket"))

    def abandon(self) -> None:
        """After a fork, in the child: put /dev/null in the place of the shared socket.

        Closing it through asyncio would take the parent's socket off the shared epoll set.
        """
        null = os.open(os.devnull, os.O_RDWR)
        of_reading = None if self._reading is None else self._reading.sock
        for sock in (self.extra("socket"), self._direct, of_reading):
            if sock is not None and sock.fileno() >= 0:
                os.dup2(null, sock.fileno())
        os.close(null)

    def _end(self, reason: Exception | None) -> None:
        if self.closed.done():
            return
        self.closed.set_result(reason)
        self._end_lending()
        with self._write_lock:
            if self._direct is not None:
                self._direct.close()
                self._direct = None
        self._ended()


_read_buffers: WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = WeakKeyDictionary()


def read_buffer(loop: asyncio.AbstractEventLoop) -> memoryview:
    """Where all links of a loop are read into, for a loop reads from one at a time.

    Every loop calls ``get_buffer``, reads, and calls ``buffer_updated`` in one go. Of our own,
    since asyncio would allocate 256 KiB for every read of a link without one; shared, since each
    takes its 128 KiB of memory, and there may be a thousand links.
    """
    buffer = _read_buffers.get(loop)
    if buffer is None or len(buffer) != READ_BYTES:
        buffer = _read_buffers[loop] = memoryview(bytearray(READ_BYTES))
    return buffer


def _unacknowledged(sock: socket.socket) -> int:
    """How many bytes the kernel keeps until the other machine has them; 0 where it does not say."""
    if sys.platform != "linux":
        return 0
    import fcntl  # needed only for a broker that is silent for too long
    import termios

    try:
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))  # man 7 tcp: SIOCOUTQ
    except OSError:
        return 0
    return int.from_bytes(answer, sys.byteorder)


L = TypeVar("L", bound=StreamLink)


async def open_stream(make: Callable[[], L], params: NetworkParameters) -> L:
    """A connected link, to a host or a unix socket. Raises ConnectError or OSError."""
    if params.unix_socket:
        loop = asyncio.get_running_loop()
        _, link = await loop.create_unix_connection(make, params.unix_socket)
        return link
    link = await connect(
        make, params.host, params.port, params.ssl_context(), params.connect_timeout
    )
    if _is_own_end(link):
        link.abort(None)
        raise ConnectError(f"{link.name} cannot be reached: the socket was connected to itself")
    return link


def early_end_hint(params: NetworkParameters, tls_scheme: str) -> str:
    """What may be wrong, for the error, where the broker has closed the connection at once."""
    if params.ssl:
        return ""
    return f"; does it want TLS, {tls_scheme}://, or is it another kind of broker?"


def _is_own_end(link: StreamLink) -> bool:
    """Whether the kernel has joined the socket to itself.

    That happens to a client that tries a dead port of this machine again and again, when the port
    is among those that the kernel gives to outgoing connections.
    """
    ends = [link.extra(name) for name in ("sockname", "peername")]
    return bool(ends[0] == ends[1])
