"""What type checkers know of clients and their goals. It is checked, and never run."""

from __future__ import annotations

import concurrent.futures
from typing import Any, assert_type

from commlib import aio
from commlib.action import ActionClient, ClientGoal
from commlib.exceptions import CommlibError
from commlib.msg import ActionMessage, RPCMessage
from commlib.node import Node
from commlib.rpc import RPCClient


class Add(RPCMessage):
    class Request(RPCMessage.Request):
        a: int
        b: list[int] = []

    class Response(RPCMessage.Response):
        c: int


class Drive(ActionMessage):
    class Goal(ActionMessage.Goal):
        metres: float

    class Result(ActionMessage.Result):
        metres: float

    class Feedback(ActionMessage.Feedback):
        metres: float = 0.0


def take(error: CommlibError, topic: str) -> None:
    """What a program may be told of errors."""


def calls(node: Node) -> None:
    client = node.create_rpc_client("add", Add, on_error=take)
    assert_type(client, RPCClient[Add.Request, Add.Response])
    assert_type(client.call(Add.Request(a=1)), Add.Response)
    assert_type(client.call_async(Add.Request(a=1)), concurrent.futures.Future[Add.Response])
    assert_type(RPCClient("add", msg_type=Add), RPCClient[Add.Request, Add.Response])
    assert_type(node.create_rpc_client("add"), RPCClient[Any, Any])


def goals(node: Node) -> None:
    client = node.create_action_client("drive", Drive)
    assert_type(client, ActionClient[Drive.Goal, Drive.Result, Drive.Feedback])
    goal = client.send_goal(Drive.Goal(metres=1.5))
    assert_type(goal, ClientGoal[Drive.Result, Drive.Feedback])
    assert_type(goal.result(), Drive.Result)
    for feedback in goal:
        assert_type(feedback, Drive.Feedback)
    assert_type(node.create_action_client("drive"), ActionClient[Any, Any, Any])


async def the_same_on_a_loop(node: aio.Node) -> None:
    response = await node.create_rpc_client("add", Add).call(Add.Request(a=1))
    assert_type(response, Add.Response)
    goal = await node.create_action_client("drive", Drive).send_goal(Drive.Goal(metres=1.5))
    assert_type(await goal.result(), Drive.Result)
