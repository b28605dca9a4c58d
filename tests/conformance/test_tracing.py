"""Traces through every pattern, on every broker. Nothing here knows which broker it is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from brokers import Broker
from collected import DEADLINE, Collected, eventually
from commlib import aio
from commlib._packet import PROPERTIES, Header, peek
from commlib.exceptions import RPCRemoteError
from commlib.node import Node
from commlib.tracing import Tracing
from raw_peer import RawPeer
from traces import Traces, attributes, events, is_child

Make = Callable[..., Node]

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACE = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


@pytest.fixture
def traces() -> Traces:
    """What is traced in a test."""
    return Traces()


def trace_id() -> str:
    """The trace that this is done in, in hex; zeros if there is none."""
    return f"{get_current_span().get_span_context().trace_id:032x}"


def test_one_trace_goes_through_all_patterns(make_node: Make, traces: Traces, topic: str) -> None:
    robot, pilot = (make_node(tracing=traces.tracing) for _ in range(2))
    ended = Collected()

    def drive(goal: Any) -> dict[str, Any]:
        goal.send_feedback({"metres": 1})
        arrived.publish({"metres": 1})
        return {"metres": 1}

    robot.create_action(f"{topic}.drive", on_goal=drive)
    driver = robot.create_action_client(f"{topic}.drive")
    robot.create_rpc(
        f"{topic}.go", lambda request: driver.send_goal({}, wait_for_result=True).result(0)
    )
    caller = pilot.create_rpc_client(f"{topic}.go")
    arrived = robot.create_publisher(f"{topic}.arrived")
    pilot.create_subscriber(f"{topic}.arrived", ended)
    pilot.create_subscriber(f"{topic}.begin", lambda msg: ended(caller.call({}, timeout=DEADLINE)))

    robot.create_publisher(f"{topic}.begin").publish({})

    ended.wait(2)
    sent = traces.span(f"send {topic}.begin", SpanKind.PRODUCER)
    processed = traces.span(f"process {topic}.begin", SpanKind.CONSUMER)
    called = traces.span(f"{topic}.go", SpanKind.CLIENT)
    served = traces.span(f"{topic}.go", SpanKind.SERVER)
    wanted = traces.span(f"{topic}.drive", SpanKind.CLIENT)
    pursued = traces.span(f"{topic}.drive", SpanKind.SERVER)
    told = traces.span(f"send {topic}.arrived", SpanKind.PRODUCER)
    heard = traces.span(f"process {topic}.arrived", SpanKind.CONSUMER)
    way = [sent, processed, called, served, wanted, pursued, told, heard]
    assert sent.parent is None
    for parent, child in pairwise(way):
        assert is_child(child, parent), f"{child.name} after {parent.name}"
    assert len(traces.all) == len(way), traces.names
    assert all(span.status.status_code is StatusCode.UNSET for span in way)


def test_both_ends_say_which_message_it_was(node: Node, make_node: Make, topic: str) -> None:
    traces = Traces()
    got = Collected()
    make_node(tracing=traces.tracing).create_subscriber(topic, got)
    sender = make_node(tracing=traces.tracing)

    sender.create_publisher(topic).publish(1)

    assert got.first == 1
    sent, processed = traces.span(f"send {topic}"), traces.span(f"process {topic}")
    said = attributes(sent)
    assert said["messaging.destination.name"] == topic
    assert said["messaging.operation.type"] == "send"
    assert said["commlib.node"] == sender.node_name
    origin, _, seq = str(said["messaging.message.id"]).partition(":")
    assert (len(origin), seq) == (8, "0")
    assert attributes(processed)["messaging.message.id"] == said["messaging.message.id"]
    assert attributes(processed)["messaging.system"] == said["messaging.system"]


def test_a_node_without_tracing_goes_on_with_no_trace(
    make_node: Make, traces: Traces, topic: str
) -> None:
    got = Collected()
    make_node().create_subscriber(topic, lambda msg: got(trace_id()))

    make_node(tracing=traces.tracing).create_publisher(topic).publish(1)

    assert got.first == "0" * 32
    assert traces.names == [f"send {topic}"]


def test_a_callback_that_fails_is_an_error_of_its_span(
    make_node: Make, traces: Traces, topic: str
) -> None:
    def fail(msg: Any) -> None:
        raise ValueError("too far")

    node = make_node(tracing=traces.tracing)
    node.create_subscriber(topic, fail)

    node.create_publisher(topic).publish(1)

    span = traces.span(f"process {topic}")
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "too far"
    assert attributes(span)["error.type"] == "ValueError"
    assert events(span) == ["exception"]
    assert traces.span(f"send {topic}").status.status_code is StatusCode.UNSET


def test_an_error_of_a_service_is_one_at_both_ends(
    make_node: Make, traces: Traces, topic: str
) -> None:
    def fail(request: Any) -> Any:
        raise ValueError("too far")

    node = make_node(tracing=traces.tracing)
    node.create_rpc(topic, fail)
    client = make_node(tracing=traces.tracing).create_rpc_client(topic)

    with pytest.raises(RPCRemoteError, match="too far"):
        client.call({}, timeout=DEADLINE)
    future = client.call_async({}, timeout=DEADLINE)
    assert isinstance(future.exception(), RPCRemoteError)

    eventually(lambda: len(traces.all) == 4, lambda: traces.names)
    for span in traces.all:
        assert span.status.status_code is StatusCode.ERROR
        assert attributes(span)["error.type"] == "ValueError"


def test_a_goal_tells_in_its_spans_what_became_of_it(
    make_node: Make, traces: Traces, topic: str
) -> None:
    def drive(goal: Any) -> Any:
        goal.send_feedback({"metres": 1})
        goal.cancel_event.wait(DEADLINE)
        if goal.data.get("fail"):
            raise ValueError("too far")
        return {"metres": 1}

    told: Collected = Collected()
    make_node(tracing=traces.tracing).create_action(topic, on_goal=drive)
    client = make_node(tracing=traces.tracing).create_action_client(
        topic, on_feedback=lambda feedback: told(trace_id())
    )

    with traces.tracer.start_as_current_span("the journey") as journey:
        goal = client.send_goal({}, timeout=DEADLINE)
        told.wait(1)
        assert goal.cancel(DEADLINE)
        assert goal.result(DEADLINE) == {"metres": 1}

    wanted = traces.span(topic, SpanKind.CLIENT)
    pursued = traces.span(topic, SpanKind.SERVER)
    assert is_child(wanted, journey)
    assert is_child(pursued, wanted)
    assert told.first == f"{journey.get_span_context().trace_id:032x}"
    for span in (wanted, pursued):
        assert events(span) == ["feedback", "cancel"]
        assert attributes(span)["commlib.goal.status"] == "CANCELED"
        assert attributes(span)["commlib.goal.id"] == goal.goal_id
        assert span.status.status_code is StatusCode.UNSET


def test_a_goal_that_is_aborted_is_an_error_at_both_ends(
    make_node: Make, traces: Traces, topic: str
) -> None:
    async def drive(goal: Any) -> Any:
        raise ValueError("too far")

    node = make_node(tracing=traces.tracing)
    node.create_action(topic, on_goal=drive)

    goal = node.create_action_client(topic).send_goal({}, timeout=DEADLINE)

    assert goal.wait(DEADLINE)
    for kind in (SpanKind.CLIENT, SpanKind.SERVER):
        span = traces.span(topic, kind)
        assert span.status.status_code is StatusCode.ERROR
        assert "too far" in str(span.status.description)
        assert attributes(span)["commlib.goal.status"] == "ABORTED"


async def test_coroutines_and_iterations_go_on_with_the_trace(
    broker: Broker, topic: str, traces: Traces
) -> None:
    name = broker.unique("node")
    async with aio.Node(name, broker.url, tracing=traces.tracing) as node:
        second = node.create_publisher(f"{topic}.second")
        client = node.create_rpc_client(f"{topic}.ask")

        async def serve(request: Any) -> Any:
            await asyncio.sleep(0)
            return {"trace": trace_id()}

        async def first(msg: Any) -> None:
            answer = await client.call({}, timeout=DEADLINE)
            await second.publish(answer)

        node.create_rpc(f"{topic}.ask", serve)
        begin = node.create_publisher(f"{topic}.first")
        await node.create_subscriber(f"{topic}.first", first).run()
        messages = node.create_subscriber(f"{topic}.second")
        await messages.run()
        assert await client.wait_for_service(DEADLINE)
        with traces.tracer.start_as_current_span("outside") as outside:
            await begin.publish({})
        async with asyncio.timeout(DEADLINE):
            answer = await anext(messages)

    assert answer == {"trace": f"{outside.get_span_context().trace_id:032x}"}
    way = [
        traces.span("outside"),
        traces.span(f"send {topic}.first"),
        traces.span(f"process {topic}.first"),
        traces.span(f"{topic}.ask", SpanKind.CLIENT),
        traces.span(f"{topic}.ask", SpanKind.SERVER),
    ]
    for parent, child in pairwise(way):
        assert is_child(child, parent), f"{child.name} after {parent.name}"
    sent = traces.span(f"send {topic}.second")
    assert is_child(sent, way[2])
    assert is_child(traces.span(f"receive {topic}.second"), sent)


def test_who_is_not_sampled_is_not_sampled_at_the_other_end_either(
    make_node: Make, traces: Traces, topic: str
) -> None:
    got = Collected()
    make_node(tracing=traces.tracing).create_subscriber(topic, lambda msg: got(trace_id()))
    quiet = Traces(ALWAYS_OFF)

    make_node(tracing=quiet.tracing).create_publisher(topic).publish(1)

    assert got.first != "0" * 32, "it has come all the same"


def test_a_subscriber_may_begin_a_trace_of_its_own_with_a_link(
    make_node: Make, traces: Traces, topic: str
) -> None:
    got = Collected()
    linking = Tracing(traces.provider, link=True)
    make_node(tracing=linking).create_subscriber(topic, got)

    make_node(tracing=traces.tracing).create_publisher(topic).publish(1)

    span, sent = traces.span(f"process {topic}"), traces.span(f"send {topic}")
    assert span.parent is None
    assert [link.context.span_id for link in span.links] == [sent.get_span_context().span_id]
    assert span.get_span_context().trace_id != sent.get_span_context().trace_id


GARBAGE = [
    *("", "0", "00", TRACE.replace("-", "_"), TRACE.replace("00-", "ff-", 1), TRACE[:-1]),
    *(f"00-{'0' * 32}-00f067aa0ba902b7-01", f"00-{TRACE_ID}-{'0' * 16}-01", f"{TRACE}-more"),
    *(f"00-{TRACE_ID.upper()}-00f067aa0ba902b7-01", "\u0660" * 55, "-" * 2000),
]


def test_what_strangers_put_into_the_header_does_no_harm(
    make_node: Make, raw: RawPeer, traces: Traces, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    got = Collected()
    make_node(tracing=traces.tracing).create_subscriber(topic, lambda msg: got((msg, trace_id())))

    for number, garbage in enumerate(GARBAGE):
        header = Header(1, PROPERTIES, "stranger", number, traceparent=garbage, tracestate=garbage)
        raw.publish_message(topic, number, header)
    states = ["x", "a=1,a=2", "=", "ü=1", "a=1," * 100, "a=" + "b" * 2000, ",".join("=" * 40)]
    for number, garbage in enumerate(states, 100):
        header = Header(1, PROPERTIES, "stranger", number, traceparent=TRACE, tracestate=garbage)
        raw.publish_message(topic, number, header)

    received = dict(got.wait(len(GARBAGE) + len(states)))
    assert list(received) == [*range(len(GARBAGE)), *range(100, 100 + len(states))]
    for number in range(len(GARBAGE)):
        assert received[number] not in ("0" * 32, TRACE_ID), "a trace of its own"
    for number in range(100, 100 + len(states)):
        assert received[number] == TRACE_ID, "the state alone is garbage"
    assert [record for record in caplog.records if record.levelname != "DEBUG"] == []


# ---- bridges ----


@pytest.fixture(params=["traced", "untraced"])
def bridging(request: pytest.FixtureRequest, traces: Traces) -> Tracing | None:
    """How the nodes of bridges are traced, if they are."""
    return traces.tracing if request.param == "traced" else None


OTHER_SIDES = ["memory", "redis", "mqtt"]
"""A broker with a header beside the data, and two with an envelope."""


@pytest.fixture(params=OTHER_SIDES)
def far(request: pytest.FixtureRequest) -> Broker:
    """The broker at the other end of a bridge."""
    return Broker.named(request.param, request.getfixturevalue)


def bridge(node: Node, kind: str, near: str, other: str, far: Broker, **options: Any) -> None:
    """A bridge of a node, at work on both sides."""
    made = node.create_bridge(kind, near, other, far.url, **options)
    eventually(lambda: made.core.ready)


@pytest.mark.parametrize("state", ["", "vendor=x"])
def test_a_bridge_keeps_a_trace_whoever_is_traced(
    make_node: Make, raw: RawPeer, far: Broker, topic: str, bridging: Tracing | None, state: str
) -> None:
    peer = RawPeer(far.url)
    try:
        got = peer.subscribe(f"{topic}.far")
        bridge(make_node(tracing=bridging), "topic", topic, f"{topic}.far", far)
        header = Header(1, PROPERTIES, "stranger", 1, traceparent=TRACE, tracestate=state)

        raw.publish_message(topic, {"a": 1}, header)

        packet = got.first
    finally:
        peer.close()
    passed = packet.header or _header_in(packet.payload)
    assert (passed.traceparent, passed.tracestate) == (TRACE, state)


def _header_in(payload: bytes) -> Header:
    header = peek(payload)
    assert header is not None
    return header


def test_a_trace_travels_beside_bare_data_where_there_is_room(
    node: Node, raw: RawPeer, far: Broker, topic: str
) -> None:
    peer = RawPeer(far.url)
    try:
        got = peer.subscribe(f"{topic}.far")
        bridge(node, "topic", topic, f"{topic}.far", far, envelope=False)
        raw.publish_message(topic, {"a": 1}, Header(1, PROPERTIES, traceparent=TRACE))
        packet = got.first
    finally:
        peer.close()
    assert packet.payload == b'{"a":1}'
    has_room = far.traits.native_headers or far.traits.header_beside_bare
    assert (packet.header is not None and packet.header.traceparent == TRACE) == has_room


def test_one_trace_goes_over_all_kinds_of_bridges(
    make_node: Make, far: Broker, traces: Traces, topic: str
) -> None:
    here = make_node(tracing=traces.tracing)
    there = make_node(far.url, tracing=traces.tracing)
    other = f"{topic}_far"
    got = Collected()
    between = make_node(tracing=traces.tracing)
    bridge(between, "topic", f"{topic}.t", f"{other}.t", far)
    bridge(between, "rpc", f"{topic}.r", f"{other}.r", far)
    bridge(between, "action", f"{topic}.a", f"{other}.a", far)
    there.create_subscriber(f"{other}.t", lambda msg: got(trace_id()))
    there.create_rpc(f"{other}.r", lambda request: {"trace": trace_id()})
    there.create_action(f"{other}.a", on_goal=lambda goal: {"trace": trace_id()})
    client = here.create_rpc_client(f"{topic}.r")
    pilot = here.create_action_client(f"{topic}.a")

    with traces.tracer.start_as_current_span("all") as span:
        here.create_publisher(f"{topic}.t").publish(1)
        answer = client.call({}, timeout=DEADLINE)
        goal = pilot.send_goal({}, timeout=DEADLINE)
        result = goal.result(DEADLINE)

    expected = f"{span.get_span_context().trace_id:032x}"
    assert (got.first, answer["trace"], result["trace"]) == (expected, expected, expected)
    for name in ("t", "r"):
        passed = traces.span(f"bridge {topic}.{name} -> {other}.{name}")
        assert f"{passed.get_span_context().trace_id:032x}" == expected
        assert passed.kind is SpanKind.INTERNAL


# ---- alone ----


def test_threads_do_not_mix_their_traces(make_node: Make, traces: Traces, topic: str) -> None:
    node = make_node(tracing=traces.tracing)
    node.create_rpc(topic, lambda request: {"trace": trace_id()}, workers=4)
    client = make_node(tracing=traces.tracing).create_rpc_client(topic)
    seen = Collected()

    def ask() -> None:
        for _ in range(5):
            with traces.tracer.start_as_current_span("ask") as span:
                answer = client.call({}, timeout=DEADLINE)
                seen(answer["trace"] == f"{span.get_span_context().trace_id:032x}")
        seen(trace_id() == "0" * 32)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen.wait(24) == [True] * 24
