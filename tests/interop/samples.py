"""The messages that ours and the released peers exchange; ``peer.py`` has the same classes."""

from __future__ import annotations

import builtins
from typing import Any

from commlib.msg import ActionMessage, Object, PubSubMessage, RPCMessage


class Pose(Object):
    x: float = 0.0
    y: float = 0.0


class Reading(PubSubMessage):
    distance: float = 0.0
    count: int = 0
    label: str = ""
    on: bool = False
    ranges: list[float] = []
    pose: Pose = Pose()
    path: list[Pose] = []
    tags: dict[str, int] = {}
    limit: float | None = None


class Echo(RPCMessage):
    """A call that brings back what it was given."""

    class Request(RPCMessage.Request):
        distance: float = 0.0
        count: int = 0
        label: str = ""
        on: bool = False
        ranges: list[float] = []
        pose: Pose = Pose()
        path: list[Pose] = []
        tags: dict[str, int] = {}
        limit: float | None = None

    class Response(RPCMessage.Response):
        distance: float = 0.0
        count: int = 0
        label: str = ""
        on: bool = False
        ranges: list[float] = []
        pose: Pose = Pose()
        path: list[Pose] = []
        tags: dict[str, int] = {}
        limit: float | None = None


def reading(fields: dict[str, Any]) -> Reading:
    """A message with these fields, in which nested ones are instances."""
    message = Reading()
    message.from_dict(fields)
    return message


def request(fields: dict[str, Any]) -> Echo.Request:
    """The same for a request."""
    message = Echo.Request()
    message.from_dict(fields)
    return message


def echo(request: Any) -> Any:
    """What a service of ours does: raise the exception that the label names, or give all back."""
    fields = request if isinstance(request, dict) else request.as_dict()
    error = getattr(builtins, fields.get("label", ""), None)
    if isinstance(error, type) and issubclass(error, Exception):
        raise error("as asked")
    return fields


SAMPLES: list[dict[str, Any]] = [
    {},
    {"distance": 0.1 + 0.2, "ranges": [1e300, 5e-324, 1.5, 0.0]},
    {"count": 2**53 + 1, "tags": {"most": 2**63 - 1}},
    {"label": 'λ "é" \\ / \n 日本 🤖', "tags": {"größe": 1}},
    {"on": True},
    {"pose": {"x": 1.5, "y": 2.5}, "path": [{"x": 0.5, "y": 1.0}, {"x": 2.0, "y": 3.0}]},
    {"limit": 2.5},
]
"""Fields of ``Reading`` and ``Echo``; those left out have their defaults."""

NEGATIVE: dict[str, Any] = {
    "distance": -0.5,
    "count": -3,
    "ranges": [-1.0, -2.5],
    "pose": {"x": -1.0, "y": -2.0},
    "tags": {"one": -1, "most": -(2**63)},
    "limit": -1.5,
}


class Turn(ActionMessage):
    """An action that counts; ``peer.py`` says what its labels mean."""

    class Goal(ActionMessage.Goal):
        count: int = 0
        label: str = ""

    class Result(ActionMessage.Result):
        count: int = 0

    class Feedback(ActionMessage.Feedback):
        count: int = 0
