"""Calls that are traced: from the request to the response at one end, the handler at the other."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Any

from opentelemetry.trace import get_current_span, set_span_in_context

from commlib._lanes import is_async
from commlib._packet import Envelope, Header, Packet, Properties
from commlib._replaced import in_context, replace
from commlib._spans import Spans, active, carried, context_of, fail, stamp, within
from commlib.aio._rpc_service import RPCService
from commlib.aio.rpc import RPCClient


class Carrying:
    """Makes the packets of calls as another packer does, with a trace in the header."""

    def __init__(self, inner: Any, carrier: dict[str, str]) -> None:
        self.properties: Properties = inner.properties
        self._inner = inner
        self._carrier = carrier

    def wrap(self, body: Any, header: Header, native: bool) -> Packet:
        """The packet for an encoded message."""
        stamp(header, self._carrier)
        packet: Packet = self._inner.wrap(body, header, native)
        return packet


def carry(client: RPCClient[Any, Any]) -> None:
    """Have the calls of a client take the trace along that is the current one."""
    call_with = client._call_with

    def call_with_trace(*args: Any) -> Any:
        call = call_with(*args)
        call.writer = Carrying(call.writer, carried())
        get_current_span().set_attribute("messaging.message.conversation_id", call.token)
        return call

    replace(client, "_call_with", call_with_trace)


def trace_client(client: RPCClient[Any, Any], spans: Spans) -> None:
    carry(client)
    call = client.call

    async def call_traced(msg: Any, timeout: float = 30) -> Any:
        with active(spans.calling(client, client.rpc_name)):
            return await call(msg, timeout)

    replace(client, "call", call_traced)
    if client.face is not client:
        _trace_sync_client(client, spans)


def _trace_sync_client(client: RPCClient[Any, Any], spans: Spans) -> None:
    face = client.face
    call, call_async = face.call, face.call_async

    def call_traced(msg: Any, timeout: float = 30) -> Any:
        with active(spans.calling(client, client.rpc_name)):
            return call(msg, timeout)

    def call_async_traced(
        msg: Any, timeout: float = 30, on_response: Callable[[Any], object] | None = None
    ) -> concurrent.futures.Future[Any]:
        span = spans.calling(client, client.rpc_name)
        context = set_span_in_context(span)
        try:
            with within(context):
                future: concurrent.futures.Future[Any] = call_async(
                    msg, timeout, in_context(on_response, context)
                )
        except BaseException as exc:
            fail(span, exc)
            span.end()
            raise

        def end(future: concurrent.futures.Future[Any]) -> None:
            error = None if future.cancelled() else future.exception()
            if error is not None:
                fail(span, error)
            span.end()

        concurrent.futures.Future.add_done_callback(future, end)  # at once, and not on a worker
        return future

    replace(face, "call", call_traced)
    replace(face, "call_async", call_async_traced)


def trace_service(service: RPCService, spans: Spans) -> None:
    call = service._call

    def serving(envelope: Envelope) -> Any:
        context = context_of(envelope.header)
        span = spans.serving(service, service.rpc_name, context)
        if envelope.header.id:
            span.set_attribute("messaging.message.conversation_id", envelope.header.id)
        return active(span, context)

    def call_traced(envelope: Envelope) -> Any:
        with serving(envelope):
            return call(envelope)

    async def await_traced(envelope: Envelope) -> Any:
        with serving(envelope):
            return await call(envelope)

    replace(service, "_call", await_traced if is_async(service.on_request) else call_traced)
