"""redis-py by itself, on asyncio and uvloop: commands pipelined by hand, messages by msgspec.

A hundred messages wait for each other here, which no program with one message to send can have; so
this says what the client can do, not what a library on it would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import redis.asyncio

from bench.messages import Sonar, packed, read_sonar
from bench.roles_aio import main

BATCH = 100  # messages


class RedisPy:
    """One client, and a task for what is received; it does not call."""

    def __init__(self, url: str) -> None:
        self._redis = redis.asyncio.Redis.from_url(url)
        self._pipeline = self._redis.pipeline(transaction=False)
        self._listening: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Nothing to do: everything works as soon as it is made."""

    def message(self, blob: bytes | None) -> Any:
        return Sonar() if blob is None else blob

    def publisher(self, topic: str, *, blob: bool) -> Callable[[Any], Awaitable[object]]:
        async def publish(msg: Any) -> None:
            self._pipeline.publish(topic, msg if blob else packed(msg))
            if len(self._pipeline) >= BATCH:
                await self._pipeline.execute()

        return publish

    async def flush(self) -> None:
        await self._pipeline.execute()

    async def subscribe(
        self, topics: Sequence[str], on_message: Callable[[Any], None], *, blob: bool
    ) -> None:
        pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
        await pubsub.subscribe(*topics)

        async def listen() -> None:
            async for item in pubsub.listen():
                on_message(item["data"] if blob else read_sonar(item["data"]).data)

        self._listening.append(asyncio.create_task(listen()))


if __name__ == "__main__":
    main(RedisPy)
