"""Calls that may be sent again, where nothing is lost, on every broker."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import pytest

from brokers import Broker
from collected import BUSY_SECONDS, DEADLINE, Collected, eventually
from commlib import aio
from commlib.exceptions import EndpointClosed, RPCRemoteError, RPCTimeout, SerializationError
from commlib.node import Node
from commlib.signing import SigningKey, TrustedKeys
from messages import AddTwoInts

MakeNode = Callable[..., Node]


def test_such_calls_are_handled_once_each(node: Node, make_node: MakeNode, topic: str) -> None:
    asked = Collected()

    def add(request: AddTwoInts.Request) -> AddTwoInts.Response:
        asked(request.a)
        return AddTwoInts.Response(c=request.a + request.b)

    service = node.create_rpc(topic, add, AddTwoInts)
    client = make_node().create_rpc_client(topic, AddTwoInts, idempotent=True)
    assert client.call(AddTwoInts.Request(a=1, b=2), timeout=DEADLINE).c == 3
    answer = client.call_async(AddTwoInts.Request(a=2, b=2), timeout=DEADLINE)
    assert answer.result(DEADLINE).c == 4
    assert asked.items == [1, 2]
    assert service.stats.repeated == 0


def test_a_slow_handler_is_asked_again_and_answers_once(
    node: Node, make_node: MakeNode, topic: str
) -> None:
    asked, may_answer = Collected(), threading.Event()

    def wait(request: Any) -> str:
        asked(request)
        assert may_answer.wait(DEADLINE)
        return "done"

    service = node.create_rpc(topic, wait)
    client = make_node().create_rpc_client(topic, idempotent=True)
    answer = client.call_async({"n": 1}, timeout=DEADLINE)
    eventually(lambda: service.stats.repeated >= 1)
    may_answer.set()
    assert answer.result(DEADLINE) == "done"
    assert asked.items == [{"n": 1}]


def test_what_the_handler_raises_is_an_answer(node: Node, make_node: MakeNode, topic: str) -> None:
    asked = Collected()

    def fail(request: Any) -> None:
        asked(request)
        raise KeyError("lost")

    node.create_rpc(topic, fail)
    client = make_node().create_rpc_client(topic, idempotent=True)
    with pytest.raises(RPCRemoteError, match="lost"):
        client.call({}, timeout=DEADLINE)
    assert len(asked.items) == 1


def test_a_call_may_begin_before_its_service(node: Node, make_node: MakeNode, topic: str) -> None:
    client = make_node().create_rpc_client(topic, idempotent=True)
    assert client.wait_connected(DEADLINE)
    answer = client.call_async(5, timeout=DEADLINE)
    assert not answer.done()
    node.create_rpc(topic, lambda request: 2 * request)
    assert answer.result(DEADLINE) == 10


def test_it_ends_with_its_timeout_and_when_it_is_given_up(make_node: MakeNode, topic: str) -> None:
    node = make_node()
    client = node.create_rpc_client(topic, AddTwoInts, idempotent=True)
    request = AddTwoInts.Request(a=1, b=2)
    with pytest.raises(RPCTimeout, match=r"within 0\.2 s"):
        client.call(request, timeout=0.2)
    with pytest.raises(ValueError, match="timeout=0"):
        client.call(request, timeout=0)
    with pytest.raises(SerializationError):
        client.call("no request", timeout=1)  # type: ignore[arg-type]
    answer = client.call_async(request, timeout=DEADLINE)
    assert answer.cancel()
    answer = client.call_async(request, timeout=DEADLINE)
    node.stop()
    with pytest.raises(EndpointClosed):
        answer.result(DEADLINE)


async def test_the_asyncio_face_sends_calls_again_as_well(broker: Broker, topic: str) -> None:
    asked, may_answer = Collected(), asyncio.Event()

    async def wait(request: Any) -> str:
        asked(request)
        await may_answer.wait()
        return "done"

    async with aio.Node("base", connection_params=broker.url) as node:
        service = node.create_rpc(topic, wait)
        client = node.create_rpc_client(topic, idempotent=True)
        await service.run()
        calling = asyncio.create_task(client.call({}, timeout=DEADLINE))
        await asyncio.to_thread(eventually, lambda: service.stats.repeated >= 1)
        may_answer.set()
        assert await calling == "done"
    assert len(asked.items) == 1


def test_its_own_repetitions_do_not_count_for_the_rate(
    node: Node, make_node: MakeNode, topic: str
) -> None:
    may_answer = threading.Event()
    service = node.create_rpc(topic, lambda request: may_answer.wait(DEADLINE), max_rate=0.001)
    client = make_node().create_rpc_client(topic, idempotent=True)
    answer = client.call_async({}, timeout=DEADLINE)
    eventually(lambda: service.stats.repeated >= 1)
    may_answer.set()
    assert answer.result(DEADLINE) is True
    with pytest.raises(RPCRemoteError, match="more than"):
        client.call({}, timeout=DEADLINE)


def test_what_is_sent_is_what_was_given(node: Node, make_node: MakeNode, topic: str) -> None:
    node.create_rpc(topic, lambda request: request)
    client = make_node().create_rpc_client(topic, idempotent=True)
    request = {"speed": 1}
    answer = client.call_async(request, timeout=DEADLINE)
    request["speed"] = 99
    assert answer.result(DEADLINE) == {"speed": 1}


def test_one_that_was_cancelled_is_done(make_node: MakeNode, topic: str) -> None:
    client = make_node().create_rpc_client(topic, idempotent=True)
    for _ in range(20):  # before the loop has taken it, and after that
        answer = client.call_async({}, timeout=DEADLINE)
        assert answer.cancel()
        assert futures.wait([answer], DEADLINE).done == {answer}


def test_a_client_that_was_stopped_sends_nothing_again(
    make_node: MakeNode, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pause in ("FIRST_PAUSE", "LONGEST_PAUSE"):
        monkeypatch.setattr(f"commlib.aio._repeat.{pause}", 0.1)
    client = make_node().create_rpc_client(topic, idempotent=True)
    assert client.wait_connected(DEADLINE)
    answer = client.call_async({}, timeout=2 * DEADLINE)
    eventually(lambda: client.stats.sent >= 1)
    client.stop()
    sent = client.stats.sent
    with pytest.raises(EndpointClosed, match=topic):
        answer.result(DEADLINE)
    threading.Event().wait(0.5)  # several pauses after which it would be sent again
    assert client.stats.sent == sent


def test_a_kept_reply_is_signed_anew(
    node: Node, make_node: MakeNode, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = SigningKey.generate("base")
    trusted = TrustedKeys({"base": key.public_key}, max_age=0.9)
    service = node.create_rpc(topic, lambda request: {"n": 1}, sign=key)
    client = make_node().create_rpc_client(topic, idempotent=True, verify=trusted)
    # The first reply gets lost.
    send = service.core._send
    lost = Collected()

    def lose_first(reply: Any, *sender: Any) -> None:
        if reply is not None and not lost.items:
            lost(reply)
        else:
            send(reply, *sender)

    monkeypatch.setattr(service.core, "_send", lose_first)
    assert client.call({}, timeout=DEADLINE) == {"n": 1}
    assert service.stats.repeated == 1
    assert len(lost.items) == 1


def test_it_takes_no_longer_than_its_timeout(make_node: MakeNode, topic: str) -> None:
    client = make_node().create_rpc_client(topic, idempotent=True)
    begun = time.monotonic()
    with pytest.raises(RPCTimeout):
        client.call({}, timeout=4)
    assert time.monotonic() - begun < 4 + BUSY_SECONDS
