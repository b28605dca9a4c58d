"""A bare AMQP client, whichever: messages by msgspec, and nothing a driver has not.

Nothing is confirmed by the broker, acknowledged to it, or sent back by it when it has no receiver:
at most once, as ours.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Any, TypeVar

from bench.messages import (
    Sonar,
    Sum,
    Terms,
    bare,
    read_bare_sonar,
    read_bare_sum,
    read_bare_terms,
)
from bench.roles import CALL_TIMEOUT

P = TypeVar("P")

TOPICS = "amq.topic"  # the exchange
ANSWERS = "amq.rabbitmq.reply-to"  # as a queue, and as the address in a request

Take = Callable[[bytes, str | None, str | None], Any]
"""Takes a message: its payload, ``reply_to`` and ``correlation_id``."""


def told(kind: Callable[..., P], **more: object) -> P:
    """The properties that commlib-py gives a message, as whatever a driver has for them.

    But the time is in seconds, as the specification says; aio-pika fails otherwise.
    """
    return kind(
        content_type="application/json",
        content_encoding="utf8",
        timestamp=int(time.time()),
        **more,
    )


class BareAmqp(ABC):
    """One connection and one channel, on asyncio."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._subscriptions: list[tuple[Sequence[str], Take]] = []
        self._services: list[tuple[str, Take]] = []
        self._calls: dict[str, asyncio.Future[bytes]] = {}
        self._numbers = count()
        self._is_calling = False

    @abstractmethod
    async def _connect(self) -> None: ...

    @abstractmethod
    async def _declare(self, queue: str, topics: Sequence[str] = ()) -> str:
        """An exclusive queue, bound to these; its name, which is the broker's if ``queue`` is not
        given."""

    @abstractmethod
    async def _consume(self, queue: str, take: Take) -> None:
        """Have what is in the queue taken; what ``take`` returns is awaited if it can be."""

    @abstractmethod
    def _send(
        self, exchange: str, routing_key: str, payload: bytes, **properties: object
    ) -> Awaitable[object]:
        """Publish."""

    @abstractmethod
    async def flush(self) -> None:
        """Ask something on the channel: the answer comes after all that was published there."""

    async def start(self) -> None:
        await self._connect()
        for topics, take in self._subscriptions:
            await self._consume(await self._declare("", topics), take)
        for name, take in self._services:
            await self._consume(await self._declare(name), take)
        if self._is_calling:
            await self._consume(ANSWERS, self._take_reply)

    def message(self, blob: bytes | None) -> Any:
        return Sonar() if blob is None else blob

    def publisher(self, topic: str, *, blob: bool) -> Callable[[Any], Awaitable[object]]:
        send = self._send
        if blob:
            return lambda msg: send(TOPICS, topic, msg)
        return lambda msg: send(TOPICS, topic, bare(msg))

    async def subscribe(
        self, topics: Sequence[str], on_message: Callable[[Any], None], *, blob: bool
    ) -> None:
        def take(payload: bytes, *_: object) -> None:
            on_message(payload if blob else read_bare_sonar(payload))

        self._subscriptions.append((topics, take))

    def serve(self, name: str) -> None:
        def add(payload: bytes, reply_to: str | None, correlation_id: str | None) -> Any:
            terms = read_bare_terms(payload)
            assert reply_to, "it is called"
            reply = bare(Sum(terms.a + terms.b))
            return self._send("", reply_to, reply, correlation_id=correlation_id)

        self._services.append((name, add))

    def caller(self, name: str) -> Callable[[int, int], Awaitable[int]]:
        self._is_calling = True
        loop = asyncio.get_running_loop()

        async def call(a: int, b: int) -> int:
            number, reply = str(next(self._numbers)), loop.create_future()
            self._calls[number] = reply
            try:
                request = bare(Terms(a, b))
                await self._send("", name, request, reply_to=ANSWERS, correlation_id=number)
                async with asyncio.timeout(CALL_TIMEOUT):
                    return read_bare_sum(await reply).c
            finally:
                del self._calls[number]

        return call

    def _take_reply(
        self, payload: bytes, _reply_to: str | None, correlation_id: str | None
    ) -> None:
        reply = self._calls.get(correlation_id or "")
        if reply is not None:  # else it came too late
            reply.set_result(payload)
