from __future__ import annotations

import traceback
from typing import Any

import dspy
import pytest

from snakepit_adapters.dspy.adapter import DspyAdapter
from snakepit_adapters.dspy.failures import without
from snakepit_worker.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    FrameworkError,
    ProviderError,
    Unimplemented,
    WorkerError,
)
from snakepit_worker.tools.meanings import Meanings

KEY = "key-of-the-session-4711"


classify = Meanings(DspyAdapter()).of


@pytest.mark.parametrize(
    ("error", "failure", "code", "retryable"),
    [
        (dspy.LMAuthError("no", status=401), ProviderError, "UNAUTHENTICATED", False),
        (dspy.LMAuthError("no", status=403), ProviderError, "PERMISSION_DENIED", False),
        (dspy.LMBillingError("pay"), ProviderError, "RESOURCE_EXHAUSTED", False),
        (dspy.LMRateLimitError("slow"), ProviderError, "RESOURCE_EXHAUSTED", True),
        (dspy.ContextWindowExceededError(), ProviderError, "INVALID_ARGUMENT", False),
        (dspy.LMUnsupportedModelError("what"), ProviderError, "NOT_FOUND", False),
        (dspy.LMInvalidRequestError("bad"), ProviderError, "INVALID_ARGUMENT", False),
        (dspy.LMTimeoutError("late"), DeadlineExceeded, "DEADLINE_EXCEEDED", True),
        (dspy.LMServerError("oops"), ProviderError, "UNAVAILABLE", True),
        (dspy.LMProviderError("html"), ProviderError, "INTERNAL", False),
        (dspy.LMTransportError("refused"), ProviderError, "UNAVAILABLE", True),
        (dspy.LMNotConfiguredError("key"), FailedPrecondition, "FAILED_PRECONDITION", False),
        (dspy.LMConfigurationError("set"), FailedPrecondition, "FAILED_PRECONDITION", False),
        (dspy.LMUnsupportedFeatureError("no"), Unimplemented, "UNIMPLEMENTED", False),
        (dspy.LMStreamAssemblyError("cut"), FrameworkError, "INTERNAL", False),
        (dspy.LMUnexpectedError("bug"), FrameworkError, "INTERNAL", False),
        (dspy.LMCollectionLimitError("big"), ProviderError, "INTERNAL", False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_each_exception_has_its_meaning(
    error: Exception,
    failure: type[WorkerError],
    code: str,
    retryable: bool,  # noqa: FBT001
) -> None:
    meant = classify(error)
    assert type(meant) is failure
    assert (meant.code, meant.retryable) == (code, retryable)


def test_every_exception_of_dspys_language_models_has_one() -> None:
    kinds = [
        kind
        for kind in vars(dspy).values()
        if isinstance(kind, type) and issubclass(kind, dspy.LMError)
    ]
    assert len(kinds) > 15
    for kind in kinds:
        error: Any = Exception.__new__(kind)  # constructors differ
        dspy.DSPyError.__init__(error, "?")
        assert classify(error) is not None, kind


def test_a_broken_connection_that_was_a_timeout_is_a_timeout() -> None:
    error = dspy.LMTransportError("read timed out")
    error.__cause__ = OSError()
    error.__cause__.__cause__ = TimeoutError()
    meant = classify(error)
    assert meant is not None
    assert meant.code == "DEADLINE_EXCEEDED"


def test_facts_for_programs() -> None:
    error = dspy.LMRateLimitError(
        "slow down", model="openai/x", provider="openai", status=429, retry_after=1.5
    )
    meant = classify(error)
    assert meant is not None
    assert meant.retry_after == 1.5
    assert meant.details == {
        "reason": "rate_limit",
        "model": "openai/x",
        "provider": "openai",
        "status": 429,
    }


def test_an_answer_that_cannot_be_parsed_tells_the_fields() -> None:
    error = dspy.AdapterParseError(
        "JSONAdapter", dspy.Signature("q -> a, b"), "{}", parsed_result={"a": 1}
    )
    meant = classify(error)
    assert isinstance(meant, FrameworkError)
    assert meant.details["expected_fields"] == ["a", "b"]
    assert meant.details["parsed_fields"] == ["a"]
    assert "json_schema" in (meant.help or "")


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), dspy.DSPyError("x")])
def test_others_are_not_known(error: Exception) -> None:
    assert classify(error) is None


class Stubborn(Exception):  # noqa: N818
    """Quotes a key that is not in its arguments."""

    def __str__(self) -> str:
        return f"refused {KEY}"


def refusal(inner: Exception) -> dspy.LMAuthError:
    try:
        try:
            raise inner
        except Exception as error:
            raise dspy.LMAuthError(f"key {KEY} is wrong", model="m") from error
    except dspy.LMAuthError as error:
        return error


@pytest.mark.parametrize("inner", [OSError(f"sent {KEY}"), KeyError(1, KEY), Stubborn()])
def test_a_secret_leaves_in_no_part_of_an_exception(inner: Exception) -> None:
    with pytest.raises(dspy.LMAuthError) as raised, without(KEY):
        raise refusal(inner)
    text = "".join(traceback.format_exception(raised.value))
    assert KEY not in text + raised.value.message
    assert "key [REDACTED] is wrong" in text


@pytest.mark.parametrize("secret", [None, "none"])
def test_what_is_no_secret_stays(secret: str | None) -> None:
    error: Any = dspy.LMServerError("none of this")
    with pytest.raises(dspy.LMServerError, match="none of this"), without(secret):
        raise error


def test_an_exception_that_is_its_own_context_is_followed_once() -> None:
    error = dspy.LMServerError(KEY)
    error.__cause__ = ValueError("x")
    error.__cause__.__context__ = error
    with pytest.raises(dspy.LMServerError) as raised, without(KEY):
        raise error
    assert KEY not in str(raised.value)
