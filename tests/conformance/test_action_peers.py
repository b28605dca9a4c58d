"""Actions beside peers that are not ours, or not there any more, on every broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from brokers import Broker
from collected import DEADLINE, Collected, eventually
from commlib._packet import PROPERTIES, Envelope, Fault, Header, Packet, now_ms
from commlib._portal import Portal
from commlib._wire import Reader
from commlib.action import ActionClient, ActionService, ClientGoal, GoalStatus
from commlib.aio import _action_service, _goal_follower
from commlib.exceptions import GoalAborted, GoalCanceled, GoalLost, GoalRefused, RPCTimeout
from messages import Move
from raw_peer import RawPeer

Goal, Result, Feedback = Move.Goal, Move.Result, Move.Feedback
Work = Callable[..., ActionService]


@pytest.fixture
def serve(broker: Broker, topic: str) -> Iterator[Work]:
    """Makes and runs services of ours."""
    services: list[ActionService] = []

    def serve(on_goal: Any, msg_type: Any = Move, **options: Any) -> ActionService:
        service = ActionService(topic, msg_type, on_goal, conn_params=broker.url, **options)
        services.append(service)
        service.run()
        return service

    yield serve
    for service in services:
        service.stop()


@pytest.fixture
def got() -> Collected:
    """What the client's callbacks are told, in order."""
    return Collected()


@pytest.fixture
def client(broker: Broker, topic: str, got: Collected) -> Iterator[ActionClient[Any, Any, Any]]:
    with ActionClient(
        topic,
        Move,
        on_feedback=lambda feedback: got("feedback", feedback.cm),
        on_result=lambda result: got("result", None if result is None else result.cm),
        on_goal_reached=lambda result: got("reached", result.cm),
        conn_params=broker.url,
    ) as client:
        yield client


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients ask soon."""
    monkeypatch.setattr(_goal_follower, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(_goal_follower, "LONGEST_PAUSE", 0.1)


Lose = Callable[..., None]


@pytest.fixture
def impatient(eager: None, monkeypatch: pytest.MonkeyPatch) -> Lose:
    """They wait for no answer for long, nor, once this is called, for a silent service."""
    monkeypatch.setattr(_goal_follower, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(_goal_follower, "SILENCE_SECONDS", 4 * DEADLINE)

    def lose(seconds: float = 0.3) -> None:
        monkeypatch.setattr(_goal_follower, "SILENCE_SECONDS", seconds)

    return lose


def read(packet: Packet) -> Envelope:
    """What was published in an envelope."""
    return Reader(None, always_wrapped=True).read(packet)


class Peer:
    """A client or service that is not ours, and does what a test says."""

    def __init__(self, raw: RawPeer, topic: str) -> None:
        self._raw = raw
        self._topic = topic
        self._asked: dict[str, Collected] = {}
        self._pool = ThreadPoolExecutor(4)

    def serve(self, *parts: str) -> None:
        """Take the requests to these parts of the action."""
        for part in parts or ("send_goal", "cancel_goal", "get_result"):
            self._asked[part] = self._raw.consume(f"{self._topic}.{part}")

    def sending(
        self, client: ActionClient[Any, Any, Any], cm: int = 1, timeout: float = DEADLINE
    ) -> Future[ClientGoal[Any, Any]]:
        """Let a client of ours send a goal, while the test answers."""
        return self._pool.submit(client.send_goal, Goal(cm=cm), timeout)

    def asked(self, part: str, count: int = 1) -> list[Envelope]:
        """The requests that came, as soon as there are so many."""
        return self._asked[part].wait(count)

    def answer(
        self, request: Envelope, data: Any, *, released: bool = False, error: Fault | None = None
    ) -> None:
        """Answer a request; released peers echo no id."""
        header = Header(now_ms(), PROPERTIES, error=error)
        if not released:
            header.id = request.header.id
        self._raw.answer_message(request, data, header)

    def publish(self, part: str, error: Fault | None = None, **data: Any) -> None:
        """Publish a state or feedback."""
        header = Header(now_ms(), PROPERTIES, error=error)
        self._raw.publish_message(f"{self._topic}.{part}", data, header)

    def close(self) -> None:
        self._pool.shutdown()


@pytest.fixture
def peer(raw: RawPeer, topic: str) -> Iterator[Peer]:
    peer = Peer(raw, topic)
    yield peer
    peer.close()


class Asking:
    """The calls of a client that is not ours."""

    def __init__(self, raw: RawPeer, broker: Broker, topic: str) -> None:
        self._raw = raw
        self._topic = topic
        self._reply_to = broker.unique("reply")
        self._answers = raw.consume(self._reply_to)
        self._count = 0

    def __call__(self, part: str, data: Any, id: str = "") -> Envelope:
        """The answer to a call."""
        header = Header(now_ms(), PROPERTIES, reply_to=self._reply_to, id=id)
        self._raw.send_message(f"{self._topic}.{part}", data, header)
        self._count += 1
        envelope: Envelope = self._answers.wait(self._count)[-1]
        return envelope


@pytest.fixture
def ask(raw: RawPeer, broker: Broker, topic: str) -> Asking:
    return Asking(raw, broker, topic)


def succeed(goal_h: Any) -> Move.Result:
    goal_h.send_feedback(Feedback(cm=1))
    return Result(cm=goal_h.data.cm)


# ---- what ours writes, and to whom ----


def test_a_peer_that_sends_the_least_is_served_to_the_letter(
    serve: Work, ask: Asking, raw: RawPeer, topic: str
) -> None:
    serve(succeed)
    states, feedback = (raw.subscribe(f"{topic}.{part}") for part in ("status", "feedback"))

    sent = ask("send_goal", {"goal_data": {"cm": "7"}})

    goal_id = sent.data["goal_id"]
    assert len(goal_id) == 32
    assert int(goal_id, 16)
    assert list(sent.data) == ["status", "timestamp", "goal_id"]
    assert sent.data["status"] == 1
    assert 0 <= now_ms() / 1000 - sent.data["timestamp"] < 60
    assert [read(packet).data for packet in states.wait(3)] == [
        {"goal_id": goal_id, "status": status} for status in (1, 2, 4)
    ]
    assert [read(packet).data for packet in feedback.wait(1)] == [
        {"feedback_data": {"cm": 1, "pose": {"x": 0.0, "y": 0.0}}, "goal_id": goal_id}
    ]
    result = ask("get_result", {"goal_id": goal_id})
    assert list(result.data) == ["status", "timestamp", "result"]
    assert result.data["status"] == 4
    assert result.data["result"] == {"cm": 7, "pose": {"x": 0.0, "y": 0.0}, "map": ""}
    canceled = ask("cancel_goal", {"goal_id": goal_id, "timestamp": 5})
    assert list(canceled.data) == ["status", "timestamp", "result"]
    assert (canceled.data["status"], canceled.data["result"]) == (0, {})
    assert ask("get_result", {"goal_id": "no such goal"}).data["status"] == 0
    assert ask("get_result", {"goal_id": ""}).data["status"] == 4, "the newest, as released"


def test_a_client_may_choose_the_id_and_sends_its_goal_twice_without_harm(
    serve: Work, ask: Asking
) -> None:
    entered = Collected()
    serve(lambda goal_h: entered(goal_h.id) or Result(cm=1))

    for _ in range(3):
        sent = ask("send_goal", {"description": "", "goal_data": {"cm": 1}}, id="chosen-1")
        assert (sent.data["status"], sent.data["goal_id"]) == (1, "chosen-1")
    assert ask("send_goal", {"goal_data": {"cm": 1}}, id="x" * 1000).data["goal_id"] != "x" * 1000

    assert entered.wait(2)[0] == "chosen-1"
    assert len(entered.items) == 2


def test_an_error_is_in_the_header_and_nowhere_else(
    serve: Work, ask: Asking, raw: RawPeer, topic: str
) -> None:
    def fail(goal_h: Any) -> None:
        raise ValueError("no such arm")

    serve(fail)
    states = raw.subscribe(f"{topic}.status")

    goal_id = ask("send_goal", {"goal_data": {"cm": 1}}).data["goal_id"]

    published = [read(packet) for packet in states.wait(3)]
    assert [envelope.data for envelope in published] == [
        {"goal_id": goal_id, "status": status} for status in (1, 2, 5)
    ]
    told = ask("get_result", {"goal_id": goal_id})
    assert (told.data["status"], told.data["result"]) == (5, {})
    fault = Fault("ValueError", "no such arm")
    assert [e.header.error for e in (*published, told)] == [None, None, fault, fault]


def test_a_refusal_is_the_released_one_with_the_reason_in_the_header(
    serve: Work, ask: Asking, gate: threading.Event, topic: str
) -> None:
    serve(lambda goal_h: gate.wait(DEADLINE) and Result(cm=1))
    ask("send_goal", {"goal_data": {"cm": 1}})

    busy, bad = (ask("send_goal", {"goal_data": data}) for data in ({"cm": 2}, {"cm": "far"}))

    for refused in (busy, bad):
        assert (refused.data["status"], refused.data["goal_id"]) == (0, "")
        assert refused.header.error is not None
        assert refused.header.error.type == "GoalRefused"
    assert "busy" in str(busy.header.error)
    assert "Goal" in str(bad.header.error)


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_a_goal_that_is_cancelled_before_it_begins_never_does(
    serve: Work,
    ask: Asking,
    raw: RawPeer,
    topic: str,
    portal: Portal,
    monkeypatch: pytest.MonkeyPatch,
    is_async: bool,
) -> None:
    entered, told = Collected(), Collected()

    async def enter_later(goal_h: Any) -> None:
        entered(goal_h)

    monkeypatch.setattr(_action_service, "HEAD_START", 3600)
    service = serve(enter_later if is_async else entered, on_cancel=told)
    states = raw.subscribe(f"{topic}.status")
    goal_id = ask("send_goal", {"goal_data": {"cm": 1}}).data["goal_id"]

    assert ask("cancel_goal", {"goal_id": goal_id}).data["status"] == 1
    goal = service.core._active[goal_id]
    portal.post(service.core._start, goal)  # its head start is over

    expected = [GoalStatus.ACCEPTED, GoalStatus.CANCELING, GoalStatus.CANCELED]
    assert [read(packet).data["status"] for packet in states.wait(3)] == expected
    told_late = ask("get_result", {"goal_id": goal_id})
    assert (told_late.data["status"], told_late.data["result"]) == (GoalStatus.CANCELED, {})
    assert told.wait(1) == [goal]
    assert entered.items == []
    assert len(states.items) == 3


def test_garbage_harms_neither_service_nor_client(
    serve: Work, client: ActionClient[Any, Any, Any], raw: RawPeer, topic: str
) -> None:
    service = serve(succeed)
    garbage = [b"", b"\xff\xfe", b"[]", b'{"header":{},"data":5}', b'{"goal_id":{}}', b"text"]

    for payload in garbage:
        for part in ("send_goal", "cancel_goal", "get_result"):
            raw.send(f"{topic}.{part}", payload)
        for part in ("status", "feedback"):
            raw.publish(f"{topic}.{part}", payload)

    assert client.send_goal(Goal(cm=3)).result(DEADLINE) == Result(cm=3)
    eventually(lambda: service.stats.refused == 3 * len(garbage), lambda: service.stats)
    eventually(lambda: client.stats.refused == 2 * len(garbage), lambda: client.stats)


def test_bare_states_and_feedback_are_published_where_one_says_so(
    serve: Work, client: ActionClient[Any, Any, Any], got: Collected
) -> None:
    serve(succeed, envelope=False)

    assert client.send_goal(Goal(cm=3)).result(DEADLINE) == Result(cm=3)
    assert got.wait(3) == [("feedback", 1), ("reached", 3), ("result", 3)]


# ---- what comes before its time, or not at all ----


def test_a_client_knows_its_goal_before_the_service_has_answered(
    peer: Peer, client: ActionClient[Any, Any, Any], got: Collected
) -> None:
    peer.serve()
    sending = peer.sending(client)
    (request,) = peer.asked("send_goal")
    goal_id = request.header.id
    assert request.data == {
        "description": "",
        "goal_data": {"cm": 1, "speed": 1.0, "path": []},
    }

    peer.publish("status", goal_id=goal_id, status=2)
    for n in range(3):
        peer.publish("feedback", goal_id=goal_id, feedback_data={"cm": n})
    peer.publish("status", goal_id=goal_id, status=4)
    got.wait(3)
    peer.answer(request, {"status": 1, "timestamp": 5, "goal_id": goal_id})

    goal = sending.result(DEADLINE)
    assert (goal.goal_id, goal.timestamp, goal.status) == (goal_id, 5, GoalStatus.SUCCEEDED)
    (question,) = peer.asked("get_result")
    assert question.data == {"goal_id": goal_id}
    peer.answer(question, {"status": 4, "timestamp": 6, "result": {"cm": 9}})
    assert goal.result(DEADLINE) == Result(cm=9)
    assert got.wait(5) == [*(("feedback", n) for n in range(3)), ("reached", 9), ("result", 9)]


def test_what_a_released_service_says_before_it_answers_is_not_lost(
    peer: Peer, client: ActionClient[Any, Any, Any], got: Collected
) -> None:
    peer.serve()
    sending = peer.sending(client)
    (request,) = peer.asked("send_goal")

    for n in range(3):
        peer.publish("feedback", goal_id="their-own", feedback_data={"cm": n})
        peer.publish("feedback", goal_id="of somebody else", feedback_data={"cm": 99})
    peer.publish("feedback", goal_id="their-own", feedback_data={"cm": "far"})
    peer.publish("status", goal_id="their-own", status=4)
    eventually(lambda: client.stats.received == 8)
    peer.answer(request, {"status": 1, "timestamp": 5, "goal_id": "their-own"}, released=True)

    goal = sending.result(DEADLINE)
    assert goal.goal_id == "their-own"
    (question,) = peer.asked("get_result")
    peer.answer(question, {"status": 4, "timestamp": 6, "result": {"cm": 9}}, released=True)
    assert goal.result(DEADLINE) == Result(cm=9)
    assert got.wait(5) == [*(("feedback", n) for n in range(3)), ("reached", 9), ("result", 9)]
    assert client.stats.refused == 1


def test_states_that_come_in_a_wrong_order_or_twice_do_not_lead_back(
    peer: Peer, client: ActionClient[Any, Any, Any], got: Collected
) -> None:
    peer.serve()
    sending = peer.sending(client)
    (request,) = peer.asked("send_goal")
    goal_id = request.header.id
    peer.answer(request, {"status": 1, "timestamp": 5, "goal_id": goal_id})
    goal = sending.result(DEADLINE)

    for status in (3, 2, 1, 77, 0, -1, 6, 4, 5, 6, 2):
        peer.publish("status", goal_id=goal_id, status=status)
    (question,) = peer.asked("get_result")
    peer.answer(question, {"status": 6, "timestamp": 6, "result": {"cm": 2}})

    assert goal.result(DEADLINE) == Result(cm=2)
    assert goal.status == GoalStatus.CANCELED
    assert got.wait(1) == [("result", 2)]


def test_a_released_service_that_is_busy_refuses_without_a_reason(
    peer: Peer, client: ActionClient[Any, Any, Any]
) -> None:
    peer.serve()
    sending = peer.sending(client)
    (request,) = peer.asked("send_goal")
    peer.answer(request, {"status": 0, "timestamp": 5, "goal_id": "", "error": ""}, released=True)

    goal = sending.result(DEADLINE)
    assert (goal.status, goal.reason) == (0, "the service is busy")
    with pytest.raises(GoalRefused, match="busy"):
        goal.result()


def test_a_busy_service_may_answer_with_the_goal_that_runs_which_is_reported_once(
    peer: Peer, client: ActionClient[Any, Any, Any], got: Collected
) -> None:
    peer.serve()
    for n in (1, 2):
        sending = peer.sending(client)
        request = peer.asked("send_goal", n)[-1]
        peer.answer(request, {"status": 1, "timestamp": 5, "goal_id": "theirs"}, released=True)
        goal = sending.result(DEADLINE)
        assert goal.goal_id == "theirs"

    peer.publish("status", goal_id="theirs", status=4)
    late = {"status": 4, "timestamp": 6, "result": {"cm": 3}}
    peer.answer(peer.asked("get_result")[0], late, released=True)
    assert goal.result(DEADLINE) == Result(cm=3)
    assert got.wait(2) == [("reached", 3), ("result", 3)]
    assert repr(goal) == "ClientGoal('theirs', SUCCEDED)"
    assert client.core._goals == {}


def test_a_success_that_a_released_service_cannot_prove_is_lost(
    peer: Peer, client: ActionClient[Any, Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_goal_follower, "MAX_DOUBTS", 1)
    goal = started(peer, client)
    peer.publish("status", goal_id=goal.goal_id, status=4)
    for n, status in enumerate((2, 0), 1):
        answer = {"status": status, "timestamp": 6, "result": {}}
        peer.answer(peer.asked("get_result", n)[-1], answer)

    with pytest.raises(GoalLost, match="succeeded, but does not give its result"):
        goal.result(DEADLINE)


def test_a_service_that_fails_to_answer_has_refused_the_goal(
    peer: Peer, client: ActionClient[Any, Any, Any]
) -> None:
    peer.serve()
    sending = peer.sending(client)
    (request,) = peer.asked("send_goal")
    peer.answer(request, {}, error=Fault("KeyError", "'arm'"))

    assert sending.result(DEADLINE).reason == "KeyError: 'arm'"


def test_an_end_that_was_not_heard_of_is_found_out(
    peer: Peer, client: ActionClient[Any, Any, Any], got: Collected, eager: None
) -> None:
    peer.serve()
    sending = peer.sending(client)
    (request,) = peer.asked("send_goal")
    peer.answer(request, {"status": 1, "timestamp": 5, "goal_id": request.header.id})
    goal = sending.result(DEADLINE)

    for n, status in enumerate((1, 2, 3, 4), 1):
        question = peer.asked("get_result", n)[-1]
        assert goal.status == max(1, n - 1)
        peer.answer(question, {"status": status, "timestamp": 6, "result": {"cm": 8}})

    assert goal.result(DEADLINE) == Result(cm=8)
    assert got.wait(2) == [("reached", 8), ("result", 8)]


def test_a_goal_whose_answer_was_lost_is_followed_if_it_was_heard_of(
    peer: Peer, client: ActionClient[Any, Any, Any]
) -> None:
    peer.serve()
    sending = peer.sending(client, timeout=1.5)
    (request,) = peer.asked("send_goal")
    peer.publish("status", goal_id=request.header.id, status=2)
    goal = sending.result(DEADLINE)

    peer.publish("status", goal_id=request.header.id, status=4)
    (question,) = peer.asked("get_result")
    peer.answer(question, {"status": 4, "timestamp": 6, "result": {"cm": 8}})
    assert goal.result(DEADLINE) == Result(cm=8)


def test_a_goal_that_nobody_has_answered_for_is_forgotten(
    peer: Peer, client: ActionClient[Any, Any, Any], got: Collected
) -> None:
    peer.serve()
    with pytest.raises(RPCTimeout):
        client.send_goal(Goal(cm=1), timeout=0.5)
    (request,) = peer.asked("send_goal")
    peer.publish("status", goal_id=request.header.id, status=4)
    peer.publish("feedback", goal_id=request.header.id, feedback_data={"cm": 1})
    eventually(lambda: client.stats.received == 2)

    assert got.items == []
    assert client.core._goals == {}


def test_a_result_that_is_none_of_its_class_is_refused_and_counted(
    peer: Peer, client: ActionClient[Any, Any, Any], got: Collected
) -> None:
    peer.serve()
    sending = peer.sending(client)
    (request,) = peer.asked("send_goal")
    goal_id = request.header.id
    peer.publish("status", goal_id=goal_id, status=4)
    peer.answer(request, {"status": 1, "timestamp": 5, "goal_id": goal_id})
    peer.answer(peer.asked("get_result")[0], {"status": 4, "timestamp": 6, "result": {"cm": "far"}})

    goal = sending.result(DEADLINE)
    with pytest.raises(ValueError, match="Result"):
        goal.result(DEADLINE)
    assert goal.status == GoalStatus.SUCCEEDED
    assert client.stats.refused == 1
    assert got.items == []


def test_a_released_service_may_know_its_result_later_than_it_says(
    peer: Peer, client: ActionClient[Any, Any, Any]
) -> None:
    peer.serve()
    sending = peer.sending(client)
    (request,) = peer.asked("send_goal")
    peer.publish("status", goal_id="theirs", status=4)
    peer.answer(request, {"status": 1, "timestamp": 5, "goal_id": "theirs"}, released=True)
    goal = sending.result(DEADLINE)
    # What 0.6 answers when its get_result raises, and what it answers a moment later.
    peer.answer(peer.asked("get_result", 1)[-1], {}, released=True)
    late = {"status": 4, "timestamp": 6, "result": {"cm": 3}}
    peer.answer(peer.asked("get_result", 2)[-1], late, released=True)

    assert goal.result(DEADLINE) == Result(cm=3)


# ---- services that go ----


def started(peer: Peer, client: ActionClient[Any, Any, Any]) -> ClientGoal[Any, Any]:
    """A goal that a service has taken which is not heard of again."""
    peer.serve()
    sending = peer.sending(client)
    (request,) = peer.asked("send_goal")
    peer.answer(request, {"status": 1, "timestamp": 5, "goal_id": request.header.id})
    return sending.result(DEADLINE)


def test_a_service_that_was_started_anew_does_not_know_the_goal_which_is_lost(
    peer: Peer, client: ActionClient[Any, Any, Any], got: Collected, eager: None
) -> None:
    goal = started(peer, client)

    peer.answer(peer.asked("get_result")[0], {"status": 0, "timestamp": 6, "result": {}})

    with pytest.raises(GoalLost, match="started anew"):
        goal.result(DEADLINE)
    assert list(goal.feedback) == []
    assert goal.done
    assert got.items == []


def test_a_service_that_is_silent_has_lost_the_goal(
    peer: Peer, client: ActionClient[Any, Any, Any], impatient: Lose
) -> None:
    goal = started(peer, client)

    assert len(peer.asked("get_result", 2)) > 1, "it was asked again"
    impatient()
    with pytest.raises(GoalLost, match="does not answer"):
        goal.result(DEADLINE)
    with pytest.raises(GoalLost):
        client.get_result()


def test_a_service_that_publishes_but_does_not_answer_is_not_silent(
    peer: Peer, client: ActionClient[Any, Any, Any], impatient: Lose
) -> None:
    peer.serve()
    questions = partial(peer.asked, "get_result", 0)

    def is_kept(number: int, seconds: float) -> bool:
        """Whether a goal is that outlasts so much silence twice, and is lost without a word."""
        impatient(4 * DEADLINE)
        sending = peer.sending(client)
        request = peer.asked("send_goal", number)[-1]
        peer.answer(request, {"status": 1, "timestamp": 5, "goal_id": request.header.id})
        goal = sending.result(DEADLINE)
        begun, asked = time.monotonic(), len(questions())
        impatient(seconds)
        while time.monotonic() - begun < 2 * seconds and not goal.done:
            eventually(lambda asked=asked: goal.done or len(questions()) > asked)
            asked = len(questions())
            peer.publish("feedback", goal_id=goal.goal_id, feedback_data={"cm": asked})
        was_kept = not goal.done
        with pytest.raises(GoalLost, match="does not answer"):
            goal.result(DEADLINE)
        return was_kept

    # A slow machine may be silent for longer than a service.
    assert any(is_kept(number, seconds) for number, seconds in enumerate((0.3, 1.0, 3.0), 1))


@pytest.mark.parametrize(
    ("status", "error"),
    [(GoalStatus.CANCELED, GoalCanceled), (GoalStatus.ABORTED, GoalAborted)],
)
def test_how_a_goal_failed_is_known_though_its_service_has_gone(
    peer: Peer,
    client: ActionClient[Any, Any, Any],
    got: Collected,
    impatient: Lose,
    status: GoalStatus,
    error: type[Exception],
) -> None:
    goal = started(peer, client)
    fault = Fault("ValueError", "no such arm") if status == GoalStatus.ABORTED else None
    peer.publish("status", fault, goal_id=goal.goal_id, status=status)

    with pytest.raises(error, match="no such arm" if fault else goal.goal_id):
        goal.result(DEADLINE)
    assert goal.status == status
    assert got.wait(1) == [("result", None)]


def test_a_success_without_its_result_is_lost(
    peer: Peer, client: ActionClient[Any, Any, Any], got: Collected, impatient: Lose
) -> None:
    goal = started(peer, client)
    peer.publish("status", goal_id=goal.goal_id, status=4)

    eventually(lambda: goal.status == GoalStatus.SUCCEEDED)
    impatient()
    with pytest.raises(GoalLost):
        goal.result(DEADLINE)
    assert goal.status == GoalStatus.SUCCEEDED
    assert got.items == []


def test_a_result_that_its_service_cannot_send_is_lost_with_the_reason(
    peer: Peer, client: ActionClient[Any, Any, Any], eager: None
) -> None:
    goal = started(peer, client)
    peer.answer(peer.asked("get_result")[0], {}, error=Fault("PayloadTooBig", "5 bytes"))

    with pytest.raises(GoalLost, match="PayloadTooBig: 5 bytes"):
        goal.result(DEADLINE)


def test_a_watched_goal_is_lost_if_nobody_answers(
    peer: Peer, client: ActionClient[Any, Any, Any], impatient: Lose
) -> None:
    impatient()
    with pytest.raises(GoalLost, match="does not answer"):
        client.watch("somebody's").result(DEADLINE)


def test_a_cancellation_that_is_refused_or_not_answered_is_told(
    peer: Peer, client: ActionClient[Any, Any, Any]
) -> None:
    goal = started(peer, client)
    pool = ThreadPoolExecutor(1)
    with pool:
        canceling = pool.submit(goal.cancel)
        (request,) = peer.asked("cancel_goal")
        assert request.data["goal_id"] == goal.goal_id
        assert 0 <= now_ms() / 1000 - request.data["timestamp"] < 60
        peer.answer(request, {"status": 0, "timestamp": 5, "result": {}})
        assert canceling.result(DEADLINE) is False
    with pytest.raises(RPCTimeout, match="cancel_goal"):
        goal.cancel(timeout=0.05)
