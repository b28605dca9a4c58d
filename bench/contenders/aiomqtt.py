"""aiomqtt by itself, on asyncio and uvloop; paho-mqtt is beneath it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import aiomqtt

from bench.contenders.bare_mqtt import BareMqtt
from bench.roles_aio import main


class Aiomqtt(BareMqtt):
    """A task iterates over what is received."""

    async def _connect(self, host: str, port: int) -> None:
        self._client = aiomqtt.Client(host, port)
        self._tasks: set[asyncio.Task[object]] = set()
        await self._client.__aenter__()
        self._keep(asyncio.create_task(self._listen()))

    async def _listen(self) -> None:
        async for message in self._client.messages:
            self._take(message.topic.value, message.payload)

    async def _subscribe(self, filters: Sequence[str]) -> None:
        await self._client.subscribe([(topic, 0) for topic in filters])

    async def _publish(self, topic: str, payload: bytes) -> None:
        await self._client.publish(topic, payload)

    def _post(self, topic: str, payload: bytes) -> None:
        self._keep(asyncio.create_task(self._publish(topic, payload)))

    def _keep(self, task: asyncio.Task[object]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


if __name__ == "__main__":
    main(Aiomqtt)
