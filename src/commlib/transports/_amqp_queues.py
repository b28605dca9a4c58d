"""Requests on AMQP: the queues of services.

A service's queue has the service's name on the default exchange. It is durable, since RabbitMQ
from 4.3 on refuses queues that are neither durable nor exclusive, and goes with its last consumer.
A request is acknowledged when it was worked off, so that the broker hands a service no more than it
can work on. If a connection breaks before that, the broker hands its requests over again, marked
as such: perhaps they were worked on, so they are not taken a second time.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any

from commlib._packet import Header, Packet
from commlib._session import AUTH_PAUSE
from commlib.exceptions import (
    AuthError,
    CommlibError,
    ConnectionLost,
)
from commlib.transports import _amqp_methods as methods
from commlib.transports._amqp_channel import Channel
from commlib.transports._amqp_codes import (
    NOT_FOUND,
    PRECONDITION_FAILED,
    RESOURCE_LOCKED,
    Refusal,
)
from commlib.transports._amqp_envelopes import begins_as_envelope, is_enveloped
from commlib.transports._amqp_frames import content, publish_method
from commlib.transports._amqp_link import AmqpLink
from commlib.transports._amqp_methods import SETUP
from commlib.transports._amqp_properties import Beside, PropertyReader
from commlib.transports.base import Handler

log = logging.getLogger("commlib.amqp")

QUEUE_ARGUMENTS = {"x-expires": 600_000}  # ms that a queue stays without a consumer
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # s between attempts to get at a queue
MAX_REMEMBERED = 1000  # requests that were worked off, and may come again
LOOK_SECONDS = 300.0  # between looks for requests that are worked on for long
"""What is found twice is acknowledged: for less than RabbitMQ closes the channel after 15 minutes,
or 30, and with its last consumer a queue ends, and all that waits there.
"""


class Delivered(Packet, gc=False):
    """A request as the broker has handed it over: ``tag`` counts for one life of the channel."""

    tag: int = 0
    life: int = 0
    channel: Channel | None = None
    key: str = ""
    settled: bool = False
    """Whether it was acknowledged, with its reply or alone."""
    share: int = 0
    """How many of its kind the service works on at once."""
    looks: int = 0
    """How often it was found to be worked on still; from then on it is for the loop to settle."""

    def ack(self) -> bytes:
        """What acknowledges it; nothing if the broker does not know it any more. Any thread."""
        channel = self.channel
        if channel is None or not channel.is_open or channel.life != self.life:
            return b""
        return methods.ack(channel.number, self.tag)


class Consumer:
    """Takes requests from a queue, at most ``prefetch`` that are not done."""

    reads_bursts = True

    def __init__(
        self, services: Services, queue: str, handler: Handler, prefetch: int, number: int
    ) -> None:
        self.queue = queue
        self.handler = handler
        self.prefetch = prefetch
        self.number = number
        """Of its channel."""
        self.tag = ""
        """What the broker calls it; empty while it has not said yes."""
        self.backlog = 0
        """Requests that were in the queue before, and are yet to come."""
        self.is_closed = False
        self._services = services

    @property
    def working(self) -> bool:
        return bool(self.tag)

    def done(self, packet: Packet) -> None:
        self._services.done(packet)

    def read(self, is_wanted: Callable[[], bool], seconds: float, keep: bool) -> Sequence[Packet]:
        return self._services.read(self, is_wanted, seconds, keep)

    def resume_reading(self) -> None:
        self._services.resume_reading()

    def send_reader_away(self) -> None:
        self._services.send_reader_away()

    async def close(self) -> None:
        await self._services.leave(self)


class Services:
    """The consumers of all queues of one transport.

    Each has a channel of its own, from ``first`` on and as long as there are enough: the broker
    closes a channel for whatever is wrong with one consumer. ``on_stale`` is told when
    acknowledgements that were not written yet count no more.
    """

    def __init__(
        self,
        spawn: Callable[..., asyncio.Task[None]],
        reader: PropertyReader,
        on_stale: Callable[[], None],
        first: int,
    ) -> None:
        self._numbers = range(first, first + 1)
        self._spawn = spawn
        self._reader = reader
        self._on_stale = on_stale
        self._link: AmqpLink | None = None
        self._consumers: dict[Consumer, None] = {}  # in the order of their coming
        self._on_channel: Counter[int] = Counter()
        self._by_tag: dict[bytes, Consumer] = {}
        self._tags = count()
        # Filled from any thread, emptied on the loop.
        self._done: deque[Delivered] = deque()
        self._wake_pending = False
        self._loop: asyncio.AbstractEventLoop | None = None
        # By what tells one request from all others.
        self._in_hand: dict[str, Delivered] = {}
        self._numbers_in_hand = count()
        self._next_look: asyncio.TimerHandle | None = None
        self._worked_off: OrderedDict[str, None] = OrderedDict()
        # What has come before the link was announced: replies could not be sent yet.
        self._early: list[Callable[[], None]] | None = None

    async def join(self, queue: str, handler: Handler, prefetch: int) -> Consumer:
        """One more consumer. Raises AuthError.

        If another program holds the queue for itself, it begins when that has gone.
        """
        self._loop = asyncio.get_running_loop()
        consumer = Consumer(self, queue, handler, prefetch, self._free_number())
        self._consumers[consumer] = None
        try:
            if self._link is not None:
                await self._begin(consumer, self._link)
        except ConnectionLost:
            pass  # the next link begins with this
        except BaseException:  # cancellation, too
            await self.leave(consumer)
            raise
        return consumer

    def _free_number(self) -> int:
        """The channel with the fewest consumers."""
        number = min(self._numbers, key=self._on_channel.__getitem__)
        self._on_channel[number] += 1
        return number

    async def leave(self, consumer: Consumer) -> None:
        """Take no more; returns when nothing is on its way."""
        if consumer.is_closed:
            return
        consumer.is_closed = True
        del self._consumers[consumer]
        self._on_channel[consumer.number] -= 1
        link, tag = self._link, consumer.tag
        if link is not None and tag:
            await link.answered(self._cancel(consumer, link, tag))
        consumer.tag = ""

    def _cancel(self, consumer: Consumer, link: AmqpLink, tag: str) -> asyncio.Future[bytes]:
        ended = link.channel(consumer.number).cancel(tag)
        ended.add_done_callback(lambda _: self._by_tag.pop(tag.encode(), None))
        return ended

    # The connection.

    async def restore(self, link: AmqpLink, seconds: float) -> None:
        """Consume everything on a new link; returns when the broker has answered.

        After so many seconds it goes on in the background.
        """
        self._link = link
        self._early = []
        self._numbers = range(self._numbers.start, link.tuning.channels + 1)
        self._on_channel.clear()
        for consumer in self._consumers:
            consumer.number = self._free_number()
        begun = [self._spawn(self._begin_again(each, link)) for each in self._consumers]
        if begun:
            await asyncio.wait(begun, timeout=seconds)

    async def _begin_again(self, consumer: Consumer, link: AmqpLink) -> None:
        try:
            await self._begin(consumer, link)
        except AuthError as exc:
            self._begin_later(consumer, link, exc)
        except ConnectionLost:
            pass  # the next link begins with this

    def announce(self) -> None:
        """The link is there for everybody."""
        early, self._early = self._early or [], None
        for arrival in early:
            arrival()

    def detach(self) -> None:
        """The link is away, and the tags count no more."""
        self._link = None
        self._early = None
        for consumer in self._consumers:
            consumer.tag = ""
        self._by_tag.clear()

    async def _begin(self, consumer: Consumer, link: AmqpLink) -> None:
        """Consume, now or when the queue is free. Raises AuthError, ConnectionLost."""
        error = await self._try(consumer, link)
        if error is not None and error.code == NOT_FOUND:
            error = await self._try(consumer, link)  # its last consumer has just left
        if error is not None:
            self._begin_later(consumer, link, error)

    def _begin_later(self, consumer: Consumer, link: AmqpLink, error: CommlibError) -> None:
        log.warning("%s, trying again", error)
        pause = AUTH_PAUSE if isinstance(error, AuthError) else FIRST_PAUSE
        self._spawn(self._try_again(consumer, link, pause))

    async def _try(self, consumer: Consumer, link: AmqpLink) -> Refusal | None:
        """Consume; why that is not possible now. Raises AuthError, ConnectionLost."""
        if consumer.is_closed or self._link is not link:
            return None
        number, tag = consumer.number, f"s{next(self._tags)}"
        channel = link.channel(number)
        channel.on_arrival = partial(self._take, channel)
        channel.on_cancelled = self._cancelled
        channel.on_reset = lambda error: self._reset(number, error)
        is_asked = False
        try:
            consumer.backlog = await self._declare(consumer.queue, link)
            self._by_tag[tag.encode()] = consumer
            life = channel.next_life
            channel.ask(methods.qos(number, consumer.prefetch))
            is_asked = True
            await channel.ask(methods.consume(number, consumer.queue, tag, 0))
        except asyncio.CancelledError:
            if is_asked:
                self._cancel(consumer, link, tag)  # the broker is about to say yes
            else:  # behind the question for it: a queue that never had a consumer would stay
                self._drop_queue(consumer, link)
            raise
        except (Refusal, AuthError) as exc:
            self._by_tag.pop(tag.encode(), None)
            if isinstance(exc, AuthError):
                # It may be there now, and only a consumer would have ended it.
                self._drop_queue(consumer, link)
                raise
            return _explained(exc, consumer.queue)
        if self._link is not link:
            return None
        if tag.encode() not in self._by_tag:
            return Refusal(f"the queue {consumer.queue!r} was deleted", NOT_FOUND)
        if channel.life != life:  # its prefetch has got lost
            self._cancel(consumer, link, tag)
            return Refusal(f"the channel for {consumer.queue!r} was closed", 0)
        if consumer.is_closed:
            self._cancel(consumer, link, tag)
        else:
            consumer.tag = tag
        return None

    def _drop_queue(self, consumer: Consumer, link: AmqpLink) -> None:
        """Delete a queue that is there for nobody; not if another one here is about to consume."""
        if all(each is consumer or each.queue != consumer.queue for each in self._consumers):
            link.channel(SETUP).ask(methods.delete_queue(SETUP, consumer.queue))

    async def _declare(self, queue: str, link: AmqpLink) -> int:
        """Make the queue, or take it as it is; how many requests wait there."""
        setup = link.channel(SETUP)
        flags = methods.DURABLE | methods.AUTO_DELETE
        try:
            told = await setup.ask(methods.declare_queue(SETUP, queue, flags, QUEUE_ARGUMENTS))
        except Refusal as exc:
            if exc.code != PRECONDITION_FAILED:
                raise
            # Somebody has made it in another way.
            told = await setup.ask(methods.declare_queue(SETUP, queue, methods.PASSIVE, {}))
        return methods.read_declared(told).waiting

    async def _try_again(self, consumer: Consumer, link: AmqpLink, pause: float) -> None:
        while not consumer.is_closed and self._link is link:
            await asyncio.sleep(pause)
            try:
                error = await self._try(consumer, link)
            except ConnectionLost:
                return  # the next link begins with this
            except AuthError as exc:
                log.debug("%s", exc)
                pause = AUTH_PAUSE
                continue
            if error is None:
                if consumer.working:
                    log.warning("%s is served now", consumer.queue)
                return
            pause = min(max(pause * 2, FIRST_PAUSE), LONGEST_PAUSE)

    def _cancelled(self, tag: str) -> None:
        """The broker has ended a consumer: its queue was deleted."""
        consumer = self._by_tag.pop(tag.encode(), None)
        if consumer is not None and consumer.tag == tag:  # else `_try` finds out
            self._begin_anew(consumer)

    def _begin_anew(self, consumer: Consumer) -> None:
        """A consumer is no more on the broker's side."""
        link = self._link
        self._by_tag.pop(consumer.tag.encode(), None)
        consumer.tag = ""
        if link is not None and not consumer.is_closed:
            self._spawn(self._try_again(consumer, link, 0))

    def _reset(self, number: int, error: CommlibError) -> None:
        """The broker has closed a channel: what was consuming there is no more."""
        self._on_stale()
        for consumer in self._consumers:
            if consumer.number == number and consumer.working:
                log.warning("%s: %s, beginning anew", consumer.queue, error)
                self._begin_anew(consumer)

    # Requests.

    def _take(self, channel: Channel, *arrival: Any) -> None:
        if self._early is None:
            self._hand_over(channel, channel.life, *arrival)
        else:
            self._early.append(partial(self._hand_over, channel, channel.life, *arrival))

    def _hand_over(
        self,
        channel: Channel,
        life: int,
        consumer: bytes,
        tag: int,
        again: bool,
        where: bytes,
        properties: bytes,
        payload: bytes,
    ) -> None:
        found = self._by_tag.get(consumer)
        if found is None:
            return  # nobody here, so the broker gives it to others when this channel ends
        if found.is_closed and not found.tag:
            self._pass_on(channel, found.queue, tag, properties, payload)
            return
        request = self._request(found, channel, life, tag, again, properties, payload)
        if again and (request.key in self._in_hand or request.key in self._worked_off):
            self._write([request.ack()])  # it is ours already
            return
        self._in_hand[request.key] = request
        if self._next_look is None:
            self._look_later()
        found.handler(request)

    def _request(
        self,
        found: Consumer,
        channel: Channel,
        life: int,
        tag: int,
        again: bool,
        properties: bytes,
        payload: bytes,
    ) -> Delivered:
        """What has come for a consumer.

        On the loop, or on a thread while the loop does not read.
        """
        beside = self._reader.read(properties)
        key, header, reply_to = _identify(found.queue, beside, payload)
        waited = found.backlog > 0
        found.backlog -= waited
        return Delivered(
            payload,
            found.queue,
            header,
            beside.ttl,
            waited,
            correlation_id=beside.correlation_id,
            redelivered=again,
            reply_to=reply_to,
            tag=tag,
            life=life,
            channel=channel,
            key=key or f"#{next(self._numbers_in_hand)}",
            share=found.prefetch,
        )

    def read(
        self, consumer: Consumer, is_wanted: Callable[[], bool], seconds: float, keep: bool
    ) -> Sequence[Delivered]:
        """What comes next, read in this thread, if it is requests for this consumer alone.

        See ``ReadingConsumer``.
        """
        link = self._link
        if link is None:
            return ()
        find = partial(self._find, link, consumer)
        return link.read_here(is_wanted, find, [], seconds, keep) or ()

    def _find(self, link: AmqpLink, consumer: Consumer, data: bytes) -> list[Delivered] | None:
        if self._early is not None or self._next_look is None or not consumer.working:
            return None  # that is for the loop
        came, channel = link.messages_of(data, consumer.number), link.channels.get(consumer.number)
        if not came or channel is None:
            return None
        for whose, _, again, *_ in came:
            # One that has come before, or for nobody, is for the loop, too.
            if again or self._by_tag.get(whose) is not consumer:
                return None
        requests = [
            self._request(consumer, channel, channel.life, tag, again, properties, payload)
            for _, tag, again, _, properties, payload in came
        ]
        for request in requests:
            self._in_hand[request.key] = request
        return requests

    def resume_reading(self) -> None:
        """A thread that was about to read on does not. From any thread."""
        link = self._link
        if link is not None:
            link.resume_reading()

    def send_reader_away(self) -> None:
        """A thread that waits in ``read`` returns. On the loop."""
        if self._link is not None:
            self._link.send_reader_away()

    def _look_later(self) -> None:
        self._next_look = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Acknowledge what is worked on for long, which nobody else shall have anyway.

        Of each service no more than it has workers, or one that hangs would get ever more.
        """
        self._next_look = None
        requests = tuple(self._in_hand.values())
        early = Counter(request.topic for request in requests if request.settled)
        acks = []
        for request in requests:
            if request.looks and not request.settled and early[request.topic] < request.share:
                request.settled = True
                early[request.topic] += 1
                acks.append(request.ack())
            request.looks += 1
        self._write(acks)
        if self._in_hand:
            self._look_later()

    def close(self) -> None:
        """Look no more."""
        if self._next_look is not None:
            self._next_look.cancel()
        self._in_hand.clear()

    def _pass_on(
        self, channel: Channel, queue: str, tag: int, properties: bytes, payload: bytes
    ) -> None:
        """A request came after its consumer has left: it is for others, as if it were new."""
        link = self._link
        assert link is not None, "it is the link that brings this"
        if len(payload) > link.limit:
            link.write([methods.ack(channel.number, tag)], [])  # it was cut, and nobody takes it
            return
        where = publish_method(channel.number, "", queue)
        again = where + content(channel.number, properties, payload, link.tuning.frame)
        link.write([again, methods.ack(channel.number, tag)], [])

    def done(self, packet: Packet) -> None:
        """A request was worked off: another may come. From any thread."""
        assert isinstance(packet, Delivered), "all that is handed over here is"
        if packet.settled:
            self._remember(packet.key)
            return
        self._done.append(packet)
        if not self._wake_pending:
            self._wake_pending = True
            assert self._loop is not None, "it has handed this over"
            self._loop.call_soon_threadsafe(self._settle_all)

    def _settle_all(self) -> None:
        self._wake_pending = False
        acks = []
        while self._done:
            packet = self._done.popleft()
            self._remember(packet.key)
            if not packet.settled:  # else its reply has done so meanwhile
                packet.settled = True
                acks.append(packet.ack())
        self._write(acks)

    def _remember(self, key: str) -> None:
        """Know a request again, should the broker have missed that it was worked off."""
        self._in_hand.pop(key, None)
        self._worked_off[key] = None
        if len(self._worked_off) > MAX_REMEMBERED:
            self._worked_off.popitem(last=False)

    def _write(self, acks: list[bytes]) -> None:
        if any(acks) and self._link is not None:
            self._link.write(acks, [])


def _identify(queue: str, beside: Beside, payload: bytes) -> tuple[str, Header | None, str]:
    """By what a request is known again, its header, and where its reply goes beside that.

    No key: it cannot be known again. No header: it is in the payload.
    """
    header = beside.header
    if header is None:
        # Else of a peer that says nothing but what it wants.
        return "", None if begins_as_envelope(payload) else Header(), ""
    if header.origin:
        return f"{header.origin}/{header.seq}/{queue}", header, ""
    # Not ours: perhaps of commlib-py 0.13.
    id = beside.correlation_id
    key = f"{id}/{header.reply_to}/{queue}" if id else ""
    if is_enveloped(payload, is_request=True):
        return key, None, header.reply_to
    return key, header, ""


def _explained(refused: Refusal, queue: str) -> Refusal:
    """The same with what to do about it."""
    if refused.code != RESOURCE_LOCKED:
        return refused
    return Refusal(
        f"the queue {queue!r} is held by another program for itself, as services of released "
        f"commlib-py do; end that one, or give this service another name ({refused})",
        refused.code,
    )
