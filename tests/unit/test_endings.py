"""Programs of asyncio in which more than one node runs until a signal comes."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from collected import DEADLINE
from commlib import aio
from commlib.aio._endings import SIGNALS, ended_by_signals
from commlib.node import NodeState

KINDS = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)


class Running:
    """A node that runs for ever."""

    def __init__(self, name: str) -> None:
        self._connected = asyncio.Event()
        self.node = aio.Node(name, "memory://endings", on_state=self._note)
        self.ending = asyncio.create_task(self.node.run_forever())

    def _note(self, connected: bool, reason: Exception | None) -> None:
        if connected:
            self._connected.set()

    async def begun(self) -> Running:
        async with asyncio.timeout(DEADLINE):
            await self._connected.wait()
        return self

    async def ended(self) -> NodeState:
        async with asyncio.timeout(DEADLINE):
            await self.ending
        return self.node.state


@KINDS
async def test_a_signal_ends_all_nodes_that_run_for_ever(number: signal.Signals) -> None:
    nodes = [await Running(name).begun() for name in "abc"]
    os.kill(os.getpid(), number)
    assert [await node.ended() for node in nodes] == [NodeState.STOPPED] * 3


async def test_one_that_has_ended_before_leaves_the_signals_to_the_others() -> None:
    first, second = [await Running(name).begun() for name in "ab"]
    await first.node.stop()
    assert await first.ended() is NodeState.STOPPED
    assert not second.ending.done()
    os.kill(os.getpid(), signal.SIGTERM)
    assert await second.ended() is NodeState.STOPPED


async def test_after_the_last_one_signals_do_what_they_always_do() -> None:
    ending = asyncio.Event()
    with ended_by_signals(ending), ended_by_signals(asyncio.Event()):
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert not ending.is_set()


def test_in_another_thread_nobody_hears_them() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    found: list[bool] = []

    async def look() -> None:
        with ended_by_signals(asyncio.Event()):
            found.append([signal.getsignal(number) for number in SIGNALS] == before)

    thread = threading.Thread(target=lambda: asyncio.run(look()))
    thread.start()
    thread.join(DEADLINE)
    assert found == [True]
