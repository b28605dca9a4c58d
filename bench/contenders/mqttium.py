"""mqttium by itself, on asyncio: its way to connect is not among those of uvloop."""

from __future__ import annotations

from collections.abc import Sequence

from mqttium.api import AsyncClient, Message

from bench.contenders.bare_mqtt import BareMqtt
from bench.roles_aio import main


class Mqttium(BareMqtt):
    """It calls back on the loop, at once."""

    async def _connect(self, host: str, port: int) -> None:
        self._client = AsyncClient(message_delivery="callback")
        self._client.on_message = self._heard
        await self._client.connect(host, port)

    def _heard(self, message: Message) -> None:
        self._take(message.topic, message.payload)

    async def _subscribe(self, filters: Sequence[str]) -> None:
        await self._client.subscribe(filters)

    async def _publish(self, topic: str, payload: bytes) -> None:
        await self._client.publish(topic, payload)

    def _post(self, topic: str, payload: bytes) -> None:
        self._client.publish_nowait(topic, payload)


if __name__ == "__main__":
    main(Mqttium)
