"""This library, by its asyncio face, as it comes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from bench.contenders.ours import AddTwoInts, Sonar
from bench.roles import CALL_TIMEOUT
from bench.roles_aio import main
from commlib.aio import Node
from commlib.serializer import BytesSerializer


async def add(request: AddTwoInts.Request) -> AddTwoInts.Response:
    """The service: a coroutine function, so it runs on the loop."""
    return AddTwoInts.Response(c=request.a + request.b)


class Ours:
    """All endpoints are those of one node."""

    def __init__(self, url: str) -> None:
        self._node = Node("bench", url)

    async def start(self) -> None:
        await self._node.run()
        if not self._node.connected:
            raise ConnectionError("the broker does not answer")

    def message(self, blob: bytes | None) -> Any:
        return Sonar() if blob is None else blob

    def publisher(self, topic: str, *, blob: bool) -> Callable[[Any], Awaitable[object]]:
        if blob:
            return self._node.create_publisher(topic, bytes, serializer=BytesSerializer).publish
        return self._node.create_publisher(topic, Sonar).publish

    async def flush(self) -> None:
        await self._node.hub.transport.flush()

    async def subscribe(
        self, topics: Sequence[str], on_message: Callable[[Any], None], *, blob: bool
    ) -> None:
        for topic in topics:
            self._node.create_subscriber(topic, on_message, bytes if blob else Sonar)

    def serve(self, name: str) -> None:
        self._node.create_rpc(name, add, AddTwoInts)

    def caller(self, name: str) -> Callable[[int, int], Awaitable[int]]:
        client = self._node.create_rpc_client(name, AddTwoInts)

        async def call(a: int, b: int) -> int:
            response: AddTwoInts.Response = await client.call(
                AddTwoInts.Request(a, b), CALL_TIMEOUT
            )
            return response.c

        return call


if __name__ == "__main__":
    main(Ours)
