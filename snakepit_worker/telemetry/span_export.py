"""Sending spans to a collector over OTLP/HTTP, or to stderr for a look.

Imports OpenTelemetry's SDK, so it is itself imported only where that is asked for.
"""

from __future__ import annotations

import os
import sys
import uuid
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
)

from snakepit_worker.telemetry.tracing import OTLP_VARIABLES

if TYPE_CHECKING:
    from snakepit_worker.settings import Settings

__all__ = ["provider"]

_TRACES_PATH: Final = "/v1/traces"
"""Where collectors take spans (the OTLP/HTTP specification)."""


def provider(settings: Settings) -> TracerProvider:
    """A provider that exports as the settings say, made the global one.

    Spans wait in a queue of bounded length (``OTEL_BSP_MAX_QUEUE_SIZE``, 2,048 by default), from
    which a thread of the SDK sends them; beyond it they are dropped.

    Args:
        settings: Where spans go, and how this worker is called there.
    """
    resource = Resource.create(
        {
            "service.name": settings.service_name,
            "service.namespace": "snakepit",
            "service.instance.id": settings.instance_id or uuid.uuid4().hex,
        }
    )
    made = TracerProvider(resource=resource, shutdown_on_exit=False)  # the worker shuts it down
    if settings.otel_endpoint or any(os.environ.get(name) for name in OTLP_VARIABLES):
        exporter = OTLPSpanExporter(endpoint=_traces_url(settings.otel_endpoint))
        made.add_span_processor(BatchSpanProcessor(exporter))
    if settings.otel_console:
        # Never stdout: the host reads it.
        made.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=sys.stderr)))
    trace.set_tracer_provider(made)  # so that frameworks and adapters join in
    return made


def _traces_url(endpoint: str | None) -> str | None:
    """The URL to send to; ``None`` leaves the choice to OpenTelemetry's own variables."""
    if endpoint is None or urlsplit(endpoint).path not in {"", "/"}:
        return endpoint
    return endpoint.rstrip("/") + _TRACES_PATH
