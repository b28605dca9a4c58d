"""Bridges that are traced: a span for each message that belongs to a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from commlib._packet import Packet, peek
from commlib._replaced import replace
from commlib._spans import Spans, active, context_of
from commlib.aio._endpoint import Endpoint
from commlib.aio._topic_bridge import _Topics
from commlib.aio.bridges import ActionBridge, RPCBridge

if TYPE_CHECKING:
    from commlib._letter import Letter


def trace_bridge(endpoint: Endpoint, spans: Spans) -> bool:
    """Trace a bridge, if it is that."""
    if isinstance(endpoint, ActionBridge):
        for part in endpoint.parts:
            trace_bridge(part, spans)
    elif isinstance(endpoint, RPCBridge):
        _trace_rpc_bridge(endpoint, spans)
    elif isinstance(endpoint, _Topics):
        _trace_topics(endpoint, spans)
    else:
        return False
    return True


def _trace_topics(bridge: Any, spans: Spans) -> None:
    pass_on = bridge._pass_on

    def pass_on_traced(packet: Packet) -> None:
        header = packet.header or peek(packet.payload)
        if header is None or not header.traceparent:
            pass_on(packet)
            return
        context = context_of(header)
        with active(spans.bridging(bridge, context), context):
            pass_on(packet)

    replace(bridge, "_pass_on", pass_on_traced)


def _trace_rpc_bridge(bridge: Any, spans: Spans) -> None:
    relay = bridge._desk._relay

    async def relay_traced(letter: Letter) -> Any:
        if not letter.header.traceparent:
            return await relay(letter)
        context = context_of(letter.header)
        with active(spans.bridging(bridge, context), context):
            return await relay(letter)

    replace(bridge._desk, "_relay", relay_traced)
