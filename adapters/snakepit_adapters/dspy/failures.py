"""What DSPy's exceptions mean to a caller, and how they lose the secrets that they quote."""

from __future__ import annotations

import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import dspy

from snakepit_worker.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    FrameworkError,
    ProviderError,
    Unimplemented,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snakepit_worker.errors import Code, WorkerError

__all__ = ["classify", "without"]

_CONCEALED: Final = "[REDACTED]"
_SHORTEST_SECRET: Final = 8
"""Keys below this length are placeholders for servers that want none, and occur in any text."""


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What one class of exceptions means."""

    failure: type[WorkerError]
    code: Code
    retryable: bool = False
    help: str | None = None


_MEANINGS: Final[tuple[tuple[type[BaseException], _Meaning], ...]] = (
    # The first class that fits decides, so each stands above the classes it derives from.
    (
        dspy.ContextWindowExceededError,
        _Meaning(
            ProviderError,
            "INVALID_ARGUMENT",
            help="shorten the inputs or the demos, or configure a model with a larger context",
        ),
    ),
    (dspy.LMUnsupportedModelError, _Meaning(ProviderError, "NOT_FOUND")),
    (dspy.LMInvalidRequestError, _Meaning(ProviderError, "INVALID_ARGUMENT")),
    (
        dspy.LMAuthError,
        _Meaning(ProviderError, "UNAUTHENTICATED", help="give dspy.configure_lm another api_key"),
    ),
    (dspy.LMBillingError, _Meaning(ProviderError, "RESOURCE_EXHAUSTED")),
    (dspy.LMRateLimitError, _Meaning(ProviderError, "RESOURCE_EXHAUSTED", retryable=True)),
    (dspy.LMTimeoutError, _Meaning(DeadlineExceeded, "DEADLINE_EXCEEDED", retryable=True)),
    (dspy.LMServerError, _Meaning(ProviderError, "UNAVAILABLE", retryable=True)),
    (dspy.LMProviderError, _Meaning(ProviderError, "INTERNAL")),
    (dspy.LMTransportError, _Meaning(ProviderError, "UNAVAILABLE", retryable=True)),
    (
        dspy.LMConfigurationError,
        _Meaning(
            FailedPrecondition,
            "FAILED_PRECONDITION",
            help="configure the language model with dspy.configure_lm, with its key and address",
        ),
    ),
    (dspy.LMUnsupportedFeatureError, _Meaning(Unimplemented, "UNIMPLEMENTED")),
    (dspy.LMUnexpectedError, _Meaning(FrameworkError, "INTERNAL")),
    (dspy.LMError, _Meaning(ProviderError, "INTERNAL")),
    (
        dspy.AdapterParseError,
        _Meaning(
            FrameworkError,
            "INTERNAL",
            help="the model's answer lacks the output fields; response_format 'json_schema', more"
            " max_tokens or a stronger model help",
        ),
    ),
)
_FORBIDDEN: Final = 403
_FACTS: Final = ("model", "provider", "provider_code", "status", "request_id")


def classify(error: BaseException) -> WorkerError | None:
    """What an exception of DSPy means.

    Args:
        error: What a tool raised.

    Returns:
        Code, retry hint and details, or ``None`` for exceptions that are not DSPy's.
    """
    if not isinstance(error, dspy.DSPyError):
        return None
    meaning = next((m for kind, m in _MEANINGS if isinstance(error, kind)), None)
    if meaning is None:
        return None
    return meaning.failure(
        _message(error),
        code=_code(error, meaning),
        retryable=meaning.retryable,
        retry_after=error.retry_after,
        details=_details(error),
        help=meaning.help,
    )


def _message(error: dspy.DSPyError) -> str:
    if isinstance(error, dspy.AdapterParseError):  # its own text quotes the model's whole answer
        return f"{error.adapter_name} found no complete set of output fields in the model's answer"
    return str(error.message)


def _code(error: dspy.DSPyError, meaning: _Meaning) -> Code:
    if isinstance(error, dspy.LMAuthError) and error.status == _FORBIDDEN:
        return "PERMISSION_DENIED"
    # DSPy's own HTTP layer reports a timeout as a broken transport; its cause tells the two apart.
    if isinstance(error, dspy.LMTransportError) and any(
        isinstance(link, TimeoutError) for link in _chain(error)
    ):
        return "DEADLINE_EXCEEDED"
    return meaning.code


def _details(error: dspy.DSPyError) -> dict[str, object]:
    details: dict[str, object] = {"reason": error.code}
    details.update((name, value) for name in _FACTS if (value := getattr(error, name)) is not None)
    if isinstance(error, dspy.AdapterParseError):
        details["expected_fields"] = list(error.signature.output_fields)
        details["parsed_fields"] = list(error.parsed_result or ())
    return details


@contextmanager
def without(secret: str | None) -> Iterator[None]:
    """Take a secret out of the exceptions that leave the block.

    A provider may quote the key that it refuses, and the key of a private server looks like any
    other word, so no pattern finds it later.

    Args:
        secret: The key, or ``None``.
    """
    try:
        yield
    except Exception as error:
        if secret is not None and len(secret) >= _SHORTEST_SECRET:
            _conceal(error, secret)
        raise


def _conceal(error: BaseException, secret: str) -> None:
    for link in _chain(error):
        link.args = tuple(
            arg.replace(secret, _CONCEALED) if isinstance(arg, str) else arg for arg in link.args
        )
        if isinstance(link, dspy.DSPyError):
            link.message = link.message.replace(secret, _CONCEALED)
    if secret in "".join(traceback.format_exception(error)):
        # A cause keeps its text elsewhere than in its arguments; better none than that one.
        error.__cause__ = error.__context__ = None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
