"""Tables of what a framework's exceptions mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from snakepit_worker import Adapter
from snakepit_worker.errors import (
    ElixirToolError,
    FailedPrecondition,
    Meaning,
    NotFound,
    ProviderError,
    StartError,
    WorkerError,
)
from snakepit_worker.tools.meanings import Meanings
from snakepit_worker.tools.registry import Registry
from snakepit_worker.wire.failures import CallSite, describe

if TYPE_CHECKING:
    from collections.abc import Sequence


class FrameworkBaseError(Exception):
    pass


class BusyError(FrameworkBaseError):
    pass


class VeryBusyError(BusyError):
    pass


class Table(Adapter):
    name = "table"

    def __init__(self, *rows: Any) -> None:
        self.rows = rows

    def meanings(self) -> Sequence[Meaning]:
        return self.rows


def of(error: BaseException, *rows: Any) -> WorkerError | None:
    return Meanings(Table(*rows)).of(error)


ROWS = (
    Meaning(VeryBusyError, ProviderError, "RESOURCE_EXHAUSTED", help="come back tomorrow"),
    Meaning(BusyError, ProviderError, retryable=False),
    Meaning(FrameworkBaseError, FailedPrecondition),
)


@pytest.mark.parametrize(
    ("error", "kind", "code", "retryable", "help_text"),
    [
        (VeryBusyError(), ProviderError, "RESOURCE_EXHAUSTED", True, "come back tomorrow"),
        (BusyError(), ProviderError, "UNAVAILABLE", False, None),
        (FrameworkBaseError(), FailedPrecondition, "FAILED_PRECONDITION", False, None),
        (type("New", (BusyError,), {})(), ProviderError, "UNAVAILABLE", False, None),
    ],
)
def test_the_first_row_that_fits_counts(
    error: BaseException,
    kind: type[WorkerError],
    code: str,
    retryable: bool,  # noqa: FBT001
    help_text: str | None,
) -> None:
    meant = of(error, *ROWS)
    assert type(meant) is kind
    assert (meant.code, meant.retryable, meant.help) == (code, retryable, help_text)


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), NotFound("ours")])
def test_other_exceptions_stay_what_they_are(error: BaseException) -> None:
    assert of(error, *ROWS) is None


def test_our_own_failures_need_no_row_even_where_one_fits() -> None:
    assert of(NotFound("ours"), Meaning(Exception, ProviderError)) is None


def test_the_class_name_and_the_text_stay_the_exception_s_own() -> None:
    error = VeryBusyError("try later")
    failure = describe(error, CallSite("t", "s"), of(error, *ROWS))
    assert (failure.type, failure.message) == ("VeryBusyError", "try later")
    assert (failure.code, failure.category) == ("RESOURCE_EXHAUSTED", "provider")
    unknown = type("SomebodyElsesError", (Exception,), {})("what")
    failure = describe(unknown, CallSite("t", "s"), of(unknown, *ROWS))
    assert (failure.type, failure.code) == ("SomebodyElsesError", "INTERNAL")
    assert not failure.classified


def test_an_adapter_adds_to_its_table() -> None:
    class Explaining(Table):
        def explain(self, error: BaseException, failure: WorkerError) -> WorkerError:
            assert str(failure) == ""
            return type(failure)(f"said {error}", code=failure.code, retry_after=2.0)

    meant = Meanings(Explaining(*ROWS)).of(VeryBusyError("x"))
    assert meant is not None
    assert (str(meant), meant.code, meant.retry_after) == ("said x", "RESOURCE_EXHAUSTED", 2.0)


def _forget(error: BaseException, failure: WorkerError) -> None:
    """Changes what it got, and does not return it."""
    failure.code = "DATA_LOSS"
    failure.details["error"] = str(error)


def _break(error: BaseException, failure: WorkerError) -> NoReturn:
    failure.code = "DATA_LOSS"
    raise SystemExit(str(error))


@pytest.mark.parametrize("explain", [_forget, _break])
def test_where_an_explanation_is_broken_the_row_counts(
    explain: Any, caplog: pytest.LogCaptureFixture
) -> None:
    table = Table(*ROWS)
    table.explain = explain  # type: ignore[method-assign]
    meant = Meanings(table).of(VeryBusyError())
    assert type(meant) is ProviderError
    assert (meant.code, meant.help) == ("RESOURCE_EXHAUSTED", "come back tomorrow")
    assert meant.details == {}
    (record,) = caplog.records
    assert record.getMessage() == "an exception cannot be explained"
    assert vars(record)["adapter"] == "table"


def test_only_covered_exceptions_are_explained() -> None:
    table = Table(*ROWS)
    table.explain = _break  # type: ignore[method-assign]
    assert Meanings(table).of(ValueError("no")) is None


@pytest.mark.parametrize("given", [None, 7, Meaning(BusyError, ProviderError), KeyError("m")])
def test_no_table_at_all_is_refused_with_the_adapter_s_name(given: Any) -> None:
    class Broken(Table):
        def meanings(self) -> Any:
            if isinstance(given, Exception):
                raise given
            return given

    with pytest.raises(StartError, match=r"adapter table: meanings\(\) ") as caught:
        Registry([Broken()])
    assert ("failed: KeyError" if isinstance(given, KeyError) else "Meaning rows") in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ((ROWS[1], ROWS[0]), "VeryBusyError stands below that of BusyError"),
        ((ROWS[2], ROWS[0]), "stands below that of FrameworkBaseError"),
        ((ROWS[0], ROWS[0]), "VeryBusyError stands below that of VeryBusyError"),
        ((Meaning(BusyError, ElixirToolError),), "needs a class that takes a message"),
        ((Meaning(BusyError, ProviderError, "NOPE"),), "no status of gRPC: 'NOPE'"),  # type: ignore[arg-type]
        ((Meaning(BusyError, ProviderError, "OK"),), "no status of gRPC: 'OK'"),  # type: ignore[arg-type]
        ((Meaning(BusyError, ValueError),), "no row of a table"),  # type: ignore[arg-type]
        ((Meaning(BusyError(), ProviderError),), "no row of a table"),  # type: ignore[arg-type]
        ((Meaning(int, ProviderError),), "no row of a table"),  # type: ignore[arg-type]
        (((BusyError, ProviderError),), "no row of a table"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_at_the_start(rows: Any, words: str) -> None:
    with pytest.raises(StartError, match="adapter table: ") as caught:
        Registry([Table(*rows)])
    assert words in str(caught.value)
