"""Snakepit's own telemetry helper, connected to this worker.

Adapters may call ``snakepit_bridge.telemetry``.  Where that package can be imported, what they
emit goes into the worker's events, and they find the correlation id of their call there.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from snakepit_worker.telemetry.events import Events

__all__ = ["connect"]

_MODULE = "snakepit_bridge.telemetry"


def connect(events: Events) -> Callable[[str], object]:
    """Take over the sink of Snakepit's helper, if it is installed.

    Args:
        events: Where events go.

    Returns:
        A function that sets the correlation id which the helper gives out, for the current
        context; it does nothing where the helper is not installed.
    """
    try:
        helper = importlib.import_module(_MODULE)
    except ImportError:
        return _nothing
    helper.set_backend(_Sink(events, helper.get_correlation_id))
    set_correlation_id: Callable[[str], object] = helper.set_correlation_id
    return set_correlation_id


class _Sink:
    """A backend of Snakepit's helper, which itself leaves out the id of the current call.

    Args:
        events: Where events go.
        current: The correlation id of the call that emits.
    """

    def __init__(self, events: Events, current: Callable[[], str | None]) -> None:
        self._events = events
        self._current = current

    def emit(
        self,
        event_name: str,
        measurements: Mapping[str, object],
        metadata: Mapping[str, object] | None = None,
        correlation_id: str | None = None,
    ) -> None:
        """Pass an event on."""
        correlation_id = correlation_id or self._current() or ""
        self._events.emit(event_name, measurements, metadata, correlation_id)


def _nothing(_: str) -> None:
    """There is no helper to tell."""
