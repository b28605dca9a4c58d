"""This library, by its synchronous face, as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from bench.roles import CALL_TIMEOUT, FLUSH_TIMEOUT, main, take_steps
from commlib.msg import ActionMessage, PubSubMessage, RPCMessage
from commlib.node import Node
from commlib.serializer import BytesSerializer


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
        """How far a slow one is."""

        step: int = 0


def add(request: AddTwoInts.Request) -> AddTwoInts.Response:
    """The service: a plain function, so it runs on worker threads."""
    return AddTwoInts.Response(c=request.a + request.b)


class Ours:
    """All endpoints are those of one node."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._node = Node("bench", connection_params=url)

    def start(self) -> None:
        self._node.run()
        if not self._node.connected:
            raise ConnectionError("the broker does not answer")

    def message(self, blob: bytes | None) -> Any:
        return Sonar() if blob is None else blob

    def publisher(self, topic: str, *, blob: bool) -> Callable[[Any], object]:
        if blob:
            return self._node.create_publisher(topic, bytes, serializer=BytesSerializer).publish
        return self._node.create_publisher(topic, Sonar).publish

    def flush(self) -> None:
        # publish() is done when the outgoing queue has taken a message; the face need not say
        # when the broker has it, so the core is asked.
        hub = self._node._core.hub
        assert hub.loop is not None, "it has published"
        asyncio.run_coroutine_threadsafe(hub.transport.flush(), hub.loop).result(FLUSH_TIMEOUT)

    def subscribe(
        self, topics: Sequence[str], on_message: Callable[[Any], None], *, blob: bool
    ) -> None:
        for topic in topics:
            self._node.create_subscriber(topic, on_message, bytes if blob else Sonar)

    def serve(self, name: str) -> None:
        self._node.create_rpc(name, add, AddTwoInts)

    def caller(self, name: str) -> Callable[[int, int], int]:
        client = self._node.create_rpc_client(name, AddTwoInts)
        return lambda a, b: client.call(AddTwoInts.Request(a, b), CALL_TIMEOUT).c

    def work(self, name: str) -> None:
        self._node.create_action(name, Sum, lambda goal: Sum.Result(c=goal.data.a + goal.data.b))

    def sender(self, name: str) -> Callable[[int, int], int]:
        client = self._node.create_action_client(name, Sum)

        def send(a: int, b: int) -> int:
            goal = client.send_goal(Sum.Goal(a, b), timeout=CALL_TIMEOUT)
            return goal.result(CALL_TIMEOUT).c

        return send

    def work_slowly(self, name: str) -> None:
        def reach(goal: Any) -> Sum.Result:
            take_steps(lambda step: goal.send_feedback(Sum.Feedback(step)))
            return Sum.Result(goal.data.a + goal.data.b)

        self._node.create_action(name, Sum, reach)

    def slow_sender(self, name: str) -> Callable[[int, int], tuple[int, int]]:
        client = self._node.create_action_client(name, Sum)

        def send(a: int, b: int) -> tuple[int, int]:
            goal = client.send_goal(Sum.Goal(a, b), timeout=CALL_TIMEOUT)
            result = goal.result(CALL_TIMEOUT)
            return result.c, len(list(goal.feedback))

        return send

    def bridge(self, topic: str, to: str) -> None:
        from commlib.bridges import TopicBridge  # the others are measured without it

        TopicBridge(None, topic, to, self._url, self._url).run()


if __name__ == "__main__":
    main(Ours)
