"""Language models as a session holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import dspy

from snakepit_adapters.dspy.arguments import LMSettings
from snakepit_worker.errors import FailedPrecondition, InvalidArgument, Violation

if TYPE_CHECKING:
    from snakepit_worker.sessions import Recipe

__all__ = ["PROVIDERS", "LanguageModel"]

PROVIDERS: Final = (
    "anthropic",
    "azure",
    "deepseek",
    "gemini",
    "groq",
    "hosted_vllm",
    "moonshot",
    "ollama",
    "ollama_chat",
    "openai",
    "openrouter",
    "xai",
)
"""Prefixes that DSPy serves itself.  For any other it would import LiteLLM, which takes seconds."""

_NO_KEY: Final = "none"


class LanguageModel:
    """A configured language model.

    Args:
        settings: What the caller said.
        lm: DSPy's object.

    Attributes:
        settings: What the caller said.
        lm: DSPy's object.
    """

    def __init__(self, settings: LMSettings, lm: dspy.LM) -> None:
        self.settings = settings
        self.lm = lm

    @classmethod
    def configure(cls, settings: LMSettings) -> LanguageModel:
        """The language model.  Nothing is sent yet.

        Raises:
            InvalidArgument: When the settings name no provider that is served, no web address, or
                values that the model refuses.
        """
        _check_model(settings.model)
        if settings.api_base is not None:
            _check_address(settings.api_base)
        try:
            lm = dspy.LM(settings.model, **_options(settings))
        except dspy.LMConfigurationError as error:
            raise _invalid("model", error.message) from None
        return cls(settings, lm)

    @classmethod
    def rebuild(cls, recipe: Recipe) -> LanguageModel:
        """The language model that a recipe describes.

        Args:
            recipe: What ``recipe`` gave.

        Raises:
            FailedPrecondition: When it had a key of its own.
        """
        settings = dict(recipe)
        if settings.pop("api_key_given"):
            msg = "its API key was given in the call, and such keys are never stored"
            raise FailedPrecondition(msg, help="call dspy.configure_lm again")
        return cls.configure(LMSettings(**settings))

    def recipe(self) -> Recipe:
        """What it takes to configure it again, without its key."""
        return self.describe()

    def describe(self) -> dict[str, object]:
        """The model as JSON values, without its key."""
        settings = self.settings
        return {
            "model": settings.model,
            "api_base": settings.api_base,
            "api_key_given": settings.api_key is not None,
            "temperature": settings.temperature,
            "max_tokens": settings.max_tokens,
            "timeout": settings.timeout,
            "num_retries": settings.num_retries,
            "response_format": settings.response_format,
        }

    async def close(self) -> None:
        """Close the connections, on the event loop that uses them.

        An idle connection keeps a reference to the context that opened it, and so to the model and
        its key, until it is closed.
        """
        await self.lm.aclose()


def _options(settings: LMSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        # DSPy's cache looks at neither key nor address: one session would get another's answers.
        "cache": False,
        "temperature": settings.temperature,
        "max_tokens": settings.max_tokens,
        "timeout": settings.timeout,
        "num_retries": settings.num_retries,
    }
    if settings.api_base is not None:
        # Without a key DSPy would send the worker's own, from its environment, to that address.
        options["api_base"] = settings.api_base
        options["api_key"] = _NO_KEY
    if settings.api_key is not None:
        options["api_key"] = settings.api_key
    return options


def _check_model(model: str) -> None:
    provider, _, name = model.partition("/")
    if not provider or not name or not name.isprintable() or " " in name:
        raise _invalid("model", f"expected 'provider/model', got {model!r}")
    if provider not in PROVIDERS:
        known = ", ".join(PROVIDERS)
        raise _invalid("model", f"unknown provider {provider!r} in {model!r}; known are {known}")


def _check_address(address: str) -> None:
    try:
        parts = urlsplit(address)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fits = False
    # The address is shown to callers and in logs; a password or a token in it would be, too.
    if not fits or "@" in parts.netloc or parts.query or parts.fragment:
        raise _invalid("api_base", "expected a http or https address without credentials or query")


def _invalid(argument: str, description: str) -> InvalidArgument:
    return InvalidArgument(
        f"{argument}: {description}", violations=[Violation(argument, description)]
    )
