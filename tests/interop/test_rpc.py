"""Calls between ours and released peers, on every broker."""

from __future__ import annotations

from itertools import cycle
from operator import itemgetter
from typing import Any

import pytest

from collected import DEADLINE, Collected
from commlib.exceptions import RPCTimeout
from commlib.node import Node
from interop.cells import FROM_PEER, TO_PEER, Row, fault, works
from interop.released import Received, Released
from interop.samples import NEGATIVE, SAMPLES, Echo, echo, request

CLIENTS = 50  # the driver of 0.13.2 has no more than 100 connections for all of a process

REQUESTS: list[dict[str, Any]] = [{"count": n, "label": f"call {n}"} for n in range(200)]
"""Requests of which no two have the same answer."""


def response(fields: dict[str, Any]) -> Echo.Response:
    message = Echo.Response()
    message.from_dict(fields)
    return message


def returned(fields: dict[str, Any]) -> Received:
    return Received("Response", request(fields).as_dict(), None)


# ---- typed, untyped, numbers ----


@works(Row.RPC_TYPED, TO_PEER)
def test_a_typed_service_of_the_peer_answers_ours(peer: Released, node: Node, topic: str) -> None:
    asked = peer.serve(topic, typed=True)
    client = node.create_rpc_client(topic, Echo)

    for fields in SAMPLES:
        assert client.call(request(fields)) == response(fields)

    assert asked.wait(len(SAMPLES)) == [
        Received("Request", request(fields).as_dict(), None) for fields in SAMPLES
    ]


@works(Row.RPC_TYPED, FROM_PEER)
def test_a_typed_service_of_ours_answers_the_peer(peer: Released, node: Node, topic: str) -> None:
    asked = Collected()
    node.create_rpc(topic, lambda request: asked(request) or echo(request), Echo)

    for fields in SAMPLES:
        assert peer.call(topic, fields, typed=True) == returned(fields)

    assert asked.items == [request(fields) for fields in SAMPLES]


@works(Row.RPC_UNTYPED, TO_PEER)
def test_an_untyped_service_of_the_peer_answers_ours(
    peer: Released, node: Node, topic: str
) -> None:
    asked = peer.serve(topic)
    client = node.create_rpc_client(topic)

    for fields in SAMPLES:
        assert client.call(fields) == fields

    assert asked.wait(len(SAMPLES)) == [Received("dict", fields, None) for fields in SAMPLES]


@works(Row.RPC_UNTYPED, FROM_PEER)
def test_an_untyped_service_of_ours_answers_the_peer(
    peer: Released, node: Node, topic: str
) -> None:
    asked = Collected()
    node.create_rpc(topic, lambda request: asked(request) or echo(request))

    for fields in SAMPLES:
        assert peer.call(topic, fields) == Received("dict", fields, None)

    assert asked.items == SAMPLES


@works(Row.RPC_NEGATIVE, TO_PEER)
def test_negative_numbers_go_to_the_peer_and_come_back(
    peer: Released, node: Node, topic: str
) -> None:
    asked = peer.serve(topic, typed=True)

    assert node.create_rpc_client(topic, Echo).call(request(NEGATIVE)) == response(NEGATIVE)
    assert node.create_rpc_client(topic).call(NEGATIVE) == response(NEGATIVE).as_dict()
    assert asked.first.data == request(NEGATIVE).as_dict()


@works(Row.RPC_NEGATIVE, FROM_PEER)
def test_negative_numbers_come_from_the_peer_and_go_back(
    peer: Released, node: Node, topic: str
) -> None:
    asked = Collected()
    node.create_rpc(topic, lambda request: asked(request) or echo(request), Echo)

    assert peer.call(topic, NEGATIVE, typed=True) == returned(NEGATIVE)
    assert peer.call(topic, NEGATIVE).data == returned(NEGATIVE).data
    assert asked.first == request(NEGATIVE)


# ---- many at once ----


@works(Row.RPC_ONE_CLIENT, TO_PEER)
def test_many_calls_of_one_client_of_ours_get_each_its_own_answer(
    peer: Released, node: Node, topic: str
) -> None:
    peer.serve(topic, one_at_a_time=True)
    client = node.create_rpc_client(topic)

    futures = [client.call_async(data, timeout=DEADLINE) for data in REQUESTS]

    assert [future.result() for future in futures] == REQUESTS
    assert client.stats.late == client.stats.refused == 0


@fault(Row.RPC_ONE_CLIENT, FROM_PEER, "0.6.3", "0.13.2")
def test_threads_that_share_a_client_mix_their_calls(
    peer: Released, node: Node, topic: str
) -> None:
    """Threads that share a client, as `call_async` lets them, overwrite each other's requests: one
    request is sent twice, the other never, and its caller gets the wrong answer."""
    asked = Collected()
    node.create_rpc(topic, lambda request: asked(request) or echo(request))
    peer.call(topic, {"count": 0})
    peer.ask("hold", function="_prepare_request", line="return")

    first = peer.begin("call", name=topic, data={"count": 1}, timeout=DEADLINE)
    assert peer.ask("until_held", timeout=DEADLINE)
    second = peer.call(topic, {"count": 2})
    peer.ask("let_go")

    assert second.data == {"count": 2}
    assert first.result(DEADLINE)["data"] == {"count": 2}
    assert asked.wait(3) == [{"count": 0}, {"count": 2}, {"count": 2}]


@works(Row.RPC_MANY_CLIENTS, TO_PEER)
def test_many_clients_of_ours_get_each_its_own_answers(
    peer: Released, node: Node, topic: str
) -> None:
    peer.serve(topic, one_at_a_time=True)
    clients = [node.create_rpc_client(topic) for _ in range(CLIENTS)]

    futures = [
        client.call_async(data, timeout=DEADLINE)
        for client, data in zip(cycle(clients), REQUESTS, strict=False)
    ]

    assert [future.result() for future in futures] == REQUESTS


@works(Row.RPC_MANY_CLIENTS, FROM_PEER)
def test_many_clients_of_the_peer_get_each_its_own_answers(
    peer: Released, node: Node, topic: str
) -> None:
    asked = Collected()
    node.create_rpc(topic, lambda request: asked(request) or echo(request))

    answers = peer.ask("call_all", name=topic, requests=REQUESTS, clients=CLIENTS, timeout=DEADLINE)

    assert answers == [data for first in range(CLIENTS) for data in REQUESTS[first::CLIENTS]]
    assert sorted(asked.items, key=itemgetter("count")) == REQUESTS


@works(Row.RPC_AT_A_TIME, TO_PEER, "0.6.3")
def test_a_service_of_0_6_3_handles_two_requests_at_a_time(
    peer: Released, node: Node, topic: str
) -> None:
    peer.serve(topic)
    client = node.create_rpc_client(topic)
    peer.ask("hold", function="_send_response", line="_resp = self._serializer")

    first = client.call_async({"count": 1}, timeout=DEADLINE)
    assert peer.ask("until_held", timeout=DEADLINE)
    second = client.call({"count": 2})
    peer.ask("let_go")

    assert (first.result(DEADLINE), second) == ({"count": 1}, {"count": 2})


@fault(Row.RPC_AT_A_TIME, TO_PEER, "0.13.2")
def test_a_service_of_0_13_2_mixes_up_responses(peer: Released, node: Node, topic: str) -> None:
    """Responses that are ready at the same moment overwrite each other, and a caller gets the data
    of another; not if the program calls `commlib.thread_pool.get_io_pool(1)` before all else."""
    peer.serve(topic)
    client = node.create_rpc_client(topic)
    peer.ask("hold", function="_send_response", line="_resp =")

    first = client.call_async({"count": 1}, timeout=DEADLINE)
    assert peer.ask("until_held", timeout=DEADLINE)
    second = client.call({"count": 2})
    peer.ask("let_go")

    assert second == {"count": 2}
    assert first.result(DEADLINE) == {"count": 2}


@works(Row.RPC_AT_A_TIME, FROM_PEER)
def test_a_service_of_ours_handles_several_requests_at_a_time(
    peer: Released, node: Node, topic: str, gate: Any
) -> None:
    entered = Collected()

    def hold_up(request: dict[str, Any]) -> dict[str, Any]:
        entered(request)
        if request["count"] == 1:
            gate.wait(DEADLINE)
        return request

    node.create_rpc(topic, hold_up)
    held = {"count": 1}
    first = peer.begin("call_all", name=topic, requests=[held], clients=1, timeout=DEADLINE)
    assert entered.first == held

    assert peer.call(topic, {"count": 2}).data == {"count": 2}
    gate.set()
    assert first.result(DEADLINE) == [held]


# ---- a service that raises ----


@works(Row.RPC_RAISES, FROM_PEER)
def test_what_a_service_of_ours_raises_is_an_empty_response_for_the_peer(
    peer: Released, node: Node, topic: str
) -> None:
    service = node.create_rpc(topic, echo, Echo)

    for _ in range(2):
        assert peer.call(topic, {"label": "ValueError"}, typed=True) == returned({})
        assert peer.call(topic, {"label": "TypeError"}).data == {}
        assert peer.call(topic, {"label": "fine"}, typed=True) == returned({"label": "fine"})

    assert service.stats.errors == 4


@fault(Row.RPC_RAISES, TO_PEER, "0.6.3")
def test_what_a_service_of_0_6_3_raises_is_an_empty_response(
    peer: Released, node: Node, topic: str
) -> None:
    """Whatever the service raises, the caller gets an empty response, and cannot tell it from one
    that is meant; the service goes on."""
    peer.serve(topic)
    typed, plain = node.create_rpc_client(topic, Echo), node.create_rpc_client(topic)

    for label in ("ValueError", "ZeroDivisionError"):
        assert typed.call(Echo.Request(label=label)) == response({})
        assert plain.call({"label": label}) == {}
        assert typed.call(Echo.Request(label="fine")) == response({"label": "fine"})


@fault(Row.RPC_RAISES, TO_PEER, "0.13.2")
def test_some_of_what_a_service_of_0_13_2_raises_is_never_answered(
    peer: Released, node: Node, topic: str
) -> None:
    """For `ValueError`, `KeyError`, `RuntimeError`, `OSError` and `AttributeError` the caller gets
    an empty response; for all others none at all, and the call times out; the service goes on."""
    peer.serve(topic)
    typed, plain = node.create_rpc_client(topic, Echo), node.create_rpc_client(topic)

    for label in ("ValueError", "KeyError", "RuntimeError", "OSError", "AttributeError"):
        assert typed.call(Echo.Request(label=label)) == response({})
        assert plain.call({"label": label}) == {}
    for label in ("TypeError", "ZeroDivisionError"):
        with pytest.raises(RPCTimeout):
            typed.call(Echo.Request(label=label), timeout=0.5)
        assert typed.call(Echo.Request(label="fine")) == response({"label": "fine"})
