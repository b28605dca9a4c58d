"""A released commlib-py, synchronous: what all releases have in common."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib import import_module
from queue import Empty, SimpleQueue
from types import SimpleNamespace
from typing import Any, ClassVar
from urllib.parse import urlsplit

from bench.child import address_of
from bench.roles import CALL_TIMEOUT, FLUSH_TIMEOUT, take_steps


class Released(ABC):
    """All endpoints are those of one node.

    A release names its messages, and the argument that names an action. ``runs_senders``:
    publishers and clients have to be run before they are used.
    """

    sonar: ClassVar[Any]
    two_ints: ClassVar[Any]
    sum: ClassVar[Any]
    action_name: ClassVar[str]
    runs_senders: ClassVar[bool]

    def __init__(self, url: str) -> None:
        logging.disable()  # its best face: a release writes a line per message otherwise
        host, port = address_of(url)
        self._broker = urlsplit(url).scheme
        self._transport = import_module(f"commlib.transports.{self._broker}")
        self._params = self._transport.ConnectionParameters(host=host, port=port)
        self._node = self._new_node(self._broker, self._params)
        self._publishers: list[Any] = []
        self._is_running = False

    @abstractmethod
    def _new_node(self, broker: str, params: Any) -> Any:
        """A node on this broker."""

    @abstractmethod
    def _new_bridge(self, broker: str, topic: str, to: str, params: Any) -> Any:
        """A bridge from this broker to itself."""

    def start(self) -> None:
        self._node.run()
        self._is_running = True

    def message(self, blob: bytes | None) -> Any:
        assert blob is None, "it cannot send bytes"
        return self.sonar()

    def publisher(self, topic: str, *, blob: bool) -> Callable[[Any], object]:
        publisher = self._node.create_publisher(topic=topic, msg_type=self.sonar)
        self._publishers.append(publisher)
        publish: Callable[[Any], object] = self._begin_sender(publisher).publish
        return publish

    def flush(self) -> None:
        """On Redis publish() waits for the broker's answer; elsewhere nothing does, so it is asked.

        Each publisher may have a connection of its own.
        """
        ask = {"mqtt": _ask_by_mqtt, "amqp": _ask_by_amqp}.get(self._broker)
        if ask:
            for publisher in self._publishers:
                ask(publisher._transport)

    def subscribe(
        self, topics: Sequence[str], on_message: Callable[[Any], None], *, blob: bool
    ) -> None:
        for topic in topics:
            self._begin(
                self._node.create_subscriber(
                    topic=topic, msg_type=self.sonar, on_message=on_message
                )
            )

    def serve(self, name: str) -> None:
        def add(request: Any) -> Any:
            return self.two_ints.Response(c=request.a + request.b)

        self._begin(self._node.create_rpc(rpc_name=name, msg_type=self.two_ints, on_request=add))

    def caller(self, name: str) -> Callable[[int, int], int]:
        # But on Redis a client takes the next reply for its own, whosever it is: one a thread.
        place: Any = SimpleNamespace() if self._broker == "redis" else threading.local()
        request = self.two_ints.Request

        def call(a: int, b: int) -> int:
            if not hasattr(place, "client"):
                client = self._node.create_rpc_client(rpc_name=name, msg_type=self.two_ints)
                place.client = self._begin_sender(client)
            c: int = place.client.call(request(a=a, b=b), timeout=int(CALL_TIMEOUT)).c
            return c

        return call

    def work_slowly(self, name: str) -> None:
        def reach(goal: Any) -> Any:
            take_steps(lambda step: goal.send_feedback(self.sum.Feedback(step=step)))
            result = self.sum.Result(c=goal.data.a + goal.data.b)
            # What is returned it only keeps after it has told the end, when its client may ask.
            goal.set_result(result)
            return result

        self._begin(
            self._node.create_action(
                **{self.action_name: name}, msg_type=self.sum, on_goal=reach, debug=False
            )
        )

    def slow_sender(self, name: str) -> Callable[[int, int], tuple[int, int]]:
        client = self._begin_sender(
            self._node.create_action_client(**{self.action_name: name}, msg_type=self.sum)
        )

        def send(a: int, b: int) -> tuple[int, int]:
            feedback: list[Any] = []
            results: SimpleQueue[Any] = SimpleQueue()
            response = client.send_goal(self.sum.Goal(a=a, b=b), timeout=int(CALL_TIMEOUT))
            if not response.goal_id:
                raise RuntimeError("the goal was refused")
            # Not before: until then it takes what it hears for news of the last goal. And not
            # get_result(wait=True): 0.13.2 looks each 0.2 s, and 0.6.3 asks by a client that asks
            # already, for the callback.
            client.on_feedback, client.on_result = feedback.append, results.put
            try:
                result = results.get(timeout=CALL_TIMEOUT)
            except Empty:
                raise TimeoutError(f"no result within {CALL_TIMEOUT} s") from None
            return result.c, len(feedback)

        return send

    def bridge(self, topic: str, to: str) -> None:
        self._new_bridge(self._broker, topic, to, self._params).run()

    def _begin(self, endpoint: Any) -> Any:
        if self._is_running:
            endpoint.run()
        return endpoint

    def _begin_sender(self, endpoint: Any) -> Any:
        return self._begin(endpoint) if self.runs_senders else endpoint


def _ask_by_mqtt(transport: Any) -> None:
    transport._client.publish("bench_asked", b"", qos=1).wait_for_publish(FLUSH_TIMEOUT)


def _ask_by_amqp(transport: Any) -> None:
    """On the thread of the connection, when it has written all that it was given before."""
    answered = threading.Event()
    # By pika's own channel: the one that blocks must not wait for anything on this thread.
    channel = transport.channel._impl
    transport.add_threadsafe_callback(channel.basic_qos, callback=lambda frame: answered.set())
    if not answered.wait(FLUSH_TIMEOUT):
        raise TimeoutError("the broker does not answer")
