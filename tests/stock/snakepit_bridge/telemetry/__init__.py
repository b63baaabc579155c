"""The helper through which adapters emit events and find their correlation id."""

from __future__ import annotations

import time
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CORRELATION_HEADER = "x-snakepit-correlation-id"
_backend: Any = None
_correlation_id: ContextVar[str | None] = ContextVar("stock_correlation_id", default=None)


def set_backend(backend: Any) -> None:
    global _backend  # noqa: PLW0603 - the interface
    _backend = backend


def get_backend() -> Any:
    return _backend


def is_enabled() -> bool:
    return _backend is not None


def emit(
    event: str,
    measurements: Mapping[str, Any],
    metadata: Mapping[str, Any] | None = None,
    correlation_id: str | None = None,
) -> None:
    if _backend is not None:
        _backend.emit(event, measurements, metadata, correlation_id)


@contextmanager
def span(
    operation: str, metadata: Mapping[str, Any] | None = None, correlation_id: str | None = None
) -> Iterator[None]:
    begun = time.perf_counter_ns()
    facts = dict(metadata or {})
    emit(f"{operation}.start", {"system_time": time.time_ns()}, facts, correlation_id)
    try:
        yield
    except Exception as error:
        took = {"duration": time.perf_counter_ns() - begun}
        facts |= {"error_type": type(error).__name__, "error_message": str(error)}
        emit(f"{operation}.exception", took, facts, correlation_id)
        raise
    emit(f"{operation}.stop", {"duration": time.perf_counter_ns() - begun}, facts, correlation_id)


def new_correlation_id() -> str:
    return uuid4().hex


def set_correlation_id(value: str | None) -> Token[str | None]:
    return _correlation_id.set(value)


def reset_correlation_id(token: Token[str | None]) -> None:
    _correlation_id.reset(token)


def get_correlation_id(default: str | None = None) -> str | None:
    return _correlation_id.get() or default


def outgoing_metadata(initial: Any = None) -> list[tuple[str, str]]:
    current = _correlation_id.get()
    return [*(initial or ()), *([(CORRELATION_HEADER, current)] if current else [])]
