"""What can go wrong in a worker, and what a caller can do about it.

Every failure that this project raises on purpose is one of these classes.  Each class has a gRPC
status name (``code``), a category that programs can switch on, a hint whether the same call may
succeed later, and the Python class name under which Elixir sees it: the host turns eleven builtin
names into structs of their own and every other name into ``Snakepit.Error.PythonException``, so
our classes travel under the builtin name that an Elixir developer would expect to match on.
docs/errors.md shows all of them in a table, which is made from these classes.

``StartError`` stands apart: it ends a process that could not start and never travels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, TypeAlias, get_args

__all__ = [
    "CallbackError",
    "Cancelled",
    "Category",
    "Code",
    "Conflict",
    "DeadlineExceeded",
    "ElixirToolError",
    "ElixirToolFailed",
    "ElixirToolNotFound",
    "ElixirToolRefused",
    "FailedPrecondition",
    "FrameworkError",
    "HostUnavailable",
    "InnerCallFailed",
    "InvalidArgument",
    "Meaning",
    "NotFound",
    "PermissionDenied",
    "ProviderError",
    "ResourceExhausted",
    "SerializationError",
    "StartError",
    "Unavailable",
    "Unimplemented",
    "Violation",
    "WorkerError",
]

Code = Literal[
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
]
"""Names of the gRPC status codes, without OK."""
_CODES: Final[tuple[str, ...]] = get_args(Code)

Category = Literal[
    "validation",
    "not_found",
    "precondition",
    "conflict",
    "exhausted",
    "timeout",
    "cancelled",
    "permission",
    "unavailable",
    "framework",
    "provider",
    "callback",
    "serialization",
    "internal",
]
"""The kind of failure, coarser than the class and independent of gRPC."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One argument that is wrong.

    Attributes:
        field: Path of the argument, such as ``limit`` or ``examples[3].question``.
        description: What was expected and what came.
    """

    field: str
    description: str


AnyViolation: TypeAlias = "Violation | Mapping[str, str] | tuple[str, str]"
"""A violation, an object with its fields, or a pair of them."""


class WorkerError(Exception):
    """Base of all failures that a caller can see.

    Facts of another form than asked for become the nearest that can be sent: a slip in one of them
    must not cost the failure its message and its code.

    Args:
        message: One sentence for a person, naming the thing that is wrong.
        code: gRPC status name, where one class covers several (provider errors do).
        retryable: Whether the same call may succeed later; the class decides when omitted.
        retry_after: Seconds to wait before trying again, where known.
        violations: The arguments that are wrong.
        details: Facts for programs; JSON values only.
        help: What to do about it, as text.

    Raises:
        ValueError: For a code that gRPC does not have.
    """

    code: Code = "INTERNAL"
    category: ClassVar[Category] = "internal"
    retryable: bool = False
    elixir_name: ClassVar[str] = "RuntimeError"

    def __init__(  # noqa: PLR0913 - optional facts, each by its name
        self,
        message: str,
        *,
        code: Code | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
        violations: Iterable[AnyViolation] = (),
        details: Mapping[str, object] | None = None,
        help: str | None = None,  # noqa: A002 - the word that callers read in the failure object
    ) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        if self.code not in _CODES:
            msg = f"no status of gRPC: {self.code!r}; known are {', '.join(_CODES)}"
            raise ValueError(msg)
        if retryable is not None:
            self.retryable = bool(retryable)
        self.retry_after = retry_after
        self.violations = tuple(map(_violation, _each(violations)))
        self.details = _details(details)
        self.help = None if help is None else _text(help)


def _each(violations: object) -> Iterable[object]:
    if violations is None:
        return ()
    if isinstance(violations, (Violation, Mapping, str)) or not isinstance(violations, Iterable):
        return (violations,)
    return violations


def _violation(given: object) -> Violation:
    match given:
        case Violation(field, description):
            pass
        case {"field": field, "description": description}:
            pass
        case [field, description]:
            pass
        case _:
            field, description = "", given
    return Violation(_text(field), _text(description))


def _details(given: object) -> dict[str, object]:
    if given is None:
        return {}
    return dict(given) if isinstance(given, Mapping) else {"value": given}


def _text(given: object) -> str:
    try:
        return str(given)
    except Exception:  # noqa: BLE001 - an object of anybody's
        return f"<{type(given).__name__} that cannot be read>"


class InvalidArgument(WorkerError):
    """An argument has the wrong type or value, or is missing or unknown."""

    code = "INVALID_ARGUMENT"
    category = "validation"
    elixir_name = "ValueError"


class NotFound(WorkerError):
    """A tool, session, resource or handle that does not exist (any more)."""

    code = "NOT_FOUND"
    category = "not_found"
    elixir_name = "KeyError"


class FailedPrecondition(WorkerError):
    """Something has to be done first, such as configuring a language model."""

    code = "FAILED_PRECONDITION"
    category = "precondition"


class Conflict(WorkerError):
    """Somebody else has or changed the thing; trying again may work."""

    code = "ABORTED"
    category = "conflict"
    retryable = True


class ResourceExhausted(WorkerError):
    """A limit of this worker is reached; the details name it."""

    code = "RESOURCE_EXHAUSTED"
    category = "exhausted"
    retryable = True


class DeadlineExceeded(WorkerError):
    """The time for a call, or for something inside it, is over."""

    code = "DEADLINE_EXCEEDED"
    category = "timeout"
    retryable = True
    elixir_name = "TimeoutError"


class Cancelled(WorkerError):
    """The caller has gone, or asked to stop."""

    code = "CANCELLED"
    category = "cancelled"
    elixir_name = "CancelledError"


class PermissionDenied(WorkerError):
    """The operator did not allow this."""

    code = "PERMISSION_DENIED"
    category = "permission"
    elixir_name = "PermissionError"


class Unavailable(WorkerError):
    """The worker, an adapter or the host cannot serve now."""

    code = "UNAVAILABLE"
    category = "unavailable"
    retryable = True


class Unimplemented(WorkerError):
    """A feature that this worker, or what is installed beside it, does not have."""

    code = "UNIMPLEMENTED"
    category = "validation"
    elixir_name = "NotImplementedError"


class FrameworkError(WorkerError):
    """A framework failed in a way that is nobody's argument."""

    category = "framework"


class ProviderError(WorkerError):
    """A remote service that a framework uses (a language model, mostly) failed."""

    code = "UNAVAILABLE"
    category = "provider"
    retryable = True


class CallbackError(WorkerError):
    """A call from a tool to the Elixir side failed."""

    code: Code = "ABORTED"
    category = "callback"


class ElixirToolError(CallbackError):
    """A call of an Elixir tool failed.

    Args:
        message: What the host said, with the tool's name.
        tool: Name of the tool.
        reason: The host's own text.
    """

    def __init__(self, message: str, *, tool: str, reason: str) -> None:
        super().__init__(message, details={"tool": tool, "reason": reason})
        self.tool = tool
        self.reason = reason


class ElixirToolNotFound(ElixirToolError):
    """The host has no such tool for the call's sessions."""

    code = "NOT_FOUND"
    elixir_name = "KeyError"


class ElixirToolFailed(ElixirToolError):
    """The tool ran and raised; the message says what."""


class ElixirToolRefused(ElixirToolError):
    """The host could not read a parameter."""

    code = "INVALID_ARGUMENT"
    elixir_name = "ValueError"


class HostUnavailable(Unavailable):
    """The host does not answer, or this worker has none."""


class InnerCallFailed(WorkerError):
    """A tool of this worker that a tool called has failed; the code is that tool's.

    Args:
        message: What went wrong, with the tool's name.
        tool: Name of the tool that was called.
        type: Class name of what it raised.
        reason: The text of that.
        **facts: As for `WorkerError`.
    """

    category = "callback"

    def __init__(
        self,
        message: str,
        *,
        tool: str,
        type: str,  # noqa: A002 - the word that callers read in the failure object
        reason: str,
        **facts: Any,  # noqa: ANN401 - as the base class has them
    ) -> None:
        super().__init__(message, **facts)
        self.tool = tool
        self.type = type
        self.reason = reason


class SerializationError(WorkerError):
    """A value cannot cross the wire."""

    category = "serialization"
    elixir_name = "TypeError"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a class of exceptions of a framework means, as a row of an adapter's table.

    Attributes:
        exception: The class; its subclasses are meant too, unless a row above names them.
        failure: The class of ours that has its category.
        code: gRPC status name, where it is not that of ``failure``.
        retryable: Whether the same call may succeed later, where ``failure`` does not say it.
        help: What to do about it.
    """

    exception: type[BaseException]
    failure: type[WorkerError]
    code: Code | None = None
    retryable: bool | None = None
    help: str | None = None


class StartError(Exception):
    """The worker cannot start; the process exits with ``exit_status``.

    Args:
        message: The cause, for the last lines of stderr.
        exit_status: 2 for wrong usage, 1 for everything else (never 0 or 143, which the host
            takes for a wanted stop).
    """

    def __init__(self, message: str, *, exit_status: int = 1) -> None:
        super().__init__(message)
        self.exit_status = exit_status
