"""Programs of asyncio in which more than one node runs until a signal comes."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import uvloop

from collected import DEADLINE
from commlib import aio
from commlib.aio._endings import SIGNALS, ended_by_signals
from commlib.node import NodeState

KINDS = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)

LOOPS = pytest.mark.parametrize(
    "make_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


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


@LOOPS
def test_the_program_gets_back_the_handlers_that_it_has_given_its_loop(make_loop: Any) -> None:
    async def program() -> None:
        loop, heard = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, heard.set)
        first = await Running("a").begun()
        await first.node.stop()
        await first.ended()
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(DEADLINE):
            await heard.wait()

    with _kept(signal.SIGTERM), asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(program())


@LOOPS
@KINDS
def test_a_signal_ends_nodes_whatever_the_program_has_for_it(
    make_loop: Any, number: signal.Signals
) -> None:
    async def program() -> None:
        heard = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(number, heard.set)
        first = await Running("a").begun()
        os.kill(os.getpid(), number)
        assert await first.ended() is NodeState.STOPPED
        async with asyncio.timeout(DEADLINE):
            await heard.wait()  # what is the loop's hears it as well

    with _kept(number), asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(program())


@LOOPS
@KINDS
def test_the_program_gets_back_the_handlers_of_its_process(
    make_loop: Any, number: signal.Signals
) -> None:
    heard: list[int] = []

    async def program() -> None:
        await _nothing_changes_by(Running("a"), number)

    def note(number: int, frame: object) -> None:
        heard.append(number)

    with _handled(number, note), asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(program())
        assert heard == []
        signal.raise_signal(number)
    assert heard == [number]


async def _nothing_changes_by(running: Running, number: signal.Signals) -> None:
    """After a node has heard a signal and ended, it is handled as before."""
    before = signal.getsignal(number)
    await running.begun()
    os.kill(os.getpid(), number)
    assert await running.ended() is NodeState.STOPPED
    assert signal.getsignal(number) is before


async def test_ctrl_c_ends_the_program_in_good_order_after_a_node() -> None:
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler, "but asyncio.run's"
    await _nothing_changes_by(Running("a"), signal.SIGINT)


def test_nothing_of_a_program_is_left_that_has_ended_before_its_node() -> None:
    async def program() -> Running:
        return await Running("a").begun()

    running = asyncio.run(program())
    assert running.ending.cancelled()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_loop_that_is_closed_before_its_node_has_ended_keeps_no_signal() -> None:
    async def begin() -> None:
        lasting.__enter__()

    lasting = ended_by_signals(asyncio.Event())
    with _handled(signal.SIGTERM, lambda *_: heard.append(True)):
        heard: list[bool] = []
        loop = asyncio.new_event_loop()
        loop.run_until_complete(begin())
        loop.close()
        signal.raise_signal(signal.SIGTERM)
        assert heard == [True]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


async def test_a_handler_that_the_program_sets_meanwhile_stays() -> None:
    def mine(number: int, frame: object) -> None: ...

    with _handled(signal.SIGTERM, signal.SIG_DFL):
        with ended_by_signals(asyncio.Event()):
            signal.signal(signal.SIGTERM, mine)
        assert signal.getsignal(signal.SIGTERM) is mine


@contextmanager
def _handled(number: signal.Signals, handler: Any) -> Iterator[None]:
    """While it lasts, the program handles a signal in this way."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def _kept(number: signal.Signals) -> AbstractContextManager[None]:
    """As before is a signal handled after it: a loop of uvloop leaves its handlers behind."""
    return _handled(number, signal.getsignal(number))


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
