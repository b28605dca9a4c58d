"""A bare MQTT client on asyncio, whichever: messages by msgspec, and nothing a driver has not."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from os import urandom
from typing import Any

from bench.child import address_of
from bench.messages import Sonar, Sum, Terms, packed, read_sonar, read_sum, read_terms
from bench.roles import CALL_TIMEOUT, FLUSH_TIMEOUT


class BareMqtt(ABC):
    """One client; what is received is handed to ``_take``."""

    def __init__(self, url: str) -> None:
        self._address = address_of(url)
        self._takers: dict[str, Callable[[bytes], object]] = {}
        self._filters: list[str] = []
        self._is_running = False
        self._echo = f"bench_echo_{urandom(4).hex()}"
        self._arrived = asyncio.Event()

    @abstractmethod
    async def _connect(self, host: str, port: int) -> None: ...

    @abstractmethod
    async def _subscribe(self, filters: Sequence[str]) -> None: ...

    @abstractmethod
    async def _publish(self, topic: str, payload: bytes) -> object: ...

    @abstractmethod
    def _post(self, topic: str, payload: bytes) -> None:
        """Publish from a plain function, on the loop."""

    def _take(self, topic: str, payload: bytes) -> None:
        take = self._takers.get(topic)
        if take is not None:  # else it is a reply that came too late
            take(payload)

    async def start(self) -> None:
        await self._connect(*self._address)
        if self._filters:
            await self._subscribe(self._filters)
        self._is_running = True

    def message(self, blob: bytes | None) -> Any:
        return Sonar() if blob is None else blob

    def publisher(self, topic: str, *, blob: bool) -> Callable[[Any], Awaitable[object]]:
        send = self._publish
        if blob:
            return lambda msg: send(topic, msg)
        return lambda msg: send(topic, packed(msg))

    async def flush(self) -> None:
        """What comes back to this client has all that was published before on its way."""
        if self._echo not in self._takers:
            self._takers[self._echo] = lambda payload: self._arrived.set()
            await self._subscribe([self._echo])
        self._arrived.clear()
        await self._publish(self._echo, b"")
        await asyncio.wait_for(self._arrived.wait(), FLUSH_TIMEOUT)

    async def subscribe(
        self, topics: Sequence[str], on_message: Callable[[Any], None], *, blob: bool
    ) -> None:
        take = on_message if blob else lambda payload: on_message(read_sonar(payload).data)
        self._takers.update(dict.fromkeys(topics, take))
        if self._is_running:
            await self._subscribe(topics)
        else:
            self._filters += topics

    def serve(self, name: str) -> None:
        def add(payload: bytes) -> None:
            request = read_terms(payload)
            data = Sum(request.data.a + request.data.b)
            self._post(request.header.reply_to, packed(data))

        self._takers[name] = add
        self._filters.append(name)

    def caller(self, name: str) -> Callable[[int, int], Awaitable[int]]:
        numbers, prefix = count(), f"rpc-{urandom(4).hex()}"
        self._filters.append(f"{prefix}/+")
        loop = asyncio.get_running_loop()

        async def call(a: int, b: int) -> int:
            reply_to, reply = f"{prefix}/{next(numbers)}", loop.create_future()
            self._takers[reply_to] = reply.set_result
            try:
                await self._publish(name, packed(Terms(a, b), reply_to))
                async with asyncio.timeout(CALL_TIMEOUT):
                    return read_sum(await reply).data.c
            finally:
                del self._takers[reply_to]

        return call
