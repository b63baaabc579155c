"""Whether this worker makes OpenTelemetry spans, and where they go.

Nothing of OpenTelemetry is imported unless spans are asked for: by this worker's own settings, by
the standard variables, or by an adapter that has set a tracer provider.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from snakepit_worker.telemetry.logging import logger

if TYPE_CHECKING:
    from snakepit_worker.settings import Settings
    from snakepit_worker.telemetry.spans import Spans

__all__ = ["OTLP_VARIABLES", "Tracing"]

OTLP_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""OpenTelemetry's own variables that name a receiver."""


class Tracing:
    """The spans of one worker, and what has to be closed.

    Args:
        settings: Where spans go, if anywhere.
    """

    def __init__(self, settings: Settings) -> None:
        self.spans: Spans | None = None
        self._own_provider: Any = None
        if _is_wanted(settings):
            self._export(settings)
        elif (provider := _foreign_provider()) is not None:
            self._use(provider)

    def close(self, timeout: float) -> None:
        """Send what is left; what no receiver takes in time is lost.

        Args:
            timeout: Seconds to wait.
        """
        if self._own_provider is None:
            return
        # A receiver that does not answer is waited for longer than a shutdown may last.
        closing = threading.Thread(
            target=self._own_provider.shutdown, name="close-spans", daemon=True
        )
        closing.start()
        closing.join(timeout)
        if closing.is_alive():
            logger().warning("spans were not taken in time, some are lost", seconds=timeout)

    def _export(self, settings: Settings) -> None:
        try:
            export = importlib.import_module("snakepit_worker.telemetry.span_export")
        except ImportError as error:
            logger().warning(
                "spans are asked for and OpenTelemetry is not installed; "
                "pip install 'snakepit-worker[otel]'",
                cause=str(error),
            )
            return
        self._own_provider = export.provider(settings)
        self._use(self._own_provider)

    def _use(self, provider: Any) -> None:  # noqa: ANN401 - a type of an optional package
        spans = importlib.import_module("snakepit_worker.telemetry.spans")
        self.spans = spans.Spans(provider)


def _is_wanted(settings: Settings) -> bool:
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return False
    named = settings.otel_endpoint or any(os.environ.get(name) for name in OTLP_VARIABLES)
    return bool(named) or settings.otel_console


def _foreign_provider() -> Any:  # noqa: ANN401 - as Tracing._use
    """The provider that somebody else in this process has set, if any."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    provider = trace.get_tracer_provider()
    stand_ins = (trace.ProxyTracerProvider, trace.NoOpTracerProvider)
    return None if isinstance(provider, stand_ins) else provider
