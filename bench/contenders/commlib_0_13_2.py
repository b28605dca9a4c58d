"""commlib-py 0.13.2, the newest release of the library that ours began from.

On Redis the endpoints share a pool of connections; on MQTT each has its own.
"""

from __future__ import annotations

from typing import Any

from bench.contenders.released import Released
from bench.roles import main
from commlib.msg import ActionMessage, PubSubMessage, RPCMessage
from commlib.node import Node


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

    class Feedback(ActionMessage.Feedback):
        """How far it is."""

        step: int = 0


class Commlib0132(Released):
    """The contender."""

    sonar, two_ints, sum = Sonar, AddTwoInts, Sum
    action_name = "action_name"
    runs_senders = True

    def _new_node(self, broker: str, params: Any) -> Any:
        return Node("bench", connection_params=params)

    def _new_bridge(self, broker: str, topic: str, to: str, params: Any) -> Any:
        from commlib.bridges import TopicBridge  # as in ours: on need

        return TopicBridge(topic, to, params, params, msg_type=Sonar)


if __name__ == "__main__":
    main(Commlib0132)
