"""Exceptions as the host reads them.

A unary failure is the JSON object that the host translates (``type``, ``message``,
``stacktrace``, ``traceback``, ``context``) with keys of our own added.  The added keys stand once
more under ``context["error"]``, because the host's exception structs keep ``context`` and drop
keys that they do not know.  A stream ends with a gRPC status whose message is the same object
without what would not fit.
"""

from __future__ import annotations

import traceback
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from snakepit_worker.errors import Category, Code, Violation, WorkerError
from snakepit_worker.wire.json_text import dumps
from snakepit_worker.wire.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CallSite", "Failure", "describe"]

STATUS_MESSAGE_LIMIT: Final = 4096
"""Bytes of a stream's status message after percent-encoding.  gRPC-core peers drop a status whose
trailers pass 8 KiB (interop 4.7); half of that leaves room for encoded details."""

_MESSAGE_LIMIT: Final = 16_384
_NAME_LIMIT: Final = 512
_VIOLATIONS: Final = 50
_ID_LIMIT: Final = 128
_LINE_LIMIT: Final = 4_096
_TRACEBACK_FRAMES: Final = 50
_CAUSES: Final = 5
_CALL_SITE_KEYS: Final = ("library", "python_module", "function", "call_type", "payload_version")


@dataclass(frozen=True, slots=True)
class CallSite:
    """Which call failed.

    Attributes:
        tool: Name that the caller used.
        session_id: Session of the request.
        correlation_id: Id that joins the log lines of both sides.
        arguments: The decoded arguments, of which only a few telling ones are shown.
    """

    tool: str
    session_id: str
    correlation_id: str = ""
    arguments: Mapping[str, object] = field(default_factory=dict)

    def context(self) -> dict[str, object]:
        """The ``context`` object of the host's format."""
        context: dict[str, object] = {
            "tool_name": self.tool[:_NAME_LIMIT],
            "session_id": self.session_id[:_NAME_LIMIT],
        }
        for key in _CALL_SITE_KEYS:
            value = self.arguments.get(key)
            if isinstance(value, str):
                context[key] = value[:_NAME_LIMIT]
            elif isinstance(value, int):
                context[key] = value
        return context


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception, taken apart into plain data.

    Attributes:
        type: Python class name; eleven builtin names become structs of their own in Elixir.
        message: What went wrong, secrets removed.
        code: gRPC status name.
        category: Kind of failure.
        retryable: Whether trying again may help.
        stacktrace: The formatted traceback in lines.
        site: The call that failed.
        retry_after: Seconds to wait before trying again, where known.
        violations: Arguments that are wrong.
        details: Facts for programs.
        help: What to do about it.
        cause: The chain of causes, nearest first, as ``{"type", "message"}`` objects.
        error_id: Joins this reply to its log line.
        classified: Whether anybody (the runtime or the adapter) knew this exception.
    """

    type: str
    message: str
    code: Code
    category: Category
    retryable: bool
    stacktrace: tuple[str, ...]
    site: CallSite
    retry_after: float | None
    violations: tuple[Violation, ...]
    details: Mapping[str, object]
    help: str | None
    cause: tuple[Mapping[str, str], ...]
    error_id: str
    classified: bool

    def to_json(self) -> str:
        """The host's error object for ``error_message``."""
        facts = self._facts()
        return dumps(
            {
                "type": self.type,
                "message": self.message,
                "stacktrace": self.stacktrace,
                "traceback": "".join(self.stacktrace),
                "context": {**self.site.context(), "error": facts},
                **facts,
            }
        )

    def status_message(self) -> str:
        """The same as one status message of a stream: parseable, and at most 4 KiB encoded.

        What does not fit is left out in a fixed order: traceback, causes, details, violations, and
        at last the end of the message.
        """
        facts = self._facts()
        base = {"type": self.type, "message": self.message}
        whole = {**base, "context": self.site.context(), "stacktrace": self.stacktrace, **facts}
        for drop in (None, "stacktrace", "cause", "details", "help", "violations", "context"):
            whole.pop(drop or "", None)
            text = dumps(whole)
            if _encoded_length(text) <= STATUS_MESSAGE_LIMIT:
                return text
        message = self.message
        while True:
            message = message[: len(message) // 2]
            text = dumps({**whole, "type": self.type[:200], "message": f"{message}…"})
            if _encoded_length(text) <= STATUS_MESSAGE_LIMIT or not message:
                return text

    def _facts(self) -> dict[str, object]:
        facts: dict[str, object] = {
            "code": self.code,
            "category": self.category,
            "retryable": self.retryable,
            "error_id": self.error_id,
            "correlation_id": self.site.correlation_id[:_ID_LIMIT],
        }
        if self.retry_after is not None:
            facts["retry_after_ms"] = round(self.retry_after * 1000)
        if self.violations:
            facts["violations"] = [
                {
                    "field": violation.field[:_NAME_LIMIT],
                    "description": redact(violation.description[:_LINE_LIMIT]),
                }
                for violation in self.violations[:_VIOLATIONS]
            ]
        if self.details:
            facts["details"] = {
                key: value[:_LINE_LIMIT] if isinstance(value, str) else value
                for key, value in self.details.items()
            }
        if self.help:
            facts["help"] = self.help
        if self.cause:
            facts["cause"] = self.cause
        return facts


def describe(
    error: BaseException, site: CallSite, classification: WorkerError | None = None
) -> Failure:
    """Take an exception apart.  Never raises.

    Args:
        error: What a tool, or the way to it, raised.
        site: The call.
        classification: What the adapter says about an exception of its framework.  Its facts and
            its text are used; the class name stays that of ``error``.
    """
    known = error if isinstance(error, WorkerError) else classification
    facts = known or WorkerError("")
    return Failure(
        type=error.elixir_name if isinstance(error, WorkerError) else type(error).__name__,
        message=_message(facts) or _message(error),
        code=facts.code,
        category=facts.category,
        retryable=facts.retryable,
        stacktrace=_stacktrace(error),
        site=site,
        retry_after=facts.retry_after,
        violations=facts.violations,
        details=facts.details,
        help=facts.help,
        cause=_causes(error),
        error_id=uuid.uuid4().hex,
        classified=known is not None,
    )


def _message(error: BaseException) -> str:
    """The text without secrets, which go before it is cut: half of one is still one."""
    return redact(_text(error)[: 2 * _MESSAGE_LIMIT])[:_MESSAGE_LIMIT]


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # noqa: BLE001 - an exception without a readable text is still a failure
        return f"<{type(error).__name__} whose text cannot be read>"


def _stacktrace(error: BaseException) -> tuple[str, ...]:
    try:
        lines = traceback.format_exception(error, limit=-_TRACEBACK_FRAMES)
    except BaseException:  # noqa: BLE001 - formatting calls str() and repr() of foreign objects
        lines = [*traceback.format_tb(error.__traceback__, limit=-_TRACEBACK_FRAMES), _text(error)]
    return tuple(redact(line[:_LINE_LIMIT]) for line in lines)


def _causes(error: BaseException) -> tuple[Mapping[str, str], ...]:
    causes: list[Mapping[str, str]] = []
    seen = {id(error)}
    current = error
    while len(causes) < _CAUSES:
        following = current.__cause__ or (
            None if current.__suppress_context__ else current.__context__
        )
        if following is None or id(following) in seen:
            break
        seen.add(id(following))
        causes.append({"type": type(following).__name__, "message": _message(following)})
        current = following
    return tuple(causes)


def _encoded_length(text: str) -> int:
    """Length after the percent-encoding of gRPC status messages."""
    data = text.encode()
    return sum(1 if 0x20 <= byte <= 0x7E and byte != 0x25 else 3 for byte in data)  # noqa: PLR2004
