"""One connection to an AMQP broker: frames cut out of the stream, and put together to messages.

Source: AMQP 0-9-1, sections 2.2.4 (connections), 4.2 (frames); rabbitmq.com/heartbeats.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from math import ceil
from ssl import SSLError
from struct import Struct as Layout
from struct import error as LayoutError
from typing import TYPE_CHECKING, Any

from commlib.exceptions import AuthError, CommlibError, ConnectError, ConnectionLost
from commlib.transports import _amqp_methods as methods
from commlib.transports._amqp_bytes import Malformed, read_short, u64
from commlib.transports._amqp_channel import Arrival, Arrivals, Channel, Question
from commlib.transports._amqp_codes import loss
from commlib.transports._amqp_content import Content
from commlib.transports._amqp_methods import (
    AROUND,
    BODY,
    END,
    HEADER,
    METHOD,
    PUBLISHING,
    REPLIES,
    Tuning,
)
from commlib.transports._amqp_notes import Asking
from commlib.transports._stream_link import StreamLink, early_end_hint, open_stream

if TYPE_CHECKING:
    from commlib.transports._amqp_params import ConnectionParameters

log = logging.getLogger("commlib.amqp")

LONGEST_FRAME = 128 * 1024  # asked for if the broker has no bound; RabbitMQ's own
SLACK = 128 * 1024  # bytes over the limit that are taken to say by how much it was too long
QUIET_SECONDS = 0.0001  # after this a thread may write itself; before, a burst is to be gathered
LEAVE_SECONDS = 0.2  # how long the broker is given to answer our goodbye
ANSWER_SECONDS = 0.3  # how long it is waited for when a consumer leaves
_FRAME_HEAD = Layout("!BHI")  # type, channel, size
_CONTENT_HEAD = Layout("!BHI4xQ")  # the same of a content header, and how long the body is
_TAG = Layout("!QB")  # of a delivery, and its bits
FLUSH = methods.qos(PUBLISHING, 0)
"""Answered when all that was published before is taken over; nobody consumes on that channel."""


class AmqpLink(StreamLink):
    """An open connection.

    A payload that is longer than ``limit`` is handed over cut off behind it, so that its receivers
    refuse it and the connection goes on. ``on_room`` is also told when the broker blocks us, and
    while a channel is not open; ``on_blocked`` that the broker does (True), after that, and that
    this is over, before.
    """

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(name)
        self.channels: dict[int, Channel] = {}
        self.tuning = Tuning(0, methods.MIN_FRAME, 0)
        self.limit = limit + SLACK
        self._heard = self._wrote = self._loop.time()
        self._partial = bytearray()
        self._wanted = AROUND  # bytes that make it worth looking at what is there
        self._contents: dict[int, Content] = {}
        self._filling: tuple[int, Content] | None = None
        """The channel and the message that the frame belongs to of which more is to come."""
        self._frame_left = 0  # bytes of that frame, its end not counted
        self._greeting: asyncio.Future[tuple[bytes, bytes]] | None = None
        self._is_open = False
        self._holders: set[object] = set()
        self._blocked_timer: asyncio.TimerHandle | None = None
        self._blocked_timeout: float | None = None
        self._usual_keepalive: float | None = None
        self.on_blocked: Callable[[bool], None] = lambda is_blocked: None

    # What a session asks.

    @property
    def heard(self) -> float:
        """The older of the last signs of life in each direction: the broker wants to hear, too."""
        if self._blocked_timer is not None and not self.tuning.heartbeat:
            return self._wrote  # it says nothing at all before it takes messages again
        return min(self._heard, self._wrote)

    def probe(self) -> None:
        """Ask for a sign of life."""
        channel = self.channels.get(PUBLISHING)
        if channel is None or self._blocked_timer is not None:
            self.write([methods.BEAT], [])
        else:
            channel.ask(FLUSH)

    def abort(self, reason: Exception | None) -> None:
        if reason is None and self._is_open and self.is_heard and not self.closed.done():
            self.write([methods.FAREWELL], [])
            self._abort_after(LEAVE_SECONDS)
            self._end(None)
        else:
            super().abort(reason)

    async def answered(self, answer: asyncio.Future[bytes]) -> None:
        """Return when the broker has answered, or is not to be waited for."""
        if self.is_heard:
            _, waiting = await asyncio.wait([answer], timeout=ANSWER_SECONDS)
            self.is_heard = not waiting  # if not, nobody else has to wait as long

    def _note(self, notes: Iterable[object]) -> None:
        self._wrote = self._loop.time()
        for note in notes:
            if note.__class__ is str:
                continue  # a message: the broker does not answer
            if isinstance(note, Asking):
                if note.token in note.open:
                    note.sent.add(note.token)
            elif isinstance(note, Question):
                note.channel.note(note)
            elif isinstance(note, asyncio.Future):
                channel = self.channels[PUBLISHING]
                channel.note(Question(channel, FLUSH, note))

    def _is_idle(self) -> bool:
        return self._loop.time() - self._wrote > QUIET_SECONDS

    def _ended(self) -> None:
        reason = self.closed.result()
        error = ConnectionLost(f"{self.name} was lost" + (f": {reason}" if reason else ""))
        error.__cause__ = reason
        if self._blocked_timer is not None:
            self._blocked_timer.cancel()
        greeting = self._greeting
        if greeting is not None and not greeting.done():
            greeting.set_exception(reason if isinstance(reason, CommlibError) else error)
            greeting.exception()  # marked as seen: perhaps nobody waits any more
        for channel in self.channels.values():
            channel.fail(error)

    def _is_clear(self) -> bool:
        return not self._partial and self._filling is None

    # When nothing may be published.

    def pause_writing(self) -> None:
        self.hold(self)

    def resume_writing(self) -> None:
        self.release(self)

    def hold(self, holder: object) -> None:
        """Let nothing be published until this holder releases it."""
        self._holders.add(holder)
        self.on_room(False)

    def release(self, holder: object) -> None:
        """This holder has no objection any more."""
        self._holders.discard(holder)
        if not self._holders:
            self.on_room(True)

    def _block(self, why: str) -> None:
        log.warning("%s: the broker takes no messages now: %s", self.name, why)
        if self._blocked_timer is None:
            seconds = self._blocked_timeout
            error = ConnectionLost(f"{self.name} has been blocked by the broker for {seconds} s")
            delay = seconds if seconds is not None else 1e9
            self._blocked_timer = self._loop.call_later(delay, self.abort, error)
            if self.tuning.heartbeat:
                # It answers no probe, and RabbitMQ leaves out the heartbeat behind any other frame.
                self.keepalive = self.tuning.heartbeat
        self.hold("blocked")
        self.on_blocked(True)

    def _unblock(self) -> None:
        if self._blocked_timer is not None:
            self._blocked_timer.cancel()
            self._blocked_timer = None
            self.keepalive = self._usual_keepalive
            log.warning("%s: the broker takes messages again", self.name)
            self.on_blocked(False)
        self.release("blocked")

    @property
    def is_held(self) -> bool:
        """Whether nothing may be published now."""
        return bool(self._holders)

    @property
    def is_blocked(self) -> bool:
        """Whether that is so because the broker takes nothing. From any thread."""
        return "blocked" in self._holders

    # The beginning.

    async def greet(self, params: ConnectionParameters) -> None:
        """Log in. Raises AuthError, ConnectError, ConnectionLost, Malformed."""
        self._greeting = self._loop.create_future()
        self.write([methods.PROTOCOL], [])
        known = methods.read_mechanisms(await self._expect(methods.START))
        user, password = params.credentials
        if params.mechanism not in known:
            raise AuthError(
                f"{self.name} lets nobody in by {params.mechanism}, "
                f"it knows {', '.join(known)}; see mechanism="
            )
        client = {"product": "commlib-py", "platform": "Python"}
        self.write([methods.start_ok(params.mechanism, user, password, client)], [])
        tuning = methods.read_tune(await self._expect(methods.TUNE))
        self.tuning = _settle(tuning, params)
        if self.tuning.channels < params.first_service:
            raise ConnectError(
                f"{self.name} allows {self.tuning.channels} channels a connection (channel_max), "
                f"and a node needs {params.first_service}"
            )
        if self.tuning.frame < methods.MIN_FRAME:
            raise ConnectError(
                f"{self.name} takes frames of {self.tuning.frame} bytes (frame_max), "
                f"and AMQP has {methods.MIN_FRAME} at least"
            )
        if self.tuning.heartbeat:
            self.keepalive = self._usual_keepalive = min(
                params.keepalive, self.tuning.heartbeat / 2
            )
        self.write([methods.tune_ok(self.tuning), methods.open_vhost(params.vhost)], [])
        await self._expect(methods.OPEN_OK)
        self._greeting = None
        self._is_open = True
        self._blocked_timeout = params.blocked_connection_timeout

    async def _expect(self, kind: bytes) -> bytes:
        assert self._greeting is not None, "the connection is being opened"
        found, arguments = await self._greeting
        self._greeting = self._loop.create_future()
        if self.closed.done():
            raise ConnectionLost(f"{self.name} was lost")
        if found != kind:
            raise Malformed(f"the method {found.hex()} where {kind.hex()} was expected")
        return arguments

    def channel(self, number: int) -> Channel:
        """The channel that has this number; it is opened if it was not."""
        channel = self.channels.get(number)
        if channel is None:
            channel = self.channels[number] = Channel(self, number)
            channel.open()
        return channel

    # Frames.

    def buffer_updated(self, nbytes: int) -> None:
        if self.closed.done():
            return self._wait_for_goodbye(bytes(self._buffer[:nbytes]))
        self._heard = self._loop.time()
        try:
            view = self._buffer[:nbytes] if self._filling is None else self._fill(nbytes)
        except Malformed as exc:
            return self.abort(ConnectionLost(f"{self.name} does not speak AMQP: {exc}"))
        if not view or self.closed.done():
            return None
        if self._partial:
            self._partial += view
            if len(self._partial) < self._wanted:
                return None
            data = bytes(self._partial)
            self._partial = bytearray()
        else:
            data = bytes(view)
        try:
            rest = self._take_frames(data)
        except (Malformed, LayoutError, IndexError) as exc:
            return self.abort(ConnectionLost(f"{self.name} does not speak AMQP: {exc}"))
        except (MemoryError, OverflowError) as exc:
            error = ConnectionLost(f"{self.name} sends more than there is memory for: {exc!r}")
            return self.abort(error)
        if rest < len(data):
            self._partial = bytearray(data[rest:])
        return None

    def _wait_for_goodbye(self, data: bytes) -> None:
        """We have said goodbye: the broker has written all out when it answers."""
        if methods.CLOSE_OK in data and self._transport is not None:
            self._transport.close()

    def _take_frames(self, data: bytes) -> int:
        """Take all whole frames; where the rest begins."""
        at, end = 0, len(data)
        while end - at >= AROUND:
            kind, number, size = _FRAME_HEAD.unpack_from(data, at)
            stop = at + AROUND + size
            if stop > end:
                self._wanted = stop - at
                self._check_start(data[at : at + AROUND], size)
                if kind == BODY and self._begin_filling(data, at, size):
                    self._wanted = AROUND
                    return end
                return at
            if data[stop - 1] != END:
                self._check_start(data[at : at + AROUND], size)
                raise Malformed("a frame without its end")
            if kind == METHOD:
                method = data[at + 7 : at + 11]
                if method == methods.DELIVER and (found := self._take_whole(data, at, stop, end)):
                    at = found
                    continue
                self._take_method(number, method, data[at + 11 : stop - 1])
            elif kind == HEADER:
                self._take_header(number, data[at + 7 : stop - 1])
            elif kind == BODY:
                self._take_body(number, data[at + 7 : stop - 1])
            elif kind != methods.HEARTBEAT:
                raise Malformed(f"a frame of the unknown type {kind}")
            if self.closed.done():
                return end
            at = stop
        self._wanted = AROUND
        return at

    def _begin_filling(self, data: bytes, at: int, size: int) -> bool:
        """Have the rest of a frame, as it comes, put to where the body of its message will stay.

        False: this is no part of a long message.
        """
        number = data[at + 1] << 8 | data[at + 2]
        content = self._contents.get(number)
        if content is None or content.long is None:
            return False
        if content.missing < size:
            raise Malformed("a body without a message")
        part = memoryview(data)[at + 7 :]
        if len(part) > size:  # all of it is here but its end
            return False
        content.add(part)
        self._filling = number, content
        self._frame_left = size - len(part)
        return True

    def _fill(self, nbytes: int) -> memoryview:
        """Take what has come of that, and of the frames of the same message; what is left.

        Raises Malformed.
        """
        assert self._filling is not None, "asked before"
        number, content = self._filling
        view = self._buffer[:nbytes]
        while len(view) > self._frame_left:  # its end is here, too
            content.add(view[: self._frame_left])
            if view[self._frame_left] != END:
                raise Malformed("a frame without its end")
            view = view[self._frame_left + 1 :]
            self._filling, self._frame_left = None, 0
            if not content.missing:
                self._complete(number, content)
                return view
            if len(view) < 7 or view[0] != BODY or view[1] << 8 | view[2] != number:
                return view
            size = int.from_bytes(view[3:7])
            if size > max(self.tuning.frame, LONGEST_FRAME) or size > content.missing:
                return view  # it is refused where all frames are
            self._filling, self._frame_left = (number, content), size
            view = view[7:]
        content.add(view)
        self._frame_left -= len(view)
        return view[:0]

    def _check_start(self, head: bytes, size: int) -> None:
        if head.startswith(b"AMQP"):
            raise Malformed("it speaks another version, " + ".".join(map(str, head[5:8])))
        if size > max(self.tuning.frame, LONGEST_FRAME):
            raise Malformed(f"a frame of {size} bytes")

    def _take_whole(
        self, data: bytes, at: int, head: int, end: int, take: Arrivals | None = None
    ) -> int:
        """A message all of which is here in three frames; where it ends, 0 if it is another one.

        ``head`` is where its second frame begins. The common case by far, so it is done in one go.
        Its channel takes it, or else ``take``.
        """
        if head + 22 > end:
            return 0
        kind, number, head_size, size = _CONTENT_HEAD.unpack_from(data, head)
        body: int = head + AROUND + head_size
        stop: int = body + AROUND + size
        if stop > end or kind != HEADER or size > self.limit:
            return 0
        if _FRAME_HEAD.unpack_from(data, body) != (BODY, number, size):
            return 0
        if number != data[at + 1] << 8 | data[at + 2]:
            return 0
        if data[body - 1] != END or data[stop - 1] != END:
            raise Malformed("a frame without its end")
        channel = self.channels.get(number)
        if channel is not None:
            behind = at + 12 + data[at + 11]
            tag, bits = _TAG.unpack_from(data, behind)
            (take or channel.on_arrival)(
                data[at + 12 : behind],
                tag,
                bits & 1 != 0,
                data[behind + 9 : head - 1],
                data[head + 19 : body - 1],
                data[body + 7 : stop - 1],
            )
        return stop

    def messages_of(self, data: bytes, number: int) -> list[Arrival]:
        """The messages on a channel that are all of ``data``; none if there is something else.

        For the thread that has read it.
        """
        at, end, found = 0, len(data), list[Arrival]()

        def take(*arrival: Any) -> None:
            found.append(arrival)

        try:
            while at < end:
                _, channel, size = _FRAME_HEAD.unpack_from(data, at)
                if channel != number or data[at + 7 : at + 11] != methods.DELIVER:
                    return []
                at = self._take_whole(data, at, at + AROUND + size, end, take)
                if not at:
                    return []
        except (Malformed, LayoutError, IndexError, MemoryError, OverflowError):
            return []  # it is found once more by the loop, and ends the connection
        else:
            return found
        finally:
            self._heard = self._loop.time()

    def _take_method(self, number: int, kind: bytes, arguments: bytes) -> None:
        if kind in (methods.DELIVER, methods.RETURN):
            if number in self.channels:  # else it is passed over: nothing of it is kept
                self._contents[number] = Content(kind, arguments)
        elif not number:
            self._take_of_connection(kind, arguments)
        elif (channel := self.channels.get(number)) is not None:
            channel.take(kind, arguments)

    def _take_of_connection(self, kind: bytes, arguments: bytes) -> None:
        if kind == methods.CLOSE:
            closing = methods.read_close(arguments)
            self.write([methods.method(0, methods.CLOSE_OK)], [])
            self.abort(loss(self.name, closing, ConnectionLost))
        elif kind == methods.BLOCKED:
            self._block(read_short(arguments, 0)[0])
        elif kind == methods.UNBLOCKED:
            self._unblock()
        elif self._greeting is not None and not self._greeting.done():
            self._greeting.set_result((kind, arguments))

    def _take_header(self, number: int, payload: bytes) -> None:
        content = self._contents.get(number)
        if content is None:
            if number not in self.channels:
                return
            raise Malformed("a header without a message")
        content.announce(u64.unpack_from(payload, 4)[0], self.limit + 1)
        content.properties = payload[12:]
        if not content.missing:
            self._complete(number, content)

    def _take_body(self, number: int, part: bytes) -> None:
        content = self._contents.get(number)
        if content is None and number not in self.channels:
            return
        if content is None or content.missing < len(part):
            raise Malformed("a body without a message")
        content.add(part)
        if not content.missing:
            self._complete(number, content)

    def _complete(self, number: int, content: Content) -> None:
        del self._contents[number]
        channel, about = self.channels[number], content.arguments
        if content.kind == methods.RETURN:
            _, at = read_short(about, 2)
            _, at = read_short(about, at)
            channel.on_return(read_short(about, at)[0], content.properties)
            return
        behind = 1 + about[0]
        channel.on_arrival(
            about[1:behind],
            u64.unpack_from(about, behind)[0],
            about[behind + 8] & 1 != 0,
            about[behind + 9 :],
            content.properties,
            content.body(),
        )


def _settle(asked: Tuning, params: ConnectionParameters) -> Tuning:
    """The bounds that both sides keep; of two, the lower one holds, and 0 is no bound."""
    heartbeat = min(ceil(params.heartbeat_timeout), ceil(params.keepalive) * 2)
    if not heartbeat:  # not wanted; what is silent is probed all the same
        asked.heartbeat = 0
    return Tuning(
        min(asked.channels or 0xFFFF, params.channel_max),
        min(asked.frame or LONGEST_FRAME, LONGEST_FRAME),
        min(asked.heartbeat or heartbeat, heartbeat),
    )


async def dial(name: str, params: ConnectionParameters) -> AmqpLink:
    """Open a connection and log in. Raises AuthError, ConnectError or OSError."""
    link = await open_stream(lambda: AmqpLink(name, params.max_payload), params)
    try:
        await link.greet(params)
        link.channel(PUBLISHING)
        await link.channel(REPLIES).opened()
    except ConnectionLost as exc:
        error = _early_end(link, exc, params)
        link.abort(None)
        raise error from (None if error is exc.__cause__ else exc)
    except (Malformed, LayoutError) as exc:
        link.abort(None)
        raise ConnectError(f"{name} does not speak AMQP: {exc}") from exc
    except AuthError as exc:
        await link.give_up()
        if "using authentication mechanism PLAIN" not in str(exc):
            raise
        raise AuthError(f"{exc} (as {params.credentials[0]!r})") from exc
    except BaseException:
        await link.give_up()
        raise
    return link


def _early_end(link: AmqpLink, exc: ConnectionLost, params: ConnectionParameters) -> OSError:
    reason = link.closed.result() if link.closed.done() else exc
    if isinstance(reason, SSLError):
        return reason
    if isinstance(reason, ConnectionLost):
        return ConnectError(str(reason))
    hint = early_end_hint(params, "amqps")
    return ConnectError(f"{link.name}: the broker has closed the connection at once{hint}")
