"""The messages of the examples; programs that talk to each other share such a module."""

from commlib.msg import ActionMessage, PubSubMessage, RPCMessage


class Sonar(PubSubMessage):
    """What a sonar measures."""

    distance: float = 0.001  # m
    horizontal_fov: float = 30.0  # degrees
    vertical_fov: float = 14.0


class AddTwoInts(RPCMessage):
    """A sum."""

    class Request(RPCMessage.Request):
        a: int = 0
        b: int = 0

    class Response(RPCMessage.Response):
        c: int = 0


class Drive(ActionMessage):
    class Goal(ActionMessage.Goal):
        metres: float = 0.0

    class Result(ActionMessage.Result):
        metres: float = 0.0

    class Feedback(ActionMessage.Feedback):
        metres: float = 0.0
