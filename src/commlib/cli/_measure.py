"""What `commlib bench` measures: one process that is both ends, on topics of its own."""

from __future__ import annotations

import asyncio
from itertools import count
from os import urandom
from time import perf_counter
from typing import Any

from msgspec import Struct

from commlib.aio import Node
from commlib.aio.pubsub import Publisher, Subscriber
from commlib.aio.rpc import RPCClient
from commlib.cli._common import TURN, confirmed
from commlib.cli._figures import spread
from commlib.exceptions import CommlibError

WINDOW = 2000  # messages on their way at once, so that no broker has a reason to drop any
ARRIVE_SECONDS = 5.0  # that what is on its way may take in the end
CALL_SECONDS = 5.0
CALLERS = 64


class Sample(Struct):
    """What is published, and sent with a call."""

    text: str


class Line(Struct):
    """A figure, as it is shown and as programs read it."""

    key: str
    what: str
    value: float
    unit: str


class Bench:
    """The measurements, one after another; each takes so many seconds."""

    def __init__(self, node: Node, size: int) -> None:
        self.node = node
        self.name = f"commlib.bench.{urandom(6).hex()}"
        self.sample = Sample("x" * size)
        self.wrong = 0
        """Calls and messages that came to nothing."""

    async def publish(self, seconds: float) -> list[Line]:
        """How fast messages are handed to a broker that nobody listens to."""
        publisher = Publisher(f"{self.name}.unheard", Sample, hub=self.node.hub)
        begin, end = perf_counter(), perf_counter() + seconds
        sent = 0
        while perf_counter() < end:
            for _ in range(TURN):
                await publisher.publish(self.sample)
            sent += TURN
            await asyncio.sleep(0)
        await confirmed(self.node)
        rate = sent / (perf_counter() - begin)
        await publisher.stop()
        return [Line("publish_rate", "publish", rate, "messages/s")]

    async def receive(self, seconds: float) -> list[Line]:
        """How fast messages go to the broker and come back, at most ``WINDOW`` on their way."""
        came, news = 0, asyncio.Event()

        async def note(sample: Sample) -> None:
            nonlocal came
            came += 1
            news.set()

        publisher = Publisher(f"{self.name}.heard", Sample, hub=self.node.hub)
        subscriber = Subscriber(f"{self.name}.heard", note, Sample, hub=self.node.hub)
        await subscriber.run()
        begin, end = perf_counter(), perf_counter() + seconds
        sent = 0
        while (now := perf_counter()) < end:
            if sent - came < WINDOW:
                for _ in range(TURN):
                    await publisher.publish(self.sample)
                sent += TURN
                await asyncio.sleep(0)
            elif not await _news(news, end - now):
                break
        while came < sent and await _news(news, ARRIVE_SECONDS):
            pass
        rate = came / (perf_counter() - begin)
        self.wrong += sent - came
        await publisher.stop()
        await subscriber.stop()
        return [Line("receive_rate", "publish and receive", rate, "messages/s")]

    async def call(self, seconds: float) -> list[Line]:
        """How long a call takes while there is one at a time, and how many there are of 64."""
        service = self.node.create_rpc(f"{self.name}.echo", _echo)
        await service.run()
        client = self.node.create_rpc_client(f"{self.name}.echo")
        await client.run()
        try:
            await client.call(self._request(), CALL_SECONDS)  # the first one makes the connection
            alone, _ = await self._calls(client, 1, seconds / 2)
            times, took = await self._calls(client, CALLERS, seconds / 2)
        finally:
            await client.stop()
            await service.stop()
        lies = spread(alone) or {"p50": 0.0, "p99": 0.0}
        return [
            Line("call_p50", "call, median", lies["p50"] * 1000, "ms"),
            Line("call_p99", "call, 99 % within", lies["p99"] * 1000, "ms"),
            Line("calls", "calls one by one", len(alone) / sum(alone) if alone else 0, "calls/s"),
            Line("calls_64", f"calls, {CALLERS} at a time", len(times) / took, "calls/s"),
        ]

    def _request(self) -> dict[str, str]:
        return {"text": self.sample.text}

    async def _calls(
        self, client: RPCClient[Any, Any], callers: int, seconds: float
    ) -> tuple[list[float], float]:
        """The seconds that each call took, and all of them together."""
        request, times = self._request(), list[float]()
        begin = perf_counter()
        end = begin + seconds

        async def call_again() -> None:
            for _ in count():
                sent = perf_counter()
                if sent > end:
                    return
                try:
                    await client.call(request, CALL_SECONDS)
                    times.append(perf_counter() - sent)
                except CommlibError:
                    self.wrong += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(call_again())
        return times, perf_counter() - begin


async def _echo(request: dict[str, Any]) -> dict[str, Any]:
    return request


async def _news(event: asyncio.Event, seconds: float) -> bool:
    """Whether something has come within these seconds."""
    event.clear()
    try:
        async with asyncio.timeout(max(0.001, seconds)):
            await event.wait()
    except TimeoutError:
        return False
    return True
