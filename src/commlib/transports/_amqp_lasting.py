"""Subscriptions on AMQP that outlive the connection: a queue for each, which the broker keeps.

Theory. The queue is durable, its name is made of the client's and the topic's, so that the next
life of the program finds it again, and it goes when nobody has consumed it for so long as the
parameters say. It is consumed by one connection at a time, or messages would come to either and
in no order. A classic queue is consumed exclusively; a quorum queue cannot be, so it has a single
active consumer, and who finds a consumer there waits until it has gone.

What arrives is acknowledged when it was handed over, with all that the same burst has brought: what
was not when the connection breaks comes again.

A subscription that is kept is about to go with its connection. Its consumer stays until then and
what it is still sent is not acknowledged: a consumer that had left would let the next connection in
before these messages are back in the queue, and that would get what came after them first. If the
connection goes on, because its node was stopped from afar or others share it, the consumer ends a
while later: what it holds would have the broker close the channel one day (``consumer_timeout``),
and a queue that is consumed never expires.

Source: rabbitmq.com/docs/queues, /ttl, /consumers and /quorum-queues.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from itertools import count

from commlib._session import AUTH_PAUSE
from commlib._topics import AMQP_WILDCARDS, amqp_binding, amqp_matcher, matcher
from commlib.exceptions import AuthError, ConnectionLost
from commlib.transports import _amqp_methods as methods
from commlib.transports._amqp_channel import Channel
from commlib.transports._amqp_codes import (
    NOT_FOUND,
    PRECONDITION_FAILED,
    RESOURCE_LOCKED,
    Refusal,
)
from commlib.transports._amqp_lasting_queues import explained, held, queue_name
from commlib.transports._amqp_link import AmqpLink
from commlib.transports._amqp_methods import LASTING, SETUP
from commlib.transports._amqp_params import QUORUM, ConnectionParameters
from commlib.transports._amqp_properties import PropertyReader
from commlib.transports._amqp_queues import FIRST_PAUSE, LONGEST_PAUSE
from commlib.transports._amqp_receipts import Receipts
from commlib.transports._amqp_topics import Topics
from commlib.transports._confirmation import Confirmation
from commlib.transports.base import Handler

log = logging.getLogger("commlib.amqp")

PREFETCH = 500  # that may be on their way to one subscription
CALM_PAUSE, CALM_SECONDS = 0.1, 1.0  # between looks whether something still comes, and for how long
DELETE_SECONDS = 1.0  # how long a deletion is waited for; of a quorum queue it takes a while
KEPT_SECONDS = 10.0  # in which a connection has ended if it is about to, its callbacks and all


class LastingTopic(Confirmation):
    """One subscription: its queue, and who is handed what comes."""

    def __init__(self, topic: str, handler: Handler, queue: str, owner: LastingTopics) -> None:
        super().__init__(topic)
        self.handler = handler
        self.queue = queue
        self.binding = amqp_binding(topic)
        self.matches = matcher(topic, AMQP_WILDCARDS) or amqp_matcher(self.binding)
        self.tag = ""
        """What its consumer is called; empty while the broker was not asked for one."""
        self.is_consumed = False
        """Whether the broker has said yes to that."""
        self.opening: asyncio.Task[None] | None = None
        self.kept: list[int] | None = None
        """If it takes no more, but its consumer is there: what the broker calls what came since."""
        self._is_closed = False
        self._owner = owner

    def keep(self) -> None:
        """Take no more, and leave the queue to the next life of this subscription."""
        if not self._is_closed:
            self._is_closed = True
            self._owner.keep(self)

    async def close(self) -> None:
        """Take no more; returns when the queue is deleted, unless it is kept."""
        if not self._is_closed:
            self._is_closed = True
            await self._owner.delete(self)


class LastingTopics:
    """All such subscriptions of one transport, on a channel of their own.

    ``topics`` makes the exchange if need be.
    """

    def __init__(
        self,
        params: ConnectionParameters,
        topics: Topics,
        reader: PropertyReader,
        spawn: Callable[..., asyncio.Task[None]],
    ) -> None:
        self._params = params
        self._topics = topics
        self._receipts: Receipts[LastingTopic] = Receipts(reader)
        self._spawn = spawn
        # A quorum queue takes no exclusive consumers: its only active one is an argument of it.
        self._flags = 0 if params.queue_type == QUORUM else methods.ALONE
        self._link: AmqpLink | None = None
        self._channel: Channel | None = None
        self._by_queue: dict[str, LastingTopic] = {}
        self._by_tag = self._receipts.takers
        self._tags = count()
        self._kept: dict[str, LastingTopic] = {}
        """By queue, those whose consumer goes with the connection."""
        self._ending: dict[str, asyncio.Task[None]] = {}
        """By queue, what deletes it."""
        self._unwanted: set[str] = set()
        """Queues that are to be deleted when the broker can be told so."""

    def add(self, topic: str, handler: Handler) -> LastingTopic:
        """One more subscription; the broker is asked for it if it is there."""
        numbers = (queue_name(self._params.client_id, topic, number) for number in count(1))
        queue = next(name for name in numbers if name not in self._by_queue)
        found = self._by_queue[queue] = LastingTopic(topic, handler, queue, self)
        if self._link is not None:
            if queue in self._kept:  # the connection goes on after all
                self._end(self._kept[queue])
            self._begin(found, self._link)
        return found

    def keep(self, topic: LastingTopic) -> None:
        """Have nothing more handed over; the consumer goes with the connection, if that goes."""
        self._leave(topic)
        if topic.is_consumed:
            self._receipts.keep(topic)
            self._kept[topic.queue] = topic
            self._spawn(self._end_later(topic))
        else:
            self._end(topic)

    async def _end_later(self, topic: LastingTopic) -> None:
        await asyncio.sleep(KEPT_SECONDS)
        self._end(topic)  # the connection goes on

    async def delete(self, topic: LastingTopic) -> None:
        """Have no queue any more; returns when it is gone, or will be when the broker is there."""
        self._leave(topic)
        self._end(topic)
        if self._link is None:
            self._unwanted.add(topic.queue)
        else:
            ending = self._ending[topic.queue] = self._spawn(self._unbind(topic, self._link))
            await asyncio.wait([ending])

    def _leave(self, topic: LastingTopic) -> None:
        del self._by_queue[topic.queue]
        if topic.opening is not None:
            topic.opening.cancel()

    def _end(self, topic: LastingTopic) -> None:
        """Have the broker end a consumer, if there is one, and take back what it was sent."""
        tag, kept = topic.tag, topic.kept or []
        if self._forget(topic, tag) and self._channel is not None and self._link is not None:
            self._channel.cancel(tag)
            self._link.write([methods.give_back(LASTING, each) for each in kept], [])

    async def _unbind(self, topic: LastingTopic, link: AmqpLink) -> None:
        """Let nothing more come to a queue, and delete it."""
        frame = methods.unbind(SETUP, topic.queue, self._params.exchange, topic.binding)
        link.channel(SETUP).ask(frame)
        try:
            if self._params.queue_type == QUORUM and link.is_heard:
                await self._calm(topic.queue, link)
        except ConnectionLost:
            self._unwanted.add(topic.queue)
        else:
            deleted = self._delete(topic.queue, link)
            if link.is_heard:
                await asyncio.wait([deleted], timeout=DELETE_SECONDS)
        finally:
            if self._ending.get(topic.queue) is asyncio.current_task():  # else it ends once more
                del self._ending[topic.queue]

    async def _calm(self, queue: str, link: AmqpLink) -> None:
        """Return when what was on its way to a queue is there. Raises ConnectionLost.

        RabbitMQ reads nothing more from who has just then published to a quorum queue that is
        deleted (seen with 3.10).
        """
        before, waiting = -1, -2
        with suppress(TimeoutError, Refusal, AuthError):  # not for ever; it may be gone already
            async with asyncio.timeout(CALM_SECONDS):
                while waiting != before:
                    await asyncio.sleep(CALM_PAUSE)
                    frame = methods.declare_queue(SETUP, queue, methods.PASSIVE, {})
                    told = methods.read_declared(await link.channel(SETUP).ask(frame))
                    before, waiting = waiting, told.waiting

    def _delete(self, queue: str, link: AmqpLink) -> asyncio.Future[bytes]:
        def answered(answer: asyncio.Future[bytes]) -> None:
            if isinstance(answer.exception(), ConnectionLost):
                self._unwanted.add(queue)

        deleted = link.channel(SETUP).ask(methods.delete_whole(SETUP, queue))
        deleted.add_done_callback(answered)
        return deleted

    # The connection.

    async def restore(self, link: AmqpLink, seconds: float) -> None:
        """Consume everything on a new link; returns when the broker has answered.

        After so many seconds it goes on in the background.
        """
        self._link = link
        self._receipts.attach(link)
        while self._unwanted:
            self._delete(self._unwanted.pop(), link)
        begun = []
        for topic in self._by_queue.values():
            topic.renew()
            begun.append(self._begin(topic, link))
        if begun:
            await asyncio.wait(begun, timeout=seconds)

    def announce(self) -> None:
        """The link is there for everybody."""
        self._receipts.announce()

    def detach(self) -> None:
        """The link is away, and the tags count no more."""
        self._link = self._channel = None
        self._receipts.detach()
        for topic in list(self._by_tag.values()):
            self._forget(topic, topic.tag)
        for topic in self._by_queue.values():
            if topic.opening is not None:
                topic.opening.cancel()
            topic.renew()

    def exchange_is_gone(self, link: AmqpLink) -> None:
        """Somebody has deleted it, and what was bound to it is not any more."""
        for topic in self._by_queue.values():
            topic.renew()
            self._begin(topic, link)

    def _begin(self, topic: LastingTopic, link: AmqpLink, pause: float = 0) -> asyncio.Task[None]:
        """Have the queue, bound and consumed; done when that was tried once."""
        if topic.opening is not None:
            topic.opening.cancel()
        topic.opening = self._spawn(self._open(topic, link, pause))
        return topic.opening

    async def _open(self, topic: LastingTopic, link: AmqpLink, pause: float) -> None:
        await asyncio.sleep(pause)
        if topic.queue in self._ending:  # with the one that had it before
            await asyncio.wait([self._ending[topic.queue]])
        try:
            await self._get(topic, link)
        except ConnectionLost:
            return  # the next link begins with this
        except AuthError as exc:
            topic.confirm(exc)
            pause = AUTH_PAUSE
        except Refusal as exc:
            if exc.code == PRECONDITION_FAILED:
                topic.confirm(explained(exc, topic.queue))
                pause = AUTH_PAUSE
            else:
                # Not at once: the broker may need a moment to let go of our last connection.
                level = logging.WARNING if pause == FIRST_PAUSE else logging.DEBUG
                log.log(level, "%s, trying again", exc)
                pause = min(max(pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
        else:
            if pause > FIRST_PAUSE:
                log.warning("%s is subscribed now", topic.topic)
            topic.confirm(None)
            return
        topic.opening = self._spawn(self._open(topic, link, pause))

    async def _get(self, topic: LastingTopic, link: AmqpLink) -> None:
        """Raises Refusal, AuthError, ConnectionLost."""
        setup, queue = link.channel(SETUP), topic.queue
        await self._topics.declare_exchange(link)
        arguments = self._params.lasting_arguments
        told = await setup.ask(methods.declare_queue(SETUP, queue, methods.DURABLE, arguments))
        await setup.ask(methods.bind(SETUP, queue, self._params.exchange, topic.binding))
        if topic.is_consumed:
            return  # only its binding had gone
        if methods.read_declared(told).consumers:
            raise Refusal(held(queue), RESOURCE_LOCKED)
        await self._consume(topic, link)

    async def _consume(self, topic: LastingTopic, link: AmqpLink) -> None:
        channel = self._channel = link.channel(LASTING)
        self._receipts.open(channel)
        channel.on_cancelled = self._cancelled
        channel.on_reset = lambda error: self._reset(link)
        life = channel.next_life
        channel.ask(methods.qos(LASTING, PREFETCH))
        tag = topic.tag = f"l{next(self._tags)}"
        self._by_tag[tag.encode()] = topic  # messages may come together with the yes
        try:
            await channel.ask(methods.consume(LASTING, topic.queue, tag, self._flags))
        except asyncio.CancelledError:
            if self._forget(topic, tag):
                channel.cancel(tag)  # the broker is about to say yes
            raise
        except (Refusal, AuthError) as exc:
            self._forget(topic, tag)
            if isinstance(exc, Refusal) and exc.code == RESOURCE_LOCKED:
                raise Refusal(held(topic.queue), exc.code) from exc
            raise
        if topic.tag != tag:
            raise Refusal(f"the queue {topic.queue!r} was deleted", NOT_FOUND)
        if channel.life != life:  # its prefetch has got lost
            self._forget(topic, tag)
            channel.cancel(tag)
            raise Refusal(f"the channel for {topic.queue!r} was closed", 0)
        topic.is_consumed = True

    def _forget(self, topic: LastingTopic, tag: str) -> bool:
        """Whether this consumer was still counted on."""
        if not tag or self._by_tag.pop(tag.encode(), None) is None:
            return False
        topic.tag, topic.is_consumed = "", False
        if self._receipts.let_go(topic):
            del self._kept[topic.queue]
        return True

    def _cancelled(self, tag: str) -> None:
        """The broker has ended a consumer: its queue was deleted."""
        topic = self._by_tag.get(tag.encode())
        if topic is not None and self._link is not None:
            is_missed = self._is_missed(topic)
            self._forget(topic, tag)
            if is_missed:
                topic.renew()
                self._begin(topic, self._link)

    def _reset(self, link: AmqpLink) -> None:
        """The broker has closed the channel: what was consuming there is no more."""
        self._receipts.clear()
        for topic in list(self._by_tag.values()):
            is_missed = self._is_missed(topic)
            if topic.is_consumed:  # else `_consume` finds out
                self._forget(topic, topic.tag)
            if is_missed:
                topic.renew()
                self._begin(topic, link)

    def _is_missed(self, topic: LastingTopic) -> bool:
        """Whether somebody has to begin anew if its consumer is no more."""
        return topic.is_consumed and topic.kept is None  # of one not yet, `_consume` finds out
