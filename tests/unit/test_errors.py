"""The taxonomy: its table is true, and each class can be refined where it is raised."""

from __future__ import annotations

import inspect
import typing
from pathlib import Path
from typing import Any

import grpc
import pytest

from snakepit_worker import errors
from snakepit_worker.errors import (
    Category,
    Code,
    Conflict,
    InvalidArgument,
    ProviderError,
    StartError,
    Violation,
    WorkerError,
)
from snakepit_worker.testing.host_forwarding import OWN_STRUCTS
from snakepit_worker.wire.failures import CallSite, describe

CLASSES = {
    name: found
    for name, found in vars(errors).items()
    if inspect.isclass(found) and issubclass(found, WorkerError)
}


PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


def documented() -> dict[str, list[str]]:
    """The rows of the page's table of classes."""
    text = PAGE.read_text(encoding="utf-8")
    table = text.partition("<!-- generated: classes -->\n")[2].partition("<!-- end -->")[0]
    rows = [[cell.strip(" ·`") for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    return {row[0]: row[1:] for row in rows[2:]}


def test_the_page_lists_every_class() -> None:
    assert set(documented()) == set(CLASSES)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_the_page_is_true(name: str) -> None:
    error = CLASSES[name]
    said, *facts, struct = documented()[name]
    assert said in (error.__doc__ or "")
    retryable = "yes" if error.retryable else "no"
    assert facts == [error.code, error.category, retryable, error.elixir_name]
    assert struct in {error.elixir_name, "PythonException"}
    assert (struct == error.elixir_name) == (error.elixir_name in OWN_STRUCTS)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_class_is_exported_and_explained(name: str) -> None:
    assert name in errors.__all__
    assert CLASSES[name].__doc__
    assert CLASSES[name].code in typing.get_args(Code)
    assert CLASSES[name].category in typing.get_args(Category)


def test_codes_are_grpc_status_names() -> None:
    assert set(typing.get_args(Code)) == {code.name for code in grpc.StatusCode} - {"OK"}


def test_a_class_gives_the_defaults() -> None:
    error = InvalidArgument("wrong")
    assert str(error) == "wrong"
    assert (error.code, error.retryable, error.retry_after) == ("INVALID_ARGUMENT", False, None)
    assert (error.violations, error.details, error.help) == ((), {}, None)


def test_whoever_raises_may_know_more() -> None:
    error = ProviderError("no", code="PERMISSION_DENIED", retryable=False, retry_after=0.5)
    assert (error.code, error.retryable, error.retry_after) == ("PERMISSION_DENIED", False, 0.5)
    assert (ProviderError.code, ProviderError.retryable) == ("UNAVAILABLE", True)


def test_facts_are_copied() -> None:
    details: dict[str, object] = {"a": 1}
    violations = [Violation("f", "d")]
    error = Conflict("no", details=details, violations=violations)
    details.clear()
    violations.clear()
    assert error.details == {"a": 1}
    assert error.violations == (Violation("f", "d"),)


def test_one_except_clause_catches_all_but_failed_starts() -> None:
    assert all(issubclass(error, WorkerError) for error in CLASSES.values())
    assert not issubclass(StartError, WorkerError)


@pytest.mark.parametrize(("given", "status"), [({}, 1), ({"exit_status": 2}, 2)])
def test_a_failed_start_has_an_exit_status(given: dict[str, int], status: int) -> None:
    assert StartError("no", **given).exit_status == status


@pytest.mark.parametrize("code", ["NOPE", "OK", 3])
def test_a_code_that_grpc_does_not_have_is_told_at_once(code: Any) -> None:
    with pytest.raises(ValueError, match=r"no status of gRPC: .*known are CANCELLED, UNKNOWN, "):
        ProviderError("no", code=code)


def test_so_is_that_of_a_class() -> None:
    wrong = type("WrongError", (WorkerError,), {"code": "NOPE"})
    with pytest.raises(ValueError, match="no status of gRPC: 'NOPE'"):
        wrong("no")


class Unreadable:
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([{"field": "x", "description": "y"}], [("x", "y")]),
        ([("x", "y"), ["a", "b"]], [("x", "y"), ("a", "b")]),
        ({"field": "x", "description": "y"}, [("x", "y")]),
        (Violation("x", "y"), [("x", "y")]),
        ([Violation(3, None)], [("3", "None")]),  # type: ignore[arg-type]
        ([{"path": "x"}], [("", "{'path': 'x'}")]),
        ([("x", "y", "z")], [("", "('x', 'y', 'z')")]),
        (["x is wrong", 7], [("", "x is wrong"), ("", "7")]),
        ("x is wrong", [("", "x is wrong")]),
        (7, [("", "7")]),
        ([Unreadable()], [("", "<Unreadable that cannot be read>")]),
        (None, []),
    ],
)
def test_violations_of_any_form_are_violations(given: Any, kept: list[tuple[str, str]]) -> None:
    error = InvalidArgument("bad", violations=given)
    assert error.violations == tuple(Violation(*pair) for pair in kept)
    failure = describe(error, CallSite("t", "s"))
    assert (failure.message, failure.code) == ("bad", "INVALID_ARGUMENT")
    assert len(failure.violations) == len(kept)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"help": ["do", "that"]}, {"help": "['do', 'that']"}),
        ({"help": ""}, {"help": ""}),
        ({"details": "text"}, {"details": {"value": "text"}}),
        ({"details": ["text"]}, {"details": {"value": ["text"]}}),
        ({"details": None}, {"details": {}}),
        ({"retryable": "yes"}, {"retryable": True}),
    ],
)
def test_other_odd_facts_are_mended(given: dict[str, Any], kept: dict[str, Any]) -> None:
    error = InvalidArgument("bad", **given)
    assert {name: getattr(error, name) for name in kept} == kept
    failure = describe(error, CallSite("t", "s"))
    assert (failure.message, failure.code) == ("bad", "INVALID_ARGUMENT")
