"""OpenTelemetry spans: one for each call that the worker serves, one for each that it makes.

Imports OpenTelemetry, so it is itself imported only where a tracer is configured.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from opentelemetry import context as current
from opentelemetry import propagate, trace
from opentelemetry.trace import SpanKind, StatusCode

from snakepit_worker.wire.json_text import valid_text
from snakepit_worker.wire.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.trace import Span, TracerProvider

    from snakepit_worker.wire.convention import Headers
    from snakepit_worker.wire.failures import Failure

__all__ = ["Spans"]

_TRACER: Final = "snakepit_worker"


class Spans:
    """Makes spans, on any thread.

    Args:
        provider: Where they go.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer(_TRACER)

    def begin(self, name: str, facts: Mapping[str, str], headers: Mapping[str, str]) -> Span:
        """Begin the span of a call that is served here, the current one in this context from now.

        Args:
            name: Of the span.
            facts: Its attributes.
            headers: What came with the call; a ``traceparent`` makes the span a part of its trace,
                and without one the call that this code serves does.
        """
        parent = propagate.extract(headers, current.get_current())
        attributes = {f"snakepit.{key}": redact(fact) for key, fact in facts.items()}
        span = self._tracer.start_span(name, parent, SpanKind.SERVER, attributes)
        current.attach(trace.set_span_in_context(span, parent))  # each RPC has its own context
        return span

    @staticmethod
    def end(span: Span, failure: Failure | None, *, cancelled: bool) -> None:
        """End the span of a call.

        Args:
            span: What ``begin`` gave.
            failure: What the caller was told, where the call failed.
            cancelled: Whether the caller did not wait for the end.
        """
        if failure is not None:
            span.set_attribute("error.type", failure.type)
            span.set_attribute("snakepit.error.code", failure.code)
            span.set_attribute("snakepit.error.id", failure.error_id)
            span.set_status(StatusCode.ERROR, failure.message)
        elif cancelled:
            span.set_status(StatusCode.ERROR, "cancelled")
        span.end()

    @staticmethod
    def present() -> dict[str, str]:
        """Headers that make a span a part of the trace of what this code serves."""
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return carrier

    @contextmanager
    def outgoing(self, name: str) -> Iterator[Headers]:
        """A span around a call to the host; gives the headers that carry the trace there.

        Args:
            name: Of the span.
        """
        with self._tracer.start_as_current_span(
            name,
            kind=SpanKind.CLIENT,
            record_exception=False,  # it would send the text and the traceback as they are
            set_status_on_exception=False,
        ) as span:
            try:
                yield tuple(self.present().items())
            except Exception as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(StatusCode.ERROR, redact(valid_text(error)))
                raise
