"""One connection to an MQTT broker: packets cut out of the stream, and answers found for questions.

Source: MQTT 3.1.1 and MQTT 5.0, OASIS standards.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from math import ceil
from ssl import SSLError
from typing import TYPE_CHECKING, Any, NamedTuple

from commlib._long_bytes import LongBytes
from commlib._packet import Header, Packet
from commlib._parts import LONG, Frame
from commlib._session import SLOW, TakenOver
from commlib.exceptions import CommlibError, ConnectError, ConnectionLost
from commlib.transports import _mqtt_control as control
from commlib.transports import _mqtt_frames as frames
from commlib.transports._mqtt_acks import QUICKACK, Acks
from commlib.transports._mqtt_bytes import Malformed, read_length
from commlib.transports._mqtt_codes import TAKEN_OVER, refusal
from commlib.transports._mqtt_control import MAX_IDS, V5, Granted
from commlib.transports._mqtt_frames import Published
from commlib.transports._mqtt_headers import read_pairs
from commlib.transports._mqtt_routes import LONGEST_KEY, Route, Routes
from commlib.transports._stream_link import StreamLink, early_end_hint, open_stream
from commlib.transports.base import Handler

if TYPE_CHECKING:
    from commlib.transports._mqtt_params import ConnectionParameters

LONGEST_HEAD = 128 * 1024  # bytes of a PUBLISH before its payload: a topic and some properties
LEAVE_SECONDS = 0.2  # how long the broker is given to close the connection that we leave
QUIET_SECONDS = 0.0001  # after this a thread may write itself; before, a burst is to be gathered
UNSUPPORTED_VERSION = (0x01, 0x84)  # reasons of a CONNACK, on MQTT 3.1.1 and 5


class Unclaimed(NamedTuple):
    """A new message that no route leads anywhere."""

    topic: str
    published: Published
    payload: bytes
    header: Header | None
    qos: int
    packet_id: int


class VersionRefused(ConnectError):
    """The broker does not speak this version of MQTT."""


class ClosedEarly(ConnectError):
    """The broker has closed the connection instead of an answer to CONNECT."""


class MqttLink(StreamLink):
    """An open connection.

    ``routes`` knows who takes what comes; of what the broker had stored ``on_retained`` tells.
    ``on_unclaimed`` is told of what nobody takes; with True it is not acknowledged, that is up to
    who was told. A packet whose payload is longer than ``limit`` is handed over cut off right
    behind it, so that its receivers refuse it and the connection goes on. ``explain`` is given the
    reason that the connection has ended for, unless it is we who have left, and returns what there
    is to be known of it.
    """

    def __init__(self, name: str, version: int, limit: int) -> None:
        super().__init__(name)
        self.version = version
        self.granted = Granted(0)
        self.downgrades = False
        """Whether what is published was made for MQTT 5, and this link does not speak that."""
        self.is_left = False
        """Whether it is we who have ended it, and not the broker."""
        self.explain: Callable[[Exception | None], Exception | None] = lambda reason: reason
        self.routes = Routes()
        self.on_retained: Callable[[str, Published], Route] = lambda topic, published: ()
        self.on_unclaimed: Callable[[Unclaimed], bool] = lambda message: False
        self.on_acknowledged: Callable[[int, int, int], None] = lambda kind, packet_id, code: None
        self.received: set[int] = set()
        """What came at QoS 2 and is not released yet. Of a session that is kept it outlives this.
        """
        self._limit = limit + LONGEST_HEAD
        self._heard = self._wrote = self._loop.time()
        self._has_properties = version == V5
        self._socket: Any = None
        self._acks = Acks(self._loop, self._ask_for_acknowledgement, self._is_unsent)
        self._partial = bytearray()
        self._wanted = 0  # bytes of the packet in _partial, if known
        self._skip = 0  # bytes to come of a packet that was handed over already
        self._beginning = (0, b"", 0)  # of what `_long` is the payload of: see `_begin_long`
        self._connack: asyncio.Future[bytes] = self._loop.create_future()
        self._greeted = False
        self._pings: deque[asyncio.Future[None] | None] = deque()
        self._asked: dict[int, Callable[[int], None]] = {}
        self._leaving: set[asyncio.Future[bool]] = set()
        self._used_ids: set[int] = set()
        self._last_id = 0

    # What a session asks.

    @property
    def heard(self) -> float:
        """The older of the last signs of life in each direction: the broker wants to hear, too."""
        return min(self._heard, self._wrote)

    def probe(self) -> None:
        """Ask for a sign of life."""
        self.write([control.PINGREQ], [None])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._socket = self.extra("socket")

    def write(self, parts: Sequence[Frame], notes: Iterable[object], /) -> None:
        super().write([*map(frames.downgraded, parts)] if self.downgrades else parts, notes)

    def write_now(self, frame: Frame, note: object, urgent: bool, /) -> bool:
        if self.downgrades:
            frame = frames.downgraded(frame)
        return self._write_at_once(frame, (note,), urgent)

    def write_all_now(self, parts: Sequence[Frame], notes: Iterable[object], /) -> bool:
        return super().write_all_now(
            [*map(frames.downgraded, parts)] if self.downgrades else parts, notes
        )

    def abort(self, reason: Exception | None) -> None:
        self.is_left |= reason is None
        if reason is None and self._greeted and self.is_heard and not self.closed.done():
            self._take_leave()
        else:
            super().abort(reason)

    def _take_leave(self) -> None:
        """Say goodbye, else the broker would publish our will, and wait a moment for its answer.

        A socket that is closed with something in it that nobody has read is reset by the kernel,
        and what was written last may get lost with that.
        """
        transport = self._transport
        assert transport is not None, "it was connected"
        self.write([control.FAREWELL], [])
        try:
            if transport.can_write_eof():
                transport.write_eof()
            else:
                transport.close()
        except OSError:  # the broker has left in this moment
            transport.abort()
        self._abort_after(LEAVE_SECONDS)
        self._end(None)

    def _note(self, notes: Iterable[object]) -> None:
        self._wrote = self._loop.time()
        self._acks.writes += 1
        for note in notes:
            if note.__class__ is str:
                continue  # a message: at QoS 0 the broker does not answer
            if note is None or isinstance(note, asyncio.Future):
                self._pings.append(note)

    def _is_idle(self) -> bool:
        return self._loop.time() - self._wrote > QUIET_SECONDS

    def _end(self, reason: Exception | None) -> None:
        if not self.closed.done():
            super()._end(reason if self.is_left else self.explain(reason))

    def _ended(self) -> None:
        reason = self.closed.result()
        error: CommlibError
        if isinstance(reason, SLOW):
            error = reason  # so that it is not tried again at once by who has just begun
        else:
            error = ConnectionLost(f"{self.name} was lost" + (f": {reason}" if reason else ""))
            error.__cause__ = reason
        for ended in self._leaving:
            ended.set_result(False)
        self._leaving.clear()
        for waiter in (self._connack, *self._pings):
            if waiter is not None and not waiter.done():
                waiter.set_exception(error)
                waiter.exception()  # marked as seen: perhaps nobody waits any more

    # Questions.

    async def greet(self, frame: bytes) -> Granted:
        """Send CONNECT; what the broker answers. Raises ConnectionLost, Malformed."""
        self.write([frame], [])
        self.granted = control.read_connack(self.version, await self._connack)
        self.keepalive = self.granted.keepalive
        self._greeted = not self.granted.code
        return self.granted

    def ping(self) -> asyncio.Future[None]:
        """Ask for a sign of life; it comes behind all that the broker has to do before."""
        answer: asyncio.Future[None] = self._loop.create_future()
        self.write([control.PINGREQ], [answer])
        return answer

    def subscribe(self, topic: str, qos: int, number: int, answered: Callable[[int], None]) -> None:
        """Ask for a filter; ``answered`` is told the broker's code, before what comes behind it."""
        packet_id = self.take_id()
        self._asked[packet_id] = answered
        self.write([control.subscribe(self.version, packet_id, topic, qos, number)], [])

    def unsubscribe(self, topic: str) -> asyncio.Future[bool]:
        """Give a filter up; True when the broker has done so, False if the link ends before."""
        packet_id = self.take_id()
        ended: asyncio.Future[bool] = self._loop.create_future()
        self._leaving.add(ended)

        def answered(code: int) -> None:
            self._leaving.discard(ended)
            ended.set_result(True)

        self._asked[packet_id] = answered
        self.write([control.unsubscribe(self.version, packet_id, topic)], [])
        return ended

    def take_id(self) -> int:
        """A packet identifier that is not in use. Raises ConnectionLost if all are."""
        for _ in range(MAX_IDS):
            self._last_id = self._last_id % MAX_IDS + 1
            if self._last_id not in self._used_ids:
                self._used_ids.add(self._last_id)
                return self._last_id
        raise ConnectionLost(f"{self.name}: the broker leaves {MAX_IDS} questions unanswered")

    def give_id_back(self, packet_id: int) -> None:
        """This identifier may be used again."""
        self._used_ids.discard(packet_id)

    # Packets.

    def buffer_updated(self, nbytes: int) -> None:
        if self.closed.done():
            return  # leave was taken: nobody is handed anything any more
        self._heard = now = self._loop.time()
        if QUICKACK:
            self._acks.heard(now)
        if self._long is not None:
            self._note_filled(self._long, nbytes)
            return
        data = bytes(self._buffer[:nbytes])
        if self._skip:
            skipped = min(self._skip, nbytes)
            self._skip -= skipped
            data = data[skipped:]
        if self._partial:
            self._partial += data
            if len(self._partial) < self._wanted:
                return
            data = bytes(self._partial)
            self._partial = bytearray()
        try:
            rest = self._take_packets(data)
        except (Malformed, IndexError) as exc:
            self.abort(ConnectionLost(f"{self.name} does not speak MQTT: {exc}"))
            return
        if rest < len(data):
            self._partial = bytearray(data[rest:])

    def _begin_long(self, head: int, data: bytes, start: int, size: int) -> bool:
        """Have the rest of a long PUBLISH read to where its payload will stay.

        False: of this packet that is not possible, or not worth it.
        """
        kept = min(size, self._limit)  # the rest of its bytes is skipped
        if head & 0xF0 != frames.PUBLISH or start + kept - len(data) < LONG:
            return False
        behind = frames.payload_start(data, start, head & frames.QOS_MASK, self._has_properties)
        if behind is None:
            return False
        self._long = LongBytes(start + kept - behind)
        self._long.add(memoryview(data)[behind:])
        self._beginning = head, data[start:behind], size - kept
        return True

    def _take_long(self) -> None:
        long = self._long
        if long is None or long.missing:
            return
        self._long = None
        if self.closed.done():
            return
        head, beginning, self._skip = self._beginning
        try:
            self._take_publish(head, beginning, long.whole())
        except Malformed as exc:
            self.abort(ConnectionLost(f"{self.name} does not speak MQTT: {exc}"))

    def _ask_for_acknowledgement(self) -> None:
        """It holds for a short time only (man 7 tcp), and costs 1 to 2 µs."""
        if self._socket is not None and not self.closed.done():
            # uvloop makes a new object for each look at its socket.
            (self._direct or self._socket).setsockopt(socket.IPPROTO_TCP, QUICKACK, 1)

    def _is_unsent(self) -> bool:
        transport = self._transport
        return bool(self._rest) or (transport is not None and transport.get_write_buffer_size() > 0)

    def _is_clear(self) -> bool:
        return not (self._partial or self._skip or self._long)

    def sole_reply(self, data: bytes, topic: bytes) -> tuple[bytes, int | None] | None:
        """The payload of a reply, and its seconds to live, if it is all of ``data``.

        For the thread that has read it, if others have come on topics beside this one before.
        """
        start, named, behind = self._sole(data)
        if not behind or data[start + 2 : named] != topic:
            return None
        known = self.routes.siblings.get((topic[: topic.rfind(b"/") + 1], data[named:behind]))
        return None if known is None else (data[behind:], known[1])

    def sole_request(self, data: bytes, handler: Handler) -> Packet | None:
        """A message for this handler and nobody else, if it is all of ``data``.

        For the thread that has read it, if one of the same topic has come before.
        """
        start, named, behind = self._sole(data)
        if not behind:
            return None
        taker = self.routes.by_number.get(data[named:behind]) if self._has_properties else None
        if taker is not None:
            if taker.handlers == (handler,):
                return Packet(data[behind:], taker.topic)
            return None
        route = self.routes.by_topic.get(data[start:behind])
        if route is None or len(route) != 1 or route[0][0] != handler:
            return None
        _, name, expiry = route[0]
        return Packet(data[behind:], name, None, expiry)

    def _sole(self, data: bytes) -> tuple[int, int, int]:
        """Where topic and properties of a PUBLISH begin, the one and the others end.

        All of them are 0 if that is not all of ``data``, and at QoS 0 and not retained.
        """
        self._heard = self._loop.time()
        if QUICKACK:
            with suppress(OSError):  # the link is just ending
                self._ask_for_acknowledgement()
        try:
            size, start = read_length(data, 1)
            if data[0] != frames.PUBLISH or start + size != len(data):
                return 0, 0, 0
            named = behind = start + 2 + (data[start] << 8 | data[start + 1])
            if self._has_properties:
                behind += 1 + data[behind]
        except (IndexError, Malformed):
            return 0, 0, 0  # it is found once more by the loop, and ends the connection
        return (start, named, behind) if behind <= len(data) else (0, 0, 0)

    def _take_packets(self, data: bytes) -> int:
        """Take all whole packets; where the rest begins."""
        at, end = 0, len(data)
        routes = self.routes
        by_number, by_topic, siblings = routes.by_number, routes.by_topic, routes.siblings
        has_properties = self._has_properties
        while end - at >= 2:
            head, size, start = data[at], data[at + 1], at + 2
            if size > 0x7F:
                try:
                    if data[start] <= 0x7F:  # two bytes: nearly every length that is not one
                        size += (data[start] - 1) << 7
                        start += 1
                    else:
                        size, start = read_length(data, at + 1)
                except IndexError:
                    self._wanted = 0
                    return at
            stop = start + size
            if stop > end and not self._is_enough(head, size, start, end):
                if self._begin_long(head, data, start, size):
                    at = end
                    break
                self._wanted = min(size, self._limit) + start - at
                return at
            if head == frames.PUBLISH:  # at QoS 0 and not retained: nearly every packet
                behind = named = start + 2 + (data[start] << 8 | data[start + 1])
                # Only a short block of properties can be found here: a longer one has no route.
                if has_properties:
                    behind += 1 + data[behind]
                    taker = by_number.get(data[named:behind])
                    if taker is not None and behind <= stop:
                        payload, name = data[behind:stop], taker.topic
                        for handler in taker.handlers:
                            handler(Packet(payload, name))
                        at = stop
                        continue
                route = by_topic.get(data[start:behind])
                if route is not None and behind <= stop:
                    payload = data[behind:stop]
                    for handler, name, expiry in route:
                        handler(Packet(payload, name, None, expiry))
                elif not (
                    (siblings and routes.take_sibling(data, start, named, behind, stop))
                    or routes.take_first(data, start, named, behind, stop)
                ):
                    self._take_publish(head, data[start:stop])
            elif head & 0xF0 == frames.PUBLISH:
                self._take_publish(head, data[start:stop])
            else:
                self._take_other(head, data[start:stop])
            at = stop
        self._wanted = 0  # what follows begins a packet, be it with one byte
        if at > end:  # its rest is of no interest
            self._skip = at - end
            at = end
        return at

    def _is_enough(self, head: int, size: int, start: int, end: int) -> bool:
        """Whether a packet of which more is to come is too long, and enough of it is here."""
        if size <= self._limit:
            return False
        if head & 0xF0 != frames.PUBLISH:
            raise Malformed(f"a packet of the kind {head:#04x} with {size} bytes")
        return end - start >= self._limit

    def _take_publish(self, head: int, body: bytes, payload: bytes | None = None) -> None:
        """A PUBLISH that is not plain, or of a topic that was not seen for a while.

        If a ``payload`` is given, it is not in the ``body``.
        """
        behind = 2 + int.from_bytes(body[:2])
        try:
            topic = str(body[2:behind], "utf8")
        except UnicodeDecodeError as exc:
            raise Malformed(f"a topic that is no UTF-8: {exc}") from exc
        if not topic or len(body) < behind:
            raise Malformed("a PUBLISH without a whole topic")
        qos = (head & frames.QOS_MASK) >> frames.QOS_SHIFT
        packet_id = 0
        if qos:
            packet_id = int.from_bytes(body[behind : behind + 2])
            behind += 2
            if not packet_id or qos > 2:
                raise Malformed("a PUBLISH without a packet identifier")
        published = Published()
        if self._has_properties:
            published, behind = frames.read_published(body, behind)
        if qos != 2 or packet_id not in self.received:
            if head & frames.RETAIN:
                route = self.on_retained(topic, published)
            else:
                route, recurs = self.routes.on_topic(topic, published)
                # What has a longer block of properties is not looked for, see `_take_packets`.
                if qos == 0 and published.is_constant and behind < LONGEST_KEY:
                    self.routes.remember(body[:behind], route if recurs else None, published)
            header = read_pairs(published.pairs) if published.pairs else None
            if payload is None:
                payload = body[behind:]
            for handler, name in route:
                handler(Packet(payload, name, header, published.expiry))
            if not (route or head & frames.RETAIN):
                message = Unclaimed(topic, published, payload, header, qos, packet_id)
                if self.on_unclaimed(message):
                    return
        if qos:
            self.acknowledge(qos, packet_id)

    def acknowledge(self, qos: int, packet_id: int) -> None:
        """Tell the broker that a message was taken; at QoS 0 it does not want to know."""
        if qos == 1:
            self.write([frames.acknowledge(frames.PUBACK, packet_id)], [])
        elif qos == 2:
            self.received.add(packet_id)
            self.write([frames.acknowledge(frames.PUBREC, packet_id)], [])

    def _take_other(self, head: int, body: bytes) -> None:
        self._acks.answered()
        kind = head & 0xF0
        if kind in (frames.PUBACK, frames.PUBREC, frames.PUBCOMP):
            self.on_acknowledged(kind, *frames.read_acknowledgement(body))
        elif head == frames.PUBREL:
            packet_id, _ = frames.read_acknowledgement(body)
            self.received.discard(packet_id)
            self.write([frames.acknowledge(frames.PUBCOMP, packet_id)], [])
        elif kind == control.PINGRESP:
            answer = self._pings.popleft() if self._pings else None
            if answer is not None and not answer.done():
                answer.set_result(None)
        elif kind in (control.SUBACK, control.UNSUBACK):
            self._answer(*control.read_suback(self.version, body))
        elif kind == control.CONNACK and not self._connack.done():
            if not control.is_resumed(body):
                self.received.clear()
            self._connack.set_result(body)
        elif kind == control.DISCONNECT:
            code, said = control.read_disconnect(body)
            kind_of_end = TakenOver if code == TAKEN_OVER else ConnectionLost
            self.abort(refusal(self.name, code, said, kind_of_end))
        else:
            raise Malformed(f"a packet of the kind {head:#04x}")

    def _answer(self, packet_id: int, code: int) -> None:
        self.give_id_back(packet_id)
        answered = self._asked.pop(packet_id, None)
        if answered is not None:
            answered(code)


async def dial(
    name: str,
    params: ConnectionParameters,
    client_id: str,
    version: int,
    *,
    has_will: bool,
    prepare: Callable[[MqttLink], None] | None = None,
) -> MqttLink:
    """Open a connection and log in; ``has_will`` for the one that the will belongs to.

    ``prepare`` for one whose session the broker is to keep: told of the link before the broker
    sends anything, for what it has kept comes right behind its yes.

    Raises VersionRefused, ClosedEarly, AuthError, ConnectError or OSError.
    """
    link = await _open(lambda: MqttLink(name, version, params.max_payload), params)
    if prepare is not None:
        prepare(link)
    try:
        await _greet(link, params, client_id, has_will, params.session_expiry if prepare else 0)
    except BaseException:
        await link.give_up()
        raise
    return link


async def _open(make: Callable[[], MqttLink], params: ConnectionParameters) -> MqttLink:
    if params.transport == "tcp":
        return await open_stream(make, params)
    from commlib.transports._websocket import open_websocket  # which imports a package

    return await open_websocket(make, params)


async def _greet(
    link: MqttLink,
    params: ConnectionParameters,
    client_id: str,
    has_will: bool,
    session_expiry: float,
) -> None:
    will = params.will.as_will() if params.will is not None and has_will else None
    user, password = params.credentials
    # A second more than it takes us to ask for a sign of life: some brokers (NATS) are strict.
    keepalive = min(ceil(params.keepalive) + 1, 65_535)
    frame = control.connect(
        link.version, client_id, keepalive, user, password, will, session_expiry
    )
    try:
        granted = await link.greet(frame)
    except ConnectionLost as exc:
        if isinstance(exc.__cause__, SSLError):
            raise exc.__cause__ from None
        hint = "" if params.transport == "websockets" else early_end_hint(params, "mqtts")
        raise ClosedEarly(
            f"{link.name}: the broker has closed the connection at once{hint}"
        ) from exc
    except Malformed as exc:
        raise ConnectError(f"{link.name} does not speak MQTT: {exc}") from exc
    if granted.code:
        kind = VersionRefused if granted.code in UNSUPPORTED_VERSION else ConnectError
        who = f"as {user!r}" if user else "without a user name"
        if session_expiry:
            who += f", with the client id {client_id!r}"
        raise refusal(f"{link.name}, {who}", granted.code, granted.said, kind)
