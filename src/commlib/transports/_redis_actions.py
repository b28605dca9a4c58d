"""The two ends of an action on Redis, loaded when needed: not every program has actions."""

from __future__ import annotations

from commlib import action
from commlib._typing import FeedbackT, GoalT, ResultT


class ActionService(action.ActionService):
    """``commlib.action.ActionService`` on Redis."""

    scheme = "redis"


class ActionClient(action.ActionClient[GoalT, ResultT, FeedbackT]):
    """``commlib.action.ActionClient`` on Redis."""

    scheme = "redis"
