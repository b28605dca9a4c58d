"""What type checkers know of subscribers and their callbacks. It is checked, and never run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, assert_type

from commlib import aio
from commlib.msg import PubSubMessage
from commlib.node import Node
from commlib.pubsub import PSubscriber, Subscriber


class Reading(PubSubMessage):
    celsius: float = 0.0


class Order(PubSubMessage):
    number: int = 0


def take(msg: Reading) -> None: ...


def take_with_topic(msg: Reading, topic: str = "") -> None: ...


async def take_later(msg: Reading) -> None: ...


def take_any(msg: object) -> None: ...


def take_on_behalf(owner: str, msg: Reading) -> None: ...


def take_data(msg: dict[str, Any]) -> None: ...


def take_order(msg: Order) -> None: ...


class Display:
    def show(self, msg: Reading) -> None: ...


def callbacks(node: Node, untyped: Callable[..., Any], choice: type[Reading] | None) -> None:
    queue: SimpleQueue[Reading] = SimpleQueue()
    kept: list[Reading] = []
    show = Display().show
    assert_type(node.create_subscriber("a", take, Reading), Subscriber[Reading])
    for good in (take, take_with_topic, take_later, take_any, untyped, show):
        node.create_subscriber("a", good, Reading)
    node.create_subscriber("a", queue.put, Reading)
    node.create_subscriber("a", kept.append, msg_type=Reading)
    node.create_subscriber("a", partial(take_on_behalf, "me"), Reading)
    node.create_subscriber("a", lambda msg: print(msg.celsius), Reading)
    node.create_psubscriber("a.*", lambda msg, topic: print(msg.celsius, topic), Reading)
    assert_type(node.create_psubscriber("a.*", take_with_topic, Reading), PSubscriber[Reading])
    assert_type(Subscriber("a", take, Reading, "redis://robot"), Subscriber[Reading])
    node.create_subscriber("a", take_order, Reading)  # type: ignore[arg-type]
    node.create_subscriber("a", take, choice)


def plain_data(node: Node) -> None:
    assert_type(node.create_subscriber("a", take_data), Subscriber[Any])
    node.create_subscriber("a", lambda msg: print(msg["celsius"]))
    node.create_psubscriber("a.*", lambda msg, topic: print(msg["celsius"], topic))
    Subscriber("a", lambda msg: print(msg["celsius"]))


async def on_a_loop(node: aio.Node) -> None:
    async for reading in node.create_subscriber("a", msg_type=Reading):
        assert_type(reading, Reading)
    async for found, topic in node.create_psubscriber("a.*", None, Reading):
        assert_type((found, topic), tuple[Reading, str])
    async for data in node.create_subscriber("a"):
        assert_type(data, Any)
    node.create_subscriber("a", take_later, Reading)
    aio.Subscriber("a", take_later, Reading, "redis://robot")
    node.create_subscriber("a", take_order, Reading)  # type: ignore[arg-type]
