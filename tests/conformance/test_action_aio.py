"""Actions for asyncio, on every broker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from brokers import Broker
from collected import DEADLINE, Collected, eventually
from commlib.action import GoalStatus
from commlib.aio import ActionClient, ActionService
from commlib.aio._client_goal import MAX_FEEDBACK
from commlib.exceptions import (
    EndpointClosed,
    GoalAborted,
    GoalCanceled,
    GoalRefused,
    GoalTimeout,
    RPCTimeout,
)
from messages import Move
from raw_peer import RawPeer

Goal, Result, Feedback = Move.Goal, Move.Result, Move.Feedback


@asynccontextmanager
async def action(
    broker: Broker, topic: str, on_goal: Any, **options: Any
) -> AsyncIterator[ActionClient[Any, Any, Any]]:
    """A service, and a client for it, within the time of a test."""
    async with (
        asyncio.timeout(3 * DEADLINE),
        ActionService(topic, Move, on_goal, conn_params=broker.url, **options),
        ActionClient(topic, Move, conn_params=broker.url) as client,
    ):
        yield client


async def walk(goal_h: Any) -> Move.Result:
    for cm in range(goal_h.data.cm):
        await goal_h.send_feedback(Feedback(cm=cm))
    return Result(cm=goal_h.data.cm)


class Endless:
    """A coroutine function that works on goals until they are cancelled."""

    def __init__(self) -> None:
        self.entered: asyncio.Queue[Any] = asyncio.Queue()

    async def __call__(self, goal_h: Any) -> None:
        self.entered.put_nowait(goal_h)
        await asyncio.sleep(3600)


async def test_feedback_is_iterated_over_and_the_result_awaited(broker: Broker, topic: str) -> None:
    async with action(broker, topic, walk) as client:
        goal = await client.send_goal(Goal(cm=100))

        assert [feedback async for feedback in goal] == [Feedback(cm=n) for n in range(100)]
        assert await goal.result() == Result(cm=100)
        assert goal.status == GoalStatus.SUCCEEDED
        assert [feedback async for feedback in goal.feedback] == []


async def test_a_goal_is_iterated_over_by_several_and_each_feedback_goes_to_one(
    broker: Broker, topic: str
) -> None:
    async def take(goal: Any) -> list[int]:
        return [feedback.cm async for feedback in goal]

    async with action(broker, topic, walk) as client:
        goal = await client.send_goal(Goal(cm=100))
        shares = await asyncio.gather(*(take(goal) for _ in range(3)))

    assert sorted(n for share in shares for n in share) == list(range(100))
    assert all(share == sorted(share) for share in shares)


async def test_plain_functions_work_on_goals_of_an_asyncio_program_too(
    broker: Broker, topic: str
) -> None:
    threads = Collected()

    def on_goal(goal_h: Any) -> Move.Result:
        threads(threading.current_thread())
        for cm in range(goal_h.data.cm):
            goal_h.send_feedback(Feedback(cm=cm))
        return Result(cm=1)

    async with action(broker, topic, on_goal) as client:
        goal = await client.send_goal(Goal(cm=50), wait_for_result=True)

    assert await goal.result() == Result(cm=1)
    assert [feedback.cm async for feedback in goal] == list(range(50))
    assert threads.items[0] is not threading.current_thread()


async def test_a_hundred_goals_at_once_are_all_reported_right(broker: Broker, topic: str) -> None:
    async with action(broker, topic, walk, concurrency=100) as client:
        goals = await asyncio.gather(*(client.send_goal(Goal(cm=n)) for n in range(100)))
        results = await asyncio.gather(*(goal.result() for goal in goals))
        feedback = [[fb.cm async for fb in goal] for goal in goals]

    assert [result.cm for result in results] == list(range(100))
    assert feedback == [list(range(n)) for n in range(100)]


async def test_a_goal_is_cancelled_and_its_iteration_ends(broker: Broker, topic: str) -> None:
    endless = Endless()
    async with action(broker, topic, endless) as client:
        goal = await client.send_goal(Goal(cm=1))
        iterating = asyncio.create_task(anext(aiter(goal), None))
        await endless.entered.get()

        assert await goal.cancel()
        assert await iterating is None
        with pytest.raises(GoalCanceled):
            await goal.result()
        assert await client.send_goal(Goal(cm=2))


async def test_the_methods_of_released_programs_are_coroutines_here(
    broker: Broker, topic: str
) -> None:
    endless = Endless()
    async with action(broker, topic, endless) as client:
        assert await client.get_result() is None
        assert await client.cancel_goal() is None
        await client.send_goal(Goal(cm=1))
        (await endless.entered.get()).set_result(Result(cm=5))

        assert await client.get_result(wait=True, wait_max_sec=0.01) is None
        assert await client.cancel_goal(wait_for_result=True) == Result(cm=5)
        assert await client.get_result() == Result(cm=5)


async def test_goals_that_fail_or_are_refused_raise_where_they_are_awaited(
    broker: Broker, topic: str
) -> None:
    gate = asyncio.Event()

    async def on_goal(goal_h: Any) -> None:
        await gate.wait()
        raise ValueError("no such arm")

    async with action(broker, topic, on_goal) as client:
        first, second = [await client.send_goal(Goal(cm=n)) for n in range(2)]
        with pytest.raises(GoalRefused, match="busy"):
            await second.result()
        gate.set()
        with pytest.raises(GoalAborted, match="ValueError: no such arm"):
            await first.result()


async def test_cancelling_a_task_that_waits_leaves_the_goal_alone_and_nothing_behind(
    broker: Broker, topic: str
) -> None:
    endless = Endless()
    async with action(broker, topic, endless) as client:
        goal = await client.send_goal(Goal(cm=1))
        goal_h = await endless.entered.get()
        waiting = [
            asyncio.create_task(goal.result()),
            asyncio.create_task(anext(aiter(goal))),
            asyncio.create_task(client.get_result(wait=True)),
        ]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)

        assert [task.cancelled() for task in waiting] == [True] * 3
        assert goal_h.status == GoalStatus.EXECUTING
        with pytest.raises(GoalTimeout):
            await goal.result(0.01)
        await goal_h.send_feedback(Feedback(cm=1))
        assert await anext(aiter(goal)) == Feedback(cm=1)


async def test_cancelling_a_task_that_sends_a_goal_leaves_nothing_behind(
    broker: Broker, topic: str, raw: RawPeer
) -> None:
    await asyncio.to_thread(raw.consume, f"{topic}.send_goal")  # it does not answer
    async with ActionClient(topic, Move, conn_params=broker.url) as client:
        sending = asyncio.create_task(client.send_goal(Goal(cm=1)))
        await asyncio.to_thread(eventually, lambda: bool(client._goals))
        sending.cancel()
        await asyncio.wait([sending])

        assert sending.cancelled()
        assert client._goals == {}
        with pytest.raises(RPCTimeout):
            await client.send_goal(Goal(cm=1), timeout=0.05)
        assert client._goals == {}


async def test_stopping_the_client_ends_what_waits_for_its_goals(
    broker: Broker, topic: str
) -> None:
    endless = Endless()
    async with action(broker, topic, endless) as client:
        goal = await client.send_goal(Goal(cm=1))
        waiting = asyncio.create_task(goal.result())
        iterating = asyncio.create_task(anext(aiter(goal), "the end"))
        await endless.entered.get()
        await client.stop()

        with pytest.raises(EndpointClosed):
            await waiting
        assert await iterating == "the end"
        with pytest.raises(EndpointClosed):
            await client.send_goal(Goal(cm=1))


async def test_of_feedback_that_nobody_takes_the_newest_is_kept_and_the_rest_counted(
    broker: Broker, topic: str
) -> None:
    async with action(broker, topic, walk) as client:
        goal = await client.send_goal(Goal(cm=MAX_FEEDBACK + 5), wait_for_result=True)
        kept = [feedback.cm async for feedback in goal]

        assert kept == list(range(5, MAX_FEEDBACK + 5))
        assert client.stats.dropped == 5


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
async def test_a_flood_of_feedback_waits_for_room_and_arrives(
    broker: Broker, topic: str, is_async: bool
) -> None:
    count, got = 30_000, Collected()

    def flood(goal_h: Any) -> Move.Result:
        for cm in range(count):
            goal_h.send_feedback(Feedback(cm=cm))
        return Result(cm=count)

    async with (
        asyncio.timeout(3 * DEADLINE),
        ActionService(topic, Move, walk if is_async else flood, conn_params=broker.url),
        ActionClient(
            topic, Move, on_feedback=lambda fb: got(fb.cm), conn_params=broker.url
        ) as client,
    ):
        goal = await client.send_goal(Goal(cm=count))
        assert (await goal.result()).cm == count
        await asyncio.to_thread(got.wait, count)

    assert got.items == list(range(count))


async def test_a_service_that_is_stopped_by_its_own_goal_goes_on_to_the_end(
    broker: Broker, topic: str
) -> None:
    ended = asyncio.Event()

    async def on_goal(goal_h: Any) -> None:
        await service.stop()
        ended.set()

    async with ActionClient(topic, Move, conn_params=broker.url) as client:
        service = ActionService(topic, Move, on_goal, conn_params=broker.url)
        await service.run()
        goal = await client.send_goal(Goal(cm=1))
        with pytest.raises(GoalAborted, match="EndpointClosed"):
            await goal.result(DEADLINE)
        await asyncio.wait_for(ended.wait(), DEADLINE)


async def test_goals_are_sent_by_goals(broker: Broker, topic: str) -> None:
    """A countdown: each goal sends the next smaller one and waits for it."""

    async def on_goal(goal_h: Any) -> Move.Result:
        if goal_h.data.cm == 0:
            return Result(cm=0)
        inner = await client.send_goal(Goal(cm=goal_h.data.cm - 1))
        return Result(cm=(await inner.result()).cm + 1)

    async with action(broker, topic, on_goal, concurrency=20) as client:
        goal = await client.send_goal(Goal(cm=15))
        assert await goal.result() == Result(cm=15)


async def test_a_goal_that_cancels_its_own_task_is_aborted_and_nobody_says_that_it_was_stopped(
    broker: Broker, topic: str
) -> None:
    errors = Collected()

    async def on_goal(goal_h: Any) -> Move.Result:
        if goal_h.data.cm < 0:
            goal_h.set_result(Result(cm=3))
            goal_h.task.cancel()
        if goal_h.data.cm == -1:
            await asyncio.sleep(0)
        return Result(cm=goal_h.data.cm)

    async with action(broker, topic, on_goal, on_error=errors) as client:
        results = Collected()
        client.on_result = results
        for cm in (-1, -2):
            goal = await client.send_goal(Goal(cm=cm))
            with pytest.raises(GoalAborted) as raised:
                await goal.result()
            assert raised.value.type == "CancelledError"
        assert await (await client.send_goal(Goal(cm=1))).result() == Result(cm=1)
        told = await asyncio.to_thread(results.wait, 3)

    assert told == [Result(cm=3), Result(cm=3), Result(cm=1)]
    assert [type(error) for error, _ in errors.items] == [asyncio.CancelledError] * 2


async def test_a_goal_may_stop_its_service_though_that_is_being_stopped(
    broker: Broker, topic: str
) -> None:
    begun = asyncio.Event()

    async def tidy(goal_h: Any) -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            await service.stop()

    async with asyncio.timeout(3 * DEADLINE), ActionClient(topic, conn_params=broker.url) as client:
        service = ActionService(topic, on_goal=tidy, conn_params=broker.url, grace=100 * DEADLINE)
        await service.run()
        goal = await client.send_goal({})
        await begun.wait()
        await service.stop()
        with pytest.raises(GoalCanceled):
            await goal.result()
