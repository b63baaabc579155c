"""Logging: structlog lines on stderr, readable on a terminal and JSON otherwise.

Every line that is written during a call carries the call's session, tool and correlation id.
Lines of the standard library's ``logging`` take the same way.  In a program that embeds a worker
nothing is configured: there the lines go to the standard library's logger ``snakepit_worker``.
"""

from __future__ import annotations

import logging
import os
import sys
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from snakepit_worker.telemetry.listening import tell
from snakepit_worker.wire.json_text import dumps, valid_text
from snakepit_worker.wire.redaction import REDACTED, is_secret, redact, redact_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping

    from structlog.typing import FilteringBoundLogger, Processor

    from snakepit_worker.settings import LogLevel
    from snakepit_worker.telemetry.writer import StderrWriter

__all__ = ["call_fields", "configure", "is_of_a_peer", "logger"]

call_fields: ContextVar[Mapping[str, str] | None] = ContextVar("call_fields", default=None)
"""Fields of the current call; the dispatcher sets them, every log line carries them."""

_LEVELS: Final[Mapping[LogLevel, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "none": logging.CRITICAL + 1,
}
_KNOWN_LEVELS: Final = (10, 20, 30, 40, 50)
"""Those that structlog knows; frameworks have some of their own in between."""
_GRPC: Final = "grpc"
_OF_PEERS: Final = ("grpc.", "google.protobuf.")
"""Where the exceptions are defined that a peer can provoke: a reply that comes too late or is too
large for it, bytes that are no message."""
_FORMATTER: Final = logging.Formatter()
_current: FilteringBoundLogger | None = None


def logger() -> FilteringBoundLogger:
    """The logger of this process."""
    global _current  # noqa: PLW0603 - one per process, like the standard library's root logger
    if _current is None:
        _current = _build()
    return _current


def configure(level: LogLevel, writer: StderrWriter, *, terminal: bool) -> None:
    """Send all log lines of this process to ``writer``.

    Args:
        level: The lowest level that is written; ``none`` writes nothing.
        writer: Takes the lines without blocking.
        terminal: Whether a person reads them; otherwise each line is a JSON object.
    """
    global _current, _build
    threshold = _LEVELS[level]
    # Built with the first line, which a quiet worker writes only after it is ready.
    _current, _build = None, partial(_for_process, threshold, writer, terminal=terminal)
    root = logging.getLogger()
    # Frameworks report their progress at info; only a developer wants that.
    lowest = threshold if level == "debug" else max(threshold, logging.WARNING)
    root.handlers[:] = [_Handler(lowest)]  # whoever listens to a call lowers the logger's level
    root.setLevel(lowest)
    logging.getLogger("grpc").setLevel(max(threshold, logging.WARNING))  # floods at debug
    logging.captureWarnings(capture=True)


def is_of_a_peer(record: logging.LogRecord) -> bool:
    """Whether gRPC says something about a peer, with a traceback through itself.

    Args:
        record: Of any logger.
    """
    if record.name.partition(".")[0] != _GRPC or not record.exc_info:
        return False
    kind = record.exc_info[0]
    return kind is not None and kind.__module__.startswith(_OF_PEERS)


def _for_process(threshold: int, writer: StderrWriter, *, terminal: bool) -> FilteringBoundLogger:
    structlog = _import_structlog()
    renderer: Processor
    if terminal:
        renderer = structlog.dev.ConsoleRenderer(
            colors=not os.environ.get("NO_COLOR"),  # no-color.org
            sort_keys=False,
            exception_formatter=structlog.dev.plain_traceback,
        )
    else:
        renderer = structlog.processors.JSONRenderer(_dumps)
    bound: FilteringBoundLogger = structlog.wrap_logger(
        _Sink(writer),
        processors=[
            _add_call_fields,
            structlog.processors.format_exc_info,
            _redact_fields,
            _tell_listener,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(min(threshold, logging.CRITICAL)),
    ).bind()
    return bound


class _Sink:
    """What structlog calls with the finished line."""

    def __init__(self, writer: StderrWriter) -> None:
        self._writer = writer

    def msg(self, message: str) -> None:
        self._writer.write(message + "\n")

    debug = info = warning = error = exception = critical = msg


class _Handler(logging.Handler):
    """Lines of the standard library's loggers, on the same way as ours."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - a bad format string of a framework is not our failure
            message = str(record.msg)
        known = (level for level in _KNOWN_LEVELS if level <= record.levelno)
        level = max(known, default=logging.DEBUG)
        if is_of_a_peer(record):
            kind, error, _ = record.exc_info or (Exception, None, None)
            reason = f"{getattr(kind, '__name__', kind)}: {error}"
            logger().warning(" ".join(message.splitlines()), logger=record.name, reason=reason)
            return
        logger().log(level, message, logger=record.name, exc_info=record.exc_info or None)


def _add_call_fields(
    _logger: Any,  # noqa: ANN401 - structlog's processor signature
    _method: str,
    event: MutableMapping[str, Any],
) -> MutableMapping[str, Any]:
    fields = call_fields.get()
    if fields:
        for key, value in fields.items():
            event.setdefault(key, value)
    return event


def _redact_fields(
    _logger: Any,  # noqa: ANN401 - structlog's processor signature
    _method: str,
    event: MutableMapping[str, Any],
) -> MutableMapping[str, Any]:
    """Before rendering: a pattern that fits across two fields would break the line."""
    for key, value in event.items():
        if is_secret(key):
            event[key] = REDACTED
        elif isinstance(value, str):
            event[key] = valid_text(redact(value))
        elif key != "exc_info":  # of a program that embeds a worker; see _redact_exception
            event[key] = redact_value(value)
    return event


def _tell_listener(
    _logger: Any,  # noqa: ANN401 - structlog's processor signature
    method: str,
    event: MutableMapping[str, Any],
) -> MutableMapping[str, Any]:
    if "logger" not in event:  # lines of other loggers are heard where they come in
        level = logging.getLevelNamesMapping().get(method.upper(), logging.ERROR)
        tell(level, "snakepit_worker", event["event"])
    return event


def _redact_exception(record: logging.LogRecord) -> bool:
    """Before any handler formats it: formatters take the text that they find."""
    if record.exc_info and not record.exc_text:
        record.exc_text = redact(_FORMATTER.formatException(record.exc_info))
    return True


def _dumps(event: object, **_: object) -> str:
    return dumps(event)


def _embedded() -> FilteringBoundLogger:
    import structlog  # noqa: PLC0415 - costs 50 ms; see _import_structlog

    ours = logging.getLogger("snakepit_worker")
    # Without any handler Python prints warnings to the stderr of a program that asked for none.
    ours.addHandler(logging.NullHandler())
    ours.addFilter(_redact_exception)
    bound: FilteringBoundLogger = structlog.wrap_logger(
        ours,
        processors=[_add_call_fields, _redact_fields, structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
    ).bind()
    return bound


def _import_structlog() -> Any:  # noqa: ANN401 - a module
    """Import structlog without rich, which it would load (100 ms) and we never use."""
    hide = "rich" not in sys.modules
    if hide:
        sys.modules["rich"] = None  # type: ignore[assignment]  # makes "import rich" fail
    try:
        import structlog  # noqa: PLC0415
    finally:
        if hide:
            del sys.modules["rich"]
    return structlog


_build: Callable[[], FilteringBoundLogger] = _embedded
