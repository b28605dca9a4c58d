"""aio-pika by itself, on asyncio and uvloop; aiormq is beneath it."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from bench.contenders.bare_amqp import TOPICS, BareAmqp, Take, told
from bench.roles_aio import main


class AioPika(BareAmqp):
    """It starts a task for each message."""

    async def _connect(self) -> None:
        connection = await aio_pika.connect(self._url)
        self._channel = await connection.channel(publisher_confirms=False)
        self._exchanges = {
            "": self._channel.default_exchange,
            TOPICS: await self._channel.get_exchange(TOPICS, ensure=False),
        }

    async def _declare(self, queue: str, topics: Sequence[str] = ()) -> str:
        declared = await self._channel.declare_queue(queue, exclusive=True, auto_delete=True)
        for topic in topics:
            await declared.bind(TOPICS, topic)
        return declared.name

    async def _consume(self, queue: str, take: Take) -> None:
        async def heard(message: AbstractIncomingMessage) -> None:
            sent = take(message.body, message.reply_to, message.correlation_id)
            if sent is not None:
                await sent

        await (await self._channel.get_queue(queue, ensure=False)).consume(heard, no_ack=True)

    def _send(
        self, exchange: str, routing_key: str, payload: bytes, **properties: object
    ) -> Awaitable[object]:
        def make(**said: object) -> aio_pika.Message:
            return aio_pika.Message(payload, **said)  # type: ignore[arg-type]

        message = told(make, **properties)
        return self._exchanges[exchange].publish(message, routing_key, mandatory=False)

    async def flush(self) -> None:
        await self._channel.set_qos()


if __name__ == "__main__":
    main(AioPika)
