"""Calls that may be sent again outlive the link and the broker, and are handled once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from brokers import Server
from collected import DEADLINE, Collected, eventually
from commlib.node import Node
from faults.proxy import Proxy

MakeServer = Callable[..., Server]

pytestmark = pytest.mark.main_kinds


class Slow:
    """A service that answers when it is told to."""

    def __init__(self) -> None:
        self.asked = Collected()
        self.may_answer = threading.Event()

    def __call__(self, request: int) -> int:
        self.asked(request)
        assert self.may_answer.wait(DEADLINE)
        return 2 * request


def test_a_call_whose_link_breaks_is_answered_all_the_same_and_handled_once(
    make_server: MakeServer,
) -> None:
    service = Slow()
    url = make_server().url
    with Proxy(url) as proxy, Node("base", connection_params=url) as base:
        rpc = base.create_rpc("double", service)
        with Node("far", connection_params=proxy.url) as far:
            client = far.create_rpc_client("double", idempotent=True)
            answers = [client.call_async(number, timeout=DEADLINE) for number in range(3)]
            assert sorted(service.asked.wait(3)) == [0, 1, 2]
            proxy.cut()
            eventually(lambda: far.stats.reconnects >= 1)
            eventually(lambda: rpc.stats.repeated >= 3)
            service.may_answer.set()
            assert [answer.result(DEADLINE) for answer in answers] == [0, 2, 4]
    assert len(service.asked.items) == 3


def test_a_call_outlives_the_broker(make_server: MakeServer) -> None:
    server = make_server()
    asked = Collected()

    def double(request: int) -> int:
        asked(request)
        return 2 * request

    with (
        Node("base", connection_params=server.url) as base,
        Node("far", connection_params=server.url) as far,
    ):
        base.create_rpc("double", double)
        client = far.create_rpc_client("double", idempotent=True)
        assert client.call(1, timeout=DEADLINE) == 2
        server.kill()
        eventually(lambda: not far.connected and not base.connected)
        answer: Future[int] = client.call_async(2, timeout=2 * DEADLINE)
        server.start()
        assert answer.result(2 * DEADLINE) == 4
        assert asked.items == [1, 2]
