"""What a test sees of the traces of its nodes."""

from __future__ import annotations

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler
from opentelemetry.trace import Span, SpanKind, Tracer

from collected import eventually
from commlib.tracing import Tracing


class Traces:
    """A provider of its own, so that no other test is traced, and the spans that have ended."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(self.provider)
        self.tracer: Tracer = self.provider.get_tracer("the program")

    @property
    def all(self) -> list[ReadableSpan]:
        """Those that have ended so far."""
        return list(self._exporter.get_finished_spans())

    @property
    def names(self) -> list[str]:
        """Their names, in the order in which they have ended."""
        return [span.name for span in self.all]

    def span(self, name: str, kind: SpanKind | None = None) -> ReadableSpan:
        """The one span of this name and kind, as soon as it has ended."""
        eventually(lambda: bool(self._found(name, kind)), lambda: (name, kind, self.names))
        (found,) = self._found(name, kind)
        return found

    def _found(self, name: str, kind: SpanKind | None) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name and kind in (None, span.kind)]


def is_child(child: ReadableSpan, parent: ReadableSpan | Span) -> bool:
    """Whether a span is in the same trace as another one, directly below it."""
    above = parent.get_span_context()
    assert above is not None
    below = child.get_span_context()
    assert below is not None
    return (
        child.parent is not None
        and child.parent.span_id == above.span_id
        and below.trace_id == above.trace_id
    )


def attributes(span: ReadableSpan) -> dict[str, object]:
    """What is said of a span."""
    return dict(span.attributes or {})


def events(span: ReadableSpan) -> list[str]:
    """What has happened in a span."""
    return [event.name for event in span.events]
