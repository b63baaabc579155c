"""Failures as the status of a stream: the message, the details, and what is cut."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2 as rpc
from google.rpc.status_pb2 import Status as RpcStatus
from hypothesis import given
from hypothesis import strategies as st

from snakepit_worker.errors import (
    InvalidArgument,
    NotFound,
    ProviderError,
    Violation,
    WorkerError,
)
from snakepit_worker.wire.failures import CallSite, describe
from snakepit_worker.wire.status import (
    CUTTING_ORDER,
    DETAILS_TRAILER,
    STATUS_LIMIT,
    STATUS_MESSAGE_LIMIT,
    as_status,
)
from tests.conftest import name_of

if TYPE_CHECKING:
    from snakepit_worker.wire.status import Status

SITE = CallSite("shop.price", "session-1", "sp-1")
SECRET = "Xq7hTz0pLm93wVbNs2Rk"  # noqa: S105 - it opens nothing


def status_of(error: BaseException, site: CallSite = SITE, **more: Any) -> Status:
    """The status, which must be within its limits."""
    status = as_status(describe(error, site, **more))
    message = sent_length(status.message)
    assert message <= STATUS_MESSAGE_LIMIT
    trailer = len(DETAILS_TRAILER) + len(base64.b64encode(status.details))
    assert len("grpc-message") + message + trailer < STATUS_LIMIT
    found = json.loads(status.message)
    assert isinstance(found["type"], str)
    assert isinstance(found["message"], str)
    return status


def sent_length(text: str) -> int:
    """Bytes of a ``grpc-message``: everything but printable ASCII, and %, takes three."""
    return sum(1 if 0x20 <= byte <= 0x7E and byte != 0x25 else 3 for byte in text.encode())


def details_of(status: Status) -> dict[str, Any]:
    """The details by kind, in their order."""
    found = {}
    for detail in RpcStatus.FromString(status.details).details:
        prefix, _, kind = detail.type_url.rpartition(".")
        assert prefix == "type.googleapis.com/google.rpc"
        found[kind] = getattr(rpc, kind).FromString(detail.value)
    return found


def raised(error: BaseException) -> BaseException:
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


# --- Which status, which details ------------------------------------------------------------------


def test_the_code_is_that_of_the_failure_and_internal_where_nobody_knows() -> None:
    assert status_of(NotFound("no")).code is grpc.StatusCode.NOT_FOUND
    assert status_of(ValueError("no")).code is grpc.StatusCode.INTERNAL
    known = ProviderError("no", code="UNAUTHENTICATED")
    assert status_of(ValueError("no"), classification=known).code is (
        grpc.StatusCode.UNAUTHENTICATED
    )


def test_in_compatible_mode_it_is_always_internal() -> None:
    status = as_status(describe(NotFound("no"), SITE), compatible=True)
    assert status.code is grpc.StatusCode.INTERNAL
    assert RpcStatus.FromString(status.details).code == grpc.StatusCode.INTERNAL.value[0]
    assert json.loads(status.message)["code"] == "NOT_FOUND"


@pytest.mark.parametrize("code", ["OK", "NOPE", "", None, 5])
def test_a_code_that_grpc_does_not_have_is_internal(code: Any) -> None:
    error = WorkerError("no")
    error.code = code
    assert status_of(error).code is grpc.StatusCode.INTERNAL
    assert json.loads(status_of(error).message)["code"] == "INTERNAL"


def test_the_status_in_the_details_says_the_same() -> None:
    status = status_of(NotFound("no such thing"))
    found = RpcStatus.FromString(status.details)
    assert (found.code, found.message) == (grpc.StatusCode.NOT_FOUND.value[0], "no such thing")


def test_error_info() -> None:
    failure = describe(ConnectionError("no"), SITE, ProviderError("no"))
    info = details_of(as_status(failure))["ErrorInfo"]
    assert (info.reason, info.domain) == ("CONNECTION_ERROR", "snakepit-worker")
    assert dict(info.metadata) == {
        "type": "ConnectionError",
        "category": "provider",
        "retryable": "true",
        "error_id": failure.error_id,
        "correlation_id": "sp-1",
    }


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ValueError", "VALUE_ERROR"),
        ("HTTPStatusError", "HTTPSTATUS_ERROR"),
        ("_Private_Error2", "_PRIVATE_ERROR2"),
        ("E" * 200, "E" * 63),
    ],
)
def test_the_reason_is_the_class_in_capitals(name: str, reason: str) -> None:
    error = type(name, (Exception,), {})("no")
    assert details_of(status_of(error))["ErrorInfo"].reason == reason


def test_bad_request() -> None:
    violations = [Violation("a[0].b", "expected int"), Violation("c", f"password='{SECRET}'")]
    request = details_of(status_of(InvalidArgument("no", violations=violations)))["BadRequest"]
    assert [(found.field, found.description) for found in request.field_violations] == [
        ("a[0].b", "expected int"),
        ("c", "password='[REDACTED]'"),
    ]


@pytest.mark.parametrize(
    ("seconds", "milliseconds"),
    [(1.5, 1_500), (0, 0), (-3.0, 0), (1e30, 86_400_000), (2, 2_000)],
)
def test_retry_info(seconds: float, milliseconds: int) -> None:
    status = status_of(ProviderError("no", retry_after=seconds))
    assert details_of(status)["RetryInfo"].retry_delay.ToMilliseconds() == milliseconds
    assert json.loads(status.message)["retry_after_ms"] == milliseconds


@pytest.mark.parametrize("seconds", [None, float("nan"), float("inf")])
def test_no_retry_info_without_a_time(seconds: float | None) -> None:
    status = status_of(ProviderError("no", retry_after=seconds))
    assert "RetryInfo" not in details_of(status)
    assert "retry_after_ms" not in json.loads(status.message)


@pytest.mark.parametrize("kind", ["tool", "handle", "session_id", "adapter"])
def test_resource_info(kind: str) -> None:
    info = details_of(status_of(NotFound("no", details={"near": 1, kind: "x"})))["ResourceInfo"]
    assert (info.resource_type, info.resource_name) == (kind, "x")


class UnspeakableError:
    def __str__(self) -> str:
        raise ValueError


def test_resource_info_of_odd_names() -> None:
    def name_of_resource(name: object) -> str:
        status = status_of(NotFound("no", details={"handle": name}))
        return str(details_of(status)["ResourceInfo"].resource_name)

    assert name_of_resource(f"sk-{SECRET}") == "[REDACTED]"
    assert name_of_resource("\ud800") == "?"
    assert name_of_resource(UnspeakableError()) == "<UnspeakableError>"
    assert name_of_resource("ä" * 1_000) == "ä" * 128


def test_no_resource_info_where_nothing_is_missing() -> None:
    assert "ResourceInfo" not in details_of(status_of(InvalidArgument("no", details={"tool": "x"})))
    assert "ResourceInfo" not in details_of(status_of(NotFound("no")))


def test_debug_info_is_the_traceback() -> None:
    error = raised(ValueError("no"))
    entries = list(details_of(status_of(error))["DebugInfo"].stack_entries)
    assert entries[0] == "Traceback (most recent call last):"
    assert entries[-1] == "ValueError: no"
    assert "DebugInfo" not in details_of(status_of(error, frames="none"))


# --- Limits ---------------------------------------------------------------------------------------


def crowded(size: int, text: str = "x") -> WorkerError:
    """A failure with so much of everything."""
    error = NotFound(
        "m",
        retry_after=1.0,
        violations=[Violation("f", text * size)],
        details={"handle": "h", "more": text * size},
        help=text * size,
    )
    error.add_note(text * size)
    error.__cause__ = ValueError(text * size)
    return error


@pytest.mark.parametrize("text", ["x", "é", "🐍", "%", "\n", '"'], ids=name_of)
def test_the_message_loses_its_keys_in_one_order(text: str) -> None:
    def keys(size: int) -> set[str]:
        site = CallSite("t" * min(size, 500), "s")
        return set(json.loads(status_of(raised(crowded(size, text)), site).message))

    order = [key for key in CUTTING_ORDER if key != "exceptions"]  # which only a group has
    assert keys(1) >= set(order)
    kept = []
    for size in range(1, 4_000, 40):
        present = keys(size)
        gone = [key for key in order if key not in present]
        assert gone == order[: len(gone)]
        kept.append(len(order) - len(gone))
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] <= 2  # the end of the order is reached


def test_of_the_details_debug_information_goes_first() -> None:
    order = ["ErrorInfo", "RetryInfo", "BadRequest", "ResourceInfo", "DebugInfo"]
    seen = set()
    for size in range(1, 4_000, 40):
        kept = list(details_of(status_of(raised(crowded(size)))))
        assert kept == order[: len(kept)]
        seen.add(len(kept))
    assert seen >= {2, 4, 5}


LONG = [
    pytest.param("x" * 100_000, id="ASCII"),
    pytest.param("é" * 50_000, id="Latin"),
    pytest.param("🐍" * 50_000, id="astral"),
    pytest.param("%" * 50_000, id="percent signs"),
    pytest.param("\x00\n" * 50_000, id="control characters"),
    pytest.param('"\\' * 50_000, id="to be escaped"),
    pytest.param("\ud800" * 50_000, id="lone surrogates"),
]


@pytest.mark.parametrize("text", LONG)
def test_everything_too_long_at_once(text: str) -> None:
    class_name = text.replace("\x00", "\n").replace("\ud800", "ß")  # what a class may be called
    error = type(class_name, (InvalidArgument,), {"elixir_name": text})(
        text,
        retry_after=1.0,
        violations=[Violation(text, text)] * 100,
        details={"handle": text, "more": [text] * 100},
        help=text,
    )
    error.__cause__ = ValueError(text)
    error.add_note(text)
    status = status_of(raised(error), CallSite(text, text, text, {"library": text}))
    found = json.loads(status.message)
    assert (found["code"], found["retry_after_ms"]) == ("INVALID_ARGUMENT", 1_000)
    assert len(found["error_id"]) == 32
    assert found["message"].endswith("…")
    assert list(details_of(status))[:2] == ["ErrorInfo", "RetryInfo"]


@given(st.text(max_size=3_000), st.text(max_size=300), st.text(max_size=1_000))
def test_any_texts_fit(text: str, correlation_id: str, note: str) -> None:
    error = NotFound(text, details={"tool": text}, help=note)
    error.add_note(note)
    status_of(error, CallSite(text, note, correlation_id))
