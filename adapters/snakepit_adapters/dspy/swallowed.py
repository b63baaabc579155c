"""Errors that DSPy swallows: collected, counted, and told in the end."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from snakepit_adapters.dspy.failures import MEANINGS, explain, without
from snakepit_worker.errors import CallbackError, ElixirToolError, FrameworkError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    Origin = Literal["model", "program", "metric", "optimizer"]

__all__ = ["Errors", "described", "failure_of"]

_KINDS: Final = 20
"""Different errors that are kept; further ones are only counted."""
_LONGEST: Final = 500


def failure_of(error: BaseException) -> WorkerError:
    """What an exception means to a caller.

    Args:
        error: Of DSPy, of this project, or of anybody else.
    """
    if isinstance(error, WorkerError):
        return error
    row = next((row for row in MEANINGS if isinstance(error, row.exception)), None)
    if row is None:
        return FrameworkError(str(error)[:_LONGEST])
    known = row.failure("", code=row.code, retryable=row.retryable, help=row.help)
    return explain(error, known)


def described(error: BaseException) -> dict[str, object]:
    """An exception as JSON values: its class, its text, its code, and whether to try again.

    Args:
        error: What was raised.
    """
    failure = failure_of(error)
    return {
        "type": type(error).__name__,
        "message": str(failure)[:_LONGEST],
        "code": failure.code,
        "retryable": failure.retryable,
    }


class Errors:
    """The errors of one run, equal ones counted together."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, str, str], dict[str, object]] = {}
        self.count = 0
        """How many there were."""
        self.last: BaseException | None = None
        """The last one."""
        self._last: dict[Origin, BaseException] = {}

    def conceal(self, *secrets: str) -> None:
        """Take keys out of all errors from now on.

        Args:
            *secrets: The keys.
        """
        self._secrets.update(secrets)

    def add(self, error: BaseException, origin: Origin) -> None:
        """Note an error, and take keys out of it wherever else it may be shown.

        Args:
            error: What was raised.
            origin: Where it came from.
        """
        with suppress(type(error)), without(*self._secrets):
            raise error
        facts = described(error)
        key = (origin, str(facts["type"]), str(facts["message"]))
        with self._lock:
            self.count += 1
            self.last = self._last[origin] = error
            if key in self._entries:
                entry = self._entries[key]
                entry["count"] = int(str(entry["count"])) + 1
            elif len(self._entries) < _KINDS:
                self._entries[key] = {"origin": origin, **facts, "count": 1}

    def list(self) -> list[Mapping[str, object]]:
        """The different errors, the first of their kind first, each with its ``count``."""
        with self._lock:
            return [dict(entry) for entry in self._entries.values()]

    def failure(
        self, message: str, details: Mapping[str, object], origin: Origin | None = None
    ) -> WorkerError:
        """A failure that says what the last error was, with its code and its retry hint.

        Args:
            message: What came of the run.
            details: Facts of the run.
            origin: Which errors are to blame; any if ``None``.
        """
        last = self.last if origin is None else self._last.get(origin, self.last)
        if last is None:
            return FrameworkError(message, details={**details, "errors": self.list()})
        cause = failure_of(last)
        kind = CallbackError if isinstance(cause, ElixirToolError) else type(cause)
        return kind(
            f"{message}; the last error: {type(last).__name__}: {str(cause)[:_LONGEST]}",
            code=cause.code,
            retryable=cause.retryable,
            retry_after=cause.retry_after,
            details={**cause.details, **details, "errors": self.list()},
            help=cause.help,
        )
