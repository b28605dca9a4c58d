"""A service of actions: its outgoing queue when that is full, and the threads of its goals."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import strictly
from collected import DEADLINE, Collected, eventually
from commlib._packet import Packet
from commlib._workers import Work, Workers
from commlib.action import ActionClient, ActionService, GoalStatus
from commlib.exceptions import (
    BlockingCall,
    ConnectionLost,
    GoalAborted,
    OutboxFull,
)
from commlib.pubsub import PSubscriber
from commlib.transports.memory import ConnectionParameters, Offline


class Full:
    """The transport of a service that has no room for what is published, until it is given some."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._publish = transport.publish
        self._has_room = asyncio.Event()
        self.error: Exception | None = None
        self.refused = Collected()
        transport.publish = self.publish
        transport.room = self.room

    def publish(self, topic: str, packet: Packet) -> bool:
        if self.error is not None:
            raise self.error
        if not self._has_room.is_set():
            self.refused(topic)
            return False
        taken: bool = self._publish(topic, packet)
        return taken

    async def room(self, packet: Packet) -> None:
        await self._has_room.wait()

    def make_room(self, service: ActionService) -> None:
        loop = service.core.hub.loop
        assert loop is not None, "it runs"
        loop.call_soon_threadsafe(self._has_room.set)


@pytest.fixture
def params(request: pytest.FixtureRequest) -> ConnectionParameters:
    return ConnectionParameters(request.node.name, offline=Offline(timeout=DEADLINE))


@pytest.fixture
def news(params: ConnectionParameters) -> Iterator[Collected]:
    """The states and feedback that are published, in order."""
    collected = Collected()

    def note(msg: Any, topic: str) -> None:
        collected(msg["status"] if topic == "turn.status" else msg["feedback_data"])

    with PSubscriber("turn.*", note, conn_params=params):
        yield collected


@pytest.fixture
def client(params: ConnectionParameters) -> Iterator[ActionClient[Any, Any, Any]]:
    with ActionClient("turn", conn_params=params) as client:
        yield client


def count(goal_h: Any) -> int:
    for n in range(goal_h.data):
        goal_h.send_feedback(f"step {n}")
    return -goal_h.data  # type: ignore[no-any-return]


async def count_later(goal_h: Any) -> int:
    for n in range(goal_h.data):
        await goal_h.send_feedback(f"step {n}")
    return -goal_h.data  # type: ignore[no-any-return]


@pytest.mark.parametrize("work", [count, count_later], ids=["plain", "async"])
def test_states_and_feedback_wait_for_room_and_keep_their_order(
    params: ConnectionParameters,
    news: Collected,
    client: ActionClient[Any, Any, Any],
    work: Any,
) -> None:
    with ActionService("turn", None, work, conn_params=params) as service:
        full = Full(service.core.hub.transport)
        goal = client.send_goal(5)
        full.refused.until("turn.feedback")
        assert news.items == []
        full.make_room(service)

        assert goal.result(DEADLINE) == -5
        received = news.wait(8)
    assert [item for item in received if isinstance(item, int)] == [1, 2, 4]
    assert [item for item in received if isinstance(item, str)] == [f"step {n}" for n in range(5)]
    assert received[-1] == 4


def test_feedback_that_waits_when_its_goal_ends_is_dropped_and_counted(
    params: ConnectionParameters, news: Collected, client: ActionClient[Any, Any, Any]
) -> None:
    haunting, returned = threading.Event(), Collected()

    def on_goal(goal_h: Any) -> str:
        def haunt() -> None:
            goal_h.send_feedback("too late")
            returned(goal_h.is_finished())

        threading.Thread(target=haunt).start()
        haunting.wait(DEADLINE)
        return "done"

    with ActionService("turn", None, on_goal, conn_params=params) as service:
        full = Full(service.core.hub.transport)
        goal = client.send_goal(None)
        full.refused.until("turn.feedback")
        haunting.set()
        eventually(lambda: service.core._finished.get(goal.goal_id) is not None)
        full.make_room(service)

        assert returned.first is True
        assert goal.result(DEADLINE) == "done"
        assert news.wait(3) == [1, 2, 4]
        assert service.stats.dropped == 1


def test_feedback_without_room_is_an_error_in_time(
    params: ConnectionParameters, client: ActionClient[Any, Any, Any]
) -> None:
    params.offline = Offline(timeout=0.05)
    errors = Collected()

    def on_goal(goal_h: Any) -> None:
        try:
            goal_h.send_feedback(1)
        except OutboxFull as exc:
            errors(exc)

    with ActionService("turn", None, on_goal, conn_params=params, on_error=errors) as service:
        Full(service.core.hub.transport)
        assert client.send_goal(None).result(DEADLINE) == {}
        # The states are given up as well, and the client has asked for the end.
        assert {type(error) for error in _errors(errors.wait(4))} == {OutboxFull}
        assert "turn.feedback" in str(_errors(errors.items))


def _errors(items: list[Any]) -> list[BaseException]:
    return [item[0] if isinstance(item, tuple) else item for item in items]


def test_states_that_cannot_be_published_are_reported_and_the_goal_goes_on(
    params: ConnectionParameters, client: ActionClient[Any, Any, Any]
) -> None:
    errors = Collected()
    with ActionService("turn", None, count, conn_params=params, on_error=errors) as service:
        full = Full(service.core.hub.transport)
        full.error = ConnectionLost("it is away")
        assert client.send_goal(0).result(DEADLINE) == 0
    assert [error for error, _ in errors.items] == [full.error] * 3
    assert service.stats.errors == 3


def test_a_plain_handler_on_the_loop_does_not_wait_for_room_there(
    params: ConnectionParameters, client: ActionClient[Any, Any, Any]
) -> None:
    raised = Collected()

    def on_goal(goal_h: Any) -> str:
        def send() -> None:
            try:
                goal_h.send_feedback(1)
            except BlockingCall as exc:
                raised(exc)

        service.core.hub.loop.call_soon_threadsafe(send)  # type: ignore[union-attr]
        raised.wait(1)
        full.make_room(service)
        return "done"

    with ActionService("turn", None, on_goal, conn_params=params) as service:
        full = Full(service.core.hub.transport)
        assert client.send_goal(None).result(DEADLINE) == "done"
    assert "send_feedback" in str(raised.first)


def test_stopping_a_service_without_room_lets_its_callback_go(
    params: ConnectionParameters, client: ActionClient[Any, Any, Any]
) -> None:
    ended = Collected()

    def on_goal(goal_h: Any) -> None:
        goal_h.send_feedback(1)
        ended(goal_h.is_finished())

    service = ActionService("turn", None, on_goal, conn_params=params)
    service.run()
    full = Full(service.core.hub.transport)
    client.send_goal(None)
    full.refused.until("turn.feedback")
    service.stop()

    assert ended.first is True
    assert service.stats.dropped == 1


# ---- the threads of goals ----


def test_a_goal_that_is_cancelled_while_its_thread_begins_does_not(
    params: ConnectionParameters,
    news: Collected,
    client: ActionClient[Any, Any, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered, held = Collected(), Collected()

    def hold(workers: Workers, work: Work) -> threading.Thread:
        held(work)
        return threading.Thread()

    monkeypatch.setattr(Workers, "serve_alone", hold)
    with ActionService("turn", None, entered, conn_params=params):
        goal = client.send_goal(1)
        work = held.first
        assert goal.cancel()
        work.work()
        assert goal.wait(DEADLINE)
        assert goal.status == GoalStatus.CANCELED
    assert entered.items == []
    assert news.wait(4) == [
        GoalStatus.ACCEPTED,
        GoalStatus.EXECUTING,
        GoalStatus.CANCELING,
        GoalStatus.CANCELED,
    ]


def test_a_goal_for_which_the_system_has_no_thread_is_aborted(
    params: ConnectionParameters,
    client: ActionClient[Any, Any, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(workers: Workers, work: Work) -> threading.Thread:
        raise RuntimeError("can't start new thread")

    errors = Collected()
    with ActionService("turn", None, count, conn_params=params, on_error=errors):
        with monkeypatch.context() as patch:
            patch.setattr(Workers, "serve_alone", refuse)
            with pytest.raises(GoalAborted, match="can't start new thread"):
                client.send_goal(1).result(DEADLINE)
        assert client.send_goal(1).result(DEADLINE) == -1
    assert len(errors.items) == 1


def test_stopping_a_service_waits_for_the_threads_of_goals_but_for_those_it_gave_up(
    params: ConnectionParameters, client: ActionClient[Any, Any, Any]
) -> None:
    threads, let_go = Collected(), threading.Event()

    def on_goal(goal_h: Any) -> None:
        threads(threading.current_thread())
        goal_h.cancel_event.wait(DEADLINE)
        if goal_h.data == "stubborn":
            let_go.wait(DEADLINE)

    service = ActionService("turn", None, on_goal, conn_params=params, concurrency=2)
    service.run()
    client.send_goal("polite")
    threads.wait(1)
    client.send_goal("stubborn")
    polite, stubborn = threads.wait(2)
    service.stop()

    assert not polite.is_alive()
    assert stubborn.is_alive()
    assert stubborn not in service.core.hub.leaving
    let_go.set()
    stubborn.join(DEADLINE)


PROGRAM = """
import os, sys, threading
from commlib.action import ActionClient, ActionService

def on_goal(goal_h):
    entered.set()
    if goal_h.data == "parent":
        go_on.wait()
    return goal_h.data

entered, go_on = threading.Event(), threading.Event()
service = ActionService("turn", None, on_goal, conn_params="memory://turn")
service.run()
goal = ActionClient("turn", conn_params="memory://turn").send_goal("parent")
entered.wait()
"""
FORK = """
child = os.fork()
if not child:
    service.run()
    client = ActionClient("turn", conn_params="memory://turn")
    assert client.send_goal("child").result(10) == "child"
    service.stop()
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
go_on.set()
assert goal.result(10) == "parent"
"""


@pytest.mark.parametrize("rest", ["", FORK], ids=["exit", "fork"])
def test_a_program_ends_amid_a_goal_and_a_forked_child_leaves_that_to_its_parent(rest: str) -> None:
    program = subprocess.run(
        [sys.executable, *strictly.FORKING, "-c", strictly.HEAD + PROGRAM + rest],
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE,
    )

    assert program.stderr == ""
    assert program.returncode == 0
