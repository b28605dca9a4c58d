"""Golden bytes of actions: what ours writes on Redis, and what released peers write, read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from brokers import RedisServer, RespConnection
from commlib.action import ActionClient, ActionService, GoalHandler
from commlib.msg import ActionMessage

NOW = 1_700_000_000_123
ORIGIN = "01020304"
ID = bytes(range(1, 17)).hex()
PROPERTIES = '"properties":{"content_type":"application/json","content_encoding":"utf8"}'
ANSWER = f'{{"header":{{"timestamp":{NOW},{PROPERTIES}}},"data":'
Asked = Callable[[str, str], str]


class Turn(ActionMessage):
    class Goal(ActionMessage.Goal):
        degrees: int = 0

    class Result(ActionMessage.Result):
        degrees: int = 0

    class Feedback(ActionMessage.Feedback):
        now: int = 0


def turn(goal_h: GoalHandler[Turn.Goal, Turn.Result, Turn.Feedback]) -> Turn.Result:
    if goal_h.data.degrees < 0:
        raise ValueError("no such way")
    if goal_h.data.degrees > 360:
        goal_h.cancel_event.wait(10)
    goal_h.send_feedback(Turn.Feedback(now=1))
    return Turn.Result(degrees=goal_h.data.degrees)


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks that stand still, and origins and ids that are known."""
    monkeypatch.setattr("commlib.aio.pubsub.time", lambda: NOW / 1000)
    for module in ("commlib.aio._rpc_service", "commlib.aio._caller"):
        monkeypatch.setattr(f"{module}.now_ms", lambda: NOW)
    for module in ("_action_service", "_action_client"):
        monkeypatch.setattr(f"commlib.aio.{module}.unix_seconds", lambda: NOW // 1000)
    for module in ("_sequence", "aio._action_service"):
        monkeypatch.setattr(f"commlib.{module}.urandom", lambda size: bytes(range(1, size + 1)))


@pytest.fixture
def wire(redis_server: RedisServer) -> Iterator[RespConnection]:
    """A bare connection to the same server."""
    with redis_server.connection() as connection:
        yield connection


@pytest.fixture
def published(redis_server: RedisServer) -> Iterator[RespConnection]:
    """A bare connection that has subscribed to all that is published of the action."""
    with redis_server.connection() as connection:
        connection.ask("PSUBSCRIBE", "golden.turn.*")
        yield connection


@pytest.fixture
def service(redis_server: RedisServer) -> Iterator[ActionService]:
    with ActionService("golden.turn", Turn, turn, conn_params=redis_server.url) as service:
        yield service


@pytest.fixture
def asked(service: ActionService, wire: RespConnection) -> Asked:
    """The answer, as it is, to a request to a part of the action."""

    def ask(part: str, data: str) -> str:
        request = f'{{"header":{{"reply_to":"golden-reply"}},"data":{data}}}'
        wire.ask("RPUSH", f"golden.turn.{part}", request)
        return wire.ask("BLPOP", "golden-reply", 10)[1].decode()  # type: ignore[no-any-return]

    return ask


def heard(published: RespConnection) -> tuple[str, str]:
    """The next topic and payload that are published."""
    _, _, topic, payload = published.read()
    return topic.decode(), payload.decode()


def envelope(seq: int, data: str, header: str = "") -> str:
    return (
        f'{{"header":{{"timestamp":{NOW},{PROPERTIES},"origin":"{ORIGIN}","seq":{seq}{header}}},'
        f'"data":{data}}}'
    )


def test_a_goal_from_a_released_client_is_answered_and_told_of(
    asked: Asked, published: RespConnection
) -> None:
    answer = asked("send_goal", '{"description":"","goal_data":{"degrees":90}}')

    assert answer == f'{ANSWER}{{"status":1,"timestamp":{NOW // 1000},"goal_id":"{ID}"}}}}'
    assert [heard(published) for _ in range(4)] == [
        ("golden.turn.status", envelope(0, f'{{"goal_id":"{ID}","status":1}}')),
        ("golden.turn.status", envelope(1, f'{{"goal_id":"{ID}","status":2}}')),
        (
            "golden.turn.feedback",
            envelope(0, f'{{"feedback_data":{{"now":1}},"goal_id":"{ID}"}}'),
        ),
        ("golden.turn.status", envelope(2, f'{{"goal_id":"{ID}","status":4}}')),
    ]
    assert asked("get_result", f'{{"goal_id":"{ID}"}}') == (
        f'{ANSWER}{{"status":4,"timestamp":{NOW // 1000},"result":{{"degrees":90}}}}}}'
    )


def test_an_aborted_goal_has_its_error_in_the_headers(
    asked: Asked, published: RespConnection
) -> None:
    asked("send_goal", '{"goal_data":{"degrees":-1}}')
    error = ',"error":{"type":"ValueError","message":"no such way"}'

    assert [heard(published)[1] for _ in range(3)][-1] == envelope(
        2, f'{{"goal_id":"{ID}","status":5}}', error
    )
    assert asked("get_result", f'{{"goal_id":"{ID}"}}') == (
        f'{{"header":{{"timestamp":{NOW},{PROPERTIES}{error}}},'
        f'"data":{{"status":5,"timestamp":{NOW // 1000},"result":{{}}}}}}'
    )


def test_a_cancelled_goal_is_told_of(asked: Asked, published: RespConnection) -> None:
    asked("send_goal", '{"goal_data":{"degrees":1000}}')
    topics_and_states = [heard(published) for _ in range(2)]  # it has begun
    request = f'{{"goal_id":"{ID}","timestamp":{NOW // 1000}}}'

    assert asked("cancel_goal", request) == (
        f'{ANSWER}{{"status":1,"timestamp":{NOW // 1000},"result":{{}}}}}}'
    )
    topics_and_states += [heard(published) for _ in range(3)]
    assert [
        json.loads(payload)["data"]["status"]
        for topic, payload in topics_and_states
        if topic == "golden.turn.status"
    ] == [1, 2, 3, 6]
    assert asked("cancel_goal", request) == (
        f'{ANSWER}{{"status":0,"timestamp":{NOW // 1000},"result":{{}}}}}}'
    )


def test_a_refused_goal_has_the_reason_in_the_header(asked: Asked, wire: RespConnection) -> None:
    # With the same source of chance the second would have the id of the first, so it is chosen.
    chosen = '{"header":{"id":"chosen"},"data":{"goal_data":{"degrees":1000}}}'
    wire.ask("RPUSH", "golden.turn.send_goal", chosen)

    assert asked("send_goal", '{"goal_data":{"degrees":1}}') == (
        f'{{"header":{{"timestamp":{NOW},{PROPERTIES},"error":{{"type":"GoalRefused",'
        '"message":"golden.turn is busy with 1 of at most 1 goals"}},'
        f'"data":{{"status":0,"timestamp":{NOW // 1000},"goal_id":""}}}}'
    )
    asked("cancel_goal", '{"goal_id":"chosen"}')


# ---- what a client of ours writes, and released services answer ----


def request(wire: RespConnection, part: str) -> tuple[str, str, str]:
    """The data of the next request to a part of the action, its id, and where the reply goes."""
    _, payload = wire.ask("BLPOP", f"golden.turn.{part}", 10)
    match = re.fullmatch(
        rf'{{"header":{{"timestamp":{NOW},{PROPERTIES},"origin":"{ORIGIN}","seq":\d+,'
        rf'"reply_to":"(rpc-[0-9a-f]{{32}})","id":"({ORIGIN}-[0-9a-f]+)","deadline":\d+}},'
        r'"data":(.*)}',
        payload.decode(),
    )
    assert match, payload
    reply_to, call_id, data = match.groups()
    return data, call_id, reply_to


def test_a_goal_is_sent_and_followed_beside_a_released_service(
    redis_server: RedisServer, wire: RespConnection
) -> None:
    feedback: list[Turn.Feedback] = []

    def answer(reply_to: str, data: str) -> None:
        properties = PROPERTIES.replace("}", ',"msg_type":""}')
        header = f'{{"timestamp":1,{properties}}}'
        wire.ask("RPUSH", reply_to, f'{{"data":{data},"header":{header}}}')

    def publish(part: str, data: str) -> None:
        header = f'{{"timestamp":1609459200500,{PROPERTIES}}}'
        payload = f'{{"header":{header},"data":{data}}}'
        assert wire.ask("PUBLISH", f"golden.turn.{part}", payload) == 1

    with (
        ActionClient(
            "golden.turn", Turn, on_feedback=feedback.append, conn_params=redis_server.url
        ) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        sending = pool.submit(client.send_goal, Turn.Goal(degrees=90))
        data, call_id, reply_to = request(wire, "send_goal")
        assert data == '{"description":"","goal_data":{"degrees":90}}'
        assert call_id == f"{ORIGIN}-0"
        answer(reply_to, f'{{"status": 1, "timestamp": 7, "goal_id": "{ID}"}}')
        goal = sending.result(10)
        assert (goal.goal_id, goal.timestamp) == (ID, 7)

        publish("feedback", f'{{"feedback_data": {{"now": 45}}, "goal_id": "{ID}"}}')
        canceling = pool.submit(goal.cancel)
        data, _, reply_to = request(wire, "cancel_goal")
        assert data == f'{{"goal_id":"{ID}","timestamp":{NOW // 1000}}}'
        answer(reply_to, '{"status": 1, "timestamp": 8, "result": {}}')
        assert canceling.result(10) is True

        publish("status", f'{{"goal_id": "{ID}", "status": 6}}')
        data, _, reply_to = request(wire, "get_result")
        assert data == f'{{"goal_id":"{ID}"}}'
        answer(reply_to, '{"status": 6, "timestamp": 9, "result": {"degrees": 44}}')
        assert goal.result(10) == Turn.Result(degrees=44)

    assert feedback == [Turn.Feedback(now=45)]
