"""Actions while the broker dies and comes back, or is not there at all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from brokers import Server, free_port
from collected import DEADLINE, Collected, eventually
from commlib import aio
from commlib.action import ActionClient, ActionService, GoalStatus
from commlib.aio import _goal_follower
from commlib.exceptions import EndpointClosed, GoalLost, RPCTimeout
from commlib.transports.redis import ConnectionParameters

MakeServer = Callable[..., Server]

pytestmark = pytest.mark.main_kinds


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Holds callbacks up until it is set."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.mark.parametrize("ends", ["while it is away", "afterwards"])
def test_a_goal_outlives_the_broker_and_its_end_is_found_out(
    make_server: MakeServer, gate: threading.Event, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Some brokers take longer to start than a service may be silent.
    monkeypatch.setattr(_goal_follower, "SILENCE_SECONDS", 4 * DEADLINE)
    server = make_server()
    entered, results = Collected(), Collected()

    def on_goal(goal_h: Any) -> Any:
        entered(goal_h)
        gate.wait(4 * DEADLINE)
        return goal_h.data

    with (
        ActionService("turn", None, on_goal, conn_params=server.url) as service,
        ActionClient("turn", on_result=results, conn_params=server.url) as client,
    ):
        goal = client.send_goal({"degrees": 90})
        entered.wait(1)
        server.kill()
        eventually(lambda: not service.connected and not client.connected)
        if ends == "while it is away":
            gate.set()
            eventually(entered.first.is_finished)
        server.start()
        eventually(lambda: service.connected and client.connected)
        gate.set()

        assert goal.result(2 * DEADLINE) == {"degrees": 90}
        assert goal.status == GoalStatus.SUCCEEDED
        assert client.send_goal({"degrees": 1}).result(DEADLINE) == {"degrees": 1}
        assert results.wait(2) == [{"degrees": 90}, {"degrees": 1}]


def test_a_goal_is_lost_if_the_broker_does_not_come_back(
    make_server: MakeServer, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FIRST_PAUSE", "ANSWER_SECONDS", "SILENCE_SECONDS"):
        monkeypatch.setattr(_goal_follower, name, 0.1)
    server = make_server()
    with (
        ActionService("turn", None, lambda goal_h: gate.wait(DEADLINE), conn_params=server.url),
        ActionClient("turn", conn_params=server.url) as client,
    ):
        goal = client.send_goal({})
        server.kill()
        with pytest.raises(GoalLost, match="does not answer"):
            goal.result(DEADLINE)


def test_without_a_broker_sending_a_goal_ends_in_time() -> None:
    params = ConnectionParameters(port=free_port(), connect_timeout=0.1)
    client = ActionClient("turn", conn_params=params)
    try:
        for kind in (RPCTimeout, TimeoutError):
            with pytest.raises(kind, match="there is no connection"):
                client.send_goal({}, timeout=0.1)
    finally:
        client.stop()
    with pytest.raises(EndpointClosed):
        client.send_goal({})


async def test_a_client_that_is_stopped_while_it_waits_for_the_broker_ends() -> None:
    params = ConnectionParameters(port=free_port(), connect_timeout=0.1)
    client = aio.ActionClient("turn", conn_params=params)
    sending = asyncio.create_task(client.send_goal({}))
    await asyncio.sleep(0)
    await client.stop()

    with pytest.raises(EndpointClosed):
        await sending
