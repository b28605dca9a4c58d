"""Actions: goals that take their time, tell how far they are, and can be cancelled."""

from __future__ import annotations

from commlib._goal import GoalStatus
from commlib.aio._action import ActionTypes
from commlib.aio._action_client import ActionClient
from commlib.aio._action_service import ActionService, ActionServiceOptions
from commlib.aio._client_goal import ClientGoal, Feed
from commlib.aio._goal_handler import AsyncGoalHandler, GoalHandler

__all__ = [
    "ActionClient",
    "ActionService",
    "ActionServiceOptions",
    "ActionTypes",
    "AsyncGoalHandler",
    "ClientGoal",
    "Feed",
    "GoalHandler",
    "GoalStatus",
]
