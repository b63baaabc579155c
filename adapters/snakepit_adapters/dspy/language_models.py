"""Language models as a session holds them."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any, Final

import dspy

from snakepit_adapters.dspy import backends
from snakepit_adapters.dspy.arguments import LMSettings
from snakepit_adapters.dspy.backends import PROVIDERS
from snakepit_adapters.dspy.credentials import (
    Credentials,
    archived,
    is_web_address,
    restored,
)
from snakepit_adapters.dspy.elixir_engine import AsyncElixirEngine, ElixirEngine, Turns
from snakepit_adapters.dspy.metered import MeteredLM
from snakepit_adapters.dspy.refusing import invalid
from snakepit_adapters.dspy.values import refuse
from snakepit_worker.errors import FailedPrecondition, Violation

if TYPE_CHECKING:
    from snakepit_adapters.dspy.credentials import Credential
    from snakepit_worker.sessions import Recipe

__all__ = ["PROVIDERS", "LanguageModel"]

_NO_KEY: Final = "none"
_UNDECLARED: Final = Credentials()
_SAMPLING: Final = (
    "temperature",
    "max_tokens",
    "top_p",
    "top_k",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "reasoning_effort",
)
_NOT_FOR_ELIXIR: Final = ("api_base", "api_key", "credential")
_CHECK: Final = "Reply with the word OK."
_CHECK_TOKENS: Final = 16
"""Enough for the word; some providers refuse less."""


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
    def configure(
        cls, settings: LMSettings, credentials: Credentials = _UNDECLARED
    ) -> LanguageModel:
        """The language model.  Nothing is sent yet.

        Blocks for seconds at the first one that needs LiteLLM.

        Args:
            settings: What the caller said.
            credentials: What the operator declared.

        Raises:
            InvalidArgument: When the settings name no provider that is served, no web address, no
                declared credential or one for something else, or values that the model refuses.
            Unimplemented: When LiteLLM is needed and not installed.
        """
        _check_combination(settings)
        if settings.engine == "elixir":
            return cls(settings, _elixir_lm(settings))
        provider, _, name = settings.model.partition("/")
        if not provider or not name or not name.isprintable() or " " in name:
            raise invalid("model", f"expected 'provider/model', got {settings.model!r}")
        if settings.api_base is not None and not is_web_address(settings.api_base):
            text = "expected a http or https address without credentials or query"
            raise invalid("api_base", text)
        credential = None
        if settings.credential is not None:
            credential = credentials.get(settings.credential)
            credential.check(provider, settings.api_base)
        try:
            model = cls(settings, _provider_lm(settings, credential))
        except dspy.LMConfigurationError as error:
            raise invalid("model", error.message) from None
        if model.lm.engine == "litellm":
            backends.joins(model)
        return model

    @classmethod
    def rebuild(cls, recipe: Recipe, credentials: Credentials = _UNDECLARED) -> LanguageModel:
        """The language model that a recipe describes.

        Args:
            recipe: What ``recipe`` gave.
            credentials: What the operator of this worker declared.

        Raises:
            FailedPrecondition: When it had a key of its own.
            InvalidArgument: When this worker does not have its credential.
        """
        settings = restored(recipe)
        if settings.pop("api_key_given"):
            msg = "its API key was given in the call, and such keys are never stored"
            raise FailedPrecondition(msg, help="call dspy.configure_lm again")
        return cls.configure(LMSettings(**settings), credentials)

    def recipe(self) -> Recipe:
        """What it takes to configure it again, without its key."""
        return archived(self.describe())

    def describe(self) -> dict[str, object]:
        """The model as JSON values, without its key."""
        described = dataclasses.asdict(self.settings)
        described["api_key_given"] = described.pop("api_key") is not None
        return described

    async def check(self) -> dict[str, object]:
        """Ask it for one word, without a second attempt.

        Returns:
            What it said, and the seconds until then.
        """
        # Reasoning models spend tokens before they say anything; for them DSPy has another name.
        brief = {"max_tokens": _CHECK_TOKENS} if "max_tokens" in self.lm.kwargs else {}
        begun = time.monotonic()
        with dspy.context(lm=self.lm, callbacks=[], disable_history=True, trace=None):
            answers = await self.lm.copy(num_retries=0).acall(_CHECK, **brief)
        seconds = time.monotonic() - begun
        said = answers[0] if isinstance(answers[0], str) else answers[0]["text"]
        return {"answer": said, "seconds": round(seconds, 6)}

    async def close(self) -> None:
        """Close the connections, on the event loop that uses them.

        An idle connection keeps a reference to the context that opened it, and so to the model and
        its key, until it is closed.
        """
        await self.lm.aclose()
        if self.lm.engine == "litellm":
            await backends.leaves(self)


def _provider_lm(settings: LMSettings, credential: Credential | None) -> MeteredLM:
    options = _options(settings)
    secrets: list[str] = []
    if settings.api_base is not None:
        # Without a key DSPy would send the worker's own, from its environment, to that address.
        options |= {"api_base": settings.api_base, "api_key": _NO_KEY}
    if settings.api_key is not None:
        options["api_key"] = settings.api_key
        secrets.append(settings.api_key)
    if credential is not None:
        options |= credential.options
        if credential.api_base is not None:
            options["api_base"] = credential.api_base
        if credential.api_key is not None:
            options["api_key"] = credential.api_key
        secrets.extend(credential.secrets)
    options |= {"timeout": settings.timeout, "num_retries": settings.num_retries}
    backend = backends.choose(settings, credential, options)
    lm = MeteredLM(settings.model, engine=backend.name, **options)
    lm.secrets = (*secrets, *backend.secrets)
    return lm


def _elixir_lm(settings: LMSettings) -> MeteredLM:
    turns = Turns(settings.max_concurrency)
    tool = settings.tool or ""
    return MeteredLM(
        settings.model,
        engine=ElixirEngine(tool, turns),
        async_engine=AsyncElixirEngine(tool, turns),
        num_retries=0,
        **_options(settings),
    )


def _options(settings: LMSettings) -> dict[str, Any]:
    given = {name: getattr(settings, name) for name in _SAMPLING}
    return {
        # DSPy's cache looks at neither key nor address: one session would get another's answers.
        "cache": False,
        "model_type": settings.model_type,
        **{name: value for name, value in given.items() if value is not None},
    }


def _check_combination(settings: LMSettings) -> None:
    violations: list[Violation] = []
    if settings.engine == "elixir":
        if not settings.tool:
            violations.append(Violation("tool", "expected the name of an Elixir tool"))
        violations += [
            Violation(name, "a language model on the Elixir side has none")
            for name in _NOT_FOR_ELIXIR
            if getattr(settings, name) is not None
        ]
        if settings.model_type != "chat":
            violations.append(Violation("model_type", "expected chat with the engine elixir"))
    elif settings.tool is not None:
        violations.append(Violation("tool", "only with the engine elixir"))
    if settings.api_key is not None and settings.credential is not None:
        violations.append(Violation("credential", "expected either a credential or an api_key"))
    refuse(violations)
