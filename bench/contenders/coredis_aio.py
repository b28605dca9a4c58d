"""coredis by itself, on asyncio and uvloop: a command per message, messages by msgspec."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from os import urandom
from typing import Any

import coredis

from bench.messages import Sonar, Sum, Terms, packed, read_sonar, read_sum, read_terms
from bench.roles import CALL_TIMEOUT
from bench.roles_aio import main


class Coredis:
    """One client, and a task for each that listens."""

    def __init__(self, url: str) -> None:
        self._redis = coredis.Redis.from_url(url)
        self._tasks: list[asyncio.Task[None]] = []
        self._services: list[str] = []
        self._is_open = False

    async def start(self) -> None:
        await self._open()
        for name in self._services:
            self._tasks.append(asyncio.create_task(self._work(name)))

    async def _open(self) -> None:
        if not self._is_open:
            self._is_open = True
            await self._redis.__aenter__()

    def message(self, blob: bytes | None) -> Any:
        return Sonar() if blob is None else blob

    def publisher(self, topic: str, *, blob: bool) -> Callable[[Any], Awaitable[object]]:
        publish = self._redis.publish
        if blob:
            return lambda msg: publish(topic, msg)
        return lambda msg: publish(topic, packed(msg))

    async def flush(self) -> None:
        """Nothing to do: each command waits for its answer."""

    async def subscribe(
        self, topics: Sequence[str], on_message: Callable[[Any], None], *, blob: bool
    ) -> None:
        await self._open()
        subscribed = asyncio.Event()

        async def listen() -> None:
            async with self._redis.pubsub(
                channels=topics, ignore_subscribe_messages=True
            ) as pubsub:
                subscribed.set()
                async for item in pubsub:
                    on_message(item["data"] if blob else read_sonar(item["data"]).data)

        self._tasks.append(asyncio.create_task(listen()))
        await subscribed.wait()

    def serve(self, name: str) -> None:
        self._services.append(name)

    async def _work(self, name: str) -> None:
        while True:
            _, payload = await self._redis.blpop([name], timeout=0)
            request = read_terms(payload)
            data = Sum(request.data.a + request.data.b)
            await self._redis.rpush(request.header.reply_to, [packed(data)])

    def caller(self, name: str) -> Callable[[int, int], Awaitable[int]]:
        lists, prefix = count(), f"rpc-{urandom(4).hex()}"

        async def call(a: int, b: int) -> int:
            reply_to = f"{prefix}-{next(lists)}"
            await self._redis.rpush(name, [packed(Terms(a, b), reply_to)])
            reply = await self._redis.blpop([reply_to], timeout=CALL_TIMEOUT)
            if reply is None:
                raise TimeoutError(f"no reply within {CALL_TIMEOUT} s")
            return read_sum(reply[1]).data.c

        return call


if __name__ == "__main__":
    main(Coredis)
