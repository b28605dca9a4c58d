"""The spans of messages: how they are named, begun and ended, and how they travel."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from opentelemetry.context import attach, detach
from opentelemetry.context.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanKind,
    Status,
    StatusCode,
    TracerProvider,
    get_current_span,
    get_tracer,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from commlib import __version__
from commlib._packet import Header
from commlib._params import BaseParameters, NetworkParameters
from commlib._topics import is_pattern
from commlib.aio._endpoint import Endpoint, text_of
from commlib.exceptions import RPCRemoteError

SYSTEMS = {"amqp": "rabbitmq"}  # by the schemes of which OpenTelemetry has another name
LONGEST = 512  # characters of each key that are looked at, as W3C Trace Context wants it at least
MAX_MEMBERS = 32  # of ``tracestate``, by W3C Trace Context
_KEY = r"[a-z][_0-9a-z\-*/]{0,255}|[a-z0-9][_0-9a-z\-*/]{0,240}@[a-z][_0-9a-z\-*/]{0,13}"
_VALUE = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER = re.compile(f"({_KEY})={_VALUE}")

_propagator = TraceContextTextMapPropagator()
_sent: ContextVar[Span | None] = ContextVar("commlib_sent", default=None)
"""The span of the message that is being published."""


def context_of(header: Header) -> Context:
    """The trace that a message belongs to; empty if that is none, or garbage."""
    parent, state = header.traceparent, header.tracestate
    if not parent or len(parent) > LONGEST:
        return Context()
    carrier = {"traceparent": parent}
    if state and (members := _members(state)):
        carrier["tracestate"] = ",".join(members)
    return _propagator.extract(carrier, Context())


def _members(state: str) -> list[str]:
    """What is in a ``tracestate``; nothing if it is garbage."""
    # Looked at here, for OpenTelemetry logs a warning for each that it cannot read.
    if len(state) > LONGEST:
        return []
    members = [found for member in state.split(",") if (found := member.strip(" \t"))]
    is_good = len(members) <= MAX_MEMBERS and all(map(_MEMBER.fullmatch, members))
    return members if is_good else []


def carried() -> dict[str, str]:
    """The current trace as a header has it; nothing if there is none."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier


def stamp(header: Header, carrier: dict[str, str]) -> None:
    """Put a trace into a header."""
    header.traceparent = carrier.get("traceparent", "")
    header.tracestate = carrier.get("tracestate", "")


def message_id(header: Header) -> str:
    """By which a message is known; empty if it has no number."""
    return f"{header.origin}:{header.seq}" if header.origin and header.seq >= 0 else ""


@contextmanager
def sending(span: Span) -> Iterator[None]:
    """``active`` for a message that is published; ``note_sent`` is told which one it is."""
    token = _sent.set(span)
    try:
        with active(span):
            yield
    finally:
        _sent.reset(token)


def note_sent(header: Header) -> None:
    """Say in the span of the message that is being published which one it is."""
    span = _sent.get()
    if span is not None and (found := message_id(header)):
        span.set_attribute("messaging.message.id", found)


@contextmanager
def within(context: Context | None) -> Iterator[None]:
    """Make a context the current one; None leaves it as it is."""
    if context is None:
        yield
        return
    token = attach(context)
    try:
        yield
    finally:
        detach(token)


@contextmanager
def active(span: Span, context: Context | None = None) -> Iterator[Span]:
    """Make a span the current one, note what is raised in it, and end it."""
    try:
        with within(set_span_in_context(span, context)):
            yield span
    except BaseException as exc:
        fail(span, exc)
        raise
    finally:
        span.end()


def fail(span: Span, error: BaseException) -> None:
    """Note an error. The texts of a program's own may not be made; that raises nothing here."""
    if not span.is_recording():
        return
    kind = error.type if isinstance(error, RPCRemoteError) else type(error).__qualname__
    text = text_of(error)
    event = {
        "exception.type": type(error).__qualname__,
        "exception.message": text,
        "exception.stacktrace": "".join(traceback.format_exception(error)),
    }
    span.add_event("exception", event)
    fail_with(span, kind, text)


def fail_with(span: Span, kind: str, text: str) -> None:
    """Say that it has failed."""
    span.set_attribute("error.type", kind or "_OTHER")
    span.set_status(Status(StatusCode.ERROR, text))


def _place(params: BaseParameters) -> dict[str, Any]:
    """Where a broker is; nothing of how one gets in."""
    if isinstance(params, NetworkParameters):
        return {"server.address": params.host, "server.port": params.port}
    return {}


class Spans:
    """Begins the spans of the endpoints of one node."""

    def __init__(self, provider: TracerProvider | None, link: bool, node_name: str) -> None:
        self._tracer = get_tracer("commlib", __version__, provider)
        self._link = link
        self._node_name = node_name

    def _begin(
        self,
        name: str,
        kind: SpanKind,
        attributes: dict[str, Any],
        parent: Context | None = None,
        links: Sequence[Link] = (),
    ) -> Span:
        span = self._tracer.start_span(name, parent, kind, attributes, links)
        if span.get_span_context().is_valid:
            return span
        # There is no SDK: a trace that has come goes on all the same.
        return NonRecordingSpan(get_current_span(parent).get_span_context())

    def sending(self, endpoint: Endpoint, topic: str) -> Span:
        """A message is published."""
        attributes = self._messaging(endpoint, "send", topic)
        return self._begin(f"send {topic}", SpanKind.PRODUCER, attributes)

    def processing(
        self, endpoint: Endpoint, topic: str, header: Header, *, verb: str = "process"
    ) -> tuple[Span, Context]:
        """A message was received; the span, and the context that it is in."""
        attributes = self._messaging(endpoint, verb, topic)
        if found := message_id(header):
            attributes["messaging.message.id"] = found
        known = getattr(endpoint, "topic", topic)
        if is_pattern(known):
            attributes["messaging.destination.template"] = known
        parent, links = context_of(header), []
        sender = get_current_span(parent).get_span_context()
        if self._link:
            links = [Link(sender)] if sender.is_valid else []
            parent = Context()
        kind = SpanKind.CONSUMER if verb == "process" else SpanKind.CLIENT
        return self._begin(f"{verb} {known}", kind, attributes, parent, links), parent

    def calling(self, endpoint: Endpoint, name: str) -> Span:
        """Somebody is called, or asked to pursue a goal."""
        return self._begin(name, SpanKind.CLIENT, self._rpc(endpoint, name))

    def serving(self, endpoint: Endpoint, name: str, parent: Context) -> Span:
        """A request is handled, or a goal pursued."""
        return self._begin(name, SpanKind.SERVER, self._rpc(endpoint, name), parent)

    def bridging(self, endpoint: Endpoint, parent: Context) -> Span:
        """A message is passed on."""
        attributes = {**self._common(endpoint), "commlib.bridge": endpoint.name}
        return self._begin(f"bridge {endpoint.name}", SpanKind.INTERNAL, attributes, parent)

    def _common(self, endpoint: Endpoint) -> dict[str, Any]:
        scheme = endpoint.hub.params.schemes[0]
        known: dict[str, Any] = {"messaging.system": SYSTEMS.get(scheme, scheme)}
        if self._node_name:
            known["commlib.node"] = self._node_name
        return {**known, **_place(endpoint.hub.params)}

    def _messaging(self, endpoint: Endpoint, verb: str, topic: str) -> dict[str, Any]:
        return {
            **self._common(endpoint),
            "messaging.operation.name": verb,
            "messaging.operation.type": verb,
            "messaging.destination.name": topic,
        }

    def _rpc(self, endpoint: Endpoint, name: str) -> dict[str, Any]:
        return {
            **self._common(endpoint),
            "messaging.destination.name": name,
            "rpc.system": "commlib",
            "rpc.method": name,
        }
