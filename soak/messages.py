"""What the program under load exchanges."""

from __future__ import annotations

from commlib.msg import ActionMessage, PubSubMessage, RPCMessage


class Tick(PubSubMessage):
    number: int
    text: str


class Double(RPCMessage):
    class Request(RPCMessage.Request):
        number: int

    class Response(RPCMessage.Response):
        number: int
        double: int


class Climb(ActionMessage):
    class Goal(ActionMessage.Goal):
        number: int

    class Feedback(ActionMessage.Feedback):
        number: int
        step: int

    class Result(ActionMessage.Result):
        number: int


def text_of(number: int) -> str:
    """The text of a message, by which a mixed-up one is known."""
    return f"tick {number}"
