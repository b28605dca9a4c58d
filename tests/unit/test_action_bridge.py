"""A bridge for actions: what comes back keeps its order, also if it had to wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from collected import DEADLINE, eventually
from commlib import aio
from commlib.aio import _goal_follower, _outlet
from commlib.aio.bridges import ActionBridge
from commlib.bridges import Keep
from fickle import Fickle, FickleTransport

COUNT = 20
NEWS = [("here.feedback", n) for n in range(COUNT)] + [("here.status", 4)]
"""What clients shall hear of a goal, in this order."""


class Pursuit:
    """A bridge, the service of an action behind it, and what its clients hear."""

    def __init__(self, bridge: ActionBridge, there: aio.Node, heard: Any) -> None:
        self.bridge = bridge
        self._publisher = there.create_mpublisher()
        self._heard = heard

    @property
    def clients(self) -> FickleTransport:
        """The connection to the broker of the clients."""
        transport = self.bridge.hub.transport
        assert isinstance(transport, FickleTransport)
        return transport

    async def happen(self) -> None:
        """What is published of a goal, until the bridge has got all of it."""
        before = self.bridge.stats.received
        for topic, news in NEWS:
            await self._publisher.publish(news, topic.replace("here", "there"))
        await asyncio.to_thread(
            eventually, lambda: self.bridge.stats.received == before + len(NEWS)
        )

    async def hear(self, count: int = len(NEWS)) -> list[tuple[str, Any]]:
        """The next that clients hear: topics and data."""
        async with asyncio.timeout(DEADLINE):
            heard = [await anext(self._heard) for _ in range(count)]
        return [(topic, data) for data, topic in heard]


@asynccontextmanager
async def pursuit(name: str, **options: Any) -> AsyncIterator[Pursuit]:
    clients, services = f"memory://{name}-clients", f"memory://{name}-services"
    params = Fickle(name=f"{name}-clients")
    async with aio.Node("here", clients) as here, aio.Node("there", services) as there:
        subscriber = here.create_psubscriber("here.*")
        heard = aiter(subscriber)
        await subscriber.run()
        async with ActionBridge(None, "here", "there", params, services, **options) as bridge:
            yield Pursuit(bridge, there, heard)


async def test_after_an_outage_no_state_overtakes_the_feedback_before_it() -> None:
    async with pursuit("outage") as goal:
        goal.clients.turn(False)
        await goal.happen()
        assert goal.bridge.stats.waiting == len(NEWS)
        goal.clients.turn(True)
        assert await goal.hear() == NEWS
        assert (goal.bridge.stats.waiting, goal.bridge.stats.forwarded) == (0, len(NEWS))


async def test_no_state_overtakes_feedback_that_waits_to_be_confirmed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_outlet, "WINDOW", COUNT // 2)
    async with pursuit("window") as goal:
        await goal.happen()
        assert await goal.hear() == NEWS


async def test_a_goal_has_not_ended_for_its_sender_before_its_feedback_has_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_goal_follower, "FIRST_PAUSE", 0.05)
    begun, may_go_on = asyncio.Event(), asyncio.Event()

    async def work(goal: Any) -> dict[str, bool]:
        begun.set()
        await may_go_on.wait()
        for n in range(COUNT):
            await goal.send_feedback(n)
        return {"done": True}

    async with (
        pursuit("result") as goal,
        aio.Node("here", "memory://result-clients") as here,
        aio.Node("there", "memory://result-services") as there,
    ):
        there.create_action("there", None, work)
        sent = await here.create_action_client("here").send_goal({}, timeout=DEADLINE)
        await begun.wait()
        goal.clients.turn(False)  # calls still pass, what is published waits
        may_go_on.set()
        await asyncio.to_thread(eventually, lambda: goal.bridge.stats.waiting > COUNT)
        assert not await sent.wait(2 * _goal_follower.LAG_SECONDS)
        goal.clients.turn(True)
        assert await sent.result(DEADLINE) == {"done": True}
        assert [feedback async for feedback in sent] == [*range(COUNT)]


async def test_it_keeps_so_much_of_both_together_and_counts_the_rest() -> None:
    async with pursuit("keep", keep=Keep(max_messages=5)) as goal:
        goal.clients.turn(False)
        await goal.happen()
        stats = goal.bridge.stats
        assert (stats.waiting, stats.dropped) == (5, len(NEWS) - 5)
        goal.clients.turn(True)
        assert await goal.hear(5) == NEWS[-5:]


async def test_what_waits_when_it_is_stopped_is_counted_and_it_can_be_run_again() -> None:
    async with pursuit("again") as goal:
        goal.clients.turn(False)
        await goal.happen()
        await goal.bridge.stop()
        await goal.bridge.stop()
        assert (goal.bridge.stats.waiting, goal.bridge.stats.dropped) == (0, len(NEWS))

        await goal.bridge.run()
        await goal.happen()
        assert await goal.hear() == NEWS
        assert (goal.bridge.stats.dropped, goal.bridge.stats.forwarded) == (len(NEWS), len(NEWS))


async def test_an_error_of_what_can_never_be_sent_is_counted_and_told() -> None:
    errors = []
    options: Any = {"on_error": lambda error, topic: errors.append(type(error))}
    async with pursuit("error", **options) as goal:
        goal.clients.publish = refuse  # type: ignore[method-assign]
        await goal.happen()
        assert errors == [ValueError] * len(NEWS)
        assert goal.bridge.stats.errors == len(NEWS)


def refuse(topic: str, packet: Any) -> bool:
    raise ValueError("no such topic here")
