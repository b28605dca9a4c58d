"""Actions, from plain Python, on every broker."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from brokers import Broker
from collected import DEADLINE, Collected, eventually
from commlib.action import ActionClient, ActionService, GoalStatus
from commlib.aio import _action_service, _goal_follower
from commlib.aio._caller import PASSING
from commlib.exceptions import (
    BlockingCall,
    EndpointClosed,
    GoalAborted,
    GoalCanceled,
    GoalError,
    GoalLost,
    GoalRefused,
    GoalTimeout,
    RPCTimeout,
    SerializationError,
)
from commlib.msg import ActionMessage
from commlib.node import Node
from commlib.serializer import MessagePackSerializer
from messages import Move, Pose, Sonar

MakeService = Callable[..., ActionService]
MakeClient = Callable[..., ActionClient[Any, Any, Any]]
Goal, Result, Feedback = Move.Goal, Move.Result, Move.Feedback

ACCEPTED, EXECUTING, CANCELING, SUCCEEDED, ABORTED, CANCELED = GoalStatus


@pytest.fixture
def make_service(broker: Broker, topic: str) -> Iterator[MakeService]:
    """Makes and runs services of one name, each with a connection of its own."""
    services: list[ActionService] = []

    def make(on_goal: Any, msg_type: Any = Move, **options: Any) -> ActionService:
        options.setdefault("action_uri", topic)
        options.setdefault("conn_params", broker.url)
        services.append(ActionService(msg_type=msg_type, on_goal=on_goal, **options))
        services[-1].run()
        return services[-1]

    yield make
    for service in services:
        service.stop()


@pytest.fixture
def make_client(broker: Broker, topic: str) -> Iterator[MakeClient]:
    """Makes clients of that name, each with a connection of its own."""
    clients: list[ActionClient[Any, Any, Any]] = []

    def make(msg_type: Any = Move, **options: Any) -> ActionClient[Any, Any, Any]:
        options.setdefault("action_uri", topic)
        clients.append(ActionClient(msg_type=msg_type, conn_params=broker.url, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.stop()


@pytest.fixture
def states(node: Node, topic: str) -> Collected:
    """The states that are published, as pairs of goal and state."""
    collected = Collected()
    node.create_subscriber(
        f"{topic}.status", lambda msg: collected((msg["goal_id"], msg["status"])), inline=True
    )
    return collected


def of(states: Collected, goal: Any) -> list[int]:
    """The states of one goal, as soon as it has ended."""
    found: list[int] = []

    def has_ended() -> bool:
        found[:] = [status for goal_id, status in list(states.items) if goal_id == goal.goal_id]
        return bool(found) and found[-1] >= SUCCEEDED

    eventually(has_ended, lambda: found)
    return found


def walk(goal_h: Any) -> Move.Result:
    """Go so many cm, and tell of each."""
    for cm in range(goal_h.data.cm):
        goal_h.send_feedback(Feedback(cm=cm))
    return Result(cm=goal_h.data.cm, pose=Pose(x=goal_h.data.speed))


async def walk_later(goal_h: Any) -> Move.Result:
    for cm in range(goal_h.data.cm):
        await goal_h.send_feedback(Feedback(cm=cm))
    return Result(cm=goal_h.data.cm, pose=Pose(x=goal_h.data.speed))


class Slow:
    """Works on goals until they are cancelled, or its gate is opened."""

    def __init__(self) -> None:
        self.entered = Collected()
        self.gate = threading.Event()
        self.ends = threading.Event()

    def __call__(self, goal_h: Any) -> Move.Result:
        self.entered(goal_h)
        # Two events, and no wait for both: whoever opens the gate sets this one, too.
        canceled = goal_h.cancel_event.wait(0) or self._wait(goal_h)
        return Result(cm=-1 if canceled else goal_h.data.cm)

    def _wait(self, goal_h: Any) -> bool:
        while not self.gate.wait(0.002) and not goal_h.cancel_event.is_set():
            pass
        return bool(goal_h.cancel_event.is_set())

    def first(self) -> Any:
        """The handler of the first goal."""
        return self.entered.wait(1)[0]


@pytest.fixture
def slow() -> Iterator[Slow]:
    slow = Slow()
    yield slow
    slow.gate.set()


# ---- goals that succeed ----


@pytest.mark.parametrize("work", [walk, walk_later], ids=["plain", "async"])
def test_a_goal_is_worked_on_and_its_result_comes(
    make_service: MakeService, make_client: MakeClient, states: Collected, work: Any
) -> None:
    make_service(work)

    goal = make_client().send_goal(Goal(cm=3, speed=0.5))

    assert goal.result(DEADLINE) == Result(cm=3, pose=Pose(x=0.5))
    assert type(goal.result()) is Result
    assert type(goal.result().pose) is Pose
    assert (goal.status, goal.done, goal.reason) == (SUCCEEDED, True, "")
    assert goal.timestamp > 1_600_000_000
    assert of(states, goal) == [ACCEPTED, EXECUTING, SUCCEEDED]


@pytest.mark.parametrize("work", [walk, walk_later], ids=["plain", "async"])
def test_feedback_is_iterated_over_in_order_until_the_goal_has_ended(
    make_service: MakeService, make_client: MakeClient, work: Any
) -> None:
    make_service(work)

    goal = make_client().send_goal(Goal(cm=500))

    received = list(goal.feedback)
    assert received == [Feedback(cm=n) for n in range(500)]
    assert type(received[0].pose) is Pose
    assert goal.done
    assert list(goal) == []


def test_callbacks_are_told_feedback_then_goal_reached_then_the_result(
    make_service: MakeService, make_client: MakeClient
) -> None:
    make_service(walk)
    got = Collected()
    client = make_client(
        on_feedback=lambda fb: got("feedback", fb.cm),
        on_result=lambda result: got("result", result.cm),
        on_goal_reached=lambda result: got("reached", result.cm),
    )

    for cm in (0, 3, 50):
        client.send_goal(Goal(cm=cm)).result(DEADLINE)

    assert got.wait(59) == [
        step
        for cm in (0, 3, 50)
        for step in (*(("feedback", n) for n in range(cm)), ("reached", cm), ("result", cm))
    ]


def test_callbacks_of_both_kinds_are_called_in_order(
    make_service: MakeService, make_client: MakeClient
) -> None:
    make_service(walk)
    got = Collected()

    async def on_feedback(feedback: Move.Feedback) -> None:
        await asyncio.sleep(0)
        got(feedback.cm, threading.current_thread().name)

    def on_result(result: Move.Result) -> None:
        got("result", threading.current_thread().name)

    client = make_client(on_feedback=on_feedback, on_result=on_result)
    client.send_goal(Goal(cm=3))
    client.send_goal(Goal(cm=2)) if client.get_result(wait=True) else None

    received = got.wait(7)
    assert [what for what, _ in received] == [0, 1, 2, "result", 0, 1, "result"]
    assert {name for what, name in received if what != "result"} == {"commlib-loop"}
    assert "commlib-loop" not in {name for what, name in received if what == "result"}


@pytest.mark.parametrize("goal", [{}, {"a": [1, {"b": None}]}])
def test_without_a_class_plain_data_goes_both_ways(
    make_service: MakeService, make_client: MakeClient, goal: Any
) -> None:
    got = Collected()

    def on_goal(goal_h: Any) -> Any:
        got(goal_h.data)
        goal_h.send_feedback({"half": goal_h.data})
        return {"all": goal_h.data}

    make_service(on_goal, None)
    handle = make_client(None).send_goal(goal)

    assert handle.result(DEADLINE) == {"all": goal}
    assert list(handle.feedback) == [{"half": goal}]
    assert got.items == [goal]


def test_a_callback_that_returns_nothing_leaves_an_empty_result(
    make_service: MakeService, make_client: MakeClient
) -> None:
    make_service(lambda goal_h: None, None)

    assert make_client(None).send_goal({}).result(DEADLINE) == {}


def test_a_typed_service_takes_dicts_and_a_set_result_counts_if_none_is_returned(
    make_service: MakeService, make_client: MakeClient
) -> None:
    def on_goal(goal_h: Any) -> Any:
        goal_h.send_feedback({"cm": "7"})
        goal_h.set_result(Result(cm=1))
        return {"cm": "2"} if goal_h.data.cm else None

    make_service(on_goal)
    client = make_client()

    first, second = (client.send_goal({"cm": cm}, wait_for_result=True) for cm in (0, 1))
    assert (first.result(), second.result()) == (Result(cm=1), Result(cm=2))
    assert list(first.feedback) == [Feedback(cm=7)]


@pytest.mark.parametrize(
    "options",
    [{}, {"serializer": MessagePackSerializer}, {"compression": "zlib"}],
    ids=["json", "msgpack", "zlib"],
)
def test_nested_messages_infinities_and_bytes_arrive_as_they_were(
    make_service: MakeService, make_client: MakeClient, options: dict[str, Any]
) -> None:
    got = Collected()

    def on_goal(goal_h: Any) -> Any:
        got(goal_h.data)
        goal_h.send_feedback(Feedback(cm=-1, pose=Pose(math.inf, -0.5)))
        return Result(cm=2, pose=Pose(math.nan, -math.inf), map=b"\xff\x00")

    make_service(on_goal, **options)
    goal = Goal(cm=5, speed=math.inf, path=[Pose(1.0, 2.0), Pose(-1.5, math.inf)])

    handle = make_client(**options).send_goal(goal)
    result = handle.result(DEADLINE)

    assert got.items == [goal]
    assert math.isnan(result.pose.x)
    assert (result.cm, result.pose.y, result.map) == (2, -math.inf, b"\xff\x00")
    assert list(handle.feedback) == [Feedback(cm=-1, pose=Pose(math.inf, -0.5))]


def test_a_result_changed_after_it_was_returned_is_told_as_it_was(
    make_service: MakeService, make_client: MakeClient
) -> None:
    shared = Result(cm=0)

    def on_goal(goal_h: Any) -> Move.Result:
        shared.cm = goal_h.data.cm
        return shared

    make_service(on_goal)
    client, late = make_client(), make_client()
    goals = [client.send_goal(Goal(cm=n), wait_for_result=True) for n in (1, 2)]

    assert [late.watch(goal.goal_id).result(DEADLINE).cm for goal in goals] == [1, 2]


def test_the_parts_of_a_slashed_name_are_spelled_as_released_peers_spell_them(
    make_service: MakeService, make_client: MakeClient, node: Node, topic: str
) -> None:
    uri, told = f"{topic}/arm.2/move", Collected()
    requests = {f"{uri}.send_goal", f"{uri}.get_result"}  # seen where a service is a topic as well
    node.create_psubscriber(f"{topic}/arm.2/*", lambda msg, topic: topic in requests or told(topic))
    make_service(walk, action_uri=uri)

    goal = make_client(action_uri=uri).send_goal(Goal(cm=1))

    assert goal.result(DEADLINE).cm == 1
    assert set(told.wait(4)) == {f"{uri}.status", f"{uri}.feedback"}


# ---- many ----


@pytest.mark.parametrize("work", [walk, walk_later], ids=["plain", "async"])
def test_a_thousand_instant_goals_one_after_another_are_all_reported_right(
    make_service: MakeService, make_client: MakeClient, work: Any
) -> None:
    make_service(work)
    results, reached = Collected(), Collected()
    client = make_client(
        on_result=lambda result: results(result.cm), on_goal_reached=lambda r: reached(r.pose.x)
    )

    for n in range(1000):
        goal = client.send_goal(Goal(cm=n % 3, speed=float(n)))
        assert goal.result(DEADLINE) == Result(cm=n % 3, pose=Pose(x=float(n)))

    assert results.wait(1000) == [n % 3 for n in range(1000)]
    assert reached.wait(1000) == [float(n) for n in range(1000)]


@pytest.mark.parametrize("work", [walk, walk_later], ids=["plain", "async"])
def test_a_hundred_goals_at_once_are_all_reported_right(
    make_service: MakeService, make_client: MakeClient, states: Collected, work: Any
) -> None:
    make_service(work, concurrency=100)
    results = Collected()
    client = make_client(on_result=lambda result: results(result.cm))

    goals = [client.send_goal(Goal(cm=n)) for n in range(100)]

    assert [goal.result(DEADLINE).cm for goal in goals] == list(range(100))
    assert sorted(results.wait(100)) == list(range(100))
    for goal in goals:
        assert of(states, goal) == [ACCEPTED, EXECUTING, SUCCEEDED]


def test_goals_that_block_wait_for_no_other_and_hold_up_no_other_callback_of_their_node(
    make_node: Callable[..., Node], make_client: MakeClient, slow: Slow, topic: str
) -> None:
    def at_work() -> int:
        return [thread.name for thread in threading.enumerate()].count(f"{topic}-worker")

    heard = Collected()
    node = make_node()
    node.create_subscriber(f"{topic}.chat", heard)
    node.create_action(topic, Move, slow, concurrency=100)
    client = make_client()
    goals = [client.send_goal(Goal(cm=n)) for n in range(80)]

    assert len(slow.entered.wait(80)) == 80
    assert at_work() == 80
    make_node().create_publisher(f"{topic}.chat").publish("still there?")
    assert heard.first == "still there?"
    slow.gate.set()
    assert [goal.result(DEADLINE).cm for goal in goals] == list(range(80))
    eventually(lambda: at_work() == 0, at_work)


def test_goals_of_many_threads_get_their_own_feedback_and_results(
    make_service: MakeService, make_client: MakeClient
) -> None:
    def on_goal(goal_h: Any) -> Any:
        for n in range(10):
            goal_h.send_feedback([goal_h.data, n])
        return goal_h.data

    make_service(on_goal, None, concurrency=8)
    client, wrong = make_client(None), Collected()

    def send(thread: int) -> None:
        for n in range(20):
            goal = client.send_goal([thread, n])
            if list(goal) != [[[thread, n], k] for k in range(10)]:
                wrong(goal)
            if goal.result(DEADLINE) != [thread, n]:
                wrong(goal)

    threads = [threading.Thread(target=send, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong.items == []


# ---- goals that fail ----


@pytest.mark.parametrize(
    ("error", "name", "text"),
    [
        (ValueError("no such arm"), "ValueError", "no such arm"),
        (KeyError("arm"), "KeyError", "'arm'"),
        (SystemExit(3), "SystemExit", "3"),
        (KeyboardInterrupt("no"), "KeyboardInterrupt", "no"),
        (BaseException("of no kind"), "BaseException", "of no kind"),
        (GeneratorExit("closed"), "GeneratorExit", "closed"),
        (asyncio.CancelledError(), "CancelledError", "what it waited for was cancelled"),
        (StopIteration(), "StopIteration", ""),
        (RuntimeError("größer\n" + "x" * 10_000), "RuntimeError", "größer\n" + "x" * 10_000),
    ],
    ids=[
        *("ValueError", "KeyError", "SystemExit", "Ctrl-C", "BaseException", "GeneratorExit"),
        *("CancelledError", "StopIteration", "long"),
    ],
)
@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_a_goal_that_raises_is_aborted_with_the_error_and_the_service_goes_on(
    make_service: MakeService,
    make_client: MakeClient,
    states: Collected,
    topic: str,
    is_async: bool,
    error: BaseException,
    name: str,
    text: str,
) -> None:
    errors, results, reached = Collected(), Collected(), Collected()

    def on_goal(goal_h: Any) -> Any:
        if goal_h.data.cm < 0:
            raise error
        return Result(cm=goal_h.data.cm)

    async def on_goal_later(goal_h: Any) -> Any:
        await asyncio.sleep(0)
        return on_goal(goal_h)

    service = make_service(on_goal_later if is_async else on_goal, on_error=errors)
    client = make_client(on_result=results, on_goal_reached=reached)

    for n in range(3):
        goal = client.send_goal(Goal(cm=-1))
        with pytest.raises(GoalAborted) as raised:
            goal.result(DEADLINE)
        if not (is_async and isinstance(error, StopIteration)):  # asyncio makes another of it
            assert (raised.value.type, raised.value.message) == (name, text)
        assert goal.status == ABORTED
        assert of(states, goal) == [ACCEPTED, EXECUTING, ABORTED]
        with pytest.raises(GoalAborted):
            client.get_result()
        assert client.send_goal(Goal(cm=n)).result(DEADLINE) == Result(cm=n)

    assert results.wait(6) == [None, Result(cm=0), None, Result(cm=1), None, Result(cm=2)]
    assert reached.wait(3) == [Result(cm=n) for n in range(3)]
    assert service.stats.errors == 3
    assert [told for _, told in errors.items] == [topic] * 3


def test_a_goal_that_raises_what_befell_a_call_of_its_own_is_aborted_and_leaves_its_result(
    make_service: MakeService, make_client: MakeClient
) -> None:
    errors = {error.__name__: error for error in PASSING}

    def on_goal(goal_h: Any) -> None:
        goal_h.set_result({"got_to": 42})
        raise errors[goal_h.data["raise"]]("the map server is away")

    results = Collected()
    make_service(on_goal, msg_type=None)
    client = make_client(msg_type=None, on_result=results)

    for name in errors:
        goal = client.send_goal({"raise": name})
        late = make_client(msg_type=None).watch(goal.goal_id)
        for each in (goal, late):
            with pytest.raises(GoalAborted, match=f"{name}: the map server is away"):
                each.result(DEADLINE)

    assert results.wait(len(errors)) == [{"got_to": 42}] * len(errors)


@pytest.mark.parametrize("result", [Sonar(1.0), {"cm": "far"}, 5])
def test_a_result_that_is_none_aborts_the_goal(
    make_service: MakeService, make_client: MakeClient, result: Any
) -> None:
    make_service(lambda goal_h: result)

    with pytest.raises(GoalAborted) as raised:
        make_client().send_goal(Goal(cm=1)).result(DEADLINE)
    assert raised.value.type == "SerializationError"
    assert "Result" in raised.value.message or "Move" in raised.value.message


def test_a_result_that_cannot_be_sent_aborts_the_goal(
    make_service: MakeService, make_client: MakeClient, broker: Broker
) -> None:
    results = iter([object(), "x" * 2000, {"at": {1j}}])
    make_service(
        lambda goal_h: next(results), None, conn_params=broker.with_options(max_payload=1000)
    )
    client = make_client(None)

    for kind in ("SerializationError", "PayloadTooBig", "SerializationError"):
        with pytest.raises(GoalAborted) as raised:
            client.send_goal({}).result(DEADLINE)
        assert raised.value.type == kind


def test_an_error_too_long_to_be_sent_is_told_by_its_name(
    make_service: MakeService, make_client: MakeClient, broker: Broker
) -> None:
    def on_goal(goal_h: Any) -> None:
        raise RuntimeError("x" * 5000)

    make_service(on_goal, conn_params=broker.with_options(max_payload=1000))

    with pytest.raises(GoalAborted) as raised:
        make_client().send_goal(Goal(cm=1)).result(DEADLINE)
    assert raised.value.type == "RuntimeError"
    # A broker with headers beside the payload has room for it there.
    assert raised.value.message == ("x" * 5000 if broker.traits.native_headers else "")


def test_feedback_of_the_wrong_class_is_an_error_of_the_callback(
    make_service: MakeService, make_client: MakeClient
) -> None:
    make_service(lambda goal_h: goal_h.send_feedback(Sonar(1.0)))

    with pytest.raises(GoalAborted, match="Feedback"):
        make_client().send_goal(Goal(cm=1)).result(DEADLINE)


@pytest.mark.parametrize(
    ("wish", "states_of_goal"),
    [
        (GoalStatus.SUCCEEDED, [1, 2, 4]),
        (GoalStatus.ABORTED, [1, 2, 5]),
        (GoalStatus.CANCELED, [1, 2, 6]),
        (4, [1, 2, 4]),
        (GoalStatus.EXECUTING, [1, 2, 4]),
    ],
)
def test_a_callback_may_say_how_its_goal_ends(
    make_service: MakeService,
    make_client: MakeClient,
    states: Collected,
    wish: int,
    states_of_goal: list[int],
) -> None:
    seen = Collected()

    def on_goal(goal_h: Any) -> Move.Result:
        goal_h.set_status(wish)
        seen(goal_h.status, goal_h.is_finished())
        return Result(cm=3)

    results = Collected()
    make_service(on_goal)
    goal = make_client(on_result=results).send_goal(Goal(cm=1), wait_for_result=True)

    assert of(states, goal) == states_of_goal
    assert results.first == Result(cm=3)
    assert seen.first == (EXECUTING, False)
    if goal.status == ABORTED:
        with pytest.raises(GoalAborted, match="without an error"):
            goal.result()
    else:
        assert goal.result() == Result(cm=3)


def test_a_state_that_is_not_for_the_callback_to_decide_is_an_error(
    make_service: MakeService, make_client: MakeClient
) -> None:
    make_service(lambda goal_h: goal_h.set_status(GoalStatus.CANCELING))

    with pytest.raises(GoalAborted, match="ValueError"):
        make_client().send_goal(Goal(cm=1)).result(DEADLINE)


# ---- goals that are refused ----


def test_a_second_goal_is_refused_with_the_reason_until_the_first_has_ended(
    make_service: MakeService, make_client: MakeClient, states: Collected, slow: Slow, topic: str
) -> None:
    make_service(slow)
    results = Collected()
    client = make_client(on_result=results)
    first = client.send_goal(Goal(cm=1))
    slow.first()

    second = client.send_goal(Goal(cm=2))

    assert (second.status, second.done) == (0, True)
    assert second.reason == f"{topic} is busy with 1 of at most 1 goals"
    for ask in (second.result, client.get_result):
        with pytest.raises(GoalRefused, match="busy"):
            ask()
    assert not second.cancel()
    assert list(second.feedback) == []
    slow.gate.set()
    assert first.result(DEADLINE) == Result(cm=1)
    assert client.send_goal(Goal(cm=3)).result(DEADLINE) == Result(cm=3)
    assert results.wait(2) == [Result(cm=1), Result(cm=3)]
    assert {goal_id for goal_id, _ in states.items} >= {first.goal_id}
    assert second.goal_id not in {goal_id for goal_id, _ in states.items}


def test_what_runs_is_cancelled_though_another_goal_was_refused_since(
    make_service: MakeService, make_client: MakeClient, slow: Slow
) -> None:
    make_service(slow)
    client = make_client()
    first = client.send_goal(Goal(cm=1))
    goal_h = slow.first()
    assert client.send_goal(Goal(cm=2)).status == 0

    assert client.cancel_goal() is None

    eventually(lambda: goal_h.cancel_event.is_set())
    slow.gate.set()
    assert first.wait(DEADLINE)
    assert first.status == CANCELED


def test_a_goal_needs_some_time_to_be_sent(make_client: MakeClient) -> None:
    client = make_client()
    for timeout in (0, -1, None, "5"):
        with pytest.raises(ValueError, match=f"timeout={timeout!r}: a call needs some time"):
            client.send_goal(Goal(cm=1), timeout)  # type: ignore[arg-type]
    with pytest.raises(RPCTimeout, match=r"within 0\.02 s|nobody serves"):
        client.send_goal(Goal(cm=1), 0.02)


def test_as_many_goals_run_at_once_as_the_service_allows(
    make_service: MakeService, make_client: MakeClient, slow: Slow
) -> None:
    make_service(slow, concurrency=3)
    client = make_client()

    goals = [client.send_goal(Goal(cm=n)) for n in range(5)]

    assert [goal.status != 0 for goal in goals] == [True] * 3 + [False] * 2
    assert {goal_h.id for goal_h in slow.entered.wait(3)} == {goal.goal_id for goal in goals[:3]}
    slow.gate.set()
    assert [goal.result(DEADLINE).cm for goal in goals[:3]] == [0, 1, 2]


def test_bad_goal_data_is_refused_and_counted_and_the_service_goes_on(
    make_service: MakeService, make_client: MakeClient
) -> None:
    errors, entered = Collected(), Collected()
    service = make_service(lambda goal_h: entered(goal_h.data) or {"cm": 0}, on_error=errors)
    client = make_client(None)

    for wrong in ({"cm": "far"}, {}, [], "text", {"cm": 1, "path": [5]}):
        goal = client.send_goal(wrong)
        assert goal.status == 0
        assert "Goal" in goal.reason
    assert client.send_goal({"cm": "7", "unknown": 1}).result(DEADLINE)["cm"] == 0
    assert entered.items == [Goal(cm=7)]
    assert service.stats.refused == len(errors.items) == 5
    assert service.stats.errors == 0


def test_a_client_refuses_what_is_no_goal_of_its_class(
    make_service: MakeService, make_client: MakeClient
) -> None:
    entered = Collected()
    make_service(entered, None)
    client = make_client()

    for wrong in (Result(cm=1), {}, "text", None, {"cm": "far"}):
        with pytest.raises(SerializationError):
            client.send_goal(wrong)
    assert client.send_goal(Goal(cm=1)).status
    assert len(entered.wait(1)) == 1


# ---- goals that are cancelled ----


def test_cancelling_reaches_the_callback_at_once_and_the_result_is_kept(
    make_service: MakeService, make_client: MakeClient, states: Collected, slow: Slow
) -> None:
    told, results, reached = Collected(), Collected(), Collected()
    make_service(slow, on_cancel=told)
    client = make_client(on_result=results, on_goal_reached=reached)
    goal = client.send_goal(Goal(cm=5))
    goal_h = slow.first()

    assert goal.cancel()

    assert goal.result(DEADLINE) == Result(cm=-1)
    assert goal.status == CANCELED
    assert of(states, goal) == [ACCEPTED, EXECUTING, CANCELING, CANCELED]
    assert told.wait(1) == [goal_h]
    assert results.wait(1) == [Result(cm=-1)]
    assert reached.items == []
    assert not goal.cancel()


def test_cancel_goal_returns_the_result_as_released_programs_expect(
    make_service: MakeService, make_client: MakeClient, slow: Slow
) -> None:
    make_service(slow)
    client = make_client()
    assert (client.get_result(), client.cancel_goal()) == (None, None)
    client.send_goal(Goal(cm=5))
    slow.first()

    assert client.get_result() is None
    assert client.get_result(wait=True, wait_max_sec=0.01) is None
    assert client.cancel_goal(wait_for_result=True) == Result(cm=-1)
    assert client.get_result() == Result(cm=-1)


def test_an_async_goal_is_cancelled_where_it_waits(
    make_service: MakeService, make_client: MakeClient, states: Collected
) -> None:
    entered, left = Collected(), Collected()

    async def on_goal(goal_h: Any) -> Any:
        entered(goal_h)
        try:
            await asyncio.sleep(3600)
        finally:
            left(goal_h.cancel_event.is_set())

    results = Collected()
    service = make_service(on_goal)
    goal = make_client(on_result=results).send_goal(Goal(cm=5))
    entered.wait(1)

    assert goal.cancel()

    with pytest.raises(GoalCanceled, match=goal.goal_id):
        goal.result(DEADLINE)  # what there is, nothing, is no Result, which has to have cm
    assert results.wait(1) == [None]
    assert left.items == [True]
    assert of(states, goal) == [ACCEPTED, EXECUTING, CANCELING, CANCELED]
    assert service.stats.errors == 0


@pytest.mark.parametrize("way", ["returns", "sets"])
def test_an_async_goal_that_is_cancelled_may_leave_a_result(
    make_service: MakeService, make_client: MakeClient, way: str
) -> None:
    entered = Collected()

    async def on_goal(goal_h: Any) -> Any:
        if way == "sets":
            goal_h.set_result(Result(cm=2))
        entered(goal_h)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            if way == "sets":
                raise
            return Result(cm=2)

    make_service(on_goal)
    goal = make_client().send_goal(Goal(cm=5))
    entered.wait(1)
    goal.cancel()

    assert goal.result(DEADLINE) == Result(cm=2)
    assert goal.status == CANCELED


def test_a_goal_that_is_cancelled_and_wishes_to_succeed_is_canceled(
    make_service: MakeService, make_client: MakeClient
) -> None:
    entered = Collected()

    def on_goal(goal_h: Any) -> Any:
        entered(goal_h)
        goal_h.cancel_event.wait(DEADLINE)
        goal_h.set_status(GoalStatus.SUCCEEDED)
        return Result(cm=1)

    make_service(on_goal)
    goal = make_client().send_goal(Goal(cm=5))
    entered.wait(1)
    goal.cancel()

    assert goal.result(DEADLINE) == Result(cm=1)
    assert goal.status == CANCELED


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_a_goal_that_raises_when_it_is_cancelled_is_aborted(
    make_service: MakeService, make_client: MakeClient, states: Collected, is_async: bool
) -> None:
    entered = Collected()

    def on_goal(goal_h: Any) -> Any:
        entered(goal_h)
        goal_h.cancel_event.wait(DEADLINE)
        raise RuntimeError("the brake is broken")

    async def on_goal_later(goal_h: Any) -> Any:
        entered(goal_h)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise RuntimeError("the brake is broken") from None

    make_service(on_goal_later if is_async else on_goal)
    goal = make_client().send_goal(Goal(cm=5))
    entered.wait(1)
    goal.cancel()

    with pytest.raises(GoalAborted, match="the brake is broken"):
        goal.result(DEADLINE)
    assert of(states, goal) == [ACCEPTED, EXECUTING, CANCELING, ABORTED]


def test_a_goal_is_cancelled_once_and_by_anybody(
    make_service: MakeService, make_client: MakeClient, states: Collected, slow: Slow
) -> None:
    told = Collected()
    make_service(slow, on_cancel=told)
    goal = make_client().send_goal(Goal(cm=5))
    slow.first()
    others = [make_client().watch(goal.goal_id) for _ in range(3)]

    agreed = [other.cancel() for other in others]

    assert agreed[0]
    assert goal.result(DEADLINE) == Result(cm=-1)
    assert of(states, goal) == [ACCEPTED, EXECUTING, CANCELING, CANCELED]
    assert len(told.wait(1)) == 1


# ---- preemption ----


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_a_new_goal_preempts_the_running_one(
    make_service: MakeService,
    make_client: MakeClient,
    states: Collected,
    slow: Slow,
    is_async: bool,
) -> None:
    async def on_goal(goal_h: Any) -> Move.Result:
        if goal_h.data.cm == 1:
            slow.entered(goal_h)
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                return Result(cm=-1)
        return Result(cm=goal_h.data.cm)

    make_service(on_goal if is_async else slow, preempt=True)
    client = make_client()
    first = client.send_goal(Goal(cm=1))
    slow.first()

    second = client.send_goal(Goal(cm=2))
    slow.gate.set()

    assert first.result(DEADLINE) == Result(cm=-1)
    assert second.result(DEADLINE) == Result(cm=2)
    assert (first.status, second.status) == (CANCELED, SUCCEEDED)
    assert of(states, first) == [ACCEPTED, EXECUTING, CANCELING, CANCELED]
    assert of(states, second) == [ACCEPTED, EXECUTING, SUCCEEDED]
    order = [step for step in states.items if step[1] in (EXECUTING, CANCELED)]
    assert order.index((first.goal_id, CANCELED)) < order.index((second.goal_id, EXECUTING))


def test_a_goal_that_waits_for_room_is_cancelled_by_the_next_one(
    make_service: MakeService, make_client: MakeClient, states: Collected
) -> None:
    entered, gate = Collected(), threading.Event()

    def stubborn(goal_h: Any) -> Move.Result:
        entered(goal_h.data.cm)
        gate.wait(DEADLINE)
        return Result(cm=goal_h.data.cm)

    make_service(stubborn, preempt=True)
    client = make_client()
    goals = [client.send_goal(Goal(cm=0))]
    entered.wait(1)
    goals += [client.send_goal(Goal(cm=n)) for n in range(1, 4)]

    for goal in goals[1:3]:
        with pytest.raises(GoalCanceled):
            goal.result(DEADLINE)
        assert of(states, goal) == [ACCEPTED, CANCELING, CANCELED]
    assert not goals[0].done
    gate.set()
    assert goals[0].result(DEADLINE) == Result(cm=0)
    assert goals[3].result(DEADLINE) == Result(cm=3)
    assert entered.items == [0, 3]


class Easy(ActionMessage):
    class Goal(ActionMessage.Goal):
        cm: int = 0

    class Result(ActionMessage.Result):
        cm: int = 0

    class Feedback(ActionMessage.Feedback):
        pass


@pytest.mark.parametrize("kind", [Easy, None])
def test_of_a_cancelled_goal_that_has_left_no_result_none_is_made_up(
    make_service: MakeService, make_client: MakeClient, kind: Any
) -> None:
    entered = Collected()

    async def on_goal(goal_h: Any) -> None:
        entered(goal_h)
        await asyncio.sleep(3600)

    make_service(on_goal, kind)
    goal = make_client(kind).send_goal({} if kind is None else kind.Goal())
    entered.wait(1)
    assert goal.cancel()
    with pytest.raises(GoalCanceled):
        goal.result(DEADLINE)


def test_a_goal_that_waits_for_room_can_be_cancelled(
    make_service: MakeService, make_client: MakeClient
) -> None:
    entered, gate = Collected(), threading.Event()

    def stubborn(goal_h: Any) -> Move.Result:
        entered(goal_h.data.cm)
        gate.wait(DEADLINE)
        return Result(cm=goal_h.data.cm)

    make_service(stubborn, preempt=True)
    client = make_client()
    first = client.send_goal(Goal(cm=0))
    entered.wait(1)
    waiting = client.send_goal(Goal(cm=1))
    assert waiting.cancel()

    with pytest.raises(GoalCanceled):
        waiting.result(DEADLINE)
    gate.set()
    assert first.result(DEADLINE) == Result(cm=0)
    assert client.send_goal(Goal(cm=2)).result(DEADLINE) == Result(cm=2)
    assert entered.items == [0, 2]


def test_goals_that_preempt_one_another_without_a_pause_all_end(
    make_service: MakeService, make_client: MakeClient, states: Collected, slow: Slow
) -> None:
    make_service(slow, preempt=True)
    client = make_client()

    goals = [client.send_goal(Goal(cm=n)) for n in range(100)]
    slow.gate.set()

    assert all(goal.wait(DEADLINE) for goal in goals)
    assert [goal.status for goal in goals[:-1]] == [CANCELED] * 99
    assert goals[-1].result() == Result(cm=99)
    for goal in goals:
        assert of(states, goal)[-1] == goal.status


# ---- nothing after the end ----


def test_no_feedback_is_published_after_the_end(
    make_service: MakeService, make_client: MakeClient, node: Node, topic: str
) -> None:
    told, left_behind, go_on = Collected(), Collected(), threading.Event()
    for part in ("status", "feedback"):
        node.create_subscriber(
            f"{topic}.{part}", lambda msg: told(msg.get("status", "feedback")), inline=True
        )

    def on_goal(goal_h: Any) -> Move.Result:
        def haunt() -> None:
            go_on.wait(DEADLINE)
            for n in range(100):
                goal_h.send_feedback(Feedback(cm=n))
            left_behind(goal_h.is_finished())

        threading.Thread(target=haunt).start()
        goal_h.send_feedback(Feedback(cm=-1))
        return Result(cm=0)

    service = make_service(on_goal)
    goal = make_client().send_goal(Goal(cm=1), wait_for_result=True)
    go_on.set()
    assert left_behind.first is True
    make_client().send_goal(Goal(cm=2), wait_for_result=True)

    assert list(goal.feedback) == [Feedback(cm=-1)]
    assert told.wait(8)[:4] == [ACCEPTED, EXECUTING, "feedback", SUCCEEDED]
    assert service.stats.dropped >= 100


def test_feedback_that_races_with_the_end_never_comes_after_it(
    make_service: MakeService, make_client: MakeClient, node: Node, topic: str
) -> None:
    told: dict[str, list[Any]] = {}

    def note(msg: Any) -> None:
        told.setdefault(msg["goal_id"], []).append(msg.get("status", "feedback"))

    for part in ("status", "feedback"):
        node.create_subscriber(f"{topic}.{part}", note, inline=True)
    threads: list[threading.Thread] = []

    def on_goal(goal_h: Any) -> Move.Result:
        def haunt() -> None:
            while not goal_h.is_finished():
                goal_h.send_feedback(Feedback(cm=0))

        threads.append(threading.Thread(target=haunt))
        threads[-1].start()
        return Result(cm=0)

    make_service(on_goal)
    client = make_client()
    goals = [client.send_goal(Goal(cm=n), wait_for_result=True) for n in range(50)]
    for thread in threads:
        thread.join()

    for goal in goals:
        eventually(lambda goal=goal: SUCCEEDED in told.get(goal.goal_id, []))  # type: ignore[misc]
        assert told[goal.goal_id][-1] == SUCCEEDED
        assert told[goal.goal_id].count(SUCCEEDED) == 1


# ---- watching, and asking late ----


def test_several_clients_watch_one_goal(make_service: MakeService, make_client: MakeClient) -> None:
    entered, gate = Collected(), threading.Event()

    def on_goal(goal_h: Any) -> Move.Result:
        entered(goal_h)
        gate.wait(DEADLINE)
        return walk(goal_h)

    make_service(on_goal)
    goal = make_client().send_goal(Goal(cm=20))
    entered.wait(1)
    results = [Collected() for _ in range(3)]
    watchers = [make_client(on_result=got).watch(goal.goal_id) for got in results]
    eventually(lambda: all(watcher.status == EXECUTING for watcher in watchers))
    gate.set()

    for watcher in (goal, *watchers):
        assert [feedback.cm for feedback in watcher] == list(range(20))
        assert watcher.result(DEADLINE).cm == 20
        assert watcher.status == SUCCEEDED
    assert [got.wait(1) for got in results] == [[Result(cm=20, pose=Pose(x=1.0))]] * 3


def test_a_goal_of_ones_own_may_be_watched_too(
    make_service: MakeService, make_client: MakeClient, slow: Slow
) -> None:
    make_service(slow)
    results = Collected()
    client = make_client(on_result=results)
    goal = client.send_goal(Goal(cm=1))
    again = client.watch(goal.goal_id)
    slow.gate.set()

    assert again.result(DEADLINE) == goal.result(DEADLINE) == Result(cm=1)
    client.send_goal(Goal(cm=2), wait_for_result=True)
    assert results.wait(2) == [Result(cm=1), Result(cm=2)]


@pytest.mark.parametrize("ending", ["succeeds", "raises", "cancelled"])
def test_who_asks_late_is_told_how_a_goal_ended(
    make_service: MakeService, make_client: MakeClient, slow: Slow, ending: str
) -> None:
    def on_goal(goal_h: Any) -> Move.Result:
        if ending == "raises":
            raise ValueError("no such arm")
        return slow(goal_h)

    make_service(on_goal)
    goal = make_client().send_goal(Goal(cm=4))
    if ending == "cancelled":
        slow.first()
        goal.cancel()
    slow.gate.set()
    goal.wait(DEADLINE)

    late = make_client().watch(goal.goal_id)

    assert late.wait(DEADLINE)
    assert late.status == goal.status
    if ending == "raises":
        with pytest.raises(GoalAborted, match="ValueError: no such arm"):
            late.result()
    else:
        assert late.result() == goal.result()


def test_a_result_is_kept_for_its_time_and_no_longer(
    make_service: MakeService, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        now = 0.0

        @classmethod
        def monotonic(cls) -> float:
            return cls.now

        @staticmethod
        def time() -> float:
            return 0.0

    monkeypatch.setattr(_action_service, "time", Clock)
    make_service(walk, result_ttl=60.0)
    goal = make_client().send_goal(Goal(cm=1), wait_for_result=True)

    Clock.now += 59
    assert make_client().watch(goal.goal_id).result(DEADLINE).cm == 1
    Clock.now += 2
    with pytest.raises(GoalLost, match="does not know it"):
        make_client().watch(goal.goal_id).result(DEADLINE)


def test_a_goal_that_nobody_sent_is_lost_at_once(
    make_service: MakeService, make_client: MakeClient
) -> None:
    make_service(walk)
    results = Collected()
    client = make_client(on_result=results)

    with pytest.raises(GoalLost, match="nobody's"):
        client.watch("nobody's").result(DEADLINE)
    client.send_goal(Goal(cm=0), wait_for_result=True)
    assert len(results.wait(1)) == 1


def test_the_service_is_told_when_somebody_asks_for_a_result(
    make_service: MakeService, make_client: MakeClient, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_goal_follower, "FIRST_PAUSE", 4 * DEADLINE)  # else who has sent it asks
    asked = Collected()
    make_service(slow, on_getresult=lambda goal_h: asked(goal_h.id, goal_h.is_finished()))
    goal = make_client().send_goal(Goal(cm=1))
    slow.first()
    make_client().watch(goal.goal_id)

    assert asked.wait(1) == [(goal.goal_id, False)]
    slow.gate.set()
    goal.result(DEADLINE)
    asked.until((goal.goal_id, True))


# ---- callbacks that fail, block or send goals ----


def test_callbacks_that_raise_are_reported_and_the_next_are_called(
    make_service: MakeService, make_client: MakeClient, topic: str
) -> None:
    got, errors = Collected(), Collected()

    def fail(what: Any) -> None:
        got(what)
        raise ValueError("no")

    service = make_service(walk, on_error=errors, on_cancel=fail, on_getresult=fail)
    client = make_client(on_feedback=fail, on_result=fail, on_goal_reached=fail, on_error=errors)
    client.send_goal(Goal(cm=2)).result(DEADLINE)

    assert len(got.wait(5)) == 5
    assert [str(error) for error, _ in errors.wait(5)] == ["no"] * 5
    assert {told for _, told in errors.items} == {topic}
    assert (client.stats.errors, service.stats.errors) == (4, 1)


@pytest.mark.parametrize("is_mixed", [False, True], ids=["plain", "mixed"])
def test_callbacks_that_only_wrap_a_coroutine_function_are_told_that_nobody_awaits_it(
    make_service: MakeService, make_client: MakeClient, topic: str, is_mixed: bool
) -> None:
    reached, stepped = Collected(), Collected()
    at_service, at_client = Collected(), Collected()

    async def later(anything: Any) -> None:
        raise AssertionError("nobody awaits it")

    async def step(anything: Any) -> None:
        stepped(anything)

    make_service(walk, on_getresult=lambda goal_h: later(goal_h), on_error=at_service)
    client = make_client(
        on_feedback=step if is_mixed else None,
        on_goal_reached=reached,
        on_result=lambda result: later(result),
        on_error=at_client,
    )
    client.send_goal(Goal(cm=1), wait_for_result=True)

    assert [result.cm for result in reached.wait(1)] == [1]
    for errors in (at_service, at_client):
        assert "make it async def" in str(errors.wait(1)[0][0])
    assert bool(stepped.items) == is_mixed


def test_a_plain_callback_beside_an_async_one_may_raise_anything(
    make_service: MakeService, make_client: MakeClient
) -> None:
    errors, got = Collected(), Collected()

    def on_result(result: Move.Result) -> None:
        raise StopIteration if result.cm else SystemExit(3)

    async def on_feedback(feedback: Move.Feedback) -> None:
        got(feedback.cm)

    make_service(walk)
    client = make_client(on_feedback=on_feedback, on_result=on_result, on_error=errors)
    for cm in (0, 1, 2):
        client.send_goal(Goal(cm=cm)).result(DEADLINE)

    assert got.wait(3) == [0, 0, 1]
    assert [type(error) for error, _ in errors.wait(3)] == [SystemExit, RuntimeError, RuntimeError]


def test_goals_may_be_sent_from_callbacks(
    make_service: MakeService, make_client: MakeClient, topic: str
) -> None:
    inner = make_client(action_uri=f"{topic}.inner")
    make_service(walk, action_uri=f"{topic}.inner")
    got = Collected()

    def on_goal(goal_h: Any) -> Move.Result:
        for feedback in inner.send_goal(Goal(cm=goal_h.data.cm)):
            goal_h.send_feedback(feedback)
        return Result(cm=inner.get_result().cm + 100)

    def on_result(result: Move.Result) -> None:
        got(result.cm)
        if result.cm < 104:
            client.send_goal(Goal(cm=result.cm - 99))

    make_service(on_goal)
    client = make_client(on_result=on_result)
    assert len(list(client.send_goal(Goal(cm=1)))) == 1

    assert got.wait(4) == [101, 102, 103, 104]


def test_a_call_that_would_block_the_loop_is_refused_at_once(
    make_service: MakeService, make_client: MakeClient, slow: Slow
) -> None:
    errors = Collected()
    make_service(slow)
    asking = iter([lambda: client.send_goal(Goal(cm=1)), lambda: goal.result(), client_get])

    async def on_feedback(feedback: Any) -> None:
        next(asking)()

    client = make_client(on_feedback=on_feedback, on_error=errors)
    goal = client.send_goal(Goal(cm=1))
    goal_h = slow.first()
    for n in range(3):
        goal_h.send_feedback(Feedback(cm=n))

    assert [type(error) for error, _ in errors.wait(3)] == [BlockingCall] * 3
    slow.gate.set()
    assert goal.result(DEADLINE) == Result(cm=1)


def client_get() -> None:
    raise BlockingCall("as the others")


# ---- ends ----


def test_waiting_for_a_result_ends_in_time_and_the_goal_goes_on(
    make_service: MakeService, make_client: MakeClient, slow: Slow
) -> None:
    make_service(slow)
    goal = make_client().send_goal(Goal(cm=1))

    for kind in (GoalTimeout, GoalError, TimeoutError):
        with pytest.raises(kind, match=goal.goal_id):
            goal.result(0.01)
    slow.gate.set()
    assert goal.result(DEADLINE) == Result(cm=1)


def test_a_client_that_is_stopped_ends_the_waiting_for_its_goals(
    make_service: MakeService, make_client: MakeClient, slow: Slow
) -> None:
    make_service(slow)
    ended = Collected()
    client = make_client(on_result=ended)
    goal = client.send_goal(Goal(cm=1))

    def wait() -> None:
        try:
            goal.result(DEADLINE)
        except EndpointClosed as exc:
            ended(type(exc))

    waiting = threading.Thread(target=wait)
    waiting.start()
    slow.first()
    client.stop()
    waiting.join(DEADLINE)

    assert ended.items == [EndpointClosed]
    for ask in (goal.result, lambda: client.send_goal(Goal(cm=1))):
        with pytest.raises(EndpointClosed):
            ask()
    assert list(goal.feedback) == []
    client.run()
    assert client.watch(goal.goal_id).status in (0, EXECUTING)


def test_a_service_that_is_not_there_is_a_timeout(make_client: MakeClient) -> None:
    client = make_client()

    with pytest.raises(RPCTimeout, match="send_goal"):
        client.send_goal(Goal(cm=1), timeout=0.1)
    assert client.core._goals == {}


def test_a_service_that_is_stopped_cancels_its_goals_and_tells_how_they_ended(
    make_service: MakeService,
    make_client: MakeClient,
    states: Collected,
    slow: Slow,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_action_service, "LINGER", DEADLINE)
    service = make_service(slow, concurrency=2, grace=DEADLINE)
    client = make_client()
    goals = [client.send_goal(Goal(cm=n)) for n in range(2)]
    slow.entered.wait(2)

    service.stop()

    assert [goal.result(DEADLINE) for goal in goals] == [Result(cm=-1)] * 2
    assert [goal.status for goal in goals] == [CANCELED] * 2
    for goal in goals:
        assert of(states, goal) == [ACCEPTED, EXECUTING, CANCELING, CANCELED]


def test_a_service_that_is_stopped_cancels_async_goals(
    make_service: MakeService, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_action_service, "LINGER", DEADLINE)
    entered = Collected()

    async def on_goal(goal_h: Any) -> Any:
        entered(goal_h)
        goal_h.set_result(Result(cm=7))
        await asyncio.sleep(3600)

    service = make_service(on_goal)
    goal = make_client().send_goal(Goal(cm=1))
    entered.wait(1)
    service.stop()

    assert goal.result(DEADLINE) == Result(cm=7)
    assert goal.status == CANCELED


def test_a_goal_that_does_not_end_when_its_service_is_stopped_is_aborted(
    make_service: MakeService, make_client: MakeClient, states: Collected, gate: threading.Event
) -> None:
    entered, left = Collected(), Collected()

    def stubborn(goal_h: Any) -> Move.Result:
        entered(goal_h)
        gate.wait(DEADLINE)
        goal_h.send_feedback(Feedback(cm=1))
        left(goal_h.status)
        return Result(cm=1)

    service = make_service(stubborn)
    goal = make_client().send_goal(Goal(cm=1))
    entered.wait(1)
    service.stop()

    with pytest.raises(GoalAborted, match="EndpointClosed"):
        goal.result(DEADLINE)
    gate.set()
    assert left.first == ABORTED
    assert of(states, goal) == [ACCEPTED, EXECUTING, CANCELING, ABORTED]


def test_a_service_that_is_run_again_works_on_goals_and_knows_the_former_ones(
    make_service: MakeService, make_client: MakeClient, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_action_service, "LINGER", DEADLINE)
    service = make_service(slow, grace=DEADLINE)
    client = make_client()
    first = client.send_goal(Goal(cm=1))
    slow.first()
    service.stop()
    assert first.result(DEADLINE) == Result(cm=-1)

    service.run()
    slow.gate.set()

    assert client.send_goal(Goal(cm=2)).result(DEADLINE) == Result(cm=2)
    assert make_client().watch(first.goal_id).result(DEADLINE) == Result(cm=-1)


def test_goals_are_refused_while_the_service_is_being_stopped(
    make_service: MakeService, make_client: MakeClient, gate: threading.Event
) -> None:
    entered, canceled = Collected(), threading.Event()

    def stubborn(goal_h: Any) -> Move.Result:
        entered(goal_h)
        goal_h.cancel_event.wait(DEADLINE)
        canceled.set()
        gate.wait(DEADLINE)
        return Result(cm=1)

    service = make_service(stubborn, grace=DEADLINE)  # over as soon as the gate is open
    client = make_client()
    client.send_goal(Goal(cm=1))
    entered.wait(1)
    stopping = threading.Thread(target=service.stop)
    stopping.start()
    canceled.wait(DEADLINE)

    assert client.send_goal(Goal(cm=2)).reason == "the service is being stopped"
    gate.set()
    stopping.join(DEADLINE)


def test_a_goal_may_stop_its_own_service(
    make_service: MakeService, make_client: MakeClient
) -> None:
    stopped = Collected()

    async def on_goal(goal_h: Any) -> None:
        await service.core.stop()
        stopped(True)

    service = make_service(on_goal)
    goal = make_client().send_goal(Goal(cm=1))

    assert goal.wait(DEADLINE)
    assert goal.status == ABORTED
    assert stopped.first


# ---- what is no action ----


def test_what_cannot_work_is_refused_when_it_is_made(broker: Broker, topic: str) -> None:
    def make(*args: Any, **options: Any) -> Any:
        return lambda: ActionService(*args, conn_params=broker.url, **options)

    def client(*args: Any, **options: Any) -> Any:
        return lambda: ActionClient(*args, conn_params=broker.url, **options)

    for wrong in (
        make(topic),
        make(topic, Move, "not a function"),
        make(topic, Move, walk, on_cancel=5),
        make(topic, Move, lambda: None),
        make(topic, Move, walk, on_getresult=lambda goal_h, result: None),
        client(topic, Move, on_feedback=lambda: None),
        make(topic, Sonar, walk),
        client(topic, Sonar),
        client(topic, Move, on_result="print"),
    ):
        with pytest.raises(TypeError, match=f"{topic}|Goal, Result and Feedback"):
            wrong()
    for wrong in (
        make(topic, Move, walk, concurrency=0),
        make("", Move, walk),
        make(f"{topic}.*", Move, walk),
        client(f"{topic}.*"),
        client(),
    ):
        with pytest.raises(ValueError):
            wrong()


def test_an_action_may_be_named_as_later_releases_do(
    make_client: MakeClient, broker: Broker, topic: str
) -> None:
    with ActionService(
        action_name=topic, msg_type=Move, on_goal=walk, conn_params=broker.url
    ) as service:
        client = make_client(action_uri="", action_name=topic)
        assert client.send_goal(Goal(cm=1)).result(DEADLINE).cm == 1
        assert service.action_uri == client.action_uri == topic


def test_the_limits_are_those_that_are_promised() -> None:
    assert _goal_follower.SILENCE_SECONDS == 10
    assert (_goal_follower.FIRST_PAUSE, _goal_follower.LONGEST_PAUSE) == (0.5, 5.0)
    assert _action_service.MAX_KEPT == 1000
