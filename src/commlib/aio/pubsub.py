"""Publish and subscribe."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import time
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Self, Unpack, overload
from weakref import WeakSet

from commlib import _topics
from commlib._lanes import Bounds, IterLane, Lane
from commlib._packet import MESSAGE, Envelope, Fault, Header, Packet
from commlib._rate import rate_limit
from commlib._selective import SelectiveReader
from commlib._sequence import Gaps, Sequence, SharedGaps, new_origin
from commlib._typing import OnMessage, T
from commlib._wire import Reader, Refused, Writer
from commlib.aio._endpoint import Endpoint, Input, Options, Params, arity, check_callback
from commlib.aio._group import Group
from commlib.aio._names import check_name, check_pattern
from commlib.exceptions import CommlibError, OutboxFull
from commlib.transports.base import Handler, LastingSubscription, LastingTransport, Subscription

if TYPE_CHECKING:
    from commlib._signatures import Signing


class PublisherOptions(Options, total=False):
    """The options of publishers.

    ``envelope=False`` writes the bare data, for readers that know nothing of commlib.
    ``sequence=False`` leaves out the numbers by which subscribers count what they missed.
    Neither goes together with ``sign``, but the first where a header has room beside bare data.
    ``qos`` (0, 1 or 2) and ``retain`` (the broker keeps the last message of each topic for those
    who subscribe later) are for brokers that have such a thing, as MQTT does, and elsewhere a
    ValueError.
    """

    envelope: bool
    sequence: bool
    qos: int
    retain: bool


class Sender(Endpoint, Generic[T]):
    """What publishers have in common: from a message to the outgoing queue."""

    def __init__(
        self,
        name: str,
        msg_type: type[T] | None,
        conn_params: Params,
        *,
        envelope: bool = True,
        sequence: bool = True,
        qos: int = 0,
        retain: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(name, conn_params, **options)
        traits = self.hub.transport.traits
        if qos not in traits.delivery_levels:
            levels = " or ".join(map(str, traits.delivery_levels))
            raise ValueError(f"qos={qos!r}: {self.hub.params} delivers at QoS {levels}")
        if retain and not traits.retained:
            raise ValueError(f"retain=True: {self.hub.params} keeps no messages")
        self._qos = int(qos)
        self._retain = retain
        self.msg_type = msg_type
        self._writer: Writer[T] = self._make_writer(msg_type)
        self._writer.may_part = traits.takes_parts
        self._native = traits.native_headers
        self._envelope = envelope or self._native
        self._sequenced = sequence
        self._signing: Signing[T] | None = self._make_signing(self._writer, MESSAGE)
        has_header = self._envelope or traits.header_beside_bare
        if self._signing is not None and not (sequence and has_header):
            raise ValueError(
                f"{name}: a signature needs the header and the numbers in it: leave out "
                f"{'sequence' if has_header else 'envelope'}=False"
            )
        self._begin_sequence()

    def _begin_sequence(self) -> None:
        self._sequenced_for = self.hub.transport
        self._sequence = Sequence(new_origin()) if self._sequenced else None

    def pack(self, msg: T, topic: str, error: Fault | None = None) -> Packet:
        """The packet for a message, with an error beside it where there is one.

        Raises SerializationError. From any thread.
        """
        header = None
        beside = not self._envelope and self.hub.transport.traits.header_beside_bare
        if self._sequenced_for is not self.hub.transport:
            # A new life, or a forked child, which must not go on with its parent's numbers.
            self._begin_sequence()
        if self._envelope or beside:
            origin, seq = ("", -1) if self._sequence is None else self._sequence.next(topic)
            header = Header(int(time() * 1000), self._writer.properties, origin, seq)
            if error is not None:
                header.error = error
        native = self._native or beside
        try:
            if self._signing is None:
                packet = self._writer.pack(msg, header, native)
            else:
                packet = self._signing.pack(msg, header, native, topic)
        except Exception:
            if self._sequence is not None:
                self._sequence.begin_anew(topic)
            raise
        if self._qos or self._retain:
            packet.qos, packet.retain = self._qos, self._retain
        return packet

    def post(self, packet: Packet, topic: str) -> bool:
        """Hand a packet to the connection; False when it has no room. From any thread."""
        if not self.hub.transport.publish(topic, packet):
            return False
        self._stats.sent += 1
        return True

    def offer(self, packet: Packet, topic: str) -> bool:
        """Hand a packet to the connection if it is there and has room, else return False.

        For what is not worth waiting for: nothing waits, and nothing is raised. From any thread.
        """
        try:
            return self.connected and not self.stopped and self.post(packet, topic)
        except CommlibError:
            return False

    async def _publish(self, msg: T, topic: str) -> None:
        self.check_open()
        loop = self.hub.loop
        # Where the right one runs meanwhile, who is on another loop may post, as from any thread.
        if loop is None or not loop.is_running():
            self.hub.check_loop()  # before the message has a number, which would seem lost
        packet = self.pack(msg, topic)
        if loop is None:
            self.hub.start()
        if not self.post(packet, topic):
            await self.post_when_room(packet, topic)

    async def post_when_room(
        self, packet: Packet, topic: str, post: Callable[[Packet, str], bool] | None = None
    ) -> None:
        """Wait until the outgoing queue takes a packet. Raises OutboxFull.

        ``post`` is called instead of ``self.post``.
        """
        post = post or self.post
        self.hub.check_here()
        timeout = self.hub.params.offline_policy.timeout
        try:
            # One limit for all of it: there may be room again and again, and others take it.
            async with asyncio.timeout(timeout):
                self.check_open()  # it may have been stopped on the way here
                while not post(packet, topic):
                    await self.hub.transport.room(packet)
                    self.check_open()
        except TimeoutError as exc:
            raise OutboxFull(
                f"{topic}: no room in the outgoing queue for {timeout:g} s; the broker is away or "
                "too slow, and this message was not taken"
            ) from exc


class Publisher(Sender[T]):
    """Publishes messages of one type on one topic.

    ``msg_type=None`` takes whatever can be written as JSON. Options: ``PublisherOptions``.
    """

    def __init__(
        self,
        topic: str,
        msg_type: type[T] | None = None,
        conn_params: Params = None,
        **options: Unpack[PublisherOptions],
    ) -> None:
        super().__init__(topic, msg_type, conn_params, **options)
        self.topic = check_name(topic, self.hub)

    async def publish(self, msg: T) -> None:
        """Send a message to every live subscriber of the topic.

        Returns as soon as the outgoing queue has taken it; waits only for room there, at most the
        ``timeout`` of ``Offline``, by default 10 s.

        Raises SerializationError, PayloadTooBig, OutboxFull, ConnectionLost where the offline
        policy says so, AuthError when the broker refuses the credentials, ConnectError or
        ConnectionLost with ``reconnect=False``, and EndpointClosed after ``stop()``, also if that
        comes while it waits.
        """
        await self._publish(msg, self.topic)


class MPublisher(Sender[T]):
    """Publishes messages of one type on any topic; otherwise as ``Publisher``."""

    def __init__(
        self,
        msg_type: type[T] | None = None,
        conn_params: Params = None,
        **options: Unpack[PublisherOptions],
    ) -> None:
        super().__init__("mpublisher", msg_type, conn_params, **options)
        self._dependents: WeakSet[WPublisher[Any]] = WeakSet()

    def adopt(self, publisher: WPublisher[Any]) -> None:
        """Take one that ends with this."""
        self._dependents.add(publisher)

    async def stop(self) -> None:
        await super().stop()
        for publisher in self._dependents:
            publisher.stopped = True

    async def publish(self, msg: T, topic: str) -> None:
        """Send a message to every live subscriber of this topic; as ``Publisher.publish``.

        Raises also ValueError for a pattern and what else is no name, TypeError for what is no str.
        """
        await self._publish(msg, _topics.check_topic(topic))


def check_mpub(mpub: object, kind: type) -> None:
    """Raises TypeError for what is no MPublisher of this kind."""
    if not isinstance(mpub, kind):
        raise TypeError(
            f"mpub={mpub!r}: give an MPublisher of {kind.__module__}; a WPublisher publishes on "
            "its connection"
        )


class WPublisher(Publisher[T]):
    """A ``Publisher`` on the connection of an ``MPublisher``; it ends with that.

    Raises TypeError for an ``mpub`` that is no MPublisher.
    """

    def __init__(
        self,
        mpub: MPublisher[Any],
        topic: str,
        msg_type: type[T] | None = None,
        **options: Unpack[PublisherOptions],
    ) -> None:
        check_mpub(mpub, MPublisher)
        options["hub"] = mpub.hub
        super().__init__(topic, msg_type, **options)
        self._mpub = mpub
        mpub.adopt(self)

    def check_open(self) -> None:
        super().check_open()
        self._mpub.check_open()


class SubscriberOptions(Options, total=False):
    """The options of subscribers.

    * ``concurrency``: how many callbacks may run at once; 1 keeps the order.
    * ``inline``: call a plain function on the event loop; it must be quick and never block.
    * ``bounds``: how much may wait for the callback, and what is dropped beyond.
    * ``max_rate``: how often the callback is called a second, on average and in one burst; messages
      beyond that are refused when it is their turn. None: no such bound.
    """

    concurrency: int
    inline: bool
    bounds: Bounds | None
    max_rate: float | None


class _Calling(NamedTuple):
    """How the callback is called; which one it is, is settled when the receiver begins."""

    with_topic: bool
    concurrency: int
    inline: bool
    bounds: Bounds | None
    callback: Callable[..., Any] | None = None


class Receiver(Input, Generic[T]):
    """What subscribers have in common: from a packet to the callback.

    No instance has more than 30 attributes: up to there Python keeps their names once for all of
    them, and an instance is a fifth as large (PEP 412).
    """

    def __init__(
        self,
        topic: str,
        on_message: Callable[..., Any] | None,
        msg_type: type[T] | None,
        conn_params: Params,
        with_topic: bool,
        /,
        *,
        concurrency: int = 1,
        inline: bool = False,
        bounds: Bounds | None = None,
        max_rate: float | None = None,
        **options: Unpack[Options],
    ) -> None:
        if on_message is not None:
            check_callback(on_message, f"{topic}: on_message", 1, 2)
        super().__init__(topic, conn_params, **options)
        self.topic = check_pattern(topic, self.hub)
        if bounds is not None and not isinstance(bounds, Bounds):
            raise TypeError(f"bounds={bounds!r}: it is a Bounds(max_messages=..., max_bytes=...)")
        if concurrency < 1:
            raise ValueError(
                f"concurrency={concurrency}: at least one callback must be able to run"
            )
        self.msg_type = msg_type
        self.on_message = on_message
        self._reader: Reader[T] = self._make_reader(msg_type)
        native = self.hub.transport.traits.native_wildcards
        if _topics.is_pattern(topic, native) and self._reader.takes_anything:
            self._reader = self._make_reader(msg_type, make=SelectiveReader)
        self._verifier = self._make_verifier(MESSAGE)
        self._gaps = Gaps(self._stats) if concurrency == 1 else SharedGaps(self._stats)
        self._calling = _Calling(with_topic, concurrency, inline, bounds)
        self._rate = rate_limit(max_rate)
        self._to_be_run = False
        self._lane: Lane | None = None
        self._subscription: Subscription | None = None

    async def _begin(self) -> None:
        how = self._calling
        self._lane = self._make_lane(
            self.on_message,
            self._handler(),
            inline=how.inline,
            bounds=how.bounds,
            concurrency=how.concurrency,
        )
        self._subscription = await self._subscribe(self._lane.put)

    async def _subscribe(self, handler: Handler) -> Subscription:
        transport = self.hub.transport
        if not transport.traits.lasting:
            return await transport.subscribe(self.topic, handler)
        assert isinstance(transport, LastingTransport), "its trait says so"
        return await transport.subscribe_lasting(self.topic, handler)

    @property
    def ready(self) -> bool:
        return super().ready and self._subscription is not None and self._subscription.working

    def keep(self) -> None:
        if isinstance(self._subscription, LastingSubscription):
            self._subscription.keep()
        if self._running and self._beginning is not None:
            # What is not confirmed yet must not be so later, and then be ended by `stop`.
            self._beginning.cancel()

    async def _end(self) -> None:
        if self._subscription is not None:
            await self._subscription.close()
        if self._lane is not None:
            await self._lane.close(self._given.grace)

    def read(self, packet: Packet) -> Envelope:
        """The message in a packet and its header, counted. Raises Refused."""
        if self._verifier is not None:
            # Before anything else: what it raises says nothing of what was lost on the way.
            packet = self._verifier.open(packet, packet.topic)
        try:
            envelope = self._reader.read(packet)
        except Refused as exc:
            self._note_number(exc.header, packet)
            raise
        self._note_number(envelope.header, packet)
        if self._rate is not None:
            self._rate.check(envelope.header)
        return envelope

    def _note_number(self, header: Header, packet: Packet) -> None:
        if header.origin and header.seq >= 0:
            self._gaps.note(header.origin, packet.topic, header.seq)

    def _handler(self) -> Callable[[Packet], Any]:
        if self.on_message is None:
            return self.read
        self._calling = self._calling._replace(callback=self.on_message)
        return self._call_with_topic if self._calling.with_topic else self._call

    # A coroutine function gives a coroutine here, which its lane awaits.

    def _call(self, packet: Packet) -> Any:
        return self._calling.callback(self.read(packet).data)  # type: ignore[misc] # there is one

    def _call_with_topic(self, packet: Packet) -> Any:
        return self._calling.callback(self.read(packet).data, packet.topic)  # type: ignore[misc]

    async def _next(self) -> tuple[T, str]:
        """The next good message and its topic; StopAsyncIteration after ``stop()``.

        Raises EndpointClosed for one that was stopped before somebody began to iterate.
        """
        if self._to_be_run or self._lane is None:
            self._to_be_run = False
            self.check_open()
            await self.run()
        if self._lane is None:
            raise StopAsyncIteration  # it was stopped before it had begun
        assert isinstance(self._lane, IterLane), "only without on_message"
        if not self._lane.waiting:
            self.hub.check_here()
        while (packet := await self._lane.next()) is not None:
            try:
                return self.read(packet).data, packet.topic
            except Refused as exc:
                self._report(packet, exc)
        raise StopAsyncIteration

    def __aiter__(self) -> Self:
        if self.on_message is not None:
            raise TypeError(f"{self.name} has a callback; leave out on_message to iterate over it")
        self._to_be_run = True
        return self


class Subscriber(Receiver[T]):
    """Receives the messages of a topic or pattern, in order.

    ``on_message(msg)`` is called, or ``(msg, topic)`` if it requires two arguments: a plain
    function on a worker thread, a coroutine function on the loop. Without it, iterate::

        async for msg in subscriber: ...

    ``msg_type=None`` gives plain decoded data. Options: ``SubscriberOptions``.
    """

    @overload
    def __init__(
        self,
        topic: str,
        on_message: OnMessage[T] | None = None,
        *,
        msg_type: type[T],
        conn_params: Params = None,
        **options: Unpack[SubscriberOptions],
    ) -> None: ...

    @overload
    def __init__(
        self,
        topic: str,
        on_message: OnMessage[T] | None,
        msg_type: type[T],
        conn_params: Params = None,
        **options: Unpack[SubscriberOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: Subscriber[Any],
        topic: str,
        on_message: Callable[..., Any] | None = None,
        msg_type: None = None,
        conn_params: Params = None,
        **options: Unpack[SubscriberOptions],
    ) -> None: ...

    def __init__(
        self,
        topic: str,
        on_message: Callable[..., Any] | None = None,
        msg_type: Any = None,
        conn_params: Params = None,
        **options: Unpack[SubscriberOptions],
    ) -> None:
        with_topic = on_message is not None and arity(on_message)[0] >= 2
        super().__init__(topic, on_message, msg_type, conn_params, with_topic, **options)

    async def __anext__(self) -> T:
        return (await self._next())[0]


class PSubscriber(Receiver[T]):
    """Receives messages together with their topics; otherwise as ``Subscriber``.

    ``on_message(msg, topic)`` is called, or ``(msg)`` if it cannot take two arguments.
    """

    @overload
    def __init__(
        self,
        topic: str,
        on_message: OnMessage[T] | None = None,
        *,
        msg_type: type[T],
        conn_params: Params = None,
        **options: Unpack[SubscriberOptions],
    ) -> None: ...

    @overload
    def __init__(
        self,
        topic: str,
        on_message: OnMessage[T] | None,
        msg_type: type[T],
        conn_params: Params = None,
        **options: Unpack[SubscriberOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: PSubscriber[Any],
        topic: str,
        on_message: Callable[..., Any] | None = None,
        msg_type: None = None,
        conn_params: Params = None,
        **options: Unpack[SubscriberOptions],
    ) -> None: ...

    def __init__(
        self,
        topic: str,
        on_message: Callable[..., Any] | None = None,
        msg_type: Any = None,
        conn_params: Params = None,
        **options: Unpack[SubscriberOptions],
    ) -> None:
        with_topic = on_message is None or arity(on_message)[1] >= 2
        super().__init__(topic, on_message, msg_type, conn_params, with_topic, **options)

    async def __anext__(self) -> tuple[T, str]:
        return await self._next()


class WSubscriber(Group):
    """Receives many topics or patterns, each with a callback of its own, on one connection.

    Options: ``SubscriberOptions``, for all of them.
    """

    def __init__(
        self,
        conn_params: Params = None,
        *,
        concurrency: int = 1,
        inline: bool = False,
        bounds: Bounds | None = None,
        max_rate: float | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__("wsubscriber", conn_params, **options)
        self._concurrency = concurrency
        self._inline = inline
        self._bounds = bounds
        rate_limit(max_rate)  # a wrong one is refused here
        self._max_rate = max_rate

    def new_subscriber(
        self, topic: str, callback: Callable[..., Any], msg_type: type[T] | None
    ) -> Subscriber[T]:
        """A part for one more topic, yet to be run."""
        return self.add(
            Subscriber(
                topic,
                callback,
                msg_type,
                concurrency=self._concurrency,
                inline=self._inline,
                bounds=self._bounds,
                max_rate=self._max_rate,
                **self.part_options,
            )
        )

    async def subscribe(
        self, topic: str, callback: Callable[..., Any], msg_type: type[T] | None = None
    ) -> Subscriber[T]:
        """Receive one more topic or pattern, at once if this runs; ``callback`` as ``on_message``.

        Returns when the broker has confirmed it, if it is there. What it returns can be stopped
        alone. Raises ValueError for what is no topic or pattern, TypeError for what is no such
        callback, and, if this runs, AuthError where the user has no right to it.
        """
        self.hub.check_here()
        return await self.join(self.new_subscriber(topic, callback, msg_type))
