"""Programs of asyncio in which more than one node runs until a signal comes."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvloop

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


@pytest.mark.parametrize(
    "make_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
@KINDS
def test_the_program_gets_back_its_own_handlers(make_loop: Any, number: signal.Signals) -> None:
    heard: list[int] = []

    def note(number: int, frame: object) -> None:
        heard.append(number)

    with handled(number, note), asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(nothing_changes_by(number))
        assert heard == []
        signal.raise_signal(number)
    assert heard == [number]


async def nothing_changes_by(number: signal.Signals) -> None:
    """After a node has heard a signal and ended, it is handled as before."""
    before = signal.getsignal(number)
    node = await Running("a").begun()
    os.kill(os.getpid(), number)
    assert await node.ended() is NodeState.STOPPED
    assert signal.getsignal(number) is before


async def test_ctrl_c_ends_the_program_in_good_order_after_a_node() -> None:
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler, "but asyncio.run's"
    await nothing_changes_by(signal.SIGINT)


async def test_what_its_loop_had_is_left_as_a_signal_that_nobody_handles() -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, print)
    with ended_by_signals(asyncio.Event()):
        pass
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@contextmanager
def handled(number: signal.Signals, handler: Any) -> Iterator[None]:
    """While it lasts, the program handles a signal in this way."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


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
