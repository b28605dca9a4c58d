"""AMQP 0-9-1: RabbitMQ, with its extensions.

Features: PubSub and patterns (a topic exchange), RPC and everything built on it (queues, direct
reply-to), delivery that the broker confirms (QoS 1), services that share their requests,
subscriptions that outlive the connection (``client_id`` and ``session_expiry``), authentication
with a password or a certificate, virtual hosts, TLS.

Connections: one, with a channel for each purpose, opened when it is needed.

Parameters: see ``ConnectionParameters``. URLs::

    amqp://user:password@host:5672/vhost?heartbeat_timeout=10
    amqps://host                                     TLS, certificate and host name checked

AMQP has no envelope: the payload is the data, and the header travels in the message's properties.
A queue exists as long as somebody consumes it, that of a lasting subscription longer.

What AMQP cannot do: names have at most 245 bytes; messages are not kept for those who have never
subscribed before; at QoS 0 the broker does not say what it has taken, so what is lost with a
connection shows as gaps at the subscribers only. For a message for which the user has no right, the
broker closes the channel, and drops what was published behind it in the same moment.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Coroutine
from struct import error as LayoutError
from typing import TYPE_CHECKING, Any

import msgspec

from commlib import events, pubsub, rpc
from commlib._packet import Fault, Header, Packet
from commlib._params import Offline as Offline
from commlib._parts import Frame
from commlib._session import Link
from commlib._topics import AMQP_WILDCARDS, check_topic
from commlib._typing import Req, Resp, T
from commlib.exceptions import AuthError, CommlibError, ConnectionLost, SerializationError
from commlib.transports import ACTION_CLASSES, loaded_when_needed
from commlib.transports._amqp_bytes import LONGEST_SHORT
from commlib.transports._amqp_codes import (
    NOT_FOUND,
    Refusal,
    refused_exchange,
    refused_topic,
)
from commlib.transports._amqp_confirms import Confirms
from commlib.transports._amqp_frames import MANDATORY, content, publish_method
from commlib.transports._amqp_inbox import DIRECT, Inbox
from commlib.transports._amqp_link import FLUSH, AmqpLink, dial
from commlib.transports._amqp_methods import (
    AROUND,
    CALLS,
    CONFIRMED,
    MIN_FRAME,
    PUBLISHING,
    REPLIES,
)
from commlib.transports._amqp_notes import Asking, Settling, revised, stays
from commlib.transports._amqp_params import RELEASED_OPTIONS, RELEASED_TOPIC_OPTIONS
from commlib.transports._amqp_params import ConnectionParameters as ConnectionParameters
from commlib.transports._amqp_params import Credentials as Credentials
from commlib.transports._amqp_properties import PropertyReader, PropertyWriter
from commlib.transports._amqp_queues import (
    Consumer,
    Delivered,
    Services,
)
from commlib.transports._amqp_topics import PAUSE, Topics
from commlib.transports._confirmation import Ending
from commlib.transports._deliveries import Delivery
from commlib.transports._main_transport import MainTransport
from commlib.transports.base import Address, Handler, ReplyHandler, Traits

if TYPE_CHECKING:
    from commlib.transports._amqp_actions import ActionClient as ActionClient
    from commlib.transports._amqp_actions import ActionService as ActionService
    from commlib.transports._amqp_lasting import LastingTopic, LastingTopics

log = logging.getLogger("commlib.amqp")

AROUND_PROPERTIES = AROUND + 12  # bytes of the frame that they are in
MAX_NAMES = 10_000  # names whose first frame is kept
FORBIDDEN_SECONDS = 30.0  # for so long what the broker has refused is not tried again


class AmqpTransport(MainTransport[Confirms, ConnectionParameters]):
    """The seven verbs on AMQP."""

    traits = Traits(
        native_headers=True,
        native_wildcards=AMQP_WILDCARDS,
        delivery_levels=(0, 1),
        longest_name=LONGEST_SHORT - 10,  # our own names are longer by a word
    )

    _question = FLUSH

    def __init__(self, params: ConnectionParameters) -> None:
        super().__init__(params)
        self._link: AmqpLink | None = None
        self._deliveries = Confirms(self.stats, self._note_refusal)
        self._deliveries.on_room = self._reliable.on_room
        self._reader = PropertyReader(self.stats)
        self._topics = Topics(params.exchange, params.queue_arguments, self._reader, self._spawn)
        if params.session_expiry:
            self.traits = msgspec.structs.replace(self.traits, lasting=True)
        self._lasting = self._make_lasting() if self.traits.lasting else None
        first = params.first_service
        self._services = Services(self._spawn, self._reader, self._revise, first)
        self._inbox: Inbox | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        # Used by all threads, each operation whole by itself.
        self._frame_max = MIN_FRAME
        self._writer = PropertyWriter()
        self._first_frames: dict[str, bytes] = {}
        self._sends: dict[tuple[str, bool], bytes] = {}
        self._forbidden: dict[str, tuple[float, CommlibError]] = {}
        self._refused_here: deque[tuple[str, CommlibError]] = deque()
        self._is_refusal_told = False

    def _make_lasting(self) -> LastingTopics:
        from commlib.transports._amqp_lasting import LastingTopics  # hardly any program needs it

        return LastingTopics(self.params, self._topics, self._reader, self._spawn)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # The verbs.

    async def _close_rest(self) -> None:
        self._services.close()
        for task in list(self._tasks):
            task.cancel()
            await asyncio.wait([task])

    def publish(self, topic: str, packet: Packet) -> bool:
        first = self._first_frames.get(topic)
        if first is None:
            first = self._first_frame(topic)
            if first is None:
                return True  # refused, and told
        if packet.header is not None and packet.header.reply_to == DIRECT:
            raise SerializationError(f"{DIRECT} is an address for calls only")
        if packet.qos:
            return self._publish_confirmed(topic, packet)
        properties = self._properties(packet, "")
        frame = first + content(PUBLISHING, properties, packet.payload, self._frame_max)
        return self._outbox.put(frame, topic)

    def _properties(self, packet: Packet, correlation_id: str) -> bytes:
        """What goes into the second frame, which cannot be cut in two as a payload can.

        Raises SerializationError if it has no room there.
        """
        header, room = packet.header, self._frame_max - AROUND_PROPERTIES
        if header is None and packet.reply_to:
            header = Header(reply_to=packet.reply_to)
        try:
            found = self._writer.write(header, correlation_id, packet.ttl, packet.qos > 0)
            if len(found) > room and header is not None and header.error is not None:
                text = header.error.message.encode()
                text = text[: max(0, len(text) - (len(found) - room))]
                error = Fault(header.error.type, text.decode("utf8", "ignore"))
                header = msgspec.structs.replace(header, error=error)
                found = self._writer.write(header, correlation_id, packet.ttl, packet.qos > 0)
        except (ValueError, LayoutError) as exc:  # the words of who knows whom
            raise SerializationError(str(exc)) from exc
        if len(found) > room:
            raise SerializationError(f"a header of {len(found)} bytes: AMQP has room for {room}")
        return found

    def _publish_confirmed(self, topic: str, packet: Packet) -> bool:
        where = publish_method(CONFIRMED, self.params.exchange, topic)
        properties = self._properties(packet, "")
        frame = where + content(CONFIRMED, properties, packet.payload, self._frame_max)
        return self._reliable.put(frame, Delivery(topic, packet.qos, time.monotonic()))

    def _first_frame(self, topic: str) -> bytes | None:
        """Where a message goes; None if the broker has refused that a moment ago.

        Raises SerializationError for a name that AMQP has no room for.
        """
        _check(topic)
        for what in (topic, ""):
            until, error = self._forbidden.get(what, (0.0, None))
            if error is None:
                continue
            if time.monotonic() < until and self._loop is not None:
                self._refused_here.append((topic, error))
                if not self._is_refusal_told:
                    try:
                        self._is_refusal_told = True
                        self._loop.call_soon_threadsafe(self._tell_refused)
                    except BaseException:  # Ctrl-C: perhaps it will not be
                        self._is_refusal_told = False
                        raise
                return None
            self._forbidden.pop(what, None)
        if len(self._first_frames) >= MAX_NAMES:
            self._first_frames.clear()
        first = publish_method(PUBLISHING, self.params.exchange, topic)
        self._first_frames[topic] = first
        return first

    async def subscribe_lasting(self, topic: str, handler: Handler) -> LastingTopic:
        assert self._lasting is not None, "its trait says so"
        found = self._lasting.add(topic, handler)
        try:
            await self._main.ready()
            await found.answer()
        except BaseException:  # cancellation, too
            found.keep()
            raise
        return found

    async def subscribe(self, topic: str, handler: Handler) -> Ending:
        found = self._topics.add(topic, handler)
        try:
            await self._main.ready()
            await found.answer()
        except BaseException:  # cancellation, too
            self._topics.remove(found, handler)
            raise
        return Ending(self._topics.remove, found, handler)

    def send(self, to: str | Address, packet: Packet) -> bool:
        return self._send(to, packet, more=False)

    def hold(self, to: Address, packet: Packet) -> bool:
        # In its turn behind what the same thread has published before at QoS 1.
        return self._send(to, packet, more=self._reliable.is_written)

    def _send(self, to: str | Address, packet: Packet, more: bool) -> bool:
        if isinstance(to, str):
            queue, correlation_id, request = to, packet.correlation_id, None
        else:
            queue, correlation_id, request = to.reply_to, to.correlation_id, to.request
        reply_to = packet.reply_to if packet.header is None else packet.header.reply_to
        is_call = reply_to == DIRECT
        first = self._sends.get((queue, is_call))
        if first is None:
            first = self._first_of_send(queue, is_call)
        channel = CALLS if is_call else REPLIES
        # What the same thread has published before at QoS 1 goes first.
        urgent = self._reliable.is_written or None
        properties = self._properties(packet, correlation_id)
        if is_call and packet.header is None and self._inbox is not None:
            self._inbox.wrapped.add(correlation_id)
        frame = first + content(channel, properties, packet.payload, self._frame_max)
        if is_call and self._inbox is not None:
            asking = Asking(queue)
            asking.open, asking.sent = self._inbox.open, self._inbox.sent
            asking.token = correlation_id
            return self._outbox.put(frame, asking, urgent, more)
        if isinstance(request, Delivered) and not (request.settled or request.looks):
            ack = request.ack()
            if ack:
                settling = Settling(queue)
                settling.request = request
                request.settled = self._outbox.put(ack + frame, settling, urgent, more)
                return request.settled
        return self._outbox.put(frame, queue, urgent, more)

    def _revise(self) -> None:
        """What waits may have become stale."""
        self._outbox.revise(revised)

    def _first_of_send(self, queue: str, is_call: bool) -> bytes:
        _check(queue)
        if is_call and self._inbox is None:
            raise SerializationError(f"{DIRECT} is an address of this connection's own calls")
        if len(self._sends) >= MAX_NAMES:
            self._sends.clear()
        # What nobody serves comes back, see `Inbox`.
        channel, flags = (CALLS, MANDATORY) if is_call else (REPLIES, 0)
        first = self._sends[queue, is_call] = publish_method(channel, "", queue, flags)
        return first

    async def consume(self, queue: str, handler: Handler, prefetch: int) -> Consumer:
        _check(queue)
        await self._main.ready()
        return await self._services.join(queue, handler, prefetch)

    async def open_inbox(self, handler: ReplyHandler) -> Inbox:
        await self._main.ready()
        inbox = self._inbox = Inbox(self._reader, handler, lambda: self._main.is_just_back)
        try:
            if self._link is not None:
                await inbox.restore(self._link)
        except ConnectionLost:
            pass  # the next link begins with this
        except BaseException:
            self._inbox = None
            await inbox.close()
            raise
        return inbox

    @property
    def is_blocked(self) -> bool:
        link = self._link
        return link is not None and link.is_blocked

    # The connection.

    async def _dial_main(self) -> AmqpLink:
        place = self._sessions.params
        link = await dial(str(place), place)
        try:
            link.allow_direct()
            link.channel(PUBLISHING).on_reset = self._reset
            link.channel(REPLIES).on_reset = self._reset
            self._frame_max = link.tuning.frame
            await self._declare_exchange(link)
            # For each, of the time of an attempt: what is not there by then comes a little later.
            enough = self.params.connect_timeout / 4
            await self._topics.restore(link, enough)
            if self._lasting is not None:
                await self._lasting.restore(link, enough)
            await self._services.restore(link, enough)
            if self._inbox is not None:
                await self._inbox.restore(link)
        except BaseException:  # stopped, or no answer in time: nobody else knows of this link
            self._detach()
            await link.give_up()
            raise
        return link

    async def _declare_exchange(self, link: AmqpLink) -> None:
        try:
            await self._topics.declare_exchange(link)
        except (Refusal, AuthError) as exc:  # a program without topics does not need it
            log.warning("%s: no exchange %r: %s", self._name, self.params.exchange, exc)

    def _detach(self) -> None:
        """The link is away, for all that are consumed."""
        self._topics.detach()
        if self._lasting is not None:
            self._lasting.detach()
        self._services.detach()

    def _on_main(self, link: Link | None) -> None:
        assert link is None or isinstance(link, AmqpLink)
        self._link = link
        if link is None:
            self._detach()
            if self._inbox is not None:
                self._inbox.detach()
            self._take_back()
            return
        self._loop = asyncio.get_running_loop()
        link.on_room = self._note_room
        link.on_blocked = self._note_blocked
        self._deliveries.attach(link)
        self._revise()
        self._outbox.set_link(link)
        self._reliable.set_link(self._deliveries)
        if link.is_held:
            self._outbox.on_room(False)
        if link.is_blocked:
            self._outbox.hold()
        self._services.announce()
        if self._lasting is not None:
            self._lasting.announce()

    def _note_room(self, room: bool) -> None:
        self._outbox.on_room(room)
        if room:
            self._deliveries.resume()

    def _note_blocked(self, is_blocked: bool) -> None:
        """The broker takes no messages now, or does so again: then what is too old is dropped."""
        if is_blocked:
            self._outbox.hold()
            return
        self._revise()  # first: what nobody waits for any more is no message that was lost
        self._outbox.release(stays)
        self._expire_confirmed(time.monotonic() - self.params.offline_policy.max_age)

    def _expire_confirmed(self, oldest: float) -> None:
        def in_time(frame: Frame, note: object) -> Frame | None:
            assert isinstance(note, Delivery), "nothing else is put into this outbox"
            if note.born >= oldest:
                return frame
            self.stats.expired += 1
            return None

        self._deliveries.expire(oldest)
        self._reliable.revise(in_time)

    def _reset(self, error: CommlibError) -> None:
        """The broker has closed the channel for something that was published on it."""
        self._note_refusal(refused_topic(error) or refused_exchange(error), error)

    def _tell_refused(self) -> None:
        """What was not even sent, all of one topic at once: there may be very many."""
        self._is_refusal_told = False  # first: what comes from here on is told by itself
        counts: Counter[str] = Counter()
        errors: dict[str, CommlibError] = {}
        while self._refused_here:
            topic, error = self._refused_here.popleft()
            counts[topic] += 1
            errors[topic] = error
        for topic, error in errors.items():
            self.stats.refused += counts[topic] - 1
            self._note_refused(topic, error)

    def _note_refusal(self, target: str, error: Exception) -> None:
        """A message was refused; where a right is missing, those like it are for a while."""
        if isinstance(error, Refusal) and error.code == NOT_FOUND and self._link is not None:
            self._forbidden[""] = time.monotonic() + PAUSE, error
            self._first_frames.clear()
            self._topics.exchange_is_gone(self._link)
            if self._lasting is not None:
                self._lasting.exchange_is_gone(self._link)
        if isinstance(error, AuthError) and refused_exchange(error) == self.params.exchange:
            # Before anybody is told of it: who goes on then must not get the channel closed again.
            if len(self._forbidden) >= MAX_NAMES:
                self._forbidden.clear()
            # Without a topic it is about all of them.
            until = time.monotonic() + FORBIDDEN_SECONDS
            self._forbidden[refused_topic(error)] = until, error
            self._first_frames.clear()
        self._note_refused(target, error)


def _check(name: str) -> None:
    """Raises SerializationError for what AMQP cannot name; names come from peers, too."""
    try:
        check_topic(name)
        if len(name.encode()) > LONGEST_SHORT:
            raise ValueError(f"{name[:20]!r}... is longer than the {LONGEST_SHORT} bytes of AMQP")
    except ValueError as exc:
        raise SerializationError(str(exc)) from exc


class Publisher(pubsub.Publisher[T]):
    """``commlib.pubsub.Publisher`` on AMQP."""

    scheme = "amqp"
    released_options = RELEASED_TOPIC_OPTIONS


class MPublisher(pubsub.MPublisher[T]):
    """``commlib.pubsub.MPublisher`` on AMQP."""

    scheme = "amqp"
    released_options = RELEASED_TOPIC_OPTIONS


class Subscriber(pubsub.Subscriber[T]):
    """``commlib.pubsub.Subscriber`` on AMQP."""

    scheme = "amqp"
    released_options = RELEASED_TOPIC_OPTIONS


class PSubscriber(pubsub.PSubscriber[T]):
    """``commlib.pubsub.PSubscriber`` on AMQP."""

    scheme = "amqp"
    released_options = RELEASED_TOPIC_OPTIONS


class WPublisher(pubsub.WPublisher[T]):
    """``commlib.pubsub.WPublisher`` on AMQP."""

    scheme = "amqp"


class WSubscriber(pubsub.WSubscriber):
    """``commlib.pubsub.WSubscriber`` on AMQP."""

    scheme = "amqp"


class RPCService(rpc.RPCService):
    """``commlib.rpc.RPCService`` on AMQP."""

    scheme = "amqp"
    released_options = RELEASED_OPTIONS


class RPCServer(rpc.RPCServer):
    """``commlib.rpc.RPCServer`` on AMQP."""

    scheme = "amqp"
    released_options = RELEASED_OPTIONS


class RPCClient(rpc.RPCClient[Req, Resp]):
    """``commlib.rpc.RPCClient`` on AMQP."""

    scheme = "amqp"
    released_options = RELEASED_OPTIONS


class EventEmitter(events.EventEmitter):
    """``commlib.events.EventEmitter`` on AMQP."""

    scheme = "amqp"
    released_options = RELEASED_TOPIC_OPTIONS


if not TYPE_CHECKING:
    __getattr__ = loaded_when_needed("commlib.transports._amqp_actions", *ACTION_CLASSES)
