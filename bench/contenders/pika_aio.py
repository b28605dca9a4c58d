"""pika by itself, by its AsyncioConnection, on uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from pika.spec import Basic, BasicProperties

from bench.contenders.bare_amqp import TOPICS, BareAmqp, Take, told
from bench.roles_aio import main


class _Done:
    """What was published, is written when the loop has its next turn."""

    def __await__(self) -> Any:
        return iter(())


class Pika(BareAmqp):
    """It calls back on the loop, at once, and publishes without waiting for anything."""

    async def _connect(self) -> None:
        connection: AsyncioConnection = await _answer(
            lambda done: AsyncioConnection(
                pika.URLParameters(self._url), done, lambda _, error: done(error)
            )
        )
        self._channel: Channel = await _answer(
            lambda done: connection.channel(on_open_callback=done)
        )

    async def _declare(self, queue: str, topics: Sequence[str] = ()) -> str:
        channel = self._channel
        declared = await _answer(
            lambda done: channel.queue_declare(
                queue, exclusive=True, auto_delete=True, callback=done
            )
        )
        name: str = declared.method.queue
        for topic in topics:
            await _answer(
                lambda done, topic=topic: channel.queue_bind(name, TOPICS, topic, callback=done)
            )
        return name

    async def _consume(self, queue: str, take: Take) -> None:
        def heard(_c: Channel, _m: Basic.Deliver, said: BasicProperties, body: bytes) -> None:
            take(body, said.reply_to, said.correlation_id)

        await _answer(
            lambda done: self._channel.basic_consume(queue, heard, auto_ack=True, callback=done)
        )

    def _send(
        self, exchange: str, routing_key: str, payload: bytes, **properties: object
    ) -> Awaitable[object]:
        said = told(BasicProperties, **properties)
        self._channel.basic_publish(exchange, routing_key, payload, said)
        return _DONE

    async def flush(self) -> None:
        await _answer(lambda done: self._channel.basic_qos(callback=done))


async def _answer(ask: Callable[[Callable[[Any], None]], object]) -> Any:
    """What the broker answers to this question."""
    answer = asyncio.get_running_loop().create_future()

    def done(said: object) -> None:
        if isinstance(said, BaseException):
            answer.set_exception(said)
        else:
            answer.set_result(said)

    ask(done)
    return await answer


_DONE = _Done()

if __name__ == "__main__":
    main(Pika)
