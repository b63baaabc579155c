"""Tools over the language models of a session."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from snakepit_adapters.dspy.arguments import (
    Engine,
    LMSettings,
    MaxTokens,
    ModelType,
    Penalty,
    ReasoningEffort,
    ResponseFormat,
    Share,
    Temperature,
)
from snakepit_adapters.dspy.credentials import Credentials
from snakepit_adapters.dspy.refusing import invalid
from snakepit_adapters.dspy.tools.held import DEFAULT_LM, LM, identity
from snakepit_adapters.dspy.tools.older_models import OlderProvider, older_form
from snakepit_adapters.dspy.usage import attributed, ledger_of
from snakepit_worker import CallContext, tool

__all__ = ["LanguageModelTools"]

Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]
Retries = Annotated[int, msgspec.Meta(ge=0, le=10)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Concurrency = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Latest = Annotated[int, msgspec.Meta(ge=0, le=100)]


class LanguageModelTools:
    """Configuring language models, and what they have cost.

    Attributes:
        credentials: What the operator declared.
    """

    credentials: Credentials = Credentials()

    @tool
    async def configure_lm(  # noqa: PLR0913 - the settings of a language model
        self,
        ctx: CallContext,
        *,
        model: str | None = None,
        engine: Engine = "auto",
        tool: str | None = None,
        api_base: str | None = None,
        api_key: str | None = None,
        credential: str | None = None,
        model_type: ModelType | OlderProvider = "chat",
        temperature: Temperature | None = None,
        max_tokens: MaxTokens | None = None,
        top_p: Share | None = None,
        top_k: Positive | None = None,
        seed: int | None = None,
        stop: list[str] | None = None,
        presence_penalty: Penalty | None = None,
        frequency_penalty: Penalty | None = None,
        reasoning_effort: ReasoningEffort | None = None,
        timeout: Seconds = 120.0,  # noqa: ASYNC109 - of the provider, not of this call
        num_retries: Retries = 3,
        max_concurrency: Concurrency = 8,
        response_format: ResponseFormat = "text",
        name: str = DEFAULT_LM,
    ) -> dict[str, Any]:
        """Configure a language model for this session; nothing is sent to it yet.

        Programs use the one named "default" unless they name another.  A second model of the same
        name replaces the first.

        Args:
            ctx: The call.
            model: "provider/model", such as "openai/gpt-4o-mini".  With the engine "elixir" any
                text, "elixir/" and the tool's name if omitted.
            engine: "native" for the providers that DSPy serves itself, "litellm" for those of the
                package LiteLLM, "auto" for the first of the two that can, "elixir" for a tool of
                the Elixir side.
            tool: The Elixir tool that answers.  It gets "messages", "model" and "options", and
                gives a text, or a map with "text" and "usage".
            api_base: Address of an OpenAI-compatible server, or of a proxy.
            api_key: Key for the provider.  Without key, credential and address the worker's
                environment counts.
            credential: Name of a key that the operator has declared, in place of a key and address.
            model_type: Interface of the provider: "chat", "responses" or "text".  In the older
                adapter's form the provider: "openai", "anthropic" or "gemini"; `model` is then its
                name alone.
            temperature: 0 for the likeliest answer, higher for more variety.
            max_tokens: Tokens of an answer at most.
            top_p: Share of the likeliest tokens to choose from.
            top_k: Number of the likeliest tokens to choose from.
            seed: For repeatable choices, where the provider supports it.
            stop: Texts that end the answer.
            presence_penalty: Above 0 against tokens that occurred already.
            frequency_penalty: Above 0 against tokens that occurred often.
            reasoning_effort: How long a reasoning model thinks.
            timeout: Seconds to wait for the provider's next sign of life; for an Elixir tool the
                deadline of the call counts instead.
            num_retries: Attempts after a first one that failed for a passing reason; calls of an
                Elixir tool are not repeated.
            max_concurrency: Calls of the Elixir tool that may run at once.
            response_format: Layout of answers: "text", "json", or "json_schema", which small models
                need.
            name: What programs call it.

        Returns:
            The handle and the settings, without the key.
        """
        from snakepit_adapters.dspy.language_models import LanguageModel

        interface, model, older = older_form(model_type, model)
        if model is None:
            if engine != "elixir" or tool is None:
                raise invalid("model", "expected 'provider/model', got nothing")
            model = f"elixir/{tool}"
        settings = LMSettings(
            model=model,
            engine=engine,
            tool=tool,
            api_base=api_base,
            api_key=api_key,
            credential=credential,
            model_type=interface,
            temperature=temperature,
            max_tokens=max_tokens,
            top_p=top_p,
            top_k=top_k,
            seed=seed,
            stop=stop,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            reasoning_effort=reasoning_effort,
            timeout=timeout,
            num_retries=num_retries,
            max_concurrency=max_concurrency,
            response_format=response_format,
        )
        # In a thread, because LiteLLM takes seconds to import.
        configured = await ctx.run_sync(LanguageModel.configure, settings, self.credentials)
        description = configured.describe()
        resource = ctx.session.put(
            LM,
            configured,
            name=name,
            metadata=description,
            close=configured.close,
            recipe=configured.recipe,
            replace=True,
        )
        return identity(resource) | description | older

    @tool
    def list_lms(self, ctx: CallContext) -> list[dict[str, Any]]:
        """List the language models of this session, oldest first.

        Args:
            ctx: The call.

        Returns:
            The handle and the settings of each, without keys.
        """
        return [
            identity(resource) | resource.value.describe()
            for resource in ctx.session.resources(LM)
            if resource.lost is None
        ]

    @tool
    async def check_lm(self, ctx: CallContext, *, lm: str = DEFAULT_LM) -> dict[str, Any]:
        """See whether a language model answers, by one small call of it.

        The call counts for `dspy.usage`, and is not repeated when it fails; then this call fails as
        one of a program would.

        Args:
            ctx: The call.
            lm: Handle or name of the language model.

        Returns:
            The model, what it said, and the seconds until then.
        """
        import dspy

        lease = ctx.session.lease(lm, LM)
        async with lease as model:
            with dspy.context(**attributed()):
                said: dict[str, Any] = await model.check()
            return identity(lease.resource) | {"model": model.settings.model} | said

    @tool
    def usage(self, ctx: CallContext, *, calls: Latest = 0, reset: bool = False) -> dict[str, Any]:
        """Show what this session has used of its language models, in this worker.

        Counted are calls of language models: calls, failures, prompt_tokens, completion_tokens,
        total_tokens, seconds, cost in US dollars of calls with a known price, and unpriced, the
        number of the others.

        Args:
            ctx: The call.
            calls: How many of the latest calls of tools to show one by one.
            reset: Whether to begin anew after this.

        Returns:
            The sums in total, by model and by program, since when, and the latest calls.
        """
        return ledger_of(ctx.session).describe(calls=calls, reset=reset)
