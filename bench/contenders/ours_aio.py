"""This library, by its asyncio face, as it comes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from bench.contenders.ours import AddTwoInts, Sonar, Sum
from bench.roles import CALL_TIMEOUT
from bench.roles_aio import main, take_steps
from commlib.aio import Node
from commlib.serializer import BytesSerializer


async def add(request: AddTwoInts.Request) -> AddTwoInts.Response:
    """The service: a coroutine function, so it runs on the loop."""
    return AddTwoInts.Response(c=request.a + request.b)


class Ours:
    """All endpoints are those of one node."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._is_running = False
        self._node = Node("bench", url)

    async def start(self) -> None:
        await self._node.run()
        self._is_running = True
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
        kind = bytes if blob else Sonar
        made = [self._node.create_subscriber(topic, on_message, kind) for topic in topics]
        if self._is_running:
            for subscriber in made:  # they have begun; this waits for the broker's word
                await subscriber.run()

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

    def work(self, name: str) -> None:
        async def reach(goal: Any) -> Sum.Result:
            return Sum.Result(goal.data.a + goal.data.b)

        self._node.create_action(name, Sum, reach)

    def sender(self, name: str) -> Callable[[int, int], Awaitable[int]]:
        client = self._node.create_action_client(name, Sum)

        async def send(a: int, b: int) -> int:
            goal = await client.send_goal(Sum.Goal(a, b), CALL_TIMEOUT)
            return (await goal.result(CALL_TIMEOUT)).c

        return send

    def work_slowly(self, name: str) -> None:
        async def reach(goal: Any) -> Sum.Result:
            await take_steps(lambda step: goal.send_feedback(Sum.Feedback(step)))
            return Sum.Result(goal.data.a + goal.data.b)

        self._node.create_action(name, Sum, reach)

    def slow_sender(self, name: str) -> Callable[[int, int], Awaitable[tuple[int, int]]]:
        client = self._node.create_action_client(name, Sum)

        async def send(a: int, b: int) -> tuple[int, int]:
            goal = await client.send_goal(Sum.Goal(a, b), CALL_TIMEOUT)
            result = await goal.result(CALL_TIMEOUT)
            return result.c, len([step async for step in goal.feedback])

        return send

    async def bridge(self, topic: str, to: str) -> None:
        from commlib.aio.bridges import TopicBridge  # the others are measured without it

        self._bridge = TopicBridge(None, topic, to, self._url, self._url)
        await self._bridge.run()


if __name__ == "__main__":
    main(Ours)
