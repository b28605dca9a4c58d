"""commlib-py 0.6.3, the release whose programs and wire ours takes over.

Each endpoint opens its own connections.
"""

from __future__ import annotations

from typing import Any

from bench.contenders.released import Released
from bench.roles import main
from commlib.msg import ActionMessage, DataClass, PubSubMessage, RPCMessage
from commlib.node import Node, TransportType


@DataClass
class Sonar(PubSubMessage):
    """Three floats."""

    distance: float = 0.001
    horizontal_fov: float = 30.0
    vertical_fov: float = 14.0


class AddTwoInts(RPCMessage):
    """A sum."""

    @DataClass
    class Request(RPCMessage.Request):
        """What to add."""

        a: int = 0
        b: int = 0

    @DataClass
    class Response(RPCMessage.Response):
        """What it makes."""

        c: int = 0


class Sum(ActionMessage):
    """The same as a goal."""

    @DataClass
    class Goal(ActionMessage.Goal):
        """What to add."""

        a: int = 0
        b: int = 0

    @DataClass
    class Result(ActionMessage.Result):
        """What it makes."""

        c: int = 0

    @DataClass
    class Feedback(ActionMessage.Feedback):
        """How far it is."""

        step: int = 0


class Commlib063(Released):
    """The contender."""

    sonar, two_ints, sum = Sonar, AddTwoInts, Sum
    action_name = "action_uri"
    runs_senders = False

    def _new_node(self, broker: str, params: Any) -> Any:
        return Node("bench", TransportType[broker.upper()], connection_params=params)

    def _new_bridge(self, broker: str, topic: str, to: str, params: Any) -> Any:
        from commlib.bridges import TopicBridge, TopicBridgeType  # as in ours: on need

        kind = TopicBridgeType[f"{broker}_to_{broker}".upper()]
        return TopicBridge(kind, topic, to, params, params, msg_type=Sonar)


if __name__ == "__main__":
    main(Commlib063)
