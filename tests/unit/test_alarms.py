"""What is to be done later, once."""

from __future__ import annotations

import asyncio

import pytest

from collected import DEADLINE
from commlib._portal import new_loop
from commlib.aio._alarms import Alarms


def test_what_is_to_be_done_at_once_is_done_once_on_any_loop() -> None:
    """uvloop gives another kind of handle for what is due than for what is to come."""

    async def ring_twice() -> int:
        loop = asyncio.get_running_loop()
        alarms, rings, rang = Alarms(loop), 0, asyncio.Event()

        def ring() -> None:
            nonlocal rings
            rings += 1
            rang.set()

        for _ in range(2):
            alarms.set("ring", loop.time(), ring)
        await rang.wait()
        await asyncio.sleep(0)  # for the one that must not ring
        return rings

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(ring_twice()) == 1


@pytest.mark.parametrize("dues", [(0.0, 60.0), (60.0, 0.0)])
async def test_it_is_done_when_it_was_to_be_done_first(dues: tuple[float, ...]) -> None:
    loop = asyncio.get_running_loop()
    alarms, rang = Alarms(loop), asyncio.Event()
    for due in dues:
        alarms.set("ring", loop.time() + due, rang.set)
    async with asyncio.timeout(DEADLINE):
        await rang.wait()


async def test_what_is_cancelled_is_not_done() -> None:
    loop = asyncio.get_running_loop()
    alarms, rang, done = Alarms(loop), [], asyncio.Event()
    for name in ("one", "two"):
        alarms.set(name, loop.time(), lambda: rang.append(1))
    alarms.cancel("one")
    alarms.cancel("one")
    alarms.clear()
    alarms.set("end", loop.time(), done.set)
    await done.wait()
    assert rang == []
