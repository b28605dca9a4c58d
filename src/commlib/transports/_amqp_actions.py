"""The two ends of an action on AMQP, loaded when needed: not every program has actions."""

from __future__ import annotations

from commlib import action
from commlib._typing import FeedbackT, GoalT, ResultT
from commlib.transports._amqp_params import RELEASED_OPTIONS


class ActionService(action.ActionService):
    """``commlib.action.ActionService`` on AMQP."""

    scheme = "amqp"
    released_options = RELEASED_OPTIONS


class ActionClient(action.ActionClient[GoalT, ResultT, FeedbackT]):
    """``commlib.action.ActionClient`` on AMQP."""

    scheme = "amqp"
    released_options = RELEASED_OPTIONS
