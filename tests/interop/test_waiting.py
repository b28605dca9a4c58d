"""Requests wait for a service, between ours and released peers: they do in a list of Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from brokers import RedisServer
from collected import DEADLINE, eventually
from commlib.exceptions import RPCTimeout
from commlib.node import Node
from commlib.rpc import RPCClient
from interop.cells import FROM_PEER, REDIS, TO_PEER, Row, fault, works
from interop.released import Received, Released
from interop.samples import echo

NewClient = Callable[..., RPCClient[Any, Any]]

SHORT = 0.5  # s, for calls that are never answered


def wait_for_request(server: RedisServer, name: str) -> None:
    eventually(lambda: server.cli("LLEN", name) == 1, lambda: "no request came")


@works(Row.RPC_WAITING, TO_PEER, "0.13.2", on=REDIS)
def test_a_service_of_0_13_2_answers_what_waited_for_it(
    redis_server: RedisServer, peer: Released, new_client: NewClient, topic: str
) -> None:
    call = new_client(topic).call_async({"count": 1}, timeout=DEADLINE)
    wait_for_request(redis_server, topic)

    peer.serve(topic)

    assert call.result() == {"count": 1}


@fault(Row.RPC_WAITING, TO_PEER, "0.6.3", on=REDIS)
def test_a_service_of_0_6_3_throws_away_what_waited_for_it(
    redis_server: RedisServer, peer: Released, new_client: NewClient, topic: str
) -> None:
    """A service that starts deletes all requests that wait, those for other services of the name
    as well, and their callers time out."""
    client = new_client(topic)
    call = client.call_async({"count": 1}, timeout=SHORT)
    wait_for_request(redis_server, topic)

    asked = peer.serve(topic)

    with pytest.raises(RPCTimeout):
        call.result()
    assert client.call({"count": 2}) == {"count": 2}
    assert asked.wait() == [Received("dict", {"count": 2}, None)]


@works(Row.RPC_WAITING, FROM_PEER, on=REDIS)
def test_a_service_of_ours_answers_what_waited_for_it(
    redis_server: RedisServer, peer: Released, node: Node, topic: str
) -> None:
    call = peer.begin("call", name=topic, data={"count": 1}, timeout=DEADLINE)
    wait_for_request(redis_server, topic)

    node.create_rpc(topic, echo)

    assert call.result(DEADLINE)["data"] == {"count": 1}
