"""The two ends of an action in this process, loaded when needed: not every program has actions."""

from __future__ import annotations

from commlib import action
from commlib._typing import FeedbackT, GoalT, ResultT


class ActionService(action.ActionService):
    """``commlib.action.ActionService`` in this process."""

    scheme = "memory"


class ActionClient(action.ActionClient[GoalT, ResultT, FeedbackT]):
    """``commlib.action.ActionClient`` in this process."""

    scheme = "memory"
