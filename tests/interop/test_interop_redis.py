"""What ours and released peers do with each other on Redis, where that depends on Redis."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from brokers import Broker, RedisServer
from collected import DEADLINE, eventually
from commlib.exceptions import RPCTimeout
from commlib.node import Node
from interop.cells import FROM_PEER, TO_PEER, Row, fault, works
from interop.released import Received, Released
from interop.samples import NEGATIVE, echo

SHORT = 0.5  # s, for calls that are never answered


@pytest.fixture(params=["redis"])
def broker(redis_server: RedisServer) -> Broker:
    """Redis alone."""
    return Broker(redis_server.url)


# ---- requests wait in a list ----


def wait_for_request(server: RedisServer, name: str) -> None:
    eventually(lambda: server.cli("LLEN", name) == 1, lambda: "no request came")


@works(Row.RPC_WAITING, TO_PEER, "0.13.2")
def test_a_service_of_0_13_2_answers_what_waited_for_it(
    redis_server: RedisServer, peer: Released, node: Node, topic: str
) -> None:
    call = node.create_rpc_client(topic).call_async({"count": 1}, timeout=DEADLINE)
    wait_for_request(redis_server, topic)

    peer.serve(topic)

    assert call.result() == {"count": 1}


@fault(Row.RPC_WAITING, TO_PEER, "0.6.3")
def test_a_service_of_0_6_3_throws_away_what_waited_for_it(
    redis_server: RedisServer, peer: Released, node: Node, topic: str
) -> None:
    """A service that starts deletes all requests that wait, those for other services of the name
    as well, and their callers time out."""
    client = node.create_rpc_client(topic)
    call = client.call_async({"count": 1}, timeout=SHORT)
    wait_for_request(redis_server, topic)

    asked = peer.serve(topic)

    with pytest.raises(RPCTimeout):
        call.result()
    assert client.call({"count": 2}) == {"count": 2}
    assert asked.wait() == [Received("dict", {"count": 2}, None)]


@works(Row.RPC_WAITING, FROM_PEER)
def test_a_service_of_ours_answers_what_waited_for_it(
    redis_server: RedisServer, peer: Released, node: Node, topic: str
) -> None:
    call = peer.begin("call", name=topic, data={"count": 1}, timeout=DEADLINE)
    wait_for_request(redis_server, topic)

    node.create_rpc(topic, echo)

    assert call.result(DEADLINE)["data"] == {"count": 1}


# ---- compressed, and the other side not set to it ----


@fault(Row.PUBSUB_SENDER, TO_PEER, "0.6.3")
def test_a_compressed_message_ends_a_subscriber_of_0_6_3(
    peer: Released, node: Node, topic: str
) -> None:
    """A subscriber dies of a compressed message, and receives nothing any more."""
    got, others = peer.subscribe(topic), peer.subscribe(f"other_{topic}")

    node.create_publisher(topic, compression="zlib").publish({"count": 1})
    eventually(lambda: "UnicodeDecodeError" in peer.log, lambda: peer.log)
    node.create_publisher(topic).publish({"count": 2})
    node.create_publisher(f"other_{topic}").publish({"count": 3})

    assert others.first.data == {"count": 3}
    assert got.items == []


@fault(Row.PUBSUB_SENDER, TO_PEER, "0.13.2")
def test_0_13_2_drops_a_compressed_message_that_it_does_not_expect(
    peer: Released, node: Node, topic: str
) -> None:
    """A subscriber that expects no compressed message drops it, and goes on."""
    got = peer.subscribe(topic)

    node.create_publisher(topic, compression="zlib", envelope=False).publish({"count": 1})
    node.create_publisher(topic, envelope=False).publish({"count": 2})

    assert got.first == Received("dict", {"count": 2}, None)


@fault(Row.PUBSUB_READER, TO_PEER, "0.13.2")
def test_0_13_2_drops_a_message_where_it_expects_a_compressed_one(
    peer: Released, node: Node, topic: str
) -> None:
    """A subscriber that expects compressed messages drops any other together with its connection,
    and loses what comes until that is back."""
    got = peer.subscribe(topic, compressed=True)

    with peer.watch.subscribed(topic):
        node.create_publisher(topic, envelope=False).publish({"count": 1})
    node.create_publisher(topic, compression="zlib", envelope=False).publish({"count": 2})

    assert got.first == Received("dict", {"count": 2}, None)


@fault(Row.RPC_CLIENT, TO_PEER, "0.6.3")
def test_a_compressed_request_ends_a_service_of_0_6_3(
    peer: Released, node: Node, topic: str
) -> None:
    """A service dies of a compressed request, and answers nobody any more."""
    asked = peer.serve(topic)

    for compression in ("zlib", None):
        with pytest.raises(RPCTimeout):
            node.create_rpc_client(topic, compression=compression).call({}, timeout=SHORT)

    assert asked.items == []


@fault(Row.RPC_CLIENT, TO_PEER, "0.13.2")
def test_a_service_of_0_13_2_drops_a_compressed_request_that_it_does_not_expect(
    peer: Released, node: Node, topic: str
) -> None:
    """A service that expects no compressed request drops it, and goes on; the call times out."""
    peer.serve(topic)

    with pytest.raises(RPCTimeout):
        node.create_rpc_client(topic, compression="zlib").call({}, timeout=SHORT)

    assert node.create_rpc_client(topic).call({"count": 1}) == {"count": 1}


@fault(Row.RPC_SERVICE, TO_PEER, "0.13.2")
def test_a_request_ends_a_service_of_0_13_2_that_expects_a_compressed_one(
    peer: Released, node: Node, topic: str
) -> None:
    """A service that expects compressed requests dies of any other, and answers nobody any more."""
    asked = peer.serve(topic, compressed=True)

    for compression in (None, "zlib"):
        with pytest.raises(RPCTimeout):
            node.create_rpc_client(topic, compression=compression).call({}, timeout=SHORT)

    assert asked.items == []


# ---- bytes ----


def test_0_13_2_writes_bare_json_with_negative_numbers_as_numbers(
    redis_server: RedisServer, make_peer: Callable[[str], Released], topic: str
) -> None:
    with redis_server.connection() as wire:
        wire.ask("SUBSCRIBE", topic)
        make_peer("0.13.2").ask("publish", topic=topic, data=NEGATIVE)

        assert json.loads(wire.read()[2]) == NEGATIVE
