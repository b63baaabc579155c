"""What an adapter's framework means by its exceptions: the adapter's table, looked up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, get_args

from snakepit_worker.errors import Code, Meaning, StartError, WorkerError
from snakepit_worker.telemetry.logging import logger
from snakepit_worker.wire.tracebacks import traceback_lines

if TYPE_CHECKING:
    from snakepit_worker.tools.api import Adapter

__all__ = ["Meanings", "unexplained"]


class Meanings:
    """The table of one adapter.

    Args:
        adapter: The adapter, started.

    Raises:
        StartError: When there is no table, or one with a row that can never be reached or cannot be
            used.
    """

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._rows = _rows(adapter)
        for index, row in enumerate(self._rows):
            _check(adapter.name, row, self._rows[:index])

    def of(self, error: BaseException) -> WorkerError | None:
        """What one exception means, or ``None`` when no row fits it.

        Args:
            error: What a tool raised.
        """
        if isinstance(error, WorkerError):  # it says so itself
            return None
        row = next((row for row in self._rows if isinstance(error, row.exception)), None)
        if row is None:
            return None
        try:
            failure = self._adapter.explain(error, _failure(row))
            if not isinstance(failure, WorkerError):  # adapters are not always type-checked
                msg = f"explain() must return a failure, got {type(failure).__name__}"
                raise TypeError(msg)
        except BaseException as problem:  # noqa: BLE001 - the original failure matters more
            unexplained(self._adapter.name, problem)
            return _failure(row)
        return failure


def unexplained(adapter: str, problem: BaseException) -> None:
    """Log that an adapter's code has failed at saying what an exception means.

    Args:
        adapter: Its name.
        problem: What its code raised.
    """
    lines = "".join(traceback_lines(problem))  # whatever it is: this looks with care
    logger().error("an exception cannot be explained", adapter=adapter, exception=lines)


def _rows(adapter: Adapter) -> tuple[Meaning, ...]:
    try:
        rows: object = adapter.meanings()
    except (Exception, SystemExit) as error:
        msg = f"adapter {adapter.name}: meanings() failed: {type(error).__name__}: {error}"
        raise StartError(msg) from error
    if not isinstance(rows, Iterable):
        kind = type(rows).__name__
        msg = f"adapter {adapter.name}: meanings() has to return a list of Meaning rows, got {kind}"
        raise StartError(msg)
    return tuple(rows)


def _failure(row: Meaning) -> WorkerError:
    return row.failure("", code=row.code, retryable=row.retryable, help=row.help)


def _is_row(row: object) -> bool:
    return (
        isinstance(row, Meaning)
        and _is_kind(row.exception, BaseException)
        and _is_kind(row.failure, WorkerError)
    )


def _is_kind(kind: object, base: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, base)


def _check(adapter: str, row: Meaning, above: tuple[Meaning, ...]) -> None:
    if not _is_row(row):
        msg = f"adapter {adapter}: no row of a table of meanings: {row!r}"
        raise StartError(msg)
    where = f"adapter {adapter}: the meaning of {row.exception.__name__}"
    hiding = next((r.exception for r in above if issubclass(row.exception, r.exception)), None)
    if hiding is not None:
        msg = f"{where} stands below that of {hiding.__name__}, which covers it"
        raise StartError(msg)
    if row.code is not None and row.code not in get_args(Code):
        msg = f"{where} has no status of gRPC: {row.code!r}"
        raise StartError(msg)
    try:
        _failure(row)
    except TypeError as error:
        msg = f"{where} needs a class that takes a message: {row.failure.__name__}: {error}"
        raise StartError(msg) from None
