"""What an adapter's framework means by its exceptions: the adapter's table, looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from snakepit_worker.errors import Code, Meaning, StartError, WorkerError

if TYPE_CHECKING:
    from snakepit_worker.tools.api import Adapter

__all__ = ["Meanings"]


class Meanings:
    """The table of one adapter.

    Args:
        adapter: The adapter, started.

    Raises:
        StartError: For a table with a row that can never be reached or cannot be used.
    """

    def __init__(self, adapter: Adapter) -> None:
        self._explain = adapter.explain
        self._rows = tuple(adapter.meanings())
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
        failure = self._explain(error, _failure(row))
        if not isinstance(failure, WorkerError):  # adapters are not always type-checked
            msg = f"explain() must return a failure, got {type(failure).__name__}"
            raise TypeError(msg)
        return failure


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
