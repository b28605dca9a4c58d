"""Services of one name, of ours and of released peers: on AMQP a queue, which may be shared."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from collected import DEADLINE, Collected, eventually
from commlib.node import Node
from commlib.rpc import RPCClient
from interop.cells import AMQP, FROM_PEER, REDIS, TO_PEER, VERSIONS, Row, fault
from interop.released import Released
from interop.samples import request

NewClient = Callable[..., RPCClient[Any, Any]]


@fault(Row.RPC_BESIDE, TO_PEER, "0.6.3", "0.13.2", on=AMQP)
def test_a_service_of_ours_waits_until_that_of_the_peer_has_gone(
    peer: Released, node: Node, new_client: NewClient, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A service has its queue for itself. One of ours that finds it taken says so, and waits until
    it is free; one of the release that finds that of ours ends at once, and nobody is told."""
    asked = peer.serve(topic)
    client = new_client(topic)
    ours = Collected()

    node.create_rpc(topic, lambda request: ours(request) or request)

    (warning,) = [record for record in caplog.records if topic in record.getMessage()]
    assert warning.levelno == logging.WARNING
    assert "another program" in warning.getMessage()
    assert "end that one" in warning.getMessage()
    assert not node.health
    assert client.call({"count": 1}) == {"count": 1}
    assert asked.first.data == {"count": 1}

    peer.close()

    eventually(lambda: node.health)
    assert client.call({"count": 2}) == {"count": 2}
    assert ours.items == [{"count": 2}]


@fault(Row.RPC_BESIDE, FROM_PEER, "0.6.3", "0.13.2", on=AMQP)
def test_a_service_of_the_peer_ends_where_ours_is(peer: Released, node: Node, topic: str) -> None:
    """A service has its queue for itself. One of ours that finds it taken says so, and waits until
    it is free; one of the release that finds that of ours ends at once, and nobody is told."""
    ours = Collected()
    node.create_rpc(topic, lambda request: ours(request) or request)

    asked = peer.serve(topic)

    eventually(lambda: "RESOURCE_LOCKED" in peer.log, lambda: peer.log)
    assert peer.call(topic, {"count": 1}, typed=True).data["count"] == 1
    assert ours.items == [request({"count": 1}).as_dict()]
    assert asked.items == []
    assert node.health


@pytest.mark.parametrize("broker", [*REDIS, *AMQP], indirect=True)
@pytest.mark.parametrize("peer", VERSIONS, indirect=True)
def test_two_services_of_ours_share_the_calls_of_the_peer(
    peer: Released, make_node: Callable[..., Node], topic: str
) -> None:
    entered = Collected()
    both = threading.Barrier(2)

    def serve(name: str) -> None:
        def handle(request: dict[str, Any]) -> dict[str, Any]:
            entered((name, request["count"]))
            both.wait(DEADLINE)
            return request

        make_node().create_rpc(topic, handle, workers=1)

    serve("one")
    serve("other")
    requests = [{"count": number} for number in range(10)]

    answers = peer.ask("call_all", name=topic, requests=requests, clients=2, timeout=DEADLINE)

    assert sorted(answer["count"] for answer in answers) == list(range(10))
    assert sorted(count for _, count in entered.items) == list(range(10))
    assert [name for name, _ in entered.items].count("one") == 5
