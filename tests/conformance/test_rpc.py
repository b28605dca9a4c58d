"""Remote procedure calls, from plain Python, on every broker."""

from __future__ import annotations

import asyncio
import concurrent.futures
import random
import sys
import threading
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from brokers import Broker
from collected import DEADLINE, Collected, eventually
from commlib import _workers, aio
from commlib._packet import PROPERTIES, Header, now_ms
from commlib._portal import Portal
from commlib.aio import _repeat
from commlib.exceptions import (
    BlockingCall,
    EndpointClosed,
    PayloadTooBig,
    RPCClientTimeoutError,
    RPCRemoteError,
    RPCTimeout,
    SerializationError,
)
from commlib.msg import RPCMessage
from commlib.node import Node
from commlib.rpc import RPCClient, RPCService
from commlib.serializer import MessagePackSerializer
from messages import AddTwoInts, Sonar
from raw_peer import RawPeer

MakeNode = Callable[..., Node]
Request, Response = AddTwoInts.Request, AddTwoInts.Response


def add(request: AddTwoInts.Request) -> AddTwoInts.Response:
    return Response(c=request.a + request.b)


class Blocking:
    """A handler that holds up requests with a negative ``a`` until its gate is opened."""

    def __init__(self, gate: threading.Event) -> None:
        self.gate = gate
        self.entered = Collected()

    def __call__(self, request: AddTwoInts.Request) -> AddTwoInts.Response:
        self.entered(request)
        if request.a < 0:
            self.gate.wait(DEADLINE)
        return add(request)


# ---- answers ----


def test_a_call_brings_the_response(node: Node, make_node: MakeNode, topic: str) -> None:
    service = make_node().create_rpc(topic, add, AddTwoInts)
    client = node.create_rpc_client(topic, AddTwoInts)

    response = client.call(Request(a=2, b=-5))

    assert response == Response(c=-3)
    assert type(response) is Response
    assert client.stats.received == client.stats.sent == 1
    eventually(lambda: service.stats.received == service.stats.sent == 1)


@pytest.mark.parametrize("data", [{}, {"a": [1, {"b": None}]}, [], "text", 5, -2.5, True])
def test_without_a_class_plain_data_goes_both_ways(node: Node, topic: str, data: Any) -> None:
    got = Collected()

    def echo(request: Any) -> Any:
        got(request)
        return request

    node.create_rpc(topic, echo)

    assert node.create_rpc_client(topic).call(data) == data
    assert got.items == [data]


def test_a_handler_that_returns_nothing_answers_with_an_empty_message(
    node: Node, topic: str
) -> None:
    node.create_rpc(topic, lambda request: None)

    assert node.create_rpc_client(topic).call({}) == {}


def test_a_typed_client_takes_and_a_typed_service_returns_dicts(node: Node, topic: str) -> None:
    node.create_rpc(topic, lambda request: {"c": str(request.a)}, AddTwoInts)

    assert node.create_rpc_client(topic, AddTwoInts).call({"a": 3, "b": 0}) == Response(c=3)  # type: ignore[arg-type]


class Methods:
    def plain(self, request: AddTwoInts.Request) -> AddTwoInts.Response:
        return add(request)

    async def later(self, request: AddTwoInts.Request) -> AddTwoInts.Response:
        await asyncio.sleep(0)
        return add(request)

    def __call__(self, request: AddTwoInts.Request) -> AddTwoInts.Response:
        return add(request)


async def add_later(request: AddTwoInts.Request) -> AddTwoInts.Response:
    await asyncio.sleep(0.001)
    return add(request)


HANDLERS = {
    "function": add,
    "lambda": lambda request: add(request),
    "method": Methods().plain,
    "callable object": Methods(),
    "async function": add_later,
    "async method": Methods().later,
}


@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS)
def test_every_kind_of_handler_answers(node: Node, topic: str, handler: Any) -> None:
    node.create_rpc(topic, handler, AddTwoInts)
    client = node.create_rpc_client(topic, AddTwoInts)

    assert [client.call(Request(a=n, b=1)).c for n in range(20)] == list(range(1, 21))


def test_a_thousand_calls_under_way_on_one_client_all_bring_their_own_answer(
    node: Node, make_node: MakeNode, topic: str
) -> None:
    make_node().create_rpc(topic, add, AddTwoInts)
    client = node.create_rpc_client(topic, AddTwoInts)

    futures = [client.call_async(Request(a=n, b=1000 * n)) for n in range(1000)]

    assert [future.result(DEADLINE).c for future in futures] == [1001 * n for n in range(1000)]
    assert client.stats.late == 0


def test_threads_that_share_a_client_get_their_own_answers(node: Node, topic: str) -> None:
    node.create_rpc(topic, add, AddTwoInts)
    client = node.create_rpc_client(topic, AddTwoInts)
    wrong = Collected()

    def call(thread: int) -> None:
        for n in range(100):
            if client.call(Request(a=thread * 1000, b=n)).c != thread * 1000 + n:
                wrong((thread, n))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(8)))

    assert wrong.items == []
    assert client.stats.received == 800


def test_many_clients_and_services_of_one_node_do_not_mix(node: Node, broker: Broker) -> None:
    names = [broker.unique(f"service{n}") for n in range(10)]
    for n, name in enumerate(names):
        node.create_rpc(name, lambda request, n=n: [n, request])
    clients = [node.create_rpc_client(name) for name in names]

    futures = {(n, k): clients[n].call_async(k) for k in range(20) for n in range(10)}

    for (n, k), future in futures.items():
        assert future.result(DEADLINE) == [n, k]


def test_the_callback_of_an_async_call_may_block_and_call(node: Node, topic: str) -> None:
    got = Collected()
    node.create_rpc(topic, add, AddTwoInts)
    client = node.create_rpc_client(topic, AddTwoInts)

    client.call_async(
        Request(a=1, b=2),
        on_response=lambda response: got(client.call(Request(a=response.c, b=10))),
    )

    assert got.first == Response(c=13)


def test_what_a_callback_of_an_async_call_raises_is_counted_logged_once_and_told(
    node: Node, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    told = Collected()

    def fail(response: Any) -> None:
        raise SystemExit("as a script would")

    node.create_rpc(topic, lambda n: n)
    client = node.create_rpc_client(topic, on_error=told)
    for number in range(3):
        client.call_async(number, on_response=fail)
        client.call_async(number).add_done_callback(fail)
    assert all(isinstance(error, SystemExit) for error, _ in told.wait(6))
    assert client.stats.errors == 6
    said = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert len(said) == 1
    assert f"{topic}: the callback failed: as a script would" in said[0]


def test_the_callback_of_an_async_call_is_not_called_without_a_response(
    node: Node, topic: str
) -> None:
    got = Collected()

    future = node.create_rpc_client(topic).call_async({}, timeout=0.1, on_response=got)
    future.add_done_callback(got)

    assert got.wait(1) == [future]
    assert isinstance(future.exception(), RPCTimeout)


def test_a_client_and_a_service_without_a_node_have_connections_of_their_own(
    broker: Broker,
) -> None:
    name = broker.unique()
    with RPCService(name, add, AddTwoInts, broker.url) as service:
        client = RPCClient(name, AddTwoInts, conn_params=broker.url)
        assert client.call(Request(a=1, b=2)).c == 3  # usable as soon as it is made
        assert service.connected
        client.stop()
    assert not service.connected


def test_names_with_slashes_are_served_too(node: Node, broker: Broker) -> None:
    name = f"{broker.unique('robot')}/arm.2/move"
    node.create_rpc(name, add, AddTwoInts)
    client = node.create_rpc_client(name, AddTwoInts)

    assert client.wait_for_service(DEADLINE)
    assert client.call(Request(a=1, b=1)).c == 2


def test_a_large_request_and_its_response_arrive_whole(node: Node, topic: str) -> None:
    node.create_rpc(topic, lambda request: request[::-1])
    large = "".join(random.Random(1).choices("abcdef", k=2_000_000))

    assert node.create_rpc_client(topic).call(large) == large[::-1]


# ---- errors travel ----


@pytest.mark.parametrize(
    ("error", "name", "text"),
    [
        (ValueError("no such arm"), "ValueError", "no such arm"),
        (KeyError("arm"), "KeyError", "'arm'"),
        (SystemExit(3), "SystemExit", "3"),
        (KeyboardInterrupt("no"), "KeyboardInterrupt", "no"),
        (BaseException("of no kind"), "BaseException", "of no kind"),
        (GeneratorExit("closed"), "GeneratorExit", "closed"),
        (RuntimeError("größer\n" + "x" * 10_000), "RuntimeError", "größer\n" + "x" * 10_000),
        (ValueError(), "ValueError", ""),
    ],
    ids=[
        *("ValueError", "KeyError", "SystemExit", "Ctrl-C", "BaseException", "GeneratorExit"),
        *("long", "empty"),
    ],
)
@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_what_a_handler_raises_reaches_its_caller_and_the_service_goes_on(
    node: Node, topic: str, is_async: bool, error: BaseException, name: str, text: str
) -> None:
    errors = Collected()

    def handle(request: AddTwoInts.Request) -> AddTwoInts.Response:
        if request.a < 0:
            raise error
        return add(request)

    async def handle_later(request: AddTwoInts.Request) -> AddTwoInts.Response:
        return handle(request)

    handler = handle_later if is_async else handle
    service = node.create_rpc(topic, handler, AddTwoInts, on_error=errors)
    client = node.create_rpc_client(topic, AddTwoInts)

    for n in range(5):
        with pytest.raises(RPCRemoteError) as raised:
            client.call(Request(a=-1, b=0))
        assert (raised.value.type, raised.value.message) == (name, text)
        assert client.call(Request(a=n, b=0)).c == n
    assert service.stats.errors == 5
    assert errors.items == [(error, topic)] * 5


def test_sys_exit_in_a_handler_ends_nothing(node: Node, topic: str) -> None:
    node.create_rpc(topic, lambda request: sys.exit("now") if request else "fine")
    client = node.create_rpc_client(topic)

    for _ in range(10):  # more often than the service has workers
        with pytest.raises(RPCRemoteError, match="SystemExit: now"):
            client.call(1)
    assert client.call(0) == "fine"


def test_a_response_of_the_wrong_class_is_an_error_at_the_caller(node: Node, topic: str) -> None:
    answers = iter([Sonar(1.0), {"c": "three"}, None, object()])
    node.create_rpc(topic, lambda request: next(answers), AddTwoInts)
    client = node.create_rpc_client(topic, AddTwoInts)

    for _ in range(4):
        with pytest.raises(RPCRemoteError) as raised:
            client.call(Request(a=0, b=0))
        assert raised.value.type == "SerializationError"
        assert "Response" in raised.value.message


def test_a_response_over_the_limit_is_an_error_at_the_caller(
    node: Node, make_node: MakeNode, broker: Broker
) -> None:
    name = broker.unique()
    narrow = make_node(broker.with_options(max_payload=1000))
    narrow.create_rpc(name, lambda request: "x" * 2000)

    with pytest.raises(RPCRemoteError) as raised:
        node.create_rpc_client(name).call({})

    assert raised.value.type == "PayloadTooBig"
    assert "1000" in raised.value.message


def test_a_request_over_the_limit_of_the_service_is_an_error_at_the_caller(
    node: Node, make_node: MakeNode, broker: Broker
) -> None:
    name = broker.unique()
    narrow = make_node(broker.with_options(max_payload=1000))
    service = narrow.create_rpc(name, lambda request: request)

    for options in ({}, {"serializer": MessagePackSerializer}):
        with pytest.raises(RPCRemoteError, match="2"):
            node.create_rpc_client(name, **options).call("x" * 2000, timeout=5)
    assert service.stats.refused == 2


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("not even this")


@pytest.mark.parametrize("error", [Unspeakable(), RuntimeError("x" * (20 << 20))])
def test_an_error_that_cannot_be_told_in_full_reaches_the_caller_by_its_name(
    node: Node, make_node: MakeNode, broker: Broker, error: Exception
) -> None:
    def fail(request: Any) -> None:
        raise error

    name = broker.unique()
    for server in (node, make_node(broker.with_options(max_payload=500))):
        service = server.create_rpc(name, fail)
        client = server.create_rpc_client(name)
        with pytest.raises(RPCRemoteError) as raised:
            client.call({}, timeout=5)
        assert raised.value.type == type(error).__name__
        service.stop()


def test_a_request_over_the_limit_is_not_sent(make_node: MakeNode, broker: Broker) -> None:
    client = make_node(broker.with_options(max_payload=1000)).create_rpc_client(broker.unique())

    with pytest.raises(PayloadTooBig):
        client.call("x" * 2000)
    with pytest.raises(PayloadTooBig):
        client.call_async("x" * 2000).result(DEADLINE)


def test_requests_that_are_not_sent_leave_nothing_pending(
    node: Node, make_node: MakeNode, broker: Broker
) -> None:
    name = broker.unique()
    node.create_rpc(name, lambda n: n)
    client = make_node(broker.with_options(max_payload=1000)).create_rpc_client(name)
    assert client.call(0) == 0

    for _ in range(300):
        for wrong in ("x" * 2000, object()):
            with pytest.raises(SerializationError):
                client.call(wrong)
        with pytest.raises(PayloadTooBig):
            client.call_async("x" * 2000).result(DEADLINE)

    futures = [client.call_async(n) for n in range(300)]
    assert [future.result(DEADLINE) for future in futures] == list(range(300))
    assert [client.call(n) for n in range(300)] == list(range(300))


def test_a_request_of_the_wrong_types_is_an_error_at_the_caller(node: Node, topic: str) -> None:
    service = node.create_rpc(topic, add, AddTwoInts)
    client = node.create_rpc_client(topic)

    for wrong in ({"a": "one", "b": 2}, {"a": 1}, [], "text"):
        with pytest.raises(RPCRemoteError) as raised:
            client.call(wrong)
        assert "Request" in raised.value.message
    assert client.call({"a": "1", "b": 2}) == {"c": 3}
    assert service.stats.refused == 4
    assert service.stats.errors == 0


def test_a_response_of_the_wrong_types_is_refused_and_counted(node: Node, topic: str) -> None:
    node.create_rpc(topic, lambda request: {"c": "three"})
    client = node.create_rpc_client(topic, AddTwoInts)

    with pytest.raises(SerializationError, match=f"^the reply of {topic}: .*Response"):
        client.call(Request(a=1, b=2))
    assert client.stats.refused == 1


def test_a_client_refuses_what_is_no_request_of_its_class(node: Node, topic: str) -> None:
    client = node.create_rpc_client(topic, AddTwoInts)

    for wrong in (Response(c=1), {"a": 1}, "text", None):
        with pytest.raises(SerializationError):
            client.call(wrong)  # type: ignore[arg-type]
        with pytest.raises(SerializationError):
            client.call_async(wrong)  # type: ignore[arg-type]
    for timeout in (0, -1, None, "5"):
        with pytest.raises(ValueError, match=f"timeout={timeout!r}: a call needs some time"):
            client.call(Request(a=1, b=2), timeout=timeout)  # type: ignore[arg-type]
    assert client.stats.sent == 0


def test_a_time_is_whatever_can_be_compared_with_one(node: Node, topic: str) -> None:
    node.create_rpc(topic, lambda request: request)
    client = node.create_rpc_client(topic)
    for timeout in (Fraction(DEADLINE), DEADLINE, float(DEADLINE)):
        assert client.call("on time", timeout=timeout) == "on time"


# ---- nobody answers, or too late ----


def test_a_service_that_is_not_there_is_a_timeout(node: Node, topic: str) -> None:
    client = node.create_rpc_client(topic)

    for kind in (RPCTimeout, RPCClientTimeoutError, TimeoutError):
        with pytest.raises(kind, match=topic):
            client.call({}, timeout=0.05)
    with pytest.raises(RPCTimeout, match=topic):
        client.call_async({}, timeout=0.05).result(DEADLINE)


def test_a_late_reply_is_discarded_and_counted_and_reaches_nobody_else(
    node: Node, make_node: MakeNode, topic: str, gate: threading.Event
) -> None:
    slow = Blocking(gate)
    service = make_node().create_rpc(topic, slow, AddTwoInts, workers=32)
    client = node.create_rpc_client(topic, AddTwoInts)

    calls = [client.call_async(Request(a=-1 - n, b=0), timeout=1.0) for n in range(20)]
    for call in calls:
        with pytest.raises(RPCTimeout):
            call.result(DEADLINE)
    futures = [client.call_async(Request(a=n, b=n)) for n in range(100)]
    gate.set()
    futures += [client.call_async(Request(a=n, b=n)) for n in range(100, 400)]

    assert [future.result(DEADLINE).c for future in futures] == [2 * n for n in range(400)]
    # One that had to wait for a worker until its time was up was never executed.
    eventually(
        lambda: client.stats.late + service.stats.expired == 20,
        lambda: (client.stats, service.stats),
    )
    assert client.stats.late > 0
    assert client.call(Request(a=1, b=1)).c == 2


def test_who_calls_a_service_that_is_stopped_before_it_comes_to_that_is_told(
    make_node: MakeNode,
    broker: Broker,
    topic: str,
    gate: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_workers, "MAX_WORKERS", 1)
    node, slow = make_node(), Blocking(gate)
    node.create_rpc(f"{topic}.slow", slow, AddTwoInts)
    service = node.create_rpc(topic, add, AddTwoInts, grace=0.1)
    caller = make_node()
    first = caller.create_rpc_client(f"{topic}.slow", AddTwoInts).call_async(Request(a=-1, b=0))
    slow.entered.wait(1)
    client = caller.create_rpc_client(topic, AddTwoInts)
    second = client.call_async(Request(a=1, b=1), timeout=5)
    eventually(lambda: service.stats.received == 1, lambda: service.stats)

    service.stop()

    # Where every service gets every request, another one may answer.
    error = RPCRemoteError if broker.traits.competing else RPCTimeout
    with pytest.raises(error) as caught:
        second.result(DEADLINE)
    text = "EndpointClosed: the service was stopped before it had come to this request"
    assert (str(caught.value) == text) == broker.traits.competing
    assert service.stats.errors == 0
    gate.set()
    assert first.result(DEADLINE).c == -1


def test_who_calls_a_service_that_is_stopped_while_it_works_on_that_is_told(
    make_node: MakeNode, broker: Broker, topic: str
) -> None:
    entered = Collected()

    async def work(request: AddTwoInts.Request) -> None:
        entered(request)
        await asyncio.Event().wait()

    service = make_node().create_rpc(topic, work, AddTwoInts, grace=0.01)
    competing = broker.traits.competing
    client = make_node().create_rpc_client(topic, AddTwoInts)
    call = client.call_async(Request(a=1, b=1), timeout=3600 if competing else 5)
    entered.wait(1)

    service.stop()

    # Where every service gets every request, another one may answer.
    with pytest.raises(RPCRemoteError if competing else RPCTimeout) as caught:
        call.result(DEADLINE)
    text = "EndpointClosed: the service was stopped while it worked on this request"
    assert (str(caught.value) == text) == competing
    assert service.stats.errors == 0


def test_who_calls_a_handler_that_cancels_its_own_task_is_told_and_the_next_are_answered(
    node: Node, topic: str
) -> None:
    async def handle(request: AddTwoInts.Request) -> AddTwoInts.Response:
        if request.a < 0:
            own = asyncio.current_task()
            assert own is not None
            own.cancel()
            await asyncio.sleep(0)
        return add(request)

    service = node.create_rpc(topic, handle, AddTwoInts, workers=1)
    client = node.create_rpc_client(topic, AddTwoInts)
    calls = [client.call_async(Request(a=n, b=0), timeout=3600) for n in (-1, 1, -2, 2)]

    text = "EndpointClosed: the callback was cancelled while it worked on this request"
    for call in calls[::2]:
        with pytest.raises(RPCRemoteError, match=text):
            call.result(DEADLINE)
    assert [call.result(DEADLINE).c for call in calls[1::2]] == [1, 2]
    assert service.stats.errors == 2


def test_a_call_that_may_be_repeated_is_repeated_if_its_handler_cancels_its_own_task(
    node: Node, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_repeat, "FIRST_PAUSE", 0.1)
    cancelled: list[object] = []

    async def handle(request: AddTwoInts.Request) -> AddTwoInts.Response:
        own = asyncio.current_task()
        if own is not None and not cancelled:
            cancelled.append(own)
            own.cancel()
            await asyncio.sleep(0)
        return add(request)

    service = node.create_rpc(topic, handle, AddTwoInts)
    client = node.create_rpc_client(topic, AddTwoInts, idempotent=True)

    assert client.call(Request(a=1, b=1), timeout=DEADLINE).c == 2
    assert service.stats.errors == len(cancelled) == 1


def test_a_call_that_is_given_up_reaches_no_other_call(
    node: Node, topic: str, gate: threading.Event
) -> None:
    slow = Blocking(gate)
    node.create_rpc(topic, slow, AddTwoInts, workers=8)
    client = node.create_rpc_client(topic, AddTwoInts)
    future = client.call_async(Request(a=-1, b=0))
    slow.entered.wait(1)

    assert future.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(0)
    gate.set()

    assert [client.call(Request(a=n, b=0)).c for n in range(50)] == list(range(50))
    eventually(lambda: client.stats.late == 1, lambda: client.stats)


def test_a_request_whose_time_is_up_is_not_executed_when_the_service_comes(
    node: Node, make_node: MakeNode, broker: Broker
) -> None:
    name = broker.unique()
    got = Collected()
    client = node.create_rpc_client(name)
    with pytest.raises(RPCTimeout):
        client.call("too late", timeout=0.1)
    assert not client.wait_for_service(0.1)

    # One worker, which has seen to the one before when it answers.
    service = make_node().create_rpc(name, lambda request: got(request), workers=1)
    client.call("in time")

    assert got.items == ["in time"]
    assert service.stats.expired == 0  # it was taken back, where the broker had kept it


def test_a_request_that_had_waited_for_long_is_not_executed(
    make_node: MakeNode, broker: Broker, raw: RawPeer
) -> None:
    name = broker.unique()
    got = Collected()
    # Released clients send no deadline; what they asked of a service long ago must rest.
    raw.send_message(name, "an hour ago", Header(now_ms() - 3_600_000, PROPERTIES))
    raw.send_message(name, "never set its clock", Header(86_400_000, PROPERTIES))
    service = make_node().create_rpc(name, lambda request: got(request), workers=1)
    raw.send_message(name, "now", Header(now_ms(), PROPERTIES))

    received = got.until("now")
    assert received == ["never set its clock"] * broker.traits.stores_unread
    assert service.stats.expired == broker.traits.stores_unread


def test_a_request_sent_while_the_service_runs_is_executed_whatever_its_clock_says(
    node: Node, topic: str, raw: RawPeer
) -> None:
    got = Collected()
    node.create_rpc(topic, lambda request: got(request))
    times = [0, -5, 1, now_ms() // 1000, now_ms() + 10**10, now_ms() * 10**6, 10**18 * 9]

    for timestamp in times:
        raw.send_message(topic, timestamp, Header(timestamp, PROPERTIES))

    assert got.wait(len(times)) == times


def test_wait_for_service_tells_whether_it_is_there(
    node: Node, make_node: MakeNode, topic: str
) -> None:
    client = node.create_rpc_client(topic)
    assert not client.wait_for_service(0.05)

    service = make_node().create_rpc(topic, lambda request: request)
    assert client.wait_for_service(DEADLINE)

    service.stop()
    assert not client.wait_for_service(0.05)
    service.run()
    assert client.wait_for_service(DEADLINE)


def test_a_service_is_waited_for_whatever_is_in_its_name(
    node: Node, broker: Broker, topic: str
) -> None:
    names = (f"{topic}.a[0].b?", f"{topic}.ü b", f"{topic}.ü=b", f"{topic}/a+b", f"{topic}/a%b")
    for name in filter(broker.takes, names):
        node.create_rpc(name, lambda n: n)
        client = node.create_rpc_client(name)
        assert client.call(1, timeout=5) == 1
        assert client.wait_for_service(timeout=5)


def test_wait_for_service_returns_when_the_service_comes(
    node: Node, make_node: MakeNode, topic: str
) -> None:
    other = make_node()
    client = node.create_rpc_client(topic)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.wait_for_service, DEADLINE)
        other.create_rpc(topic, lambda request: request)

        assert waiting.result(DEADLINE)
    assert client.call(1) == 1


def test_services_that_do_not_answer_leave_room_for_one_that_does(
    node: Node, broker: Broker, raw: RawPeer
) -> None:
    client = node.create_rpc_client(broker.unique("alive"))
    node.create_rpc(client.rpc_name, lambda n: n)
    dead = [node.create_rpc_client(broker.unique(f"dead{n}")) for n in range(2)]
    for nobody in dead:
        raw.consume(nobody.rpc_name)
    pending = [nobody.call_async(n, timeout=60) for nobody in dead for n in range(500)]

    for n in range(20):
        assert client.call(n, timeout=5) == n
    for future in pending:
        assert future.cancel()


def test_stopping_the_node_ends_its_pending_calls(
    make_node: MakeNode, topic: str, gate: threading.Event
) -> None:
    slow = Blocking(gate)
    make_node().create_rpc(topic, slow, AddTwoInts)
    node = make_node()
    client = node.create_rpc_client(topic, AddTwoInts)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.call, Request(a=-1, b=0))
        future = client.call_async(Request(a=-2, b=0))
        slow.entered.wait(2)

        node.stop()

        for pending in (call, future):
            assert isinstance(pending.exception(DEADLINE), EndpointClosed)
        gate.set()


# ---- peers that send the least, or nonsense ----


def test_the_least_that_a_peer_sends_is_served(node: Node, broker: Broker, raw: RawPeer) -> None:
    name, reply_to = broker.unique("service"), broker.unique("reply")
    got, answers = Collected(), raw.consume(reply_to)
    service = node.create_rpc(name, lambda request: got(request))

    raw.send(name, b'{"header":{"reply_to":"%b"},"data":{}}' % reply_to.encode())
    raw.send(name, b'{"header":{},"data":{"n":1}}')
    raw.send(name, b'{"header":{"reply_to":""},"data":{"n":2}}')
    raw.send(name, b'{"header":{"reply_to":null,"timestamp":"soon","id":7},"data":{"n":3}}')
    raw.send(name, b'{"header":null,"data":{"n":4}}')
    raw.send(name, b'{"header":{"properties":5}}')

    received = sorted(got.wait(6), key=lambda data: data.get("n", 0))
    assert received == [{}, {}, *({"n": n} for n in range(1, 5))]
    assert answers.first.data == {}
    assert service.stats.refused == 0


def test_a_reply_address_that_nobody_reads_does_no_harm(
    node: Node, broker: Broker, raw: RawPeer
) -> None:
    name = broker.unique()
    node.create_rpc(name, add, AddTwoInts)
    client = node.create_rpc_client(name, AddTwoInts)

    for n in range(20):
        for reply_to in (broker.unique(f"nobody{n}"), "x" * 1000, "not/a name.*", "a/*", "ü"):
            if broker.takes(reply_to):
                raw.send_message(name, {"a": 1, "b": 2}, Header(0, PROPERTIES, reply_to=reply_to))

    assert client.call(Request(a=1, b=1)).c == 2


@pytest.mark.parametrize(
    "reply_to",
    ["a/+", "#", "a/b#", "nul\0", "del\x7f", "x" * 70_000],
    ids=["+", "#", "b#", "nul", "del", "long"],
)
def test_a_reply_address_that_is_no_name_costs_no_connection(
    make_node: MakeNode, broker: Broker, raw: RawPeer, reply_to: str
) -> None:
    name, states = broker.unique(), Collected()
    service = make_node(on_state=states).create_rpc(name, add, AddTwoInts)
    client = make_node().create_rpc_client(name, AddTwoInts)

    for _ in range(5):
        try:
            raw.send_message(name, {"a": 1, "b": 2}, Header(0, PROPERTIES, reply_to=reply_to))
        except SerializationError:
            pytest.skip("the broker has no room for such an address")
        assert client.call(Request(a=1, b=1), timeout=5).c == 2

    # The requests of two connections may overtake each other.
    eventually(lambda: service.stats.received == 10)
    assert states.items == [(True, None)]


def garbage() -> list[bytes]:
    """Payloads that are no request to add two ints, in all the ways there are."""
    chance = random.Random(21)
    return [
        *(chance.randbytes(chance.randrange(1, 200)) for _ in range(50)),
        b"",
        b"null",
        b"[]",
        b"{}",
        b'"text"',
        b"5",
        b'{"a": 1, "b": "two"}',
        b'{"header": {}, "data": null}',
        b'{"header": {}, "data": {"a": 1}}',
        b'{"header": {}, "data": {"a": "one", "b": 2}}',
        b'{"header": {"reply_to": "x"}, "data": []}',
        b'{"header": {"reply_to": {}}, "data": 5}',
        b"[" * 10_000 + b"]" * 10_000,
        b'{"header": {}, "data": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b"\x82\xa6header\x80\xa4data" + b"\x91" * 10_000,
        b" " * 200_000,
    ]


def test_garbage_is_refused_and_counted_and_the_service_goes_on(
    node: Node, make_node: MakeNode, broker: Broker, raw: RawPeer
) -> None:
    name = broker.unique()
    errors = Collected()
    narrow = make_node(broker.with_options(max_payload=100_000))
    service = narrow.create_rpc(name, add, AddTwoInts, on_error=errors)

    for payload in garbage():
        raw.send(name, payload)
    errors.wait(len(garbage()))

    assert service.stats.refused == len(garbage())
    assert service.stats.errors == 0
    client = node.create_rpc_client(name, AddTwoInts)
    assert [client.call(Request(a=n, b=1)).c for n in range(20)] == list(range(1, 21))


def test_garbage_instead_of_a_reply_is_an_error_of_that_call_alone(
    node: Node, broker: Broker, raw: RawPeer
) -> None:
    name = broker.unique()
    requests = raw.consume(name)
    client = node.create_rpc_client(name, AddTwoInts)

    calls = [client.call_async(Request(a=n, b=0)) for n in range(3)]
    arrived = sorted(requests.wait(3), key=lambda envelope: envelope.data["a"])
    raw.answer(arrived[0], b"\xff\xfe")
    raw.answer_message(arrived[1], {"c": "far"}, Header())
    raw.answer_message(arrived[2], {"c": 7}, Header())

    for call in calls[:2]:
        with pytest.raises(SerializationError):
            call.result(DEADLINE)
    assert calls[2].result(DEADLINE) == Response(c=7)
    assert client.stats.refused == 2


# ---- calls from inside callbacks ----


def test_a_callback_may_call(node: Node, broker: Broker) -> None:
    name, topic = broker.unique("service"), broker.unique("topic")
    got = Collected()
    node.create_rpc(name, add, AddTwoInts)
    client = node.create_rpc_client(name, AddTwoInts)
    node.create_subscriber(topic, lambda n: got(client.call(Request(a=n, b=1)).c))

    publisher = node.create_publisher(topic)
    for n in range(50):
        publisher.publish(n)

    assert got.wait(50) == list(range(1, 51))


def test_a_handler_may_call_another_service(node: Node, broker: Broker) -> None:
    names = [broker.unique(f"step{n}") for n in range(3)]
    clients = [node.create_rpc_client(name) for name in names]
    node.create_rpc(names[2], lambda n: n + 1)
    node.create_rpc(names[1], lambda n: clients[2].call(n) * 2)
    node.create_rpc(names[0], lambda n: clients[1].call(n) + 100)

    futures = [clients[0].call_async(n) for n in range(50)]

    assert [future.result(DEADLINE) for future in futures] == [(n + 1) * 2 + 100 for n in range(50)]


def test_a_handler_may_call_its_own_service(node: Node, topic: str) -> None:
    client = node.create_rpc_client(topic)
    node.create_rpc(topic, lambda n: n if n <= 0 else client.call(n - 1) + 1, workers=4)

    assert client.call(3) == 3


def test_an_error_passes_through_a_chain_of_services(node: Node, broker: Broker) -> None:
    first, second = broker.unique("first"), broker.unique("second")
    client = node.create_rpc_client(second)
    node.create_rpc(second, lambda n: 1 / n)
    node.create_rpc(first, lambda n: client.call(n))

    with pytest.raises(RPCRemoteError) as raised:
        node.create_rpc_client(first).call(0)
    assert raised.value.type == "RPCRemoteError"
    assert "ZeroDivisionError" in raised.value.message


def test_a_coroutine_may_await_a_call(node: Node, broker: Broker) -> None:
    name, topic = broker.unique("service"), broker.unique("topic")
    got = Collected()
    node.create_rpc(name, add, AddTwoInts)
    client = node.create_rpc_client(name, AddTwoInts)

    async def on_message(n: int) -> None:
        response = await asyncio.wrap_future(client.call_async(Request(a=n, b=1)))
        got(response.c)

    node.create_subscriber(topic, on_message)
    for n in range(5):
        node.create_publisher(topic).publish(n)

    assert got.wait(5) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("inline", [False, True], ids=["async", "inline"])
def test_a_call_that_would_block_the_loop_is_refused_at_once(
    node: Node, broker: Broker, inline: bool
) -> None:
    name, topic = broker.unique("service"), broker.unique("topic")
    got, errors = Collected(), Collected()
    node.create_rpc(name, lambda request: request)
    client = node.create_rpc_client(name)

    def on_message(msg: str) -> None:
        if msg == "call":
            client.call(msg)
        elif msg == "stop":
            node.stop()
        elif msg == "wait":
            client.wait_for_service()
        got(msg)

    async def on_message_later(msg: str) -> None:
        on_message(msg)

    node.create_subscriber(
        topic, on_message if inline else on_message_later, inline=inline, on_error=errors
    )
    publisher = node.create_publisher(topic)
    for word in ("call", "stop", "wait", "end"):
        publisher.publish(word)

    assert got.until("end") == []
    assert [type(error) for error, _ in errors.wait(3)] == [BlockingCall] * 3
    assert "call_async" in str(errors.items[0][0])
    assert client.call("still") == "still"


# ---- sharing the work ----


def test_two_services_of_one_name_share_the_work(
    make_node: MakeNode, node: Node, broker: Broker
) -> None:
    name = broker.unique()
    if not broker.traits.competing:
        pytest.skip("every service of this broker gets every request")
    both_busy = threading.Barrier(2)
    handled = [Collected(), Collected()]

    def make_handler(got: Collected) -> Callable[[int], int]:
        def handle(n: int) -> int:
            got(n)
            both_busy.wait(DEADLINE)  # returns when the other one has a request too
            return n

        return handle

    for got in handled:
        make_node().create_rpc(name, make_handler(got), workers=1)
    client = node.create_rpc_client(name)
    futures = [client.call_async(n) for n in range(20)]

    assert [future.result(DEADLINE) for future in futures] == list(range(20))
    assert [len(got.items) for got in handled] == [10, 10]
    assert sorted(handled[0].items + handled[1].items) == list(range(20))


async def test_a_service_that_is_stopped_before_it_has_begun_leaves_its_namesake_alone(
    broker: Broker,
) -> None:
    async with aio.Node("n", broker.url) as node:
        for turns in range(12):  # of the loop, that it has to begin; the broker takes longer
            name = broker.unique(f"t{turns}")
            first, late = (node.create_rpc(name, lambda n: n) for _ in range(2))
            for _ in range(turns):
                await asyncio.sleep(0)
            await late.stop()
            await first.run()
            client = node.create_rpc_client(name)
            assert [await client.call(n, timeout=DEADLINE) for n in range(5)] == list(range(5))


def test_a_service_that_leaves_hands_the_work_to_the_other(
    make_node: MakeNode, node: Node, broker: Broker
) -> None:
    name = broker.unique()
    handled = Collected()
    services = [make_node().create_rpc(name, lambda n, k=k: handled((k, n)) or n) for k in range(2)]
    client = node.create_rpc_client(name)

    for n in range(10):
        assert client.call(n) == n
    services[0].stop()
    handled.items.clear()
    futures = [client.call_async(n) for n in range(100)]

    assert [future.result(DEADLINE) for future in futures] == list(range(100))
    assert [k for k, _ in handled.items] == [1] * 100


def test_a_service_that_is_stopped_finishes_what_it_has_taken(
    make_node: MakeNode, node: Node, topic: str
) -> None:
    service = make_node().create_rpc(topic, lambda n: n)
    client = node.create_rpc_client(topic)

    futures = [client.call_async(n, timeout=2) for n in range(200)]
    futures[0].result(DEADLINE)
    service.stop()

    answered = service.stats.sent
    assert service.stats.received == answered, "every request that it took was answered"
    done = [future for future in futures if future.exception(DEADLINE) is None]
    assert len(done) == answered


@pytest.mark.parametrize("workers", [1, 4])
def test_a_service_handles_as_many_requests_at_once_as_it_has_workers(
    node: Node, topic: str, gate: threading.Event, workers: int
) -> None:
    slow = Blocking(gate)
    node.create_rpc(topic, slow, AddTwoInts, workers=workers)
    client = node.create_rpc_client(topic, AddTwoInts)

    futures = [client.call_async(Request(a=-n, b=0)) for n in range(1, 9)]
    slow.entered.wait(workers)
    assert client.call_async(Request(a=0, b=0), timeout=0.1).exception(DEADLINE) is not None
    assert len(slow.entered.items) == workers
    gate.set()

    assert [future.result(DEADLINE).c for future in futures] == [-n for n in range(1, 9)]


@pytest.mark.parametrize("workers", [1, 4])
def test_a_quick_service_that_blocks_all_at_once_keeps_back_nothing_that_it_has_done(
    node: Node, topic: str, gate: threading.Event, workers: int
) -> None:
    slow = Blocking(gate)
    node.create_rpc(topic, slow, AddTwoInts, workers=workers)
    client = node.create_rpc_client(topic, AddTwoInts)
    for number in range(100):
        assert client.call(Request(a=number, b=1)).c == number + 1

    quick = [client.call_async(Request(a=n, b=0)) for n in range(20)]
    blocked = client.call_async(Request(a=-1, b=0))
    behind = [client.call_async(Request(a=n, b=0)) for n in range(20)]
    assert [future.result(DEADLINE).c for future in quick] == list(range(20))
    slow.entered.wait(100 + 20 + 1)
    if workers > 1:
        assert [future.result(DEADLINE).c for future in behind] == list(range(20))
    gate.set()
    assert blocked.result(DEADLINE).c == -1
    assert [future.result(DEADLINE).c for future in behind] == list(range(20))


def test_a_quick_service_hears_what_it_waits_for_all_at_once(
    make_node: MakeNode, broker: Broker, topic: str
) -> None:
    """Over the connection from which its requests come."""
    heard, entered = threading.Event(), threading.Event()

    def handle(request: AddTwoInts.Request) -> AddTwoInts.Response:
        if request.a < 0:
            entered.set()
            return Response(c=int(heard.wait(DEADLINE)))
        return add(request)

    server, node = make_node(), make_node()
    server.create_subscriber(broker.unique("word"), on_message=lambda message: heard.set())
    server.create_rpc(topic, handle, AddTwoInts)
    publisher = node.create_publisher(broker.unique("word"))
    client = node.create_rpc_client(topic, AddTwoInts)
    for number in range(20):
        before = [client.call_async(Request(a=n, b=0)) for n in range(20)]
        waiting = client.call_async(Request(a=-1, b=0))
        behind = [client.call_async(Request(a=n, b=0)) for n in range(20)]
        assert entered.wait(DEADLINE), number
        publisher.publish({"n": number})
        assert waiting.result(DEADLINE).c == 1
        assert [future.result(DEADLINE).c for future in before + behind] == 2 * [*range(20)]
        heard.clear()
        entered.clear()


def test_requests_of_a_former_life_give_no_credit_to_the_next(
    make_node: MakeNode, topic: str, gate: threading.Event
) -> None:
    former, latter = Blocking(threading.Event()), Blocking(gate)
    handler: Callable[..., Any] = lambda request: (former if request.b else latter)(request)  # noqa: E731
    server, node = make_node(), make_node()
    service = server.create_rpc(topic, handler, AddTwoInts, workers=2)
    client = node.create_rpc_client(topic, AddTwoInts)
    server.create_rpc(f"{topic}.fence", lambda n: n)
    fence = node.create_rpc_client(f"{topic}.fence")
    for _ in range(2):
        client.call_async(Request(a=-1, b=1), timeout=60)
    former.entered.wait(2)
    service.stop()
    service.run()
    ended = service.stats.sent + 2
    former.gate.set()
    eventually(lambda: service.stats.sent == ended)

    futures = [client.call_async(Request(a=-1, b=0), timeout=60) for _ in range(6)]
    latter.entered.wait(2)
    assert fence.call(1) == 1
    # In each life it has taken as many as it can handle.
    assert service.stats.received == 4
    assert len(latter.entered.items) == 2
    gate.set()
    assert [future.result(DEADLINE).c for future in futures] == [-1] * 6


def test_a_blocked_service_does_not_keep_the_others_of_its_node_from_serving(
    node: Node, broker: Broker, gate: threading.Event
) -> None:
    blocked, free = broker.unique("blocked"), broker.unique("free")
    slow = Blocking(gate)
    node.create_rpc(blocked, slow, AddTwoInts, workers=1)
    node.create_rpc(free, add, AddTwoInts)
    waiting = [
        node.create_rpc_client(blocked, AddTwoInts).call_async(Request(a=-1, b=n)) for n in range(5)
    ]
    slow.entered.wait(1)

    client = node.create_rpc_client(free, AddTwoInts)
    assert [client.call(Request(a=n, b=0)).c for n in range(50)] == list(range(50))
    gate.set()
    assert [future.result(DEADLINE).c for future in waiting] == [n - 1 for n in range(5)]


class Nothing(RPCMessage):
    """As the classes of commlib-py that were left empty."""


def test_messages_without_fields_are_calls_as_well(node: Node, topic: str) -> None:
    node.create_rpc(topic, lambda request: Nothing.Response(), Nothing)

    response = node.create_rpc_client(topic, Nothing).call(Nothing.Request())

    assert isinstance(response, Nothing.Response)


def test_calls_and_messages_of_a_client_that_was_stopped_and_run_again(
    node: Node, topic: str, portal: Portal
) -> None:
    service = node.create_rpc(topic, lambda n: n)
    client = node.create_rpc_client(topic)
    for n in range(3):
        assert client.call(n) == n
        service.stop()
        with pytest.raises(RPCTimeout):
            client.call(-1, timeout=0.05)
        service.run()
    assert client.call(5) == 5


def test_a_service_that_answers_twice_answers_no_other_call(
    node: Node, raw: RawPeer, topic: str
) -> None:
    requests = raw.consume(topic)
    client = node.create_rpc_client(topic)
    futures = []

    for number in range(90):
        futures.append(client.call_async({"n": number}, timeout=DEADLINE))
        request = requests.wait(number + 1)[number]
        header = Header(now_ms(), PROPERTIES, id=request.header.id)
        for _ in range(2):
            raw.answer_message(request, request.data, header)

    assert [future.result(DEADLINE)["n"] for future in futures] == list(range(90))


def test_waiting_for_a_future_on_the_loop_is_refused_at_once(node: Node, topic: str) -> None:
    node.create_rpc(topic, lambda request: request)
    client = node.create_rpc_client(topic)
    refused = Collected()

    async def on_message(msg: Any) -> None:
        future = client.call_async({}, timeout=DEADLINE)
        for wait in (future.result, future.exception):
            try:
                wait()
            except BlockingCall as exc:
                refused(exc)
        assert await asyncio.wrap_future(future) == {}
        refused("answered")

    node.create_subscriber(f"{topic}.t", on_message)
    node.create_publisher(f"{topic}.t").publish({})
    assert [str(it).split(" ")[0] for it in refused.wait(3)] == [
        "result()",
        "exception()",
        "answered",
    ]
