"""Subscriptions on AMQP: one queue for all of a connection, bound once for each name or pattern.

A message comes once however many bindings match it, and in the order of its publisher; who wants
it is found here. Messages are not acknowledged: what arrives is bounded by the lanes behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import Any

from commlib._anchors import Anchors
from commlib._packet import Packet
from commlib._session import AUTH_PAUSE
from commlib._topics import AMQP_WILDCARDS, amqp_binding, amqp_matcher, is_pattern, matcher, split
from commlib.exceptions import AuthError, ConnectionLost
from commlib.transports import _amqp_methods as methods
from commlib.transports._amqp_codes import NOT_FOUND, Refusal
from commlib.transports._amqp_link import AmqpLink
from commlib.transports._amqp_methods import DURABLE, PASSIVE, SETUP, TOPICS
from commlib.transports._amqp_properties import PropertyReader
from commlib.transports._confirmation import Subscribed
from commlib.transports.base import Handler

log = logging.getLogger("commlib.amqp")

EVERYWHERE = "amq.topic"
"""An exchange that is there without being made."""
PAUSE = 1.0  # s between attempts to get a queue
AGAIN_SECONDS = 30.0  # between the binds of an exchange that somebody may delete
MOST_AGAIN = 100  # of them at a time: each takes the broker 1 ms
MAX_ROUTES = 10_000  # routing keys whose receivers are remembered


class Topic(Subscribed):
    """A name or pattern, the handlers behind it, and how the broker is asked for it."""

    def __init__(self, topic: str) -> None:
        super().__init__(topic)
        self.binding = amqp_binding(topic)
        self.is_pattern = is_pattern(topic, AMQP_WILDCARDS)
        self.matches = matcher(topic, AMQP_WILDCARDS) or amqp_matcher(self.binding)
        words = split(topic)
        # One of the broker's own matches names of either notation, split at dots.
        self.words = words if AMQP_WILDCARDS not in words else []
        self._again: asyncio.TimerHandle | None = None

    def put_off(self, timer: asyncio.TimerHandle | None) -> None:
        """It is to be bound again then, and no other time; None: not by itself."""
        if self._again is not None:
            self._again.cancel()
        self._again = timer


class Topics:
    """All subscriptions of one transport."""

    def __init__(
        self,
        exchange: str,
        arguments: Mapping[str, Any],
        reader: PropertyReader,
        spawn: Callable[..., asyncio.Task[None]],
    ) -> None:
        self._exchange = exchange
        self._arguments = arguments
        self._reader = reader
        self._spawn = spawn
        self._link: AmqpLink | None = None
        self._queue = ""
        self._tag = ""
        self._tags = count()
        self._opening: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._hurry = asyncio.Event()
        self._exact: dict[str, Topic] = {}
        self._patterns: dict[str, Topic] = {}
        self._anchors: Anchors[Topic] = Anchors()  # of the patterns
        self._needed: Counter[str] = Counter()  # by how many topics each binding is
        self._routes: dict[bytes, tuple[str, tuple[Handler, ...]]] = {}
        self._again: asyncio.TimerHandle | None = None

    def add(self, topic: str, handler: Handler) -> Topic:
        """Note a handler; its topic is asked for if it is the first one, or was refused."""
        found = Topic(topic)
        found = self._half(found).setdefault(topic, found)
        found.handlers += (handler,)
        self._routes.clear()
        if len(found.handlers) == 1:
            if found.is_pattern:
                self._anchors.add(found.words, found)
            self._needed[found.binding] += 1
            self._ask(found)
        elif found.confirmed.done() and not found.working:
            found.renew()
            self._ask(found)
        return found

    def remove(self, topic: Topic, handler: Handler) -> None:
        """Forget a handler, and the topic with the last one."""
        if not topic.drop(handler):
            return
        self._routes.clear()
        half = self._half(topic)
        if topic.handlers or half.get(topic.topic) is not topic:
            return
        del half[topic.topic]
        topic.put_off(None)
        self._anchors.discard(topic)
        self._needed[topic.binding] -= 1
        if not self._needed[topic.binding]:
            del self._needed[topic.binding]
            if self._queue and self._link is not None:
                frame = methods.unbind(SETUP, self._queue, self._exchange, topic.binding)
                self._link.channel(SETUP).ask(frame)

    def _half(self, topic: Topic) -> dict[str, Topic]:
        return self._patterns if topic.is_pattern else self._exact

    def _all(self) -> list[Topic]:
        return [*self._exact.values(), *self._patterns.values()]

    # The connection.

    async def restore(self, link: AmqpLink, seconds: float) -> None:
        """Subscribe everything on a new link; returns when the broker has answered.

        After so many seconds it goes on in the background: a bind takes the broker 1 ms.
        """
        self._link = link
        for topic in self._all():
            topic.renew()
        if self._exact or self._patterns:
            self._open(link)
            await self._tried.wait()
            # Answers come in order: the last one stands for all.
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await link.channel(SETUP).ask(methods.qos(SETUP, 0))

    def detach(self) -> None:
        """The link is away."""
        self._link = None
        self._queue = ""
        if self._again is not None:
            self._again.cancel()
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        for topic in self._all():
            topic.renew()

    def _ask(self, topic: Topic) -> None:
        link = self._link
        if link is None:
            return  # it is asked for when there is one
        if self._queue:
            self._bind(topic)
        else:
            self._open(link)

    def _open(self, link: AmqpLink, pause: float = 0) -> None:
        """Get a queue, if that is not being done; ``detach`` ends it with its link."""
        self._hurry.set()
        if self._opening is None or self._opening.done():
            self._hurry.clear()
            self._tried = asyncio.Event()
            self._opening = self._spawn(self._open_all(link, pause))

    def _bind(self, topic: Topic) -> None:
        link = self._link
        assert link is not None, "it is where the queue is"

        queue = self._queue

        def answered(answer: asyncio.Future[bytes]) -> None:
            error = answer.exception()
            if self._queue != queue or self._is_missing(link, error):
                return  # that queue is no more
            if error is None or isinstance(error, Refusal | AuthError):
                topic.confirm(error)
                topic.put_off(None)
                if error is not None:
                    later = asyncio.get_running_loop().call_later
                    topic.put_off(later(AUTH_PAUSE, self._bind_again, link, topic))
            # Else the connection is away, and the next one begins with this.

        self._ask_to_bind(link, topic).add_done_callback(answered)

    def _ask_to_bind(self, link: AmqpLink, topic: Topic) -> asyncio.Future[bytes]:
        frame = methods.bind(SETUP, self._queue, self._exchange, topic.binding)
        return link.channel(SETUP).ask(frame)

    def _is_missing(self, link: AmqpLink, error: BaseException | None) -> bool:
        """Whether somebody has deleted the queue or the exchange; then it begins anew."""
        if not isinstance(error, Refusal) or error.code != NOT_FOUND:
            return False
        self._begin_anew(link, PAUSE)
        return True

    def _bind_again(self, link: AmqpLink, topic: Topic) -> None:
        if self._link is link and self._queue and topic.handlers:
            self._bind(topic)

    def _bind_all_later(self, link: AmqpLink, begin: int) -> None:
        if self._again is not None:
            self._again.cancel()
        if not self._exchange.startswith("amq."):  # those stay as long as the broker does
            loop = asyncio.get_running_loop()
            self._again = loop.call_later(AGAIN_SECONDS, self._bind_all_again, link, begin)

    def _bind_all_again(self, link: AmqpLink, begin: int) -> None:
        """Bind once more what is bound, some at a time.

        Somebody may have deleted the exchange, and others made it again: the broker tells that
        nobody who was bound to it. It makes nothing of a binding that is there.
        """
        if self._link is not link or not self._queue:
            return
        topics = self._all()
        for topic in topics[begin : begin + MOST_AGAIN]:
            if topic.working:
                asked = self._ask_to_bind(link, topic)
                asked.add_done_callback(lambda done: self._is_missing(link, done.exception()))
        begin += MOST_AGAIN
        self._bind_all_later(link, begin if begin < len(topics) else 0)

    async def _open_all(self, link: AmqpLink, pause: float) -> None:
        """The queue and its consumer, and a binding for each topic."""
        is_told = False
        while self._link is link:
            if pause:
                self._tried.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._hurry.wait()
            self._hurry.clear()
            try:
                self._queue = await self._open_queue(link)
            except AuthError as exc:
                for topic in self._all():
                    topic.confirm(exc)
                pause = AUTH_PAUSE
            except ConnectionLost:
                break  # the next link begins with this
            except Refusal as exc:
                level = logging.DEBUG if is_told else logging.WARNING
                is_told = True
                log.log(level, "%s: no queue for topics, trying again: %s", link.name, exc)
                pause = PAUSE
            else:
                for topic in self._all():
                    self._bind(topic)
                self._bind_all_later(link, 0)
                break
            if not (self._exact or self._patterns):
                break
        self._tried.set()

    async def _open_queue(self, link: AmqpLink) -> str:
        setup = link.channel(SETUP)
        channel = link.channel(TOPICS)
        channel.on_arrival = self._take
        channel.on_cancelled = lambda tag: self._cancelled(link, tag)
        channel.on_reset = lambda error: self._begin_anew(link)
        await self.declare_exchange(link)
        flags = methods.EXCLUSIVE | methods.AUTO_DELETE
        declared = await setup.ask(methods.declare_queue(SETUP, "", flags, self._arguments))
        queue = methods.read_declared(declared).queue
        self._tag = f"t{next(self._tags)}"
        try:
            await channel.ask(methods.consume(TOPICS, queue, self._tag, methods.NO_ACK))
        except (Refusal, AuthError):
            setup.ask(methods.delete_queue(SETUP, queue))  # only its consumer would have ended it
            raise
        if not self._tag:
            raise Refusal(f"the queue {queue!r} was deleted", NOT_FOUND)
        return queue

    def _cancelled(self, link: AmqpLink, tag: str) -> None:
        """The broker has ended a consumer: its queue was deleted."""
        if tag == self._tag:
            self._tag = ""
            self._begin_anew(link)  # if it was there; else `_open_queue` finds out

    async def declare_exchange(self, link: AmqpLink) -> None:
        """See to it that the exchange is there, if it is not the one that every broker has.

        Raises Refusal, AuthError, ConnectionLost.
        """
        if self._exchange == EVERYWHERE:
            return
        setup = link.channel(SETUP)
        try:
            await setup.ask(methods.declare_exchange(SETUP, self._exchange, "topic", PASSIVE))
        except Refusal as exc:
            if exc.code != NOT_FOUND:
                raise
            await setup.ask(methods.declare_exchange(SETUP, self._exchange, "topic", DURABLE))

    def exchange_is_gone(self, link: AmqpLink) -> None:
        """Somebody has deleted it."""
        if self._queue:
            self._begin_anew(link, PAUSE)
        elif self._opening is None or self._opening.done():
            self._spawn(self._make_exchange(link))

    async def _make_exchange(self, link: AmqpLink) -> None:
        with suppress(Refusal, AuthError, ConnectionLost):  # it is tried again when it is needed
            await self.declare_exchange(link)

    def _begin_anew(self, link: AmqpLink, pause: float = 0) -> None:
        """The queue that we had, or what it was bound to, is no more."""
        if self._link is link and self._queue:
            self._queue = ""
            for topic in self._all():
                topic.renew()
            # It may be there all the same; without its consumer it is deleted.
            link.channel(TOPICS).ask(methods.cancel(TOPICS, self._tag))
            self._open(link, pause)

    # What arrives.

    def _take(
        self,
        consumer: bytes,
        tag: int,
        again: bool,
        where: bytes,
        properties: bytes,
        payload: bytes,
    ) -> None:
        route = self._routes.get(where)
        if route is None:
            route = self._find_route(where)
        name, handlers = route
        beside = self._reader.read(properties)
        for handler in handlers:
            handler(Packet(payload, name, beside.header, beside.ttl))

    def _find_route(self, where: bytes) -> tuple[str, tuple[Handler, ...]]:
        name = methods.read_routing_key(where)
        topics = [topic for topic in self._anchors.find(split(name)) if topic.matches(name)]
        if name in self._exact:
            topics.append(self._exact[name])
        route = name, tuple(handler for topic in topics for handler in topic.handlers)
        if len(self._routes) >= MAX_ROUTES:
            self._routes.clear()
        self._routes[where] = route
        return route
