"""Exceptions as plain data, and as the JSON object that the host reads.

The object is the host's own (``type``, ``message``, ``stacktrace``, ``traceback``, ``context``)
with keys of ours added.  The added keys stand once more under ``context["error"]``, because the
host's exception structs keep ``context`` and drop keys that they do not know.
"""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Final, get_args

from snakepit_worker.errors import Category, Code, ElixirToolError, Violation, WorkerError
from snakepit_worker.wire.exceptions import links, notes_of, text_of
from snakepit_worker.wire.json_text import dumps
from snakepit_worker.wire.numeric import with_remark
from snakepit_worker.wire.redaction import redact, redact_value
from snakepit_worker.wire.tracebacks import traceback_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from snakepit_worker.wire.tracebacks import Frames

__all__ = [
    "MOST_CAUSES",
    "MOST_EXCEPTIONS",
    "MOST_VIOLATIONS",
    "CallSite",
    "Failure",
    "describe",
]

MOST_VIOLATIONS: Final = 50
MOST_CAUSES: Final = 5
MOST_EXCEPTIONS: Final = 10
"""Of an exception group."""

_NAME_LIMIT: Final = 512
_ID_LIMIT: Final = 128
_LINE_LIMIT: Final = 4_096
_LONGEST_WAIT: Final = 86_400.0
"""Seconds of a retry delay; who asks for more than a day will not be waited for."""
_CODES: Final = frozenset(get_args(Code))
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
                context[key] = redact(value, _NAME_LIMIT)
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
        cause: The chain of causes, nearest first, each with ``type`` and ``message``, and with
            more where it is a failure of ours or an Elixir tool's.
        exceptions: Those of an exception group, each with ``type`` and ``message``.
        notes: What was added to the exception on its way.
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
    exceptions: tuple[Mapping[str, str], ...]
    notes: tuple[str, ...]
    error_id: str
    classified: bool

    def to_json(self) -> str:
        """The host's error object for ``error_message``."""
        facts = self.facts()
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

    def facts(self) -> dict[str, object]:
        """The keys that we add to the host's object."""
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
                {"field": violation.field, "description": violation.description}
                for violation in self.violations
            ]
        if self.details:
            facts["details"] = self.details
        if self.help:
            facts["help"] = self.help
        if self.cause:
            facts["cause"] = self.cause
        if self.exceptions:
            facts["exceptions"] = self.exceptions
        if self.notes:
            facts["notes"] = self.notes
        return facts


def describe(
    error: BaseException,
    site: CallSite,
    classification: WorkerError | None = None,
    frames: Frames = "full",
    package: str | None = None,
) -> Failure:
    """Take an exception apart.  Never raises.

    Args:
        error: What a tool, or the way to it, raised.
        site: The call.
        classification: What the adapter says about an exception of its framework.  Its facts and
            its text are used; the class name stays that of ``error``.
        frames: Which frames of the traceback the caller sees.
        package: Folder of the adapter, whose frames are its own.
    """
    try:
        return _describe(error, site, classification, frames, package)
    except BaseException:  # noqa: BLE001 - what is raised is anybody's code, down to its attributes
        name = type(error).__name__
        unreadable = WorkerError(f"<{name} that cannot be read>")
        return replace(_describe(unreadable, site), type=name, classified=False)


def _describe(
    error: BaseException,
    site: CallSite,
    classification: WorkerError | None = None,
    frames: Frames = "full",
    package: str | None = None,
) -> Failure:
    known = error if isinstance(error, WorkerError) else classification
    facts = known or WorkerError("")
    return Failure(
        type=error.elixir_name if isinstance(error, WorkerError) else type(error).__name__,
        message=text_of(facts) or with_remark(text_of(error)),
        code=facts.code if facts.code in _CODES else "INTERNAL",
        category=facts.category,
        retryable=facts.retryable,
        stacktrace=traceback_lines(error, frames, package),
        site=site,
        retry_after=_seconds(facts.retry_after),
        violations=_violations(facts),
        details=_details(facts),
        help=redact(facts.help, _LINE_LIMIT) if facts.help else None,
        cause=_causes(error),
        exceptions=_exceptions(error),
        notes=notes_of(error),
        error_id=uuid.uuid4().hex,
        classified=known is not None,
    )


def _violations(facts: WorkerError) -> tuple[Violation, ...]:
    return tuple(
        Violation(redact(violation.field, _NAME_LIMIT), redact(violation.description, _LINE_LIMIT))
        for violation in facts.violations[:MOST_VIOLATIONS]
    )


def _details(facts: WorkerError) -> Mapping[str, object]:
    try:
        details = redact_value(facts.details)
    except BaseException:  # noqa: BLE001 - they may hold anything, and are worth less than the rest
        return {}
    return details if isinstance(details, dict) else {}


def _seconds(given: object) -> float | None:
    """A wait that can be sent: providers announce whatever they like."""
    if not isinstance(given, int | float) or not math.isfinite(given):
        return None
    return min(max(given, 0.0), _LONGEST_WAIT)


def _causes(error: BaseException) -> tuple[Mapping[str, str], ...]:
    causes = [_cause(link) for link in islice(links(error), 1, 1 + MOST_CAUSES)]
    if isinstance(error, ElixirToolError):  # what the other side said is the first cause
        said = {"type": "Elixir", "message": redact(error.reason, _LINE_LIMIT), "tool": error.tool}
        causes = [said, *causes][:MOST_CAUSES]
    return tuple(causes)


def _exceptions(error: BaseException) -> tuple[Mapping[str, str], ...]:
    if not isinstance(error, BaseExceptionGroup):
        return ()
    try:
        return tuple(map(_cause, error.exceptions[:MOST_EXCEPTIONS]))
    except BaseException:  # noqa: BLE001 - a group may be of anybody's class
        return ()


def _cause(error: BaseException) -> Mapping[str, str]:
    cause = {"type": type(error).__name__, "message": text_of(error)}
    if isinstance(error, WorkerError):
        cause |= {"code": error.code, "category": error.category}
    if isinstance(error, ElixirToolError):
        cause |= {"tool": error.tool, "reason": redact(error.reason, _LINE_LIMIT)}
    return cause
