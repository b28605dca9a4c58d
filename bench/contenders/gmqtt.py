"""gmqtt by itself, on asyncio and uvloop."""

from __future__ import annotations

from collections.abc import Sequence
from os import urandom

import gmqtt

from bench.contenders.bare_mqtt import BareMqtt
from bench.roles_aio import main


class Gmqtt(BareMqtt):
    """It speaks MQTT 5 and publishes without waiting for anything."""

    async def _connect(self, host: str, port: int) -> None:
        self._client = gmqtt.Client(f"bench{urandom(8).hex()}")
        self._client.on_message = self._heard
        await self._client.connect(host, port)

    def _heard(
        self, client: gmqtt.Client, topic: str, payload: bytes, qos: int, properties: object
    ) -> None:
        self._take(topic, payload)

    async def _subscribe(self, filters: Sequence[str]) -> None:
        self._client.subscribe([gmqtt.Subscription(topic) for topic in filters])

    async def _publish(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload)

    def _post(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload)


if __name__ == "__main__":
    main(Gmqtt)
