"""While there are many calls the thread of the loop interrupts no other, and is as usual else."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, cast

import pytest

import strictly
from collected import DEADLINE, eventually
from commlib import _courtesy, _portal, aio
from commlib._courtesy import JUDGED, REST_SECONDS, STARVED, STORM, Courtesy
from commlib._workers import Workers
from commlib.node import Node


def policy(thread: int = 0) -> int:
    """How a thread is scheduled."""
    return os.sched_getscheduler(thread)


def on_a_thread(work: Callable[[], Any]) -> Any:
    """Do it on a thread of its own, which nobody has marked, and has no other use."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result(DEADLINE)


def can_be_marked() -> bool:
    return on_a_thread(_courtesy._mark_batch) is not None


linux = pytest.mark.skipif(not can_be_marked(), reason="threads cannot be marked here")


@pytest.fixture
def url() -> str:
    return f"memory://{os.urandom(4).hex()}"


@pytest.fixture
def unhindered(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no other program wanted a processor."""
    monkeypatch.setattr(_courtesy, "_times", lambda: (1, 0))


class Clock:
    """A loop whose time the test lets pass."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.due: list[Callable[[], object]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], object]) -> None:
        self.due.append(callback)


class Loop:
    """A courtesy, and the calls that it is told of."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.courtesy = Courtesy(cast("asyncio.AbstractEventLoop", self.clock))

    def calls(self, per_second: float, count: int = 2 * JUDGED) -> None:
        for _ in range(count):
            self.clock.now += 1 / per_second
            self.courtesy.note()

    def look(self) -> None:
        (callback,) = self.clock.due
        self.clock.due.clear()
        callback()


@linux
@pytest.mark.usefixtures("unhindered")
def test_with_many_calls_it_interrupts_nobody_until_they_end() -> None:
    def work() -> None:
        loop = Loop()
        loop.calls(2 * STORM)
        assert policy() == os.SCHED_BATCH
        for _ in range(3):
            loop.calls(STORM, count=100)
            loop.look()
            assert policy() == os.SCHED_BATCH
        loop.look()
        assert policy() == os.SCHED_OTHER
        assert loop.clock.due == []
        loop.calls(2 * STORM)
        assert policy() == os.SCHED_BATCH

    on_a_thread(work)


@linux
def test_with_few_calls_it_is_as_usual() -> None:
    def work() -> None:
        loop = Loop()
        loop.calls(STORM / 2, count=10 * JUDGED)
        assert policy() == os.SCHED_OTHER
        assert loop.clock.due == []

    on_a_thread(work)


@linux
@pytest.mark.parametrize(
    ("then", "marked"),
    [((8, 9 + STARVED), True), ((8, 10 + STARVED), False), (None, False)],
    ids=["busy", "starved", "cannot tell"],
)
def test_where_it_is_kept_waiting_for_long_it_is_as_usual_for_a_while(
    monkeypatch: pytest.MonkeyPatch, then: tuple[int, int] | None, marked: bool
) -> None:
    times: list[tuple[int, int] | None] = [(7, 9), then, (20, 20)]
    monkeypatch.setattr(_courtesy, "_times", lambda: times.pop(0))

    def work() -> None:
        loop = Loop()
        loop.calls(2 * STORM)
        assert policy() == os.SCHED_BATCH
        loop.calls(2 * STORM, count=1000)
        loop.look()
        assert (policy() == os.SCHED_BATCH) == marked
        if marked:
            return
        loop.calls(2 * STORM)
        assert policy() == os.SCHED_OTHER
        loop.clock.now += REST_SECONDS
        loop.calls(2 * STORM)
        assert policy() == os.SCHED_BATCH

    on_a_thread(work)


@linux
@pytest.mark.usefixtures("unhindered")
def test_who_has_asked_for_another_schedule_keeps_it() -> None:
    def before() -> None:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        Loop().calls(2 * STORM)
        assert policy() == os.SCHED_IDLE

    def meanwhile() -> None:
        loop = Loop()
        loop.calls(2 * STORM)
        assert policy() == os.SCHED_BATCH
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        loop.look()
        assert policy() == os.SCHED_IDLE

    on_a_thread(before)
    on_a_thread(meanwhile)


def raise_permission_error(*args: object) -> None:
    raise PermissionError


@linux
@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        pytest.param(os, "getpriority", lambda *args: -1, id="it is to come before others"),
        pytest.param(os, "sched_getscheduler", raise_permission_error, id="a sandbox"),
        pytest.param(os, "sched_setscheduler", raise_permission_error, id="a stricter one"),
        pytest.param(_courtesy, "_TIMES", "/proc/no/such/file", id="a kernel without counters"),
        pytest.param(_courtesy, "_TIMES", "/proc/self/cmdline", id="a kernel with others"),
        pytest.param(sys, "platform", "darwin", id="another system"),
    ],
)
def test_where_that_cannot_be_it_is_as_usual(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, value: object
) -> None:
    def work() -> None:
        loop = Loop()
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value)
            loop.calls(2 * STORM)
        assert policy() == os.SCHED_OTHER
        assert loop.clock.due == []
        loop.calls(2 * STORM)
        assert policy() == os.SCHED_OTHER, "it was tried again at once"

    on_a_thread(work)


@linux
@pytest.mark.usefixtures("unhindered")
def test_one_that_was_forbidden_since_says_that_it_stays_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def work() -> None:
        loop = Loop()
        loop.calls(2 * STORM)
        with monkeypatch.context() as patch:
            patch.setattr(os, "sched_setscheduler", raise_permission_error)
            loop.look()
            loop.courtesy.end_here()

    monkeypatch.setattr(_courtesy, "_told", [])
    on_a_thread(work)
    assert caplog.text.count("stays marked SCHED_BATCH") == 1


class Asked:
    """Work that looks how it is scheduled."""

    name = "asked"

    def __init__(self) -> None:
        self.policies: SimpleQueue[int] = SimpleQueue()

    def work(self) -> None:
        self.policies.put(policy())


@linux
@pytest.mark.usefixtures("unhindered")
@pytest.mark.parametrize("alone", [False, True])
def test_workers_that_it_starts_are_as_usual(alone: bool) -> None:
    asked = Asked()

    def work() -> list[threading.Thread]:
        loop = Loop()
        workers = Workers("test")
        workers.courtesy = loop.courtesy
        loop.calls(2 * STORM)
        assert policy() == os.SCHED_BATCH
        if alone:
            workers.serve_alone(asked)
        else:
            workers.serve(asked)
        assert asked.policies.get(timeout=DEADLINE) == os.SCHED_OTHER
        return workers.close()

    for thread in on_a_thread(work):
        thread.join(DEADLINE)


@linux
def test_a_fork_of_it_is_as_usual(url: str) -> None:
    program = f"""
import os, threading
from commlib import _courtesy, _portal
from commlib.node import Node

with Node("forks", connection_params={url!r}):
    portal = _portal._portal
    ended = threading.Event()
    def fork():
        try:
            portal.courtesy._begin(0.0)
            assert os.sched_getscheduler(0) == os.SCHED_BATCH
            child = os.fork()
            if not child:
                os._exit(os.sched_getscheduler(0))
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == os.SCHED_OTHER)
        finally:
            ended.set()
    portal.post(fork)
    ended.wait({DEADLINE})
"""
    command = [sys.executable, *strictly.FORKING, "-c", program]
    said = subprocess.check_output(command, text=True, timeout=2 * DEADLINE)
    assert said == "True\n"


# ---- who tells it of calls ----


def add(numbers: list[int]) -> int:
    return sum(numbers)


@linux
def test_the_loop_of_plain_python_is_marked_while_threads_call(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setattr(_courtesy, "STORM", 1)
    with Node("courteous", connection_params=url) as node:
        node.create_rpc("add", add)
        client = node.create_rpc_client("add")
        portal = _portal._portal
        assert portal is not None
        thread = portal.thread.native_id
        assert thread is not None

        def is_marked() -> bool:
            assert client.call([1, 2], timeout=DEADLINE) == 3
            return policy(thread) == os.SCHED_BATCH

        eventually(is_marked)
        monkeypatch.setattr(_courtesy, "STORM", STORM)
        eventually(lambda: policy(thread) == os.SCHED_OTHER)


def test_it_is_told_of_each_request_and_each_reply_of_a_thread(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    told: list[Courtesy] = []
    monkeypatch.setattr(Courtesy, "note", lambda courtesy: told.append(courtesy))
    with Node("courteous", connection_params=url) as node:
        node.create_rpc("add", add)
        client = node.create_rpc_client("add")
        for _ in range(10):
            client.call([1, 2], timeout=DEADLINE)
        eventually(lambda: len(told) == 20, lambda: len(told))


async def test_the_loop_of_a_program_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    told: list[Courtesy] = []
    monkeypatch.setattr(Courtesy, "note", lambda courtesy: told.append(courtesy))
    async with (
        aio.RPCService("add", add, None, url),
        aio.RPCClient("add", None, url) as client,
    ):
        assert await client.call([1, 2], timeout=DEADLINE) == 3
    assert told == []
