"""Exceptions as the host reads them: on unary replies, and within a stream's status."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_worker.errors import (
    ElixirToolFailed,
    InvalidArgument,
    NotFound,
    ProviderError,
    Violation,
    WorkerError,
)
from snakepit_worker.wire.failures import MOST_EXCEPTIONS, CallSite, describe
from snakepit_worker.wire.status import as_status
from tests.conftest import name_of

SITE = CallSite("shop.price", "session-1", "sp-1", {"article": "tea"})
STATUS_LIMIT = 4096
SECRET = "Xq7hTz0pLm93wVbNs2Rk"  # noqa: S105 - it opens nothing


def raised(error: BaseException) -> BaseException:
    """The exception with a traceback."""
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - all kinds are under test
        return caught


def unary(error: BaseException, site: CallSite = SITE, **more: Any) -> dict[str, Any]:
    failure: dict[str, Any] = json.loads(describe(raised(error), site, **more).to_json())
    return failure


def status(error: BaseException, site: CallSite = SITE) -> dict[str, Any]:
    """The object in a stream's status message, which must be within its limit."""
    text = as_status(describe(raised(error), site)).message
    assert percent_encoded_length(text) <= STATUS_LIMIT
    failure: dict[str, Any] = json.loads(text)
    assert isinstance(failure["type"], str)
    assert isinstance(failure["message"], str)
    assert isinstance(failure.get("context", {}), dict)
    return failure


def percent_encoded_length(text: str) -> int:
    """Bytes of a ``grpc-message`` (everything but printable ASCII, and %, takes three)."""
    return sum(1 if 0x20 <= byte <= 0x7E and byte != 0x25 else 3 for byte in text.encode())


@pytest.mark.parametrize(
    "error_class",
    [
        ValueError,
        IndexError,
        TypeError,
        AttributeError,
        ImportError,
        RuntimeError,
        NotImplementedError,
        FileNotFoundError,
        PermissionError,
        ZeroDivisionError,
        ModuleNotFoundError,
        SystemExit,
        KeyboardInterrupt,
        StopIteration,
        GeneratorExit,
    ],
)
def test_the_host_sees_the_python_class_and_the_text(error_class: type[BaseException]) -> None:
    failure = unary(error_class("something"))
    assert (failure["type"], failure["message"]) == (error_class.__name__, "something")


def test_a_json_error_keeps_its_own_name() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    assert unary(caught.value)["type"] == "JSONDecodeError"


def test_the_message_of_a_key_error_is_the_quoted_key() -> None:
    assert unary(KeyError("k"))["message"] == "'k'"


def test_the_keys_that_the_host_demands() -> None:
    failure = unary(ValueError("no"))
    assert failure["stacktrace"][0] == "Traceback (most recent call last):\n"
    assert failure["stacktrace"][-1] == "ValueError: no\n"
    assert failure["traceback"] == "".join(failure["stacktrace"])
    assert "in raised" in failure["traceback"]
    assert failure["context"]["tool_name"] == "shop.price"
    assert failure["context"]["session_id"] == "session-1"


def test_an_exception_that_was_never_raised_has_a_trace_of_one_line() -> None:
    assert describe(ValueError("no"), SITE).stacktrace == ("ValueError: no\n",)


def test_the_context_shows_only_the_telling_arguments() -> None:
    arguments = {
        "library": "numpy",
        "python_module": "numpy.linalg",
        "function": "inv",
        "call_type": "function",
        "payload_version": 2,
        "session_id": "hidden",
        "secret": "hidden",
    }
    context = unary(ValueError("no"), CallSite("t", "s", arguments=arguments))["context"]
    shown = {k: v for k, v in context.items() if k not in {"tool_name", "session_id", "error"}}
    assert shown == {k: v for k, v in arguments.items() if v != "hidden"}
    assert context["session_id"] == "s"


@pytest.mark.conforms(55, "D48")
@pytest.mark.parametrize("value", [b"raw", object(), [1], {"a": 1}, None, 1.5, 2**70])
def test_odd_arguments_do_not_break_the_context(value: object) -> None:
    failure = unary(ValueError("no"), CallSite("t", "s", arguments={"function": value}))
    assert isinstance(failure["context"], dict)
    assert failure["message"] == "no"


def test_our_own_errors_travel_under_the_names_that_elixir_expects() -> None:
    failure = unary(NotFound("no such thing"))
    assert (failure["type"], failure["message"]) == ("KeyError", "no such thing")


def test_the_added_facts_stand_at_the_top_and_in_the_context() -> None:
    error = ProviderError(
        "slow down",
        code="RESOURCE_EXHAUSTED",
        retry_after=1.5,
        violations=[Violation("model", "expected a name, got nothing")],
        details={"provider": "acme", "limits": {"rpm": 3}},
        help="wait a little",
    )
    failure = unary(error)
    facts = {
        "code": "RESOURCE_EXHAUSTED",
        "category": "provider",
        "retryable": True,
        "error_id": failure["error_id"],
        "correlation_id": "sp-1",
        "retry_after_ms": 1500,
        "violations": [{"field": "model", "description": "expected a name, got nothing"}],
        "details": {"provider": "acme", "limits": {"rpm": 3}},
        "help": "wait a little",
    }
    assert failure["context"]["error"] == facts
    assert {key: failure[key] for key in facts} == facts


def test_an_unknown_exception_is_internal_and_not_to_be_tried_again() -> None:
    described = describe(raised(ValueError("no")), SITE)
    assert not described.classified
    assert (described.code, described.category, described.retryable) == (
        "INTERNAL",
        "internal",
        False,
    )


@pytest.mark.parametrize(("text", "message"), [("", "socket closed"), ("no model", "no model")])
def test_an_adapter_adds_facts_and_may_say_it_better(text: str, message: str) -> None:
    known = ProviderError(text, retry_after=2.0)
    failure = unary(ConnectionError("socket closed"), classification=known)
    assert (failure["type"], failure["message"]) == ("ConnectionError", message)
    assert (failure["code"], failure["retry_after_ms"]) == ("UNAVAILABLE", 2000)
    assert failure["stacktrace"][-1] == "ConnectionError: socket closed\n"


def test_our_own_errors_need_no_classification() -> None:
    failure = unary(InvalidArgument("no"), classification=ProviderError("other"))
    assert failure["code"] == "INVALID_ARGUMENT"


def test_every_failure_has_an_id_of_its_own() -> None:
    assert unary(ValueError("a"))["error_id"] != unary(ValueError("a"))["error_id"]


def test_causes_nearest_first() -> None:
    try:
        try:
            try:
                raise KeyError("deep")
            except KeyError as deep:
                raise ValueError("middle") from deep
        except ValueError:
            raise RuntimeError("top")  # noqa: B904 - the implicit context counts too
    except RuntimeError as error:
        causes = unary(error)["cause"]
    assert causes == [
        {"type": "ValueError", "message": "middle"},
        {"type": "KeyError", "message": "'deep'"},
    ]


def test_a_suppressed_context_is_no_cause() -> None:
    try:
        try:
            raise KeyError("hidden")
        except KeyError:
            raise RuntimeError("top") from None
    except RuntimeError as error:
        failure = unary(error)
    assert "cause" not in failure


def test_causes_that_go_round_in_a_circle_end() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert unary(first)["cause"] == [{"type": "ValueError", "message": "second"}]


class UnspeakableError(Exception):
    def __init__(self, problem: type[BaseException]) -> None:
        super().__init__()
        self.problem = problem

    def __str__(self) -> str:
        raise self.problem

    __repr__ = __str__


@pytest.mark.conforms(55)
@pytest.mark.parametrize("problem", [ValueError, RecursionError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("to_object", [unary, status])
def test_an_exception_without_a_readable_text_is_still_a_failure(
    problem: type[BaseException], to_object: Any
) -> None:
    try:
        failure = to_object(UnspeakableError(problem))
    except BaseException as error:  # noqa: BLE001 - all kinds are under test
        pytest.fail(f"raised {type(error).__name__}", pytrace=False)
    assert failure["type"] == "UnspeakableError"
    assert "UnspeakableError" in failure["message"]


class OurUnspeakableError(WorkerError):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize("to_object", [unary, status])
def test_neither_need_our_own_errors_have_a_readable_text(to_object: Any) -> None:
    failure = to_object(OurUnspeakableError("no", code="ABORTED"))
    assert (failure["type"], failure["code"]) == ("RuntimeError", "ABORTED")
    assert unary(ValueError("no"), classification=OurUnspeakableError("no"))["type"] == "ValueError"


class OddTextError(Exception):
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]  # noqa: PLE0307 - under test


def test_a_text_that_is_no_text_is_still_a_failure() -> None:
    assert unary(OddTextError())["type"] == "OddTextError"


def test_runaway_recursion_is_a_failure() -> None:
    def forever() -> None:
        forever()

    with pytest.raises(RecursionError) as caught:
        forever()
    failure = unary(caught.value)
    assert failure["type"] == "RecursionError"
    assert len(failure["stacktrace"]) < 200


def test_a_long_chain_of_causes_is_cut() -> None:
    error = ValueError("0")
    for number in range(1, 3 * sys.getrecursionlimit()):
        following = ValueError(str(number))
        following.__cause__ = error
        error = following
    assert len(unary(error)["cause"]) == 5


ODD_TEXTS = [
    pytest.param("x" * 200_000, id="long"),
    pytest.param("x" * 2_000_000, id="very long"),
    pytest.param("é" * 50_000, id="long and not ASCII"),
    pytest.param("🐍" * 20_000, id="long and astral"),
    pytest.param('"\\' * 50_000, id="long and to be escaped"),
    pytest.param("%" * 5_000, id="percent signs"),
    pytest.param("\n" * 5_000, id="line breaks"),
    pytest.param("\x00\x01\x1f" * 2_000, id="control characters"),
    pytest.param("\ud800" * 5_000, id="lone surrogates"),
    pytest.param("", id="empty"),
]


@pytest.mark.conforms(64, "D15")
@pytest.mark.parametrize("text", ODD_TEXTS)
def test_a_status_message_is_parseable_and_within_its_limit(text: str) -> None:
    failure = status(ValueError(text))
    assert failure["type"] == "ValueError"
    assert failure["code"] == "INTERNAL"
    assert text.encode("utf-8", "replace").decode().startswith(failure["message"].rstrip("…")[:20])


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_a_unary_failure_is_parseable_and_of_a_sane_size(text: str) -> None:
    described = describe(raised(ValueError(text)), SITE)
    assert len(described.to_json()) < 500_000
    assert json.loads(described.to_json())["type"] == "ValueError"


@given(st.text(), st.dictionaries(st.text(), st.text() | st.integers() | st.none(), max_size=4))
def test_whatever_is_in_it_a_status_message_fits(text: str, details: dict[str, object]) -> None:
    error = WorkerError(text * 50, details=details, help=text * 20)
    assert status(error)["code"] == "INTERNAL"
    assert unary(error)["code"] == "INTERNAL"


def test_everything_too_large_at_once_still_leaves_type_message_and_code() -> None:
    many = [Violation("f" * 500, "d" * 500) for _ in range(100)]
    error = InvalidArgument(
        "m" * 9_000, violations=many, details={"k" * 9_000: "v"}, help="h" * 9_000
    )
    failure = status(error, CallSite("t" * 9_000, "s" * 9_000, "c", {"library": "l" * 9_000}))
    assert (failure["type"], failure["code"]) == ("ValueError", "INVALID_ARGUMENT")
    assert failure["message"].startswith("mmm")


def test_a_correlation_id_of_any_length_fits_too() -> None:
    status(ValueError("no"), CallSite("t", "s", "c" * 20_000))


def test_a_class_name_of_any_length_fits_too() -> None:
    status(type("E" * 20_000, (Exception,), {})("no"))


@pytest.mark.parametrize(
    "details",
    [
        {"object": object()},
        {1: "a", None: "b"},
        {"set": {1}},
        {"bytes": b"\xff"},
        {"nan": float("nan")},
        {"big": 2**70},
        {"surrogate": "\ud800"},
    ],
    ids=name_of,
)
def test_details_that_are_not_json_get_through_as_something(details: dict[Any, object]) -> None:
    for failure in (
        unary(WorkerError("no", details=details)),
        status(WorkerError("no", details=details)),
    ):
        assert failure["message"] == "no"
        assert isinstance(failure["details"], dict)


def test_numbers_stay_numbers_when_a_text_has_to_be_mended() -> None:
    failure = unary(WorkerError("\ud800", retry_after=1.0, details={"n": 3, "f": 0.5, "t": True}))
    assert failure["retry_after_ms"] == 1000
    assert failure["details"] == {"n": 3, "f": 0.5, "t": True}


def test_details_without_end_get_through_as_something() -> None:
    cycle: dict[str, object] = {}
    cycle["self"] = cycle
    assert unary(WorkerError("no", details=cycle))["message"] == "no"


def test_secrets_are_removed_everywhere() -> None:
    error = InvalidArgument(
        f"sk-{SECRET} is wrong",
        violations=[Violation("key", f"got 'sk-{SECRET}'")],
    )
    error.__cause__ = ValueError(f"password='{SECRET}'")
    assert SECRET not in json.dumps(unary(error))
    assert SECRET not in json.dumps(status(error))


@pytest.mark.parametrize("padding", range(16_384 - 60, 16_384 + 10, 5))
def test_a_secret_is_removed_before_a_long_message_is_cut(padding: int) -> None:
    failure = unary(ValueError(f"{'.' * padding} password='{SECRET}'"))
    assert SECRET[:6] not in failure["message"]


@pytest.mark.parametrize("padding", range(4_096 - 60, 4_096 + 10, 5))
def test_nor_do_shorter_limits_let_half_a_secret_through(padding: int) -> None:
    text = f"{'.' * padding} password='{SECRET}'"
    error = InvalidArgument("no", violations=[Violation("f", text)], help=text)
    error.__cause__ = ElixirToolFailed("no", tool="t", reason=text)
    error.add_note(text)
    failure = unary(error)
    assert 4_000 < len(failure["notes"][0]) <= 4_096
    assert SECRET[:6] not in json.dumps(failure)


def test_a_failure_of_a_huge_call_stays_small() -> None:
    violations = [Violation("f" * 10_000, "d" * 10_000) for _ in range(1_000)]
    error = InvalidArgument("m" * 100_000, violations=violations, details={"near": "n" * 100_000})
    text = describe(error, CallSite("t" * 3_000_000, "s" * 1_000_000)).to_json()
    assert len(text) < 1_000_000
    assert len(json.loads(text)["violations"]) == 50


def test_the_exceptions_of_a_group_are_told() -> None:
    inner = ExceptionGroup("deeper", [KeyError("x")])
    group = ExceptionGroup("two of them", [ValueError("no"), inner, TypeError(f"secret={SECRET}")])
    failure = unary(group)
    assert failure["message"] == "two of them (3 sub-exceptions)"
    assert failure["exceptions"] == [
        {"type": "ValueError", "message": "no"},
        {"type": "ExceptionGroup", "message": "deeper (1 sub-exception)"},
        {"type": "TypeError", "message": "secret=[REDACTED]"},
    ]
    assert failure["context"]["error"]["exceptions"] == failure["exceptions"]
    assert "exceptions" not in unary(ValueError("alone"))


def test_a_large_group_is_cut() -> None:
    group = ExceptionGroup("many", [ValueError("x" * 1_000_000) for _ in range(1_000)])
    failure = unary(group)
    assert len(failure["exceptions"]) == MOST_EXCEPTIONS
    assert status(group)["code"] == "INTERNAL"


def test_a_group_that_hides_its_exceptions_is_still_a_failure() -> None:
    class Hiding(ExceptionGroup[Exception]):
        @property
        def exceptions(self) -> tuple[Exception, ...]:
            raise RuntimeError

    failure = unary(Hiding("hidden", [ValueError("no")]))
    assert failure["type"] == "Hiding"
    assert "exceptions" not in failure
