"""The messages that these tests exchange, in all the kinds of classes that are taken."""

from __future__ import annotations

import dataclasses
from typing import TypedDict

import attrs
import pydantic

from commlib.msg import ActionMessage, Object, PubSubMessage, RPCMessage


class Pose(Object):
    x: float = 0.0
    y: float = 0.0


class Sonar(PubSubMessage):
    distance: float  # without a default, so that a message without it is refused
    count: int = 0
    label: str = ""
    ranges: list[float] = []
    pose: Pose = Pose()
    path: list[Pose] = []
    tags: dict[str, int] = {}
    raw: bytes = b""
    limit: float | None = None


class Empty(PubSubMessage):
    pass


@dataclasses.dataclass
class DataclassSonar:
    distance: float
    label: str = ""


@attrs.define
class AttrsSonar:
    distance: float
    label: str = ""


class PydanticSonar(pydantic.BaseModel):
    distance: float
    label: str = ""


class SonarDict(TypedDict):
    distance: float
    label: str


class AddTwoInts(RPCMessage):
    class Request(RPCMessage.Request):
        a: int
        b: int

    class Response(RPCMessage.Response):
        c: int


class Move(ActionMessage):
    class Goal(ActionMessage.Goal):
        cm: int
        speed: float = 1.0
        path: list[Pose] = []

    class Result(ActionMessage.Result):
        cm: int
        pose: Pose = Pose()
        map: bytes = b""

    class Feedback(ActionMessage.Feedback):
        cm: int
        pose: Pose = Pose()
