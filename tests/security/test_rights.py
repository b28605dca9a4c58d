"""Rights: what a user may not do is told as is documented, and nothing else breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from brokers import Server
from collected import DEADLINE, Collected, eventually
from commlib.exceptions import AuthError, RPCTimeout
from commlib.node import Node
from security.access import check
from security.kinds import CONFIRMING, COUNTED, PASSWORD, RAISES, ROBOT, Kind

Act = Callable[..., Any]
"""Does it with a node and a name, and collects what comes of it; gives what has counters.

One that calls takes a ``timeout`` (s) as well.
"""
Proof = Callable[[Node, str, Collected], None]
"""With the rights to do so, does what would bring something if the other one were let."""


# ---- each verb ----


def subscribe(node: Node, name: str, seen: Collected) -> Any:
    return node.create_subscriber(name, seen)


def publish(node: Node, name: str, seen: Collected) -> Any:
    publisher = node.create_publisher(name)
    publisher.publish(1)
    return publisher


def publish_at_qos_1(node: Node, name: str, seen: Collected) -> Any:
    publisher = node.create_publisher(name, qos=1)
    publisher.publish(1)
    return publisher


def call(node: Node, name: str, seen: Collected, timeout: float = 0.3) -> Any:
    client = node.create_rpc_client(name)
    with suppress(RPCTimeout):
        seen(client.call(1, timeout=timeout))
    return client


def serve(node: Node, name: str, seen: Collected) -> Any:
    return node.create_rpc(name, seen)


def send_goal(node: Node, name: str, seen: Collected, timeout: float = 0.3) -> Any:
    client = node.create_action_client(name)
    with suppress(RPCTimeout):
        seen(client.send_goal(1, timeout=timeout))
    return client


def take_goals(node: Node, name: str, seen: Collected) -> Any:
    return node.create_action(name, on_goal=seen)


def bridge_from(node: Node, name: str, seen: Collected) -> Any:
    elsewhere = f"memory://{name}"
    bridge = node.create_bridge("topic", name, "there", elsewhere)
    bridge.run()  # waits for both sides
    return bridge


def bridge_to(node: Node, name: str, seen: Collected) -> Any:
    elsewhere = f"memory://{name}"
    bridge = node.create_bridge("topic", "there", name, from_broker_params=elsewhere)
    with Node("other", connection_params=elsewhere, heartbeats=False) as other:
        other.create_publisher("there").publish(1)
        eventually(lambda: bridge.stats.forwarded + bridge.stats.rejected > 0)
    return bridge


# ---- and who would see it ----


def listen(robot: Node, name: str, seen: Collected) -> None:
    robot.create_subscriber(name, seen)


def talk(robot: Node, name: str, seen: Collected) -> None:
    robot.create_publisher(name).publish(1)


def work(robot: Node, name: str, seen: Collected) -> None:
    robot.create_rpc(name, seen)


def act(robot: Node, name: str, seen: Collected) -> None:
    robot.create_action(name, on_goal=seen)


def want_work(robot: Node, name: str, seen: Collected) -> None:
    with pytest.raises(RPCTimeout):
        robot.create_rpc_client(name).call(1, timeout=0.3)


def want_action(robot: Node, name: str, seen: Collected) -> None:
    with pytest.raises(RPCTimeout):
        robot.create_action_client(name).send_goal(1, timeout=0.3)


VERBS: dict[str, tuple[Act, Proof | None, Proof | None]] = {
    "subscribe": (subscribe, None, talk),
    "publish": (publish, listen, None),
    "publish at QoS 1": (publish_at_qos_1, listen, None),
    "call": (call, work, None),
    "serve": (serve, None, want_work),
    "send a goal": (send_goal, act, None),
    "take goals": (take_goals, None, want_action),
    "bridge from": (bridge_from, None, talk),
    "bridge to": (bridge_to, listen, None),
}


@pytest.fixture
def robot(kind: Kind, guarded: Server) -> Iterator[Node]:
    """A node that may do everything."""
    params = kind.params(guarded.port, username=ROBOT, password=PASSWORD)
    with Node("robot", connection_params=params, heartbeats=False) as node:
        yield node


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "publish at QoS 1"])
def test_what_a_user_may_not_do_is_told_as_is_documented_and_nothing_else_breaks(
    kind: Kind, guarded: Server, robot: Node, verb: str, topic: str
) -> None:
    check_refusal(kind, guarded, robot, verb, topic)


@pytest.mark.parametrize("kind", CONFIRMING, indirect=True)
def test_what_he_may_not_publish_at_qos_1_is_told_as_is_documented(
    kind: Kind, guarded: Server, robot: Node, topic: str
) -> None:
    check_refusal(kind, guarded, robot, "publish at QoS 1", topic)


def check_refusal(kind: Kind, guarded: Server, robot: Node, verb: str, topic: str) -> None:
    """The user is refused as the kind says, and all others are as before."""
    do, before, after = VERBS[verb]
    is_call = verb in ("call", "send a goal")
    user = kind.callers if is_call else "picky"
    name, seen = f"forbidden.{topic}", Collected()
    params = kind.params(guarded.port, username=user, password=PASSWORD)
    with Node("n", connection_params=params, heartbeats=False) as node:
        end = Collected()
        node.create_subscriber(f"allowed.{topic}.end", end)
        robot.create_subscriber(f"allowed.{topic}.end", seen)
        if before:
            before(robot, name, seen)
        refusal = kind.refusals[verb]
        if refusal == RAISES:
            patience = {"timeout": DEADLINE} if is_call else {}
            with pytest.raises(AuthError):
                do(node, name, seen, **patience)
        else:
            port = do(node, name, seen)
            if refusal == COUNTED:
                eventually(lambda: port.stats.rejected > 0)
        if after:
            after(robot, name, seen)
        for each in (robot, node):  # what each has sent before comes before that
            last = each.create_publisher(f"allowed.{topic}.end")

            def heard(last: Any = last, name: str = each.node_name) -> bool:
                # Again and again: some brokers end the connection of who publishes what he may not.
                last.publish(name)
                return name in end.items and name in seen.items

            eventually(heard)
        assert set(seen.items) == {"robot", "n"}
        if not (is_call and user != "picky"):
            check(node, f"allowed.{topic}")
        eventually(lambda: node.connected)


def test_the_rights_that_are_recommended_are_enough(
    kind: Kind, guarded: Server, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    params = kind.params(guarded.port, username="picky", password=PASSWORD)
    seen = Collected()
    with Node("allowed", connection_params=params, ctrl_services=True) as node:
        node.create_subscriber(node.namespace + ".heartbeat", seen)
        name = f"allowed.{topic}"
        check(node, name)
        assert node.create_rpc_client(f"{name}.double").wait_for_service(timeout=DEADLINE)
        node.create_action(f"{name}.drive", on_goal=lambda goal: {"n": goal.data["n"]})
        client = node.create_action_client(f"{name}.drive")
        goal = client.send_goal({"n": 1}, timeout=DEADLINE)
        assert goal.result(DEADLINE) == {"n": 1}
        node.create_subscriber(f"{name}.there", seen)
        with Node("other", connection_params=f"memory://{topic}", heartbeats=False) as other:
            node.create_bridge(
                "topic", "here", f"{name}.there", from_broker_params=f"memory://{topic}"
            )
            eventually(lambda: 1 in seen.items or other.create_publisher("here").publish(1))
        node.create_psubscriber("allowed.*", seen)
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []
