"""Actions between ours and released peers, on every broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from brokers import Broker
from collected import DEADLINE, Collected
from commlib.action import ActionClient, ActionService, GoalStatus
from commlib.exceptions import GoalLost
from commlib.node import Node
from interop.cells import FROM_PEER, READS_ENVELOPES, TO_PEER, WRAPS_CALLS, Row, fault, works
from interop.released import Received, Released
from interop.samples import Turn

MOMENT = 0.02  # s that a step of a goal takes, so that it is not done at once

MakeClient = Callable[..., ActionClient[Any, Any, Any]]
Serve = Callable[..., Collected]


@pytest.fixture
def make_client(peer: Released, broker: Broker, topic: str) -> Iterator[MakeClient]:
    """Makes clients of ours, for that peer."""
    how: Any = {"conn_params": broker.url, "envelope": WRAPS_CALLS[peer.version]}
    clients: list[ActionClient[Any, Any, Any]] = []

    def make(msg_type: Any = Turn, **callbacks: Any) -> ActionClient[Any, Any, Any]:
        clients.append(ActionClient(topic, msg_type, **how, **callbacks))
        clients[-1].run()
        return clients[-1]

    yield make
    for client in clients:
        client.stop()


@pytest.fixture
def serve(peer: Released, broker: Broker, topic: str) -> Iterator[Serve]:
    """Makes services of ours, for that peer, that do what those of the peers do."""
    services: list[ActionService] = []

    def serve(msg_type: Any = Turn) -> Collected:
        entered = Collected()

        def on_goal(goal_h: Any) -> dict[str, int]:
            entered(goal_h.data)
            goal = goal_h.data if isinstance(goal_h.data, dict) else goal_h.data.as_dict()
            if goal["label"] == "ValueError":
                raise ValueError("as asked")
            for count in range(goal["count"]):
                goal_h.send_feedback({"count": count})
            if goal["label"] == "endless":
                goal_h.cancel_event.wait(DEADLINE)
            return {"count": goal["count"]}

        envelope = READS_ENVELOPES[peer.version]
        options: Any = {"conn_params": broker.url, "envelope": envelope}
        services.append(ActionService(topic, msg_type, on_goal, **options))
        services[-1].run()
        return entered

    yield serve
    for service in services:
        service.stop()


def told(collected: Collected, count: int) -> list[tuple[str | None, Any]]:
    """What the callbacks of a peer were told: which of them, and the count.

    Feedback comes first, and states after it, each in order: they come by two connections of the
    peer, so between them there is none.
    """
    heard = [(found.topic, found.data.get("count")) for found in collected.wait(count)]
    return sorted(heard, key=lambda one: one[0] != "on_feedback")


FEEDBACK_3 = [("on_feedback", n) for n in range(3)]


def goal(count: int = 0, label: str = "") -> dict[str, Any]:
    return {"count": count, "label": label}


# ---- goal, feedback, result ----


@works(Row.ACTION_TYPED, TO_PEER)
def test_a_typed_action_of_the_peer_is_used(
    peer: Released, make_client: MakeClient, topic: str
) -> None:
    entered = peer.serve_action(topic, typed=True, moment=MOMENT)

    sent = make_client().send_goal(Turn.Goal(count=3, label="grün"))

    assert sent.result(DEADLINE) == Turn.Result(count=3)
    assert list(sent.feedback) == [Turn.Feedback(count=n) for n in range(3)]
    assert sent.status == GoalStatus.SUCCEEDED
    assert entered.items == [Received("Goal", goal(3, "grün"), None)]


@works(Row.ACTION_TYPED, FROM_PEER)
def test_a_typed_action_of_ours_is_used(peer: Released, serve: Serve, topic: str) -> None:
    entered = serve()
    heard = peer.make_action_client(topic, typed=True)

    assert peer.ask("send_goal", goal=goal(3, "grün"), typed=True)["status"] == 1

    # The callbacks fetch the result as well, and two calls of one client disturb each other.
    assert told(heard, 5) == [*FEEDBACK_3, ("on_goal_reached", 3), ("on_result", 3)]
    assert sorted(found.type for found in heard.items) == ["Feedback"] * 3 + ["Result"] * 2
    result = peer.ask("get_result", timeout=DEADLINE)
    assert Received(**result) == Received("Result", {"count": 3}, None)
    assert entered.items == [Turn.Goal(count=3, label="grün")]


@works(Row.ACTION_UNTYPED, TO_PEER, "0.6.3")
def test_an_untyped_action_of_the_peer_is_used(
    peer: Released, make_client: MakeClient, topic: str
) -> None:
    entered = peer.serve_action(topic, moment=MOMENT)

    sent = make_client(None).send_goal(goal(3))

    assert sent.result(DEADLINE) == {"count": 3}
    assert list(sent.feedback) == [{"count": n} for n in range(3)]
    assert entered.items == [Received("dict", goal(3), None)]


@fault(Row.ACTION_UNTYPED, TO_PEER, "0.13.2")
def test_an_untyped_action_of_the_peer_cannot_send_feedback(
    peer: Released, make_client: MakeClient, topic: str
) -> None:
    """An untyped service that sends feedback raises: its goal ends as succeeded, with an empty
    result."""
    peer.serve_action(topic, moment=MOMENT)

    sent = make_client(None).send_goal(goal(3))

    assert sent.result(DEADLINE) == {}
    assert list(sent.feedback) == []
    assert "model_dump" in peer.log


@works(Row.ACTION_UNTYPED, FROM_PEER)
def test_an_untyped_action_of_ours_is_used(peer: Released, serve: Serve, topic: str) -> None:
    entered = serve(None)
    heard = peer.make_action_client(topic)

    assert peer.ask("send_goal", goal=goal(3))["status"] == 1

    assert told(heard, 5) == [*FEEDBACK_3, ("on_goal_reached", 3), ("on_result", 3)]
    result = peer.ask("get_result", timeout=DEADLINE)
    assert Received(**result) == Received("dict", {"count": 3}, None)
    assert entered.items == [goal(3)]


# ---- callbacks ----


@works(Row.ACTION_CALLBACKS, TO_PEER)
def test_the_callbacks_of_a_client_of_ours_are_told_in_order(
    peer: Released, make_client: MakeClient, topic: str
) -> None:
    peer.serve_action(topic, typed=True, moment=MOMENT)
    heard = Collected()
    names = ("on_feedback", "on_result", "on_goal_reached")
    callbacks = {name: lambda msg, name=name: heard(name, msg.count) for name in names}

    for _ in range(3):
        make_client(**callbacks).send_goal(Turn.Goal(count=2), wait_for_result=True)

    one = [("on_feedback", 0), ("on_feedback", 1), ("on_goal_reached", 2), ("on_result", 2)]
    assert heard.wait(12) == one * 3


@works(Row.ACTION_CALLBACKS, FROM_PEER)
def test_the_callbacks_of_a_client_of_the_peer_are_told_in_order(
    peer: Released, serve: Serve, topic: str
) -> None:
    serve()
    heard = peer.make_action_client(topic, typed=True)
    feedback = [("on_feedback", 0), ("on_feedback", 1)]
    ends = [("on_goal_reached", 2), ("on_result", 2)]

    for n in range(1, 4):
        peer.ask("send_goal", goal=goal(2), typed=True)
        assert told(heard, 4 * n) == feedback * n + ends * n


@works(Row.ACTION_INSTANT, TO_PEER, "0.6.3")
def test_goals_that_the_peer_has_done_at_once_are_reported_right(
    peer: Released, make_client: MakeClient, topic: str
) -> None:
    peer.serve_action(topic, typed=True)
    client = make_client()

    for _ in range(30):
        assert client.send_goal(Turn.Goal()).result(DEADLINE) == Turn.Result()


@fault(Row.ACTION_INSTANT, TO_PEER, "0.13.2")
def test_a_goal_that_the_peer_has_done_at_once_may_never_end(
    peer: Released, make_client: MakeClient, node: Node, topic: str
) -> None:
    """A service may forget that a goal has ended which is done at once: its result cannot be had,
    and the service is busy for ever."""
    peer.ask("hold", function="start", line="self.set_status")
    peer.serve_action(topic, typed=True)
    client, states = make_client(), Collected()
    node.create_subscriber(f"{topic}.status", lambda msg: states(msg["status"]))
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(client.send_goal, Turn.Goal(), DEADLINE)
        assert peer.ask("until_held", timeout=DEADLINE)
        states.until(4)
        peer.ask("let_go")
        sent = sending.result(DEADLINE)

    with pytest.raises(GoalLost):
        sent.result(DEADLINE)
    assert client.send_goal(Turn.Goal()).reason == "the service is busy"


@works(Row.ACTION_INSTANT, FROM_PEER)
def test_goals_that_ours_has_done_at_once_are_reported_right(
    peer: Released, serve: Serve, topic: str
) -> None:
    serve()
    heard = peer.make_action_client(topic, typed=True)

    for n in range(1, 31):
        peer.ask("send_goal", goal=goal(), typed=True)
        assert told(heard, 2 * n)[-2:] == [("on_goal_reached", 0), ("on_result", 0)]


# ---- other ends ----


@works(Row.ACTION_CANCEL, TO_PEER)
def test_a_goal_of_the_peer_is_cancelled(
    peer: Released, make_client: MakeClient, topic: str
) -> None:
    peer.serve_action(topic, typed=True, moment=MOMENT)
    feedback, results = Collected(), Collected()
    client = make_client(on_feedback=feedback, on_result=results)
    sent = client.send_goal(Turn.Goal(count=2, label="endless"))
    feedback.wait(2)

    assert sent.cancel()

    assert sent.result(DEADLINE) == Turn.Result(count=2)
    assert sent.status == GoalStatus.CANCELED
    assert results.wait(1) == [Turn.Result(count=2)]


@works(Row.ACTION_CANCEL, FROM_PEER)
def test_a_goal_of_ours_is_cancelled(peer: Released, serve: Serve, topic: str) -> None:
    serve()
    heard = peer.make_action_client(topic, typed=True)
    peer.ask("send_goal", goal=goal(1, "endless"), typed=True)
    heard.wait(1)

    peer.ask("cancel_goal")

    assert told(heard, 2) == [("on_feedback", 0), ("on_result", 1)]
    assert peer.ask("get_result", timeout=DEADLINE)["data"] == {"count": 1}


@fault(Row.ACTION_BUSY, TO_PEER, "0.6.3")
def test_a_second_goal_of_the_peer_is_taken_for_the_first(
    peer: Released, make_client: MakeClient, topic: str
) -> None:
    """A service works on the first goal a second time, at the same time, and never on the other
    one; ours is told that the first is the second."""
    entered = peer.serve_action(topic, typed=True, moment=MOMENT)
    client = make_client()
    first = client.send_goal(Turn.Goal(count=1, label="endless"))

    second = client.send_goal(Turn.Goal(count=7))

    assert second.goal_id == first.goal_id
    assert entered.wait(2) == [Received("Goal", goal(1, "endless"), None)] * 2
    first.cancel()
    assert second.result(DEADLINE) == first.result(DEADLINE) == Turn.Result(count=1)


@works(Row.ACTION_BUSY, TO_PEER, "0.13.2")
def test_a_second_goal_is_refused_by_the_peer(
    peer: Released, make_client: MakeClient, topic: str
) -> None:
    entered = peer.serve_action(topic, typed=True, moment=MOMENT)
    client = make_client()
    first = client.send_goal(Turn.Goal(count=1, label="endless"))
    entered.wait(1)

    assert client.send_goal(Turn.Goal(count=7)).reason == "the service is busy"
    first.cancel()
    assert first.result(DEADLINE) == Turn.Result(count=1)


@works(Row.ACTION_BUSY, FROM_PEER)
def test_a_second_goal_is_refused_by_ours(
    peer: Released, serve: Serve, make_client: MakeClient, topic: str
) -> None:
    entered = serve()
    peer.make_action_client(topic, typed=True)
    first = make_client().send_goal(Turn.Goal(count=1, label="endless"))
    entered.wait(1)

    refused = peer.ask("send_goal", goal=goal(7), typed=True)

    assert (refused["status"], refused["goal_id"]) == (0, "")
    first.cancel()
    assert first.result(DEADLINE) == Turn.Result(count=1)


@fault(Row.ACTION_RAISES, TO_PEER, "0.6.3")
def test_a_goal_of_the_peer_that_raises_is_published_as_succeeded(
    peer: Released, make_client: MakeClient, topic: str
) -> None:
    """A goal that raises is published as succeeded, and has no result: ours is told `GoalLost`, or
    of an untyped service an empty result; the service goes on."""
    peer.serve_action(topic, typed=True, moment=MOMENT)
    client = make_client()

    with pytest.raises(GoalLost, match="succeeded, but does not give its result"):
        client.send_goal(Turn.Goal(label="ValueError")).result(DEADLINE)
    assert client.send_goal(Turn.Goal(count=2)).result(DEADLINE) == Turn.Result(count=2)


@fault(Row.ACTION_RAISES, TO_PEER, "0.13.2")
def test_a_goal_of_the_peer_that_raises_has_a_result_of_defaults(
    peer: Released, make_client: MakeClient, topic: str
) -> None:
    """A goal that raises is published as succeeded, with a result of nothing but defaults; the
    service goes on."""
    peer.serve_action(topic, typed=True, moment=MOMENT)
    client = make_client()

    raised = client.send_goal(Turn.Goal(count=5, label="ValueError"))
    assert raised.result(DEADLINE) == Turn.Result(count=0)
    assert raised.status == GoalStatus.SUCCEEDED
    assert client.send_goal(Turn.Goal(count=2)).result(DEADLINE) == Turn.Result(count=2)


@works(Row.ACTION_RAISES, FROM_PEER)
def test_a_goal_of_ours_that_raises_has_a_result_but_is_not_reached(
    peer: Released, serve: Serve, topic: str
) -> None:
    serve()
    heard = peer.make_action_client(topic, typed=True)

    peer.ask("send_goal", goal=goal(5, "ValueError"), typed=True)
    assert told(heard, 1) == [("on_result", 0)]
    peer.ask("send_goal", goal=goal(1), typed=True)
    assert ("on_goal_reached", 1) in told(heard, 4)
