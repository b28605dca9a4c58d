"""The messages that are counted, and what they are made of at both ends."""

from __future__ import annotations

from commlib.msg import ActionMessage, PubSubMessage, RPCMessage


class Sonar(PubSubMessage):
    """Three floats."""

    distance: float = 0.001
    horizontal_fov: float = 30.0
    vertical_fov: float = 14.0


class AddTwoInts(RPCMessage):
    """A sum."""

    class Request(RPCMessage.Request):
        """What to add."""

        a: int = 0
        b: int = 0

    class Response(RPCMessage.Response):
        """What it makes."""

        c: int = 0


class Sum(ActionMessage):
    """The same as a goal."""

    class Goal(ActionMessage.Goal):
        """What to add."""

        a: int = 0
        b: int = 0

    class Result(ActionMessage.Result):
        """What it makes."""

        c: int = 0
