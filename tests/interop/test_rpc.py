"""Calls between ours and released peers, on every broker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import cycle
from operator import attrgetter
from typing import Any

import pytest

from collected import DEADLINE, Collected, eventually
from commlib.exceptions import RPCTimeout
from commlib.node import Node
from commlib.rpc import RPCClient
from interop.cells import AMQP, FROM_PEER, MQTT, REDIS, TO_PEER, WRAPPING, Row, fault, works
from interop.released import PeerError, Received, Released
from interop.samples import NEGATIVE, SAMPLES, Echo, echo, request

Beside = Callable[[int], list[int]]
NewClient = Callable[..., RPCClient[Any, Any]]

SHORT = 0.5  # s, for calls that are never answered
ANSWERS = "_(resp|payload) ="  # how the lines begin that make a response, whatever the broker
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
def test_a_typed_service_of_the_peer_answers_ours(
    peer: Released, new_client: NewClient, topic: str
) -> None:
    asked = peer.serve(topic, typed=True)
    client = new_client(topic, Echo)

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
    peer: Released, new_client: NewClient, topic: str
) -> None:
    asked = peer.serve(topic)
    client = new_client(topic)

    for fields in SAMPLES:
        assert client.call(fields) == fields

    assert asked.wait(len(SAMPLES)) == [Received("dict", fields, None) for fields in SAMPLES]


@works(Row.RPC_UNTYPED, FROM_PEER, on=(*REDIS, *AMQP))
@works(Row.RPC_UNTYPED, FROM_PEER, "0.6.3", on=MQTT)
def test_an_untyped_service_of_ours_answers_the_peer(
    peer: Released, node: Node, topic: str
) -> None:
    asked = Collected()
    node.create_rpc(topic, lambda request: asked(request) or echo(request))

    for fields in SAMPLES:
        assert peer.call(topic, fields) == Received("dict", fields, None)

    assert asked.items == SAMPLES


@fault(Row.RPC_UNTYPED, FROM_PEER, "0.13.2", on=MQTT)
def test_an_untyped_client_of_0_13_2_remembers_its_first_response(
    peer: Released, node: Node, topic: str
) -> None:
    """An untyped client returns the response to its first call from all later ones, too, which do
    not wait for theirs; not if it has a message type."""
    asked = Collected()
    node.create_rpc(topic, lambda request: asked(request) or echo(request))

    assert peer.call(topic, {"count": 1}).data == {"count": 1}
    assert peer.call(topic, {"count": 2}).data == {"count": 1}
    assert asked.wait(2) == [{"count": 1}, {"count": 2}]


@works(Row.RPC_NEGATIVE, TO_PEER)
def test_negative_numbers_go_to_the_peer_and_come_back(
    peer: Released, new_client: NewClient, topic: str
) -> None:
    asked = peer.serve(topic, typed=True)

    assert new_client(topic, Echo).call(request(NEGATIVE)) == response(NEGATIVE)
    assert new_client(topic).call(NEGATIVE) == response(NEGATIVE).as_dict()
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


# ---- in an envelope, and without: there is a choice on AMQP ----


@works(Row.RPC_WRAPPED, TO_PEER, "0.13.2", on=AMQP)
def test_a_call_in_an_envelope_is_answered_by_0_13_2(
    peer: Released, node: Node, topic: str
) -> None:
    asked = peer.serve(topic)

    assert node.create_rpc_client(topic, envelope=True).call({"count": 1}) == {"count": 1}
    assert asked.items == [Received("dict", {"count": 1}, None)]


@works(Row.RPC_WRAPPED, FROM_PEER, "0.13.2", on=AMQP)
def test_a_call_of_0_13_2_in_an_envelope_is_answered(
    peer: Released, node: Node, topic: str
) -> None:
    asked = Collected()
    node.create_rpc(topic, lambda request: asked(request) or echo(request))
    requests = [{"count": 1}, {"header": {}, "data": {}}, {"header": {"reply_to": "x"}}]

    for data in requests:
        assert peer.call(topic, data) == Received("dict", data, None)

    assert asked.items == requests


@fault(Row.RPC_WRAPPED, TO_PEER, "0.6.3", on=AMQP)
def test_0_6_3_takes_the_envelope_for_the_request(peer: Released, node: Node, topic: str) -> None:
    """A typed service answers a request in an envelope with nothing but defaults, an untyped one is
    given the envelope as its request; ours writes none unless told to."""
    asked, typed = peer.serve(topic), peer.serve(f"typed_{topic}", typed=True)

    node.create_rpc_client(topic, envelope=True).call({"count": 1})
    client = node.create_rpc_client(f"typed_{topic}", Echo, envelope=True)

    assert client.call(Echo.Request(count=1)) == response({})
    assert typed.items == []
    assert asked.first.data.keys() == {"header", "data"}


@works(Row.RPC_BARE, TO_PEER, "0.6.3", on=AMQP)
def test_a_call_without_an_envelope_is_answered_by_0_6_3(
    peer: Released, node: Node, topic: str
) -> None:
    asked = peer.serve(topic)

    assert node.create_rpc_client(topic).call({"count": 1}) == {"count": 1}
    assert asked.items == [Received("dict", {"count": 1}, None)]


@works(Row.RPC_BARE, FROM_PEER, "0.6.3", on=AMQP)
def test_a_call_of_0_6_3_without_an_envelope_is_answered(
    peer: Released, node: Node, topic: str
) -> None:
    asked = Collected()
    node.create_rpc(topic, lambda request: asked(request) or echo(request))
    requests = [{"count": 1}, {"header": {}, "data": {}}, {"header": {"reply_to": "x"}}]

    for data in requests:
        assert peer.call(topic, data) == Received("dict", data, None)

    assert asked.items == requests


@fault(Row.RPC_BARE, TO_PEER, "0.13.2", on=AMQP)
def test_calls_without_an_envelope_end_a_service_of_0_13_2(
    peer: Released, node: Node, topic: str
) -> None:
    """A service drops a request without an envelope, and the call times out; of five of them it
    dies: call 0.13.2 with `envelope=True`."""
    asked = peer.serve(topic)
    bare, wrapped = (node.create_rpc_client(topic, envelope=how) for how in (False, True))

    for number in range(5):
        assert wrapped.call({"count": number}) == {"count": number}
        with pytest.raises(RPCTimeout):
            bare.call({}, timeout=SHORT)
    with pytest.raises(RPCTimeout):
        wrapped.call({"count": 5}, timeout=SHORT)

    assert [found.data for found in asked.items] == [{"count": number} for number in range(5)]


# ---- many at once ----


@works(Row.RPC_ONE_CLIENT, TO_PEER, on=WRAPPING)
def test_many_calls_of_one_client_of_ours_get_each_its_own_answer(
    peer: Released, new_client: NewClient, topic: str
) -> None:
    peer.serve(topic, one_at_a_time=True)
    client = new_client(topic)

    futures = [client.call_async(data, timeout=DEADLINE) for data in REQUESTS]

    assert [future.result() for future in futures] == REQUESTS
    assert client.stats.late == client.stats.refused == 0


@fault(Row.RPC_ONE_CLIENT, FROM_PEER, "0.6.3", "0.13.2", on=WRAPPING)
def test_threads_that_share_a_client_mix_their_calls(
    peer: Released, node: Node, topic: str
) -> None:
    """Threads that share a client, as `call_async` lets them, overwrite each other's requests: one
    request is sent twice, the other never, and its caller gets the wrong answer."""
    asked = Collected()
    node.create_rpc(topic, lambda request: asked(request) or echo(request))
    peer.call(topic, {"count": 0}, typed=True)
    peer.ask("hold", function="_prepare_request", line="return")

    first = peer.begin("call", name=topic, data={"count": 1}, timeout=DEADLINE, typed=True)
    assert peer.ask("until_held", timeout=DEADLINE)
    second = peer.call(topic, {"count": 2}, typed=True)
    peer.ask("let_go")

    assert second.data["count"] == 2
    assert first.result(DEADLINE)["data"]["count"] == 2
    assert [request["count"] for request in asked.wait(3)] == [0, 2, 2]


@fault(Row.RPC_ONE_CLIENT, FROM_PEER, "0.6.3", "0.13.2", on=AMQP)
def test_threads_that_share_a_client_take_the_same_answer(
    peer: Released, node: Node, topic: str, gate: threading.Event
) -> None:
    """Threads that share a client, as `call_async` lets them, all take the answer that comes
    first."""
    entered = Collected()

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        entered(request["count"])
        if request["count"] == 1:
            gate.wait(DEADLINE)
        return request

    node.create_rpc(topic, handle)
    first = peer.begin("call", name=topic, data={"count": 1}, timeout=DEADLINE, typed=True)
    entered.wait(1)

    second = peer.call(topic, {"count": 2}, typed=True)

    assert second.data["count"] == 2
    assert first.result(DEADLINE)["data"]["count"] == 2


@works(Row.RPC_MANY_CLIENTS, TO_PEER, on=WRAPPING)
def test_many_clients_of_ours_get_each_its_own_answers(
    peer: Released, new_client: NewClient, topic: str
) -> None:
    peer.serve(topic, one_at_a_time=True)
    clients = [new_client(topic) for _ in range(CLIENTS)]

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
    node.create_rpc(topic, lambda request: asked(request) or echo(request), Echo)

    answers = peer.ask("call_all", name=topic, requests=REQUESTS, clients=CLIENTS, timeout=DEADLINE)

    in_order = [data for first in range(CLIENTS) for data in REQUESTS[first::CLIENTS]]
    assert answers == [returned(data).data for data in in_order]
    assert sorted(asked.items, key=attrgetter("count")) == [request(data) for data in REQUESTS]


@fault(Row.RPC_ONE_CLIENT, TO_PEER, "0.6.3", "0.13.2", on=AMQP)
def test_of_many_calls_of_one_client_some_are_thrown_away(
    peer: Released, node: Node, new_client: NewClient, topic: str
) -> None:
    """A service has ten requests kept for it besides those that it works on: of more, the oldest
    are thrown away, and their callers time out."""
    assert_oldest_are_thrown_away(peer, node, [new_client(topic)])


@fault(Row.RPC_MANY_CLIENTS, TO_PEER, "0.6.3", "0.13.2", on=AMQP)
def test_of_the_calls_of_many_clients_some_are_thrown_away(
    peer: Released, node: Node, new_client: NewClient, topic: str
) -> None:
    """A service has ten requests kept for it besides those that it works on: of more, the oldest
    are thrown away, and their callers time out."""
    clients = [new_client(topic) for _ in range(CLIENTS)]
    assert_oldest_are_thrown_away(peer, node, clients)


def assert_oldest_are_thrown_away(
    peer: Released, node: Node, clients: list[RPCClient[Any, Any]]
) -> None:
    topic = clients[0].rpc_name
    peer.ask("hold", function="echo", line="fields =")
    asked = peer.serve(topic, one_at_a_time=True)
    node.create_rpc(f"other_{topic}", lambda request: request)

    futures = [
        client.call_async(data, timeout=DEADLINE)
        for client, data in zip(cycle(clients), REQUESTS, strict=False)
    ]
    node.create_rpc_client(f"other_{topic}").call({})  # the broker has the others, too
    peer.ask("let_go")

    first, last = REQUESTS[: {"0.6.3": 1, "0.13.2": 5}[peer.version]], REQUESTS[-10:]
    assert [future.result(DEADLINE) for future in futures[-len(last) :]] == last
    worked_off = [found.data for found in asked.items]
    assert worked_off[: len(first)] == first
    assert worked_off[-len(last) :] == last
    # The broker may see to what was worked off before it sees to the requests that came earlier.
    assert len(worked_off) < len(REQUESTS)
    assert sum(future.done() for future in futures) == len(worked_off)


@works(Row.RPC_AT_A_TIME, TO_PEER, "0.6.3", on=REDIS)
def test_a_service_of_0_6_3_handles_two_requests_at_a_time(
    peer: Released, new_client: NewClient, topic: str
) -> None:
    peer.ask("hold", function="_send_response", line="_resp = self._serializer")
    peer.serve(topic)
    client = new_client(topic)

    first = client.call_async({"count": 1}, timeout=DEADLINE)
    assert peer.ask("until_held", timeout=DEADLINE)
    second = client.call({"count": 2})
    peer.ask("let_go")

    assert (first.result(DEADLINE), second) == ({"count": 1}, {"count": 2})


@fault(Row.RPC_AT_A_TIME, TO_PEER, "0.6.3", on=(*MQTT, *AMQP))
def test_a_service_of_0_6_3_handles_one_request_at_a_time(
    peer: Released, new_client: NewClient, topic: str
) -> None:
    """A service handles one request at a time: all others wait until a slow one is answered."""
    peer.ask("hold", function="_send_response", line=ANSWERS)
    peer.serve(topic)
    client = new_client(topic)

    first = client.call_async({"count": 1}, timeout=DEADLINE)
    assert peer.ask("until_held", timeout=DEADLINE)
    with pytest.raises(RPCTimeout):
        client.call({"count": 2}, timeout=SHORT)
    peer.ask("let_go")

    assert first.result(DEADLINE) == {"count": 1}
    assert client.call({"count": 3}) == {"count": 3}


@works(Row.RPC_AT_A_TIME, TO_PEER, "0.13.2", on=AMQP)
def test_a_service_of_0_13_2_handles_two_requests_at_a_time(
    peer: Released, new_client: NewClient, topic: str
) -> None:
    peer.ask("hold", function="echo", line="return")
    peer.serve(topic)
    client = new_client(topic)

    first = client.call_async({"count": 1}, timeout=DEADLINE)
    assert peer.ask("until_held", timeout=DEADLINE)
    second = client.call({"count": 2})
    peer.ask("let_go")

    assert (first.result(DEADLINE), second) == ({"count": 1}, {"count": 2})


@fault(Row.RPC_AT_A_TIME, TO_PEER, "0.13.2", on=WRAPPING)
def test_a_service_of_0_13_2_mixes_up_responses(
    peer: Released, new_client: NewClient, topic: str
) -> None:
    """Responses that are ready at the same moment overwrite each other, and a caller gets the data
    of another; not if the program calls `commlib.thread_pool.get_io_pool(1)` before all else."""
    peer.ask("hold", function="_send_response", line="_resp =")
    peer.serve(topic)
    client = new_client(topic)

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
    assert entered.first == returned(held).data

    assert peer.call(topic, {"count": 2}).data == {"count": 2}
    gate.set()
    assert first.result(DEADLINE) == [returned(held).data]


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
@fault(Row.RPC_RAISES, TO_PEER, "0.13.2", on=AMQP)
def test_what_a_service_of_the_peer_raises_is_an_empty_response(
    peer: Released, new_client: NewClient, topic: str
) -> None:
    """Whatever the service raises, the caller gets an empty response, and cannot tell it from one
    that is meant; the service goes on."""
    peer.serve(topic)
    typed, plain = new_client(topic, Echo), new_client(topic)

    for label in ("ValueError", "ZeroDivisionError"):
        assert typed.call(Echo.Request(label=label)) == response({})
        assert plain.call({"label": label}) == {}
        assert typed.call(Echo.Request(label="fine")) == response({"label": "fine"})


@fault(Row.RPC_RAISES, TO_PEER, "0.13.2", on=REDIS)
def test_some_of_what_a_service_of_0_13_2_raises_is_never_answered(
    peer: Released, new_client: NewClient, topic: str
) -> None:
    """For `ValueError`, `KeyError`, `RuntimeError`, `OSError` and `AttributeError` the caller gets
    an empty response; for all others none at all, and the call times out; the service goes on."""
    peer.serve(topic)
    typed, plain = new_client(topic, Echo), new_client(topic)

    for label in ("ValueError", "KeyError", "RuntimeError", "OSError", "AttributeError"):
        assert typed.call(Echo.Request(label=label)) == response({})
        assert plain.call({"label": label}) == {}
    for label in ("TypeError", "ZeroDivisionError"):
        assert_unanswered(typed, label)


@fault(Row.RPC_RAISES, TO_PEER, "0.13.2", on=MQTT)
def test_nothing_that_a_service_of_0_13_2_raises_is_answered(
    peer: Released, new_client: NewClient, topic: str
) -> None:
    """Whatever the service raises, the caller gets no response at all, and the call times out; the
    service goes on."""
    peer.serve(topic)
    client = new_client(topic, Echo)

    for label in ("ValueError", "RuntimeError", "TypeError"):
        assert_unanswered(client, label)


def assert_unanswered(client: RPCClient[Any, Any], label: str) -> None:
    with pytest.raises(RPCTimeout):
        client.call(Echo.Request(label=label), timeout=SHORT)
    assert client.call(Echo.Request(label="fine")) == response({"label": "fine"})


# ---- an answer that comes late ----


@works(Row.RPC_LATE, TO_PEER)
def test_a_late_answer_of_the_peer_is_not_taken_for_another_one(
    peer: Released, new_client: NewClient, topic: str
) -> None:
    peer.ask("hold", function="_send_response", line=ANSWERS)
    peer.serve(topic, one_at_a_time=True)
    client = new_client(topic)

    with pytest.raises(RPCTimeout):
        client.call({"count": 1}, timeout=SHORT)
    assert peer.ask("until_held", timeout=DEADLINE)
    second = client.call_async({"count": 2}, timeout=DEADLINE)
    peer.ask("let_go")

    assert second.result() == {"count": 2}


def answer_late(
    peer: Released, node: Node, topic: str, gate: threading.Event, **options: Any
) -> Callable[[], dict[str, Any]]:
    """Let a service of ours answer the peer's first call while its second one waits for the gate.

    ``options`` are those of its client. Returns what waits for the answer to the second one.
    """
    has_second = threading.Event()

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        if request["count"] == 2:
            has_second.set()
        (gate if request["count"] == 2 else has_second).wait(DEADLINE)
        return request

    service = node.create_rpc(topic, handle)
    with suppress(PeerError):  # on Redis a call that times out returns None
        peer.call(topic, {"count": 1}, timeout=SHORT, typed=True, **options)
    options |= {"timeout": DEADLINE, "typed": True}
    second = peer.begin("call", name=topic, data={"count": 2}, **options)
    eventually(lambda: service.stats.sent == 1)
    return lambda: second.result(DEADLINE)["data"]


@works(Row.RPC_LATE, FROM_PEER, on=REDIS)
def test_a_late_answer_of_ours_is_not_taken_for_another_one(
    peer: Released, node: Node, topic: str, gate: threading.Event
) -> None:
    second = answer_late(peer, node, topic, gate)

    gate.set()

    assert second() == returned({"count": 2}).data


@fault(Row.RPC_LATE, FROM_PEER, "0.6.3", "0.13.2", on=MQTT)
def test_a_late_answer_of_ours_is_taken_for_another_one(
    peer: Released, node: Node, topic: str, gate: threading.Event
) -> None:
    """A client takes whatever answer comes for that to its call: one that is late, because its own
    call has timed out, is the result of the next call."""
    second = answer_late(peer, node, topic, gate)

    assert second() == returned({"count": 1}).data


@fault(Row.RPC_LATE, FROM_PEER, "0.6.3", "0.13.2", on=AMQP)
def test_a_late_answer_of_ours_is_taken_for_another_one_where_ids_are_not_compared(
    peer: Released, node: Node, topic: str, gate: threading.Event
) -> None:
    """A client takes whatever answer comes for that to its call: one that is late, because its own
    call has timed out, is the result of the next call; not if the client is made with
    `use_corr_id=True`."""
    second = answer_late(peer, node, topic, gate)
    assert second() == returned({"count": 1}).data
    gate.set()

    gate.clear()
    second = answer_late(peer, node, f"other_{topic}", gate, use_corr_id=True)
    gate.set()
    assert second() == returned({"count": 2}).data


# ---- a service of each on one name ----


@pytest.fixture
def beside(peer: Released, node: Node, topic: str) -> Beside:
    """Waits for so many requests to a service of the peer and one of ours, both of one name.

    Returns their counts.
    """
    asked = peer.serve(topic, one_at_a_time=True)
    ours = Collected()
    node.create_rpc(topic, lambda request: ours(request) or request)

    def counts(total: int) -> list[int]:
        eventually(lambda: len(asked.items) + len(ours.items) >= total)
        requests = [*(found.data for found in asked.items), *ours.items]
        return sorted(request["count"] for request in requests)

    return counts


FEW = REQUESTS[:20]
ONCE = [data["count"] for data in FEW]
TWICE = sorted(ONCE * 2)


def call_each(client: RPCClient[Any, Any]) -> list[Any]:
    futures = [client.call_async(data, timeout=DEADLINE) for data in FEW]
    return [future.result() for future in futures]


@works(Row.RPC_BESIDE, TO_PEER, on=REDIS)
def test_each_call_of_ours_is_handled_by_one_of_two_services(
    beside: Beside, new_client: NewClient, topic: str
) -> None:
    assert call_each(new_client(topic)) == FEW
    assert beside(len(ONCE)) == ONCE


@works(Row.RPC_BESIDE, FROM_PEER, on=REDIS)
def test_each_call_of_the_peer_is_handled_by_one_of_two_services(
    beside: Beside, peer: Released, topic: str
) -> None:
    answers = peer.ask("call_all", name=topic, requests=FEW, clients=len(FEW), timeout=DEADLINE)

    assert answers == [returned(data).data for data in FEW]
    assert beside(len(ONCE)) == ONCE


@fault(Row.RPC_BESIDE, TO_PEER, "0.6.3", "0.13.2", on=MQTT)
def test_each_call_of_ours_is_handled_by_both_of_two_services(
    beside: Beside, new_client: NewClient, topic: str
) -> None:
    """Both services carry out every request; the caller gets the answer that is there first."""
    client = new_client(topic)

    assert call_each(client) == FEW
    assert beside(len(TWICE)) == TWICE
    eventually(lambda: client.stats.late == len(FEW))


@fault(Row.RPC_BESIDE, FROM_PEER, "0.6.3", "0.13.2", on=MQTT)
def test_each_call_of_the_peer_is_handled_by_both_of_two_services(
    beside: Beside, peer: Released, topic: str
) -> None:
    """Both services carry out every request; the caller gets the answer that is there first."""
    answers = peer.ask("call_all", name=topic, requests=FEW, clients=len(FEW), timeout=DEADLINE)

    assert answers == [returned(data).data for data in FEW]
    assert beside(len(TWICE)) == TWICE
