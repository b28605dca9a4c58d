"""An action client whose questions get lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from collected import DEADLINE
from commlib import aio
from commlib.action import GoalHandler
from commlib.aio import _goal_follower
from commlib.exceptions import GoalCanceled

URL = "memory://action-client"


async def drive(goal: GoalHandler[Any, Any, Any]) -> dict[str, int]:
    """Until it is cancelled; how far it came."""
    try:
        await asyncio.sleep(DEADLINE)
    except asyncio.CancelledError:
        return {"metres": 7}
    return {}


@pytest.mark.parametrize("lost", [1, 99])
async def test_of_a_cancelled_goal_the_result_is_asked_for_again_and_then_given_up(
    monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    monkeypatch.setattr(_goal_follower, "FIRST_PAUSE", 0.01)
    if lost > 1:  # else it has to be answered in that time
        monkeypatch.setattr(_goal_follower, "ANSWER_SECONDS", 0.05)
    async with aio.Node("here", URL) as here, aio.Node("there", URL) as there:
        there.create_action("drive", None, drive)
        client = here.create_action_client("drive")
        asked = 0
        begun, ask = asyncio.Event(), client._ask

        async def ask_in_vain(goal: Any, seconds: float) -> Any:
            nonlocal asked
            begun.set()
            await goal._end_heard.wait()
            asked += 1
            # The first was asked before the end was heard, so it tells nothing of the result.
            return None if asked <= lost + 1 else await ask(goal, seconds)

        monkeypatch.setattr(client, "_ask", ask_in_vain)
        goal = await client.send_goal({}, timeout=DEADLINE)
        await begun.wait()
        assert await goal.cancel()
        if lost == 1:
            assert await goal.result(DEADLINE) == {"metres": 7}
        else:
            with pytest.raises(GoalCanceled):
                await goal.result(DEADLINE)
            assert asked < lost
