"""What DSPy's exceptions mean to a caller, and how they lose the secrets that they quote."""

from __future__ import annotations

import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import dspy
from dspy.primitives import CodeInterpreterError

from snakepit_worker.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    FrameworkError,
    Meaning,
    ProviderError,
    Unimplemented,
    WorkerError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snakepit_worker.errors import Code

__all__ = ["MEANINGS", "explain", "without"]

_CONCEALED: Final = "[REDACTED]"
_SHORTEST_SECRET: Final = 8
"""Keys below this length are placeholders for servers that want none, and occur in any text."""

MEANINGS: Final = (
    Meaning(
        dspy.ContextWindowExceededError,
        ProviderError,
        "INVALID_ARGUMENT",
        retryable=False,
        help="shorten the inputs or the demos, or configure a model with a larger context",
    ),
    Meaning(dspy.LMUnsupportedModelError, ProviderError, "NOT_FOUND", retryable=False),
    Meaning(dspy.LMInvalidRequestError, ProviderError, "INVALID_ARGUMENT", retryable=False),
    Meaning(
        dspy.LMAuthError,
        ProviderError,
        "UNAUTHENTICATED",
        retryable=False,
        help="give dspy.configure_lm another api_key or credential",
    ),
    Meaning(dspy.LMBillingError, ProviderError, "RESOURCE_EXHAUSTED", retryable=False),
    Meaning(dspy.LMRateLimitError, ProviderError, "RESOURCE_EXHAUSTED"),
    Meaning(dspy.LMTimeoutError, DeadlineExceeded),
    Meaning(dspy.LMServerError, ProviderError),
    Meaning(dspy.LMProviderError, ProviderError, "INTERNAL", retryable=False),
    Meaning(dspy.LMTransportError, ProviderError),
    Meaning(
        dspy.LMConfigurationError,
        FailedPrecondition,
        help="configure the language model with dspy.configure_lm, with its key and address",
    ),
    Meaning(dspy.LMUnsupportedFeatureError, Unimplemented),
    Meaning(dspy.LMUnexpectedError, FrameworkError),
    Meaning(dspy.LMError, ProviderError, "INTERNAL", retryable=False),
    Meaning(
        CodeInterpreterError,
        FailedPrecondition,
        help="the worker needs Deno 2, and the packages that Deno fetches at its first start",
    ),
    Meaning(
        dspy.AdapterParseError,
        FrameworkError,
        help="the model's answer lacks the output fields; response_format 'json_schema', more"
        " max_tokens or a stronger model help",
    ),
)
_FORBIDDEN: Final = 403
_FACTS: Final = ("model", "provider", "provider_code", "status", "request_id")


def explain(error: BaseException, failure: WorkerError) -> WorkerError:
    """Add the facts that an exception of DSPy carries.

    Args:
        error: What a tool raised.
        failure: What the table says of it.
    """
    if isinstance(error, dspy.LMUnexpectedError) and isinstance(error.__cause__, WorkerError):
        return error.__cause__  # of an engine of our own, such as the failure of an Elixir tool
    if not isinstance(error, dspy.DSPyError):
        return failure
    return type(failure)(
        _message(error),
        code=_code(error, failure.code),
        retryable=failure.retryable,
        retry_after=error.retry_after,
        details=_details(error),
        help=failure.help,
    )


def _message(error: dspy.DSPyError) -> str:
    if isinstance(error, dspy.AdapterParseError):  # its own text quotes the model's whole answer
        return f"{error.adapter_name} found no complete set of output fields in the model's answer"
    return str(error.message)


def _code(error: dspy.DSPyError, code: Code) -> Code:
    if isinstance(error, dspy.LMAuthError) and error.status == _FORBIDDEN:
        return "PERMISSION_DENIED"
    # DSPy's own HTTP layer reports a timeout as a broken transport; its cause tells the two apart.
    if isinstance(error, dspy.LMTransportError) and any(
        isinstance(link, TimeoutError) for link in _chain(error)
    ):
        return "DEADLINE_EXCEEDED"
    return code


def _details(error: dspy.DSPyError) -> dict[str, object]:
    details: dict[str, object] = {"reason": error.code}
    details.update((name, value) for name in _FACTS if (value := getattr(error, name)) is not None)
    if isinstance(error, dspy.AdapterParseError):
        details["expected_fields"] = list(error.signature.output_fields)
        details["parsed_fields"] = list(error.parsed_result or ())
    return details


@contextmanager
def without(*secrets: str | None) -> Iterator[None]:
    """Take secrets out of the exceptions that leave the block.

    A provider may quote the key that it refuses, and the key of a private server looks like any
    other word, so no pattern finds it later.

    Args:
        *secrets: The keys; ``None`` stands for none.
    """
    try:
        yield
    except Exception as error:
        for secret in secrets:
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
