"""What is larger than the packets that an MQTT broker takes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from brokers import MosquittoServer
from collected import DEADLINE, eventually
from commlib.bridges import RPCBridge
from commlib.exceptions import GoalLost, PayloadTooBig, RPCRemoteError
from commlib.node import Node
from commlib.serializer import MessagePackSerializer

LIMIT = 2000
LARGE = "x" * 5000


@pytest.fixture
def server(make_mosquitto: Callable[..., MosquittoServer]) -> MosquittoServer:
    """It tells of its limit on MQTT 5."""
    return make_mosquitto(config=[f"max_packet_size {LIMIT}"])


@pytest.fixture
def node(server: MosquittoServer) -> Iterator[Node]:
    with Node("n", connection_params=server.url, heartbeats=False) as node:
        yield node


def test_who_publishes_more_than_the_broker_takes_is_told_whose_limit_that_is(node: Node) -> None:
    with pytest.raises(PayloadTooBig, match="that the broker has set") as raised:
        node.create_publisher("a").publish(LARGE)
    assert (raised.value.limit, raised.value.by_broker) == (LIMIT, True)
    assert "max_payload" not in str(raised.value)


async def as_coroutine(request: Any) -> str:
    return LARGE


@pytest.mark.parametrize("idempotent", [False, True])
@pytest.mark.parametrize("on_request", [lambda request: LARGE, as_coroutine])
@pytest.mark.parametrize("options", [{}, {"serializer": MessagePackSerializer}])
def test_who_calls_is_told_that_the_broker_does_not_take_the_reply(
    node: Node,
    on_request: Callable[[Any], Any],
    idempotent: bool,
    options: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = node.create_rpc("map", on_request, **options)
    client = node.create_rpc_client("map", idempotent=idempotent, **options)
    for _ in range(2):
        with pytest.raises(RPCRemoteError, match="that the broker has set") as raised:
            client.call({}, timeout=DEADLINE)
        assert raised.value.type == "PayloadTooBig"
    assert service.stats.errors == 2
    assert caplog.text.count("map: a reply cannot be sent") == 1
    assert "the callback failed" not in caplog.text


def test_who_asks_again_for_a_reply_that_is_too_large_is_told_too(node: Node) -> None:
    may_end = threading.Event()

    def slowly(request: Any) -> str:
        may_end.wait(DEADLINE)
        return LARGE

    service = node.create_rpc("map", slowly)
    client = node.create_rpc_client("map", idempotent=True)
    future = client.call_async({}, timeout=DEADLINE)
    eventually(lambda: service.stats.repeated > 0)
    may_end.set()
    with pytest.raises(RPCRemoteError, match="that the broker has set"):
        future.result(DEADLINE)


def test_who_wants_a_result_that_the_broker_does_not_take_is_told_so_at_once(node: Node) -> None:
    node.create_action("map", on_goal=lambda goal: LARGE)
    goal = node.create_action_client("map").send_goal({})
    with pytest.raises(GoalLost, match=r"PayloadTooBig: .* that the broker has set"):
        goal.result(DEADLINE)


def test_who_calls_over_a_bridge_is_told_that_its_broker_does_not_take_the_reply(
    node: Node, server: MosquittoServer, make_mosquitto: Callable[..., MosquittoServer]
) -> None:
    wide = make_mosquitto()
    with Node("far", connection_params=wide.url, heartbeats=False) as far:
        far.create_rpc("far", lambda request: LARGE)
        bridge = RPCBridge(None, "near", "far", server.url, wide.url)
        bridge.run()
        try:
            with pytest.raises(RPCRemoteError, match="that the broker has set"):
                node.create_rpc_client("near").call({}, timeout=DEADLINE)
            assert bridge.stats.errors == 1
        finally:
            bridge.stop()
