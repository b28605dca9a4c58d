"""Who listens: what it knows, for how long, and whom it asks again."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from brokers import free_port
from collected import DEADLINE, Collected, met
from commlib import aio
from commlib._discovery import (
    ALIVE,
    ANNOUNCE,
    PROBE,
    Announcement,
    EndpointInfo,
    NodeInfo,
    Probe,
    Sign,
    answer_topic,
)
from commlib.aio import _leases, discovery
from commlib.aio.discovery import Discovery
from commlib.discovery import Discovery as SyncDiscovery
from commlib.exceptions import EndpointClosed
from commlib.node import Node


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here has to wait as long as it would for the good of others."""
    monkeypatch.setattr(discovery, "QUIET", 0.02)
    monkeypatch.setattr(discovery, "ASK_AGAIN", 0.02)
    monkeypatch.setattr(_leases, "LATE", 0.0)


@pytest.fixture
def url() -> str:
    return f"memory://{os.urandom(4).hex()}"


class World:
    """Somebody who says what a test wants, and a discovery that hears it."""

    def __init__(self, node: aio.Node, url: str) -> None:
        self.node = node
        self.changes: list[tuple[str, str]] = []
        self.news = asyncio.Event()
        self.discovery = Discovery(url, self._note, inline=True)
        self.probes: list[Probe] = []
        self.answers: list[Announcement | None] = []
        """What is answered to the next probes; None: nothing."""
        self._publisher = node.create_mpublisher()

    def _note(self, event: str, info: NodeInfo) -> None:
        self.changes.append((event, info.id))
        self.news.set()

    async def answer(self, probe: Probe) -> None:
        self.probes.append(probe)
        self.news.set()
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            await self.say(answer, answer_topic(probe.asker))

    async def say(self, message: Any, topic: str = ANNOUNCE) -> None:
        await self._publisher.publish(message, topic)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not holds():
                self.news.clear()
                await self.news.wait()

    def lease_left(self, process: str) -> float:
        """How many seconds are left of its lease."""
        return self.discovery._leases._ends[process] - asyncio.get_running_loop().time()

    @property
    def known(self) -> set[str]:
        return {info.id for info in self.discovery.nodes}


@asynccontextmanager
async def world(url: str) -> AsyncIterator[World]:
    async with aio.Node("world", url, heartbeats=False, discovery=False) as node:
        made = World(node, url)
        await node.create_subscriber(PROBE, made.answer, Probe).run()
        async with made.discovery:
            await made.until(lambda: len(made.probes) == 1)
            yield made


def born(*ids: str, process: str = "p1", lease: float = 60.0, **more: Any) -> Announcement:
    event = more.pop("event", "birth")
    nodes = tuple(NodeInfo(f"n-{each}", each, process, **more) for each in ids)
    return Announcement(event, process, lease, nodes)


# ---- coming and going ----


async def test_what_is_announced_is_known_until_its_death_is_told(url: str) -> None:
    async with world(url) as here:
        await here.say(born("a", "b", link="l1"))
        await here.say(born("c", link="l2"))
        await here.say(born("a", event="change", host="moved", link="l1"))
        await here.until(lambda: len(here.changes) == 4)
        assert here.known == {"a", "b", "c"}
        await here.say(Announcement("death", ids=("c", "nobody")))
        await here.until(lambda: here.known == {"a", "b"})
        await here.say(Announcement("death", link="l1"))  # as a broker says it
        await here.until(lambda: here.known == set())
    assert here.changes == [
        *(("birth", "a"), ("birth", "b"), ("birth", "c"), ("change", "a")),
        *(("death", "c"), ("death", "a"), ("death", "b")),
    ]


async def test_what_is_told_again_is_no_news(url: str) -> None:
    async with world(url) as here:
        for _ in range(3):
            await here.say(born("a"))
        await here.say(born("b"))
        await here.until(lambda: ("birth", "b") in here.changes)
    assert here.changes == [("birth", "a"), ("birth", "b")]


async def test_one_that_gives_no_sign_of_life_is_forgotten_with_its_lease(url: str) -> None:
    async with world(url) as here:
        await here.say(born("a", process="long", lease=60.0))
        await here.say(born("b", process="short", lease=0.05))
        await here.until(lambda: ("death", "b") in here.changes)
        assert here.known == {"a"}


async def test_signs_of_life_renew_a_lease(url: str) -> None:
    async with world(url) as here:
        await here.say(born("a", lease=DEADLINE))
        await here.until(lambda: here.known == {"a"})
        await here.say(Sign("p1", 1, 2 * DEADLINE), ALIVE)
        await here.say(born("b"))
        await here.until(lambda: here.known == {"a", "b"})
        assert here.lease_left("p1") > DEADLINE


@pytest.mark.parametrize("lease", [-1.0, 0.0, 1e300])
async def test_a_lease_that_makes_no_sense_is_not_believed(url: str, lease: float) -> None:
    async with world(url) as here:
        await here.say(born("a", lease=lease))
        await here.until(lambda: here.known == {"a"})
        assert 0 < here.lease_left("p1") <= discovery.LONGEST_LEASE


async def test_a_stopped_one_forgets_all_and_can_be_run_again(url: str) -> None:
    async with world(url) as here:
        await here.say(born("a"))
        await here.until(lambda: here.known == {"a"})
        await here.discovery.stop()
        with pytest.raises(EndpointClosed):
            await here.discovery.ask()
        await here.discovery.run()
        assert here.known == set()
        await here.say(born("a"))
        await here.until(lambda: here.known == {"a"})


async def test_what_was_missed_is_asked_for(url: str) -> None:
    async with world(url) as here:
        here.answers = [born("a", "b", event="present")]
        await here.say(Sign("p1", 2), ALIVE)  # of somebody who was never heard of
        await here.until(lambda: here.known == {"a", "b"})
        assert here.probes[-1].process == "p1"
        here.answers = [born("b", event="present")]
        here.discovery._asked.clear()  # it is long ago
        await here.say(Sign("p1", 1), ALIVE)  # it has lost one: which?
        await here.until(lambda: here.known == {"b"})


async def test_who_does_not_answer_is_not_taken_for_gone_before_its_lease(url: str) -> None:
    async with world(url) as here:
        await here.say(born("a", "b"))
        await here.until(lambda: here.known == {"a", "b"})
        await here.say(Sign("p1", 1), ALIVE)
        await here.until(lambda: len(here.probes) == 2)
        await met(lambda: not here.discovery._settling)  # it has looked whether there was one
        assert here.known == {"a", "b"}


async def test_one_process_cannot_have_the_node_of_another(url: str) -> None:
    async with world(url) as here:
        await here.say(born("a", process="p1"))
        await here.say(born("a", process="p2", lease=0.05))
        await here.say(born("b", process="p3"))
        await here.until(lambda: "b" in here.known)
        assert {info.process for info in here.discovery.nodes} == {"p1", "p3"}


async def test_no_more_nodes_are_remembered_than_there_may_be(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "MAX_NODES", 10)
    async with world(url) as here:
        await here.say(born(*(f"a{index}" for index in range(50))))
        for index in range(50):
            await here.say(born(f"b{index}", process=f"q{index}"))
        await here.say(Announcement("death", ids=("a0",)))
        await here.until(lambda: ("death", "a0") in here.changes)
        assert len(here.known) == 9
        assert len(here.discovery._leases) == 10


async def test_no_more_is_remembered_of_nodes_than_there_may_be(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "MAX_BYTES", 10_000)
    async with world(url) as here:
        for each in ("a", "b", "c"):
            await here.say(born(each, host=4000 * "x"))
        await here.say(born("d"))
        await here.until(lambda: here.known == {"a", "b", "d"})
        await here.say(Announcement("death", ids=("a",)))
        await here.say(born("c", host=4000 * "x"))
        await here.until(lambda: here.known == {"b", "c", "d"})


# ---- asking ----


async def test_who_asks_waits_until_no_more_answers_come(url: str) -> None:
    async with world(url) as here:
        here.answers = [born("a", event="present")]
        assert [info.id for info in await here.discovery.ask(DEADLINE)] == ["a"]


async def test_who_asks_and_gets_no_answer_waits_as_long_as_he_wanted(url: str) -> None:
    async with world(url) as here:
        assert await here.discovery.ask(0.05) == []


async def test_a_ping_takes_as_long_as_the_answer(url: str) -> None:
    async with world(url) as here:
        here.answers = [born("a", event="present")]
        (info,) = await here.discovery.ask(DEADLINE)
        here.answers = [born("a", event="present")]
        assert 0 < await here.discovery.ping(info, DEADLINE) < DEADLINE
        with pytest.raises(TimeoutError, match=r"n-a .* has not answered within"):
            await here.discovery.ping(info, 0.01)
        assert here.discovery._waiting == {}


# ---- the callback ----


async def test_a_callback_that_fails_is_reported_and_nothing_else_stops(url: str) -> None:
    errors = Collected()

    def fail(event: str, info: NodeInfo) -> None:
        raise ValueError(info.id)

    async with world(url) as here, Discovery(url, fail, on_error=lambda *it: errors(it)) as other:
        await here.say(born("a"))
        await here.say(born("b"))
        await here.until(lambda: here.known == {"a", "b"})
        await other.ask(0.01)
        assert [str(error) for error, _ in await asyncio.to_thread(errors.wait, 2)] == ["a", "b"]
        assert other.stats.errors == 2


async def test_a_coroutine_function_is_awaited_on_the_loop(url: str) -> None:
    seen: asyncio.Queue[threading.Thread] = asyncio.Queue()

    async def on_change(event: str, info: NodeInfo) -> None:
        seen.put_nowait(threading.current_thread())

    async with world(url) as here, Discovery(url, on_change):
        await here.say(born("a"))
        async with asyncio.timeout(DEADLINE):
            assert await seen.get() is threading.current_thread()


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="on_change"):
        Discovery("memory://", 7)  # type: ignore[arg-type]


def test_the_synchronous_face_does_the_same(url: str) -> None:
    changes = Collected()
    here = threading.current_thread()

    def on_change(event: str, info: NodeInfo) -> None:
        changes((event, info.name, threading.current_thread() is here))

    robot = Node("robot", connection_params=url)
    robot.create_publisher("sonar", float)
    robot.create_subscriber("sonar", print, str)
    with SyncDiscovery(url, on_change) as found, robot:
        assert changes.first == ("birth", "robot", False)
        (info,) = found.ask(DEADLINE)
        assert info == found.nodes[0]
        assert {port.type for port in info.endpoints} == {"float", "str"}
        assert isinstance(info.endpoints[0], EndpointInfo)
        assert found.ping(info, DEADLINE) > 0
        assert [wrong.name for wrong in found.mismatches] == ["sonar"]
        robot.stop()
        assert changes.wait(2)[-1] == ("death", "robot", False)


async def test_a_question_takes_no_longer_than_it_says_though_the_broker_is_away(
    url: str,
) -> None:
    away = Discovery(f"redis://127.0.0.1:{free_port()}?connect_timeout=3600")
    async with world(url) as here:
        await here.say(born("a"))
        await here.until(lambda: here.known == {"a"})
        [node] = here.discovery.nodes
    async with asyncio.timeout(DEADLINE):
        assert await away.ask(0.01) == []
        with pytest.raises(TimeoutError, match=r"has not answered within 0\.01 s"):
            await away.ping(node, 0.01)
        await away.stop()
