"""What is traced, and what is not; what goes over brokers is in tests/conformance."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.context import get_current
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from collected import DEADLINE, Collected, eventually
from commlib import aio, tracing
from commlib._packet import Header
from commlib._spans import context_of
from commlib.exceptions import EndpointClosed, RPCTimeout, SerializationError
from commlib.node import Node
from commlib.pubsub import Publisher, Subscriber
from commlib.rpc import RPCClient, RPCService
from commlib.signing import SigningKey, TrustedKeys
from commlib.tracing import Tracing
from messages import Sonar
from traces import Traces, attributes, events, is_child

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def traces() -> Traces:
    """What is traced in a test."""
    return Traces()


@pytest.fixture
def node(traces: Traces) -> Iterator[Node]:
    """A running node that is traced."""
    with Node("robot", "memory://tracing", tracing=traces.tracing) as node:
        yield node


def trace_id() -> int:
    """The trace that this is done in; 0 if there is none."""
    return get_current_span().get_span_context().trace_id


# ---- what is traced ----


@pytest.fixture
def instrumented(traces: Traces) -> Iterator[None]:
    """All nodes that are made from now on are traced."""
    tracing.instrument(traces.tracing)
    yield
    tracing.uninstrument()


def test_nothing_is_traced_that_nobody_asked_for(traces: Traces) -> None:
    with Node("robot", "memory://tracing") as node:
        publisher = node.create_publisher("a.b")
        subscriber = node.create_subscriber("a.b", print)
        client = node.create_rpc_client("add")
        service = node.create_rpc("add", dict)
        for endpoint in (publisher, subscriber, client, service):
            for half in (endpoint, endpoint.core):
                own = vars(half).keys()
                assert not own & set(dir(type(half))), "no method is replaced"


@pytest.mark.usefixtures("instrumented")
def test_all_nodes_are_traced_that_are_made_after_the_word(traces: Traces) -> None:
    got = Collected()
    with Node("robot", "memory://tracing") as node, Node("other", "memory://tracing") as other:
        node.create_subscriber("a.b", got)
        other.create_publisher("a.b").publish(1)
        assert got.first == 1
        traces.span("process a.b")
    assert traces.names.count("send a.b") == 1


@pytest.mark.usefixtures("instrumented")
def test_a_node_may_be_left_out(traces: Traces) -> None:
    with Node("robot", "memory://tracing", tracing=False) as node:
        node.create_publisher("a.b").publish(1)
    tracing.uninstrument()
    with Node("robot", "memory://tracing") as node:
        node.create_publisher("a.b").publish(1)
    assert traces.names == []


@pytest.mark.usefixtures("instrumented")
def test_true_means_as_it_was_said_for_all(traces: Traces) -> None:
    with Node("robot", "memory://tracing", tracing=True) as node:
        node.create_publisher("a.b").publish(1)
    assert traces.names == ["send a.b"]


def test_what_is_no_tracing_is_refused_at_once() -> None:
    wrong: Any = "yes"
    with pytest.raises(TypeError, match="tracing='yes': it is a bool or a Tracing"):
        Node("robot", "memory://tracing", tracing=wrong)
    with pytest.raises(TypeError, match=r"it is a Tracing of commlib\.tracing"):
        tracing.instrument(wrong)


def test_endpoints_without_a_node_are_traced_one_by_one(traces: Traces) -> None:
    got = Collected()
    publisher = tracing.trace(Publisher("a.b", conn_params="memory://alone"), traces.tracing)
    subscriber = Subscriber("a.b", got, conn_params="memory://alone")
    assert tracing.trace(subscriber, traces.tracing) is subscriber
    tracing.trace(subscriber, traces.tracing)
    service = tracing.trace(RPCService("add", dict, conn_params="memory://alone"), traces.tracing)
    client = tracing.trace(RPCClient("add", conn_params="memory://alone"), traces.tracing)
    with publisher, subscriber, service, client:
        publisher.publish(1)
        client.call({}, timeout=DEADLINE)
        assert got.first == 1
        sent, processed = traces.span("send a.b"), traces.span("process a.b")
        assert is_child(processed, sent)
        assert is_child(traces.span("add", SpanKind.SERVER), traces.span("add", SpanKind.CLIENT))


def test_what_runs_already_cannot_be_traced_any_more(traces: Traces) -> None:
    with Subscriber("a.b", print, conn_params="memory://alone") as subscriber:
        with pytest.raises(ValueError, match="trace it before"):
            tracing.trace(subscriber, traces.tracing)


def test_what_is_no_endpoint_is_not_traced(traces: Traces) -> None:
    for wrong in (Node("n", connection_params="memory://alone"), 5):
        with pytest.raises(TypeError, match="is no endpoint"):
            tracing.trace(wrong, traces.tracing)  # type: ignore[type-var]


def test_many_services_and_topics_on_one_connection_are_traced_each(
    node: Node, traces: Traces
) -> None:
    got = Collected()
    server = node.create_rpc_server("calculator", {"add": dict})
    server.register_endpoint("sub", dict)
    topics = node.create_wsubscriber()
    topics.subscribe("a.*", got)
    node.create_rpc_client("calculator.add").call({}, timeout=DEADLINE)
    node.create_rpc_client("calculator.sub").call({}, timeout=DEADLINE)
    node.create_mpublisher().publish(1, "a.b")

    assert got.first == 1
    traces.span("calculator.add", SpanKind.SERVER)
    traces.span("calculator.sub", SpanKind.SERVER)
    processed = traces.span("process a.*")
    assert attributes(processed)["messaging.destination.name"] == "a.b"
    assert attributes(processed)["messaging.destination.template"] == "a.*"


def test_what_a_node_does_on_its_own_is_not_traced(traces: Traces) -> None:
    with Node("robot", "memory://tracing", tracing=traces.tracing, ctrl_services=True) as node:
        with Node("other", "memory://tracing") as other:
            beats = Collected()
            other.create_subscriber("robot.heartbeat", beats)
            other.create_rpc_client("robot.stop").call({}, timeout=DEADLINE)
        assert node.state.name == "STOPPED"
    assert traces.names == []


# ---- what goes wrong ----


def test_what_cannot_be_sent_is_an_error_of_its_span(node: Node, traces: Traces) -> None:
    publisher = node.create_publisher("a.b", Sonar)
    wrong: Any = 1

    with pytest.raises(SerializationError):
        publisher.publish(wrong)
    publisher.stop()
    with pytest.raises(EndpointClosed):
        publisher.publish(Sonar(1.0))

    kinds = [attributes(span)["error.type"] for span in traces.all]
    assert kinds == ["SerializationError", "EndpointClosed"]
    assert all(span.status.status_code is StatusCode.ERROR for span in traces.all)


def test_a_call_that_nobody_answers_is_an_error(node: Node, traces: Traces) -> None:
    with pytest.raises(RPCTimeout):
        node.create_rpc_client("nobody").call({}, timeout=0.01)
    assert attributes(traces.span("nobody"))["error.type"] == "RPCTimeout"


def test_an_error_whose_text_cannot_be_made_is_told_all_the_same(
    node: Node, traces: Traces
) -> None:
    class Shy(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    def fail(msg: Any) -> None:
        raise Shy

    errors = Collected()
    node.create_subscriber("a.b", fail, on_error=errors)
    node.create_publisher("a.b").publish(1)

    error, topic = errors.first
    assert isinstance(error, Shy)
    assert topic == "a.b"
    assert traces.span("process a.b").status.status_code is StatusCode.ERROR


def test_a_callback_that_wants_to_exit_leaves_its_span_and_context(
    node: Node, traces: Traces
) -> None:
    seen = Collected()

    def leave(msg: int) -> None:
        seen(trace_id())
        if msg == 1:
            raise SystemExit(1)

    node.create_subscriber("a.b", leave)
    publisher = node.create_publisher("a.b")
    publisher.publish(1)
    publisher.publish(2)

    first, second = seen.wait(2)
    assert 0 not in (first, second)
    assert first != second
    eventually(lambda: traces.names.count("process a.b") == 2)


def test_a_message_that_is_refused_has_no_span(node: Node, traces: Traces) -> None:
    got = Collected()
    subscriber = node.create_subscriber("a.b", got, Sonar)
    node.create_publisher("a.b").publish({"distance": "far"})
    node.create_publisher("a.b", Sonar).publish(Sonar(1.0))

    assert got.first == Sonar(1.0)
    assert subscriber.stats.refused == 1
    traces.span("process a.b")


# ---- calls ----


def test_a_call_without_waiting_ends_its_span_with_the_response(node: Node, traces: Traces) -> None:
    responses = Collected()
    node.create_rpc("add", dict)
    client = node.create_rpc_client("add")

    with traces.tracer.start_as_current_span("outside") as outside:
        future = client.call_async({"a": 1}, DEADLINE, lambda response: responses(trace_id()))

    assert future.result() == {"a": 1}
    called = traces.span("add", SpanKind.CLIENT)
    assert is_child(called, outside)
    assert is_child(traces.span("add", SpanKind.SERVER), called)
    assert responses.first == outside.get_span_context().trace_id


def test_a_call_that_is_cancelled_ends_its_span(node: Node, traces: Traces) -> None:
    future = node.create_rpc_client("nobody").call_async({}, DEADLINE)
    assert future.cancel()
    assert traces.span("nobody").status.status_code is StatusCode.UNSET


def test_a_call_that_may_be_repeated_takes_its_trace_along(node: Node, traces: Traces) -> None:
    node.create_rpc("add", dict)
    client = node.create_rpc_client("add", idempotent=True)
    client.call({}, timeout=DEADLINE)
    client.call_async({}, timeout=DEADLINE).result()

    def count(kind: SpanKind) -> int:
        return len([span for span in traces.all if span.kind is kind])

    eventually(lambda: count(SpanKind.CLIENT) == count(SpanKind.SERVER) == 2)
    called = {span.get_span_context().span_id for span in traces.all if span.parent is None}
    served = {span.parent.span_id for span in traces.all if span.parent is not None}
    assert called == served


def test_signed_messages_and_calls_take_their_trace_along(traces: Traces) -> None:
    key = SigningKey.generate("a")
    trusted = TrustedKeys({"a": key.public_key})
    got = Collected()
    options: Any = {"sign": key, "verify": trusted, "tracing": traces.tracing}
    with Node("robot", "memory://tracing", **options) as node:
        node.create_subscriber("a.b", got)
        node.create_rpc("add", dict)
        node.create_publisher("a.b").publish(1)
        node.create_rpc_client("add").call({}, timeout=DEADLINE)
        assert got.first == 1
        assert is_child(traces.span("process a.b"), traces.span("send a.b"))
        assert is_child(traces.span("add", SpanKind.SERVER), traces.span("add", SpanKind.CLIENT))


# ---- goals ----


def test_a_goal_that_is_refused_is_an_error(node: Node, traces: Traces) -> None:
    gate = threading.Event()
    node.create_action("drive", on_goal=lambda goal: {"in time": gate.wait(DEADLINE)})
    client = node.create_action_client("drive")
    first = client.send_goal({})
    second = client.send_goal({})
    gate.set()
    assert first.wait(DEADLINE)

    assert second.status == 0
    eventually(lambda: len(traces.all) == 3, lambda: traces.names)
    (refused,) = (span for span in traces.all if span.status.status_code is StatusCode.ERROR)
    assert attributes(refused)["error.type"] == "GoalRefused"
    assert attributes(refused)["commlib.goal.status"] == "REFUSED"


def test_a_goal_that_nobody_takes_is_an_error(node: Node, traces: Traces) -> None:
    with pytest.raises(RPCTimeout):
        node.create_action_client("nobody").send_goal({}, timeout=0.01)
    span = traces.span("nobody")
    assert attributes(span)["error.type"] == "RPCTimeout"


def test_a_goal_whose_service_is_stopped_ends_at_both_ends(traces: Traces) -> None:
    pilot = Node("pilot", "memory://tracing", tracing=traces.tracing)
    robot = Node("robot", "memory://tracing", tracing=traces.tracing)
    with pilot:
        with robot:
            robot.create_action("drive", on_goal=lambda goal: goal.cancel_event.wait(DEADLINE))
            goal = pilot.create_action_client("drive").send_goal({})
            eventually(lambda: goal.status == 2)
        assert goal.wait(DEADLINE)
    assert "cancel" in events(traces.span("drive", SpanKind.SERVER))
    traces.span("drive", SpanKind.CLIENT)


def test_what_a_goal_was_is_forgotten_with_it(node: Node) -> None:
    service = node.create_action("drive", on_goal=lambda goal: {})
    client = node.create_action_client("drive")
    for _ in range(3):
        client.send_goal({}, wait_for_result=True)
    gc.collect()
    on_service = service.core._finish.__self__
    on_client = client.core._settle.__self__
    eventually(lambda: not on_service._running)
    assert len(on_service._contexts) == len(on_client._pursuits) == 0


async def test_coroutine_callbacks_of_goals_run_in_their_spans(traces: Traces) -> None:
    seen: list[int] = []

    async def on_feedback(feedback: Any) -> None:
        seen.append(trace_id())

    async def on_cancel(goal: Any) -> None:
        seen.append(trace_id())

    async def drive(goal: Any) -> Any:
        await goal.send_feedback({})
        await goal.cancel_event.wait()

    async with aio.Node("robot", "memory://tracing", tracing=traces.tracing) as node:
        node.create_action("drive", None, drive, on_cancel)
        client = node.create_action_client("drive", None, on_feedback)
        with traces.tracer.start_as_current_span("outside") as outside:
            goal = await client.send_goal({})
            await anext(goal.feedback)
            await goal.cancel()
            await goal.wait(DEADLINE)

    assert seen == [outside.get_span_context().trace_id] * 2


# ---- contexts ----


def test_a_context_ends_with_its_callback(node: Node) -> None:
    seen = Collected()
    before = get_current()

    def look(msg: Any) -> None:
        seen(trace_id())

    with Node("other", "memory://tracing") as other:
        node.create_subscriber("a.b", look, inline=True)
        other.create_subscriber("a.b", look)
        node.create_publisher("a.b").publish(1)
        traced, untraced = sorted(seen.wait(2), reverse=True)

    assert traced != 0
    assert untraced == 0
    assert get_current() == before


def test_a_message_of_no_trace_begins_one_whatever_the_node_was_started_in(traces: Traces) -> None:
    got = Collected()

    async def note(msg: Any) -> None:
        got(trace_id())

    with traces.tracer.start_as_current_span("the start") as start:
        node = Node("robot", "memory://tracing", tracing=traces.tracing)
        node.create_subscriber("a.b", note)
        node.run()
    with Node("other", "memory://tracing") as other:
        other.create_publisher("a.b").publish(1)
        assert got.first not in (0, start.get_span_context().trace_id)
    node.stop()
    assert traces.span("process a.b").parent is None


@pytest.mark.parametrize("state", ["vendor=x", "a=1,tenant@system=2", " a=1 , b=2 "])
def test_the_state_of_a_trace_is_taken_along(state: str) -> None:
    context = context_of(Header(traceparent=TRACE, tracestate=state))
    found = get_current_span(context).get_span_context().trace_state
    assert found.to_header() == ",".join(part.strip() for part in state.split(","))


# ---- without OpenTelemetry, or its SDK ----


def run(program: str) -> str:
    """What a program prints in a process of its own."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True)
    assert done.stderr.decode() == ""
    return done.stdout.decode()


def test_without_the_sdk_nothing_is_traced_and_a_trace_goes_on() -> None:
    printed = run(f"""
import sys
from queue import SimpleQueue
from opentelemetry.trace import get_current_span
from commlib._packet import Header, PROPERTIES, peek
from commlib.node import Node

got, packets = SimpleQueue(), SimpleQueue()
with Node("robot", "memory://", tracing=True) as node:
    first = node.create_publisher("first")
    second = node.create_publisher("second")
    node.create_subscriber("second", lambda msg: got.put(get_current_span().get_span_context()))
    node.create_subscriber("first", lambda msg: second.publish(msg))
    node.create_rpc("add", dict)
    print(node.create_rpc_client("add").call({{"a": 1}}))
    first.publish(1)
    print(got.get(timeout=5).is_valid)
    header = Header(1, PROPERTIES, "stranger", 0, traceparent="{TRACE}")
    packet = second.core._writer._inner.pack(1, header, True)
    second.core.hub.transport.publish("first", packet)
    print(f"{{got.get(timeout=5).trace_id:x}}")
print(any(name.startswith("opentelemetry.sdk") for name in sys.modules))
""")
    assert printed.split("\n") == [
        *("{'a': 1}", "False", "4bf92f3577b34da6a3ce929d0e0e4736", "False", ""),
    ]


def test_without_opentelemetry_it_is_told_what_to_install() -> None:
    printed = run("""
import sys
sys.modules["opentelemetry"] = None
from commlib.exceptions import MissingDriver
from commlib.node import Node
Node("robot", "memory://")
for tracing in (None, True):
    try:
        Node("robot", "memory://", tracing=True) if tracing else __import__("commlib.tracing")
    except MissingDriver as exc:
        print(exc)
""")
    assert printed == 'opentelemetry is missing: pip install "commlib-py[otel]"\n' * 2


def test_a_link_is_off_unless_it_is_asked_for() -> None:
    assert Tracing() == Tracing(None, link=False)
