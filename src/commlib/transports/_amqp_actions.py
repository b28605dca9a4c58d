"""The two ends of an action on AMQP, loaded when needed: not every program has actions."""

from __future__ import annotations

from commlib import action
from commlib._typing import FeedbackT, GoalT, ResultT


class ActionService(action.ActionService):
    """``commlib.action.ActionService`` on AMQP."""

    scheme = "amqp"


class ActionClient(action.ActionClient[GoalT, ResultT, FeedbackT]):
    """``commlib.action.ActionClient`` on AMQP."""

    scheme = "amqp"
