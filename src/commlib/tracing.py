"""Traces of what messages bring about, by OpenTelemetry: ``pip install "commlib-py[otel]"``.

A message takes the trace along that it was sent in, as the keys ``traceparent`` and ``tracestate``
of its header (W3C Trace Context), and whoever receives it goes on with that trace::

    Node("robot", tracing=True)     # one node
    tracing.instrument()            # or all nodes that are made from now on
    tracing.trace(publisher)        # or an endpoint that has no node

Nothing is traced unless it is asked for, and then nothing is to be paid for it: the endpoints that
are traced are changed one by one when they are made. Without the OpenTelemetry SDK, or before it is
set up, no span is made, but what comes with a trace is still passed on.

The spans, after OpenTelemetry's conventions for messaging and RPC:

* ``send <topic>`` (PRODUCER): a message is published. What it is sent in is its parent.
* ``process <topic>`` (CONSUMER): the callback of a subscriber, on whatever thread, or as a
  coroutine. ``<topic>`` is the pattern where one was subscribed.
* ``receive <topic>`` (CLIENT): a message that ``async for`` brings; it ends at once, and what the
  body of the loop does is not below it.
* ``<service>`` (CLIENT and SERVER): a call, until its response or error is here, and the handler.
* ``<action>`` (CLIENT and SERVER): a goal, until its end is known, and ``on_goal``. Feedback and
  the wish to cancel it are events of both.
* ``bridge <from> -> <to>`` (INTERNAL): a bridge passes a message on that belongs to a trace. It
  leaves the trace in the header as it is, traced or not; compressed envelopes it does not open.

While a callback runs its span is the current one: what it publishes, calls or pursues are its
children, and so are spans of the program's own. ``on_response`` of a call, and ``on_feedback``,
``on_result`` and ``on_goal_reached`` of a goal, run in the span of that call or goal.

Heartbeats, control services, the remote log and discovery are not traced. Bare messages
(``envelope=False``) have no header that could take a trace along, but on AMQP and MQTT 5.
Signatures do not cover it: who may write to a broker may say to which trace a message belongs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from commlib.aio._endpoint import Endpoint
from commlib.aio._ports import Ports

try:
    from commlib._spans import Spans
    from commlib._traced import trace_endpoint
except ModuleNotFoundError as exc:
    if exc.name is None or not exc.name.startswith("opentelemetry"):
        raise
    from commlib.exceptions import MissingDriver

    raise MissingDriver('opentelemetry is missing: pip install "commlib-py[otel]"') from exc

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.trace import TracerProvider

    from commlib import _face, aio

__all__ = ["Tracing", "instrument", "trace", "uninstrument"]

E = TypeVar("E", bound="_face.Endpoint[Any] | aio.Endpoint")


@dataclass(frozen=True)
class Tracing:
    """How to trace.

    ``tracer_provider``: where spans go; None: OpenTelemetry's global one, also if the program sets
    that later. ``link``: the callback of a subscriber begins a trace of its own, with a link to the
    span in which the message was published, instead of going on with that one; for topics with so
    many readers that their traces could not be looked at any more. Calls and goals are never split.
    """

    tracer_provider: TracerProvider | None = None
    link: bool = False

    @classmethod
    def of(cls, tracing: bool | Tracing) -> Tracing:
        """What is meant by the option of a node. Raises TypeError for what is no such option."""
        if tracing is True:
            return Ports.tracing or cls()
        if not isinstance(tracing, Tracing):
            raise TypeError(f"tracing={tracing!r}: it is a bool or a Tracing of commlib.tracing")
        return tracing

    def tracer(self, node_name: str = "") -> Callable[[aio.Endpoint], None]:
        """What traces the endpoints of a node."""
        spans = Spans(self.tracer_provider, self.link, node_name)
        return lambda endpoint: trace_endpoint(endpoint, spans)


def instrument(tracing: Tracing = Tracing()) -> None:
    """Trace all nodes that are made from now on, but those with ``tracing=False``.

    Raises TypeError for what is no Tracing.
    """
    if not isinstance(tracing, Tracing):
        raise TypeError(f"tracing={tracing!r}: it is a Tracing of commlib.tracing")
    Ports.tracing = tracing


def uninstrument() -> None:
    """Trace no nodes that are made from now on, but those with ``tracing=True``."""
    Ports.tracing = None


def trace(endpoint: E, tracing: Tracing = Tracing()) -> E:
    """Trace an endpoint that has no node, of either face, and return it; idempotent.

    Before it runs: raises ValueError for a subscriber, service or bridge that does already, and
    TypeError for what is no endpoint.
    """
    either: Any = endpoint
    core: aio.Endpoint = getattr(either, "core", either)
    if not isinstance(core, Endpoint):
        raise TypeError(f"{endpoint!r} is no endpoint; a node is traced by tracing=True")
    tracing.tracer()(core)
    return endpoint
