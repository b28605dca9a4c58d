"""The paths on one loop of asyncio, each as a lap; as `plain`, which tells more of each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from bench.contenders.ours import AddTwoInts, Sonar
from bench.instructions import child, turns
from bench.instructions.paths import Path, Role
from bench.instructions.plain import PATIENCE
from commlib.aio import Node

Lap = Callable[[], Awaitable[None]]


class Stage:
    """A node, and what all roles need."""

    def __init__(self, path: Path, url: str, topic: str) -> None:
        self.path = path
        self.topic = topic
        self.node = Node("counted", url)
        self.is_alone = url.startswith("memory:")
        self.bursts = range(path.count // path.burst)
        self.burst = range(path.burst)

    async def run(self) -> None:
        await self.node.run()
        if not self.node.connected:
            raise ConnectionError("the broker does not answer")


def play(path: Path, url: str, topic: str) -> None:
    """Play a path in laps."""
    asyncio.run(_play(path, url, topic))


async def _play(path: Path, url: str, topic: str) -> None:
    lap = await ROLES[path.role](Stage(path, url, topic))
    for _ in range(child.UNCOUNTED):
        await lap()
    child.before_laps()
    for _ in range(child.LAPS):
        child.mark()
        await lap()
        child.mark()
    child.end()


async def publish(stage: Stage) -> Lap:
    publish, msg = stage.node.create_publisher(stage.topic, Sonar).publish, Sonar()
    flush = stage.node.hub.transport.flush
    await stage.run()

    async def lap() -> None:
        for _ in stage.bursts:
            for number in stage.burst:
                msg.distance = float(number)
                await publish(msg)
            await flush()

    return lap


async def receive(stage: Stage) -> Lap:
    arrived, count = asyncio.Event(), 0

    async def note(msg: Sonar) -> None:
        nonlocal count
        count += 1
        if count == stage.path.burst:
            count = 0
            arrived.set()

    stage.node.create_subscriber(stage.topic, note, Sonar)
    publish, msg = stage.node.create_publisher(stage.topic, Sonar).publish, Sonar()
    await stage.run()

    async def lap() -> None:
        for _ in stage.bursts:
            arrived.clear()
            if stage.is_alone:
                for _ in stage.burst:
                    await publish(msg)
            else:
                turns.ask()
            await arrived.wait()

    return lap


async def _add(request: AddTwoInts.Request) -> AddTwoInts.Response:
    return AddTwoInts.Response(c=request.a + request.b)


async def call(stage: Stage) -> Lap:
    if stage.is_alone:
        stage.node.create_rpc(stage.topic, _add, AddTwoInts)
    call = stage.node.create_rpc_client(stage.topic, AddTwoInts).call
    await stage.run()

    async def lap() -> None:
        for number in range(stage.path.count):
            await call(AddTwoInts.Request(number, 1), PATIENCE)

    return lap


async def serve(stage: Stage) -> Lap:
    stage.node.create_rpc(stage.topic, _add, AddTwoInts)
    await stage.run()
    return _turn


async def _turn() -> None:
    """All that is done is done for the peer, while the loop runs on."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(0, over.set)
    turns.ask()
    await over.wait()
    loop.remove_reader(0)
    turns.wait()


ROLES: dict[Role, Callable[[Stage], Awaitable[Lap]]] = {
    "publish": publish,
    "receive": receive,
    "call": call,
    "serve": serve,
}
