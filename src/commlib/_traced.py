"""Endpoints that are traced: some of their methods are replaced, each on that endpoint alone.

So who does not trace pays nothing for it. What is replaced is what a message goes through anyway,
and it does what it did before, within a span.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from commlib._lanes import is_async
from commlib._packet import Envelope, Header, Packet, Properties
from commlib._replaced import replace
from commlib._spans import (
    Spans,
    active,
    carried,
    note_sent,
    sending,
    stamp,
)
from commlib._traced_calls import trace_client, trace_service
from commlib.aio._endpoint import Endpoint
from commlib.aio._group import Group
from commlib.aio._rpc_service import RPCService
from commlib.aio.pubsub import Receiver, Sender
from commlib.aio.rpc import RPCClient

TRACED = "_traced_by"  # an attribute of those that are traced already


def trace_endpoint(endpoint: Endpoint, spans: Spans) -> None:
    """Trace an endpoint, and its synchronous face if it has one; idempotent.

    Raises ValueError for one that takes messages already: its callback is settled.
    """
    if hasattr(endpoint, TRACED):
        return
    if endpoint._is_begun and not isinstance(endpoint, Sender | RPCClient):
        raise ValueError(f"{endpoint.name} runs already: trace it before run()")
    setattr(endpoint, TRACED, spans)
    if isinstance(endpoint, Sender):
        _trace_sender(endpoint, spans)
    elif isinstance(endpoint, Receiver):
        _trace_receiver(endpoint, spans)
    elif isinstance(endpoint, RPCService):
        trace_service(endpoint, spans)
    elif isinstance(endpoint, RPCClient):
        trace_client(endpoint, spans)
    elif _trace_action(endpoint, spans) or _trace_bridge(endpoint, spans):
        return
    elif isinstance(endpoint, Group):
        _trace_group(endpoint, spans)


# ---- publish ----


class Stamping:
    """Writes as a writer or ``Signing`` does, with the current trace in the header."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    @property
    def properties(self) -> Properties:
        found: Properties = self._inner.properties
        return found

    def pack(self, data: Any, header: Header | None, *rest: Any) -> Packet:
        """As the other one."""
        if header is not None:
            stamp(header, carried())
            note_sent(header)
        packet: Packet = self._inner.pack(data, header, *rest)
        return packet


def stamp_all(sender: Sender[Any]) -> None:
    """Have the messages of a publisher take the trace along that is the current one."""
    own: Any = sender
    own._writer = Stamping(own._writer)
    if own._signing is not None:
        own._signing = Stamping(own._signing)


def _trace_sender(sender: Sender[Any], spans: Spans) -> None:
    stamp_all(sender)
    publish = sender._publish

    async def publish_traced(msg: Any, topic: str) -> None:
        with sending(spans.sending(sender, topic)):
            await publish(msg, topic)

    replace(sender, "_publish", publish_traced)
    if sender.face is not sender:
        _trace_sync_sender(sender, spans)


def _trace_sync_sender(sender: Sender[Any], spans: Spans) -> None:
    publish = sender.face._publish

    def publish_traced(msg: Any, topic: str) -> None:
        with sending(spans.sending(sender, topic)):
            publish(msg, topic)

    replace(sender.face, "_publish", publish_traced)


# ---- receive ----


def _trace_receiver(receiver: Receiver[Any], spans: Spans) -> None:
    if receiver.on_message is None:
        _trace_iteration(receiver, spans)
    else:
        replace(receiver, "_handler", lambda: _handler(receiver, spans))


def _trace_iteration(receiver: Receiver[Any], spans: Spans) -> None:
    read = receiver.read

    def read_traced(packet: Packet) -> Envelope:
        envelope = read(packet)
        topic = packet.topic or receiver.topic
        span, _ = spans.processing(receiver, topic, envelope.header, verb="receive")
        span.end()
        return envelope

    replace(receiver, "read", read_traced)


def _handler(receiver: Receiver[Any], spans: Spans) -> Callable[[Packet], Any]:
    """As ``Receiver._handler``; what is no message has no span."""
    read, callback = receiver.read, receiver.on_message
    assert callback is not None, "else it is iterated over"
    with_topic = receiver._calling.with_topic

    def call(envelope: Envelope, packet: Packet) -> Any:
        return callback(envelope.data, packet.topic) if with_topic else callback(envelope.data)

    def handle(packet: Packet) -> Any:
        envelope = read(packet)
        with active(*spans.processing(receiver, packet.topic, envelope.header)):
            return call(envelope, packet)

    async def handle_async(packet: Packet) -> Any:
        envelope = read(packet)
        with active(*spans.processing(receiver, packet.topic, envelope.header)):
            return await call(envelope, packet)

    return handle_async if is_async(callback) else handle


# ---- groups, actions, bridges ----


def _trace_group(group: Group, spans: Spans) -> None:
    for part in group.parts:
        trace_endpoint(part, spans)
    add = group.add

    def add_traced(part: Endpoint) -> Endpoint:
        trace_endpoint(part, spans)
        return add(part)

    replace(group, "add", add_traced)


def _trace_action(endpoint: Endpoint, spans: Spans) -> bool:
    """Trace one end of an action, if it is that."""
    from commlib._traced_actions import trace_action_client, trace_action_service
    from commlib.aio.action import ActionClient, ActionService

    if isinstance(endpoint, ActionService):
        trace_action_service(endpoint, spans)
    elif isinstance(endpoint, ActionClient):
        trace_action_client(endpoint, spans)
    else:
        return False
    return True


def _trace_bridge(endpoint: Endpoint, spans: Spans) -> bool:
    """Trace a bridge, if it is that."""
    from commlib._traced_bridges import trace_bridge

    return trace_bridge(endpoint, spans)
