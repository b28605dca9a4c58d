"""Who is at the other end of a path, in a process that is not counted."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Self

from bench.contenders.ours import AddTwoInts, Sonar, Sum
from bench.instructions.paths import Path, Role
from commlib.node import Node

PATIENCE = 60.0  # s for whoever is counted, who is slow


class Peer:
    """Nobody, for those who need nobody; others do their part in ``turn``."""

    def __init__(self, path: Path, url: str, topic: str) -> None:
        self._path = path
        self._topic = topic
        self._node = Node("peer", connection_params=url)
        self._prepare()

    def __enter__(self) -> Self:
        self._node.run()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._node.stop()

    def _prepare(self) -> None:
        """Make what is needed before the other end begins."""

    def turn(self) -> None:
        """What the counted process has asked for; returns when it is done."""
        raise AssertionError(f"{self._path.name} asks for nothing")


class Feeder(Peer):
    """Publishes a burst whenever it is asked to."""

    def _prepare(self) -> None:
        self._publisher = self._node.create_publisher(self._topic, Sonar)

    def turn(self) -> None:
        for number in range(self._path.burst):
            self._publisher.publish(Sonar(float(number)))


class Both(Feeder):
    """Publishes at one end of a bridge, a lap in bursts, and waits for each at the other."""

    def _prepare(self) -> None:
        super()._prepare()
        self._arrived: SimpleQueue[Sonar] = SimpleQueue()
        self._node.create_subscriber(f"{self._topic}_there", self._arrived.put, Sonar)

    def turn(self) -> None:
        for _ in range(self._path.count // self._path.burst):
            super().turn()
            for _ in range(self._path.burst):
                self._arrived.get(timeout=PATIENCE)


class Service(Peer):
    """Answers requests with the sum of their two numbers."""

    def _prepare(self) -> None:
        def add(request: AddTwoInts.Request) -> AddTwoInts.Response:
            return AddTwoInts.Response(c=request.a + request.b)

        self._node.create_rpc(self._topic, add, AddTwoInts)


class Client(Peer):
    """Calls, a lap at a time."""

    def _prepare(self) -> None:
        self._client = self._node.create_rpc_client(self._topic, AddTwoInts)

    def turn(self) -> None:
        for number in range(self._path.count):
            response = self._client.call(AddTwoInts.Request(number, 1), PATIENCE)
            assert response.c == number + 1, "the sum"


class Worker(Peer):
    """Reaches goals at once, with the sum of their two numbers as the result."""

    def _prepare(self) -> None:
        self._node.create_action(
            self._topic, Sum, lambda goal: Sum.Result(c=goal.data.a + goal.data.b)
        )


class Sender(Peer):
    """Sends goals, a lap at a time."""

    def _prepare(self) -> None:
        self._client = self._node.create_action_client(self._topic, Sum)

    def turn(self) -> None:
        for number in range(self._path.count):
            goal = self._client.send_goal(Sum.Goal(number, 1), timeout=PATIENCE)
            assert goal.result(PATIENCE).c == number + 1, "the sum"


PEERS: dict[Role, type[Peer]] = {
    "publish": Peer,
    "receive": Feeder,
    "call": Service,
    "serve": Client,
    "send goals": Worker,
    "reach goals": Sender,
    "bridge": Both,
}
"""Encoding and decoding have no other end."""
