"""Tools over the language models of a session."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from snakepit_adapters.dspy.arguments import LMSettings, MaxTokens, ResponseFormat, Temperature
from snakepit_adapters.dspy.tools.held import DEFAULT_LM, LM, identity
from snakepit_worker import CallContext, tool

__all__ = ["LanguageModelTools"]

Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]
Retries = Annotated[int, msgspec.Meta(ge=0, le=10)]


class LanguageModelTools:
    """Configuring language models."""

    @tool
    async def configure_lm(  # noqa: PLR0913 - the settings of a language model
        self,
        model: str,
        ctx: CallContext,
        *,
        api_base: str | None = None,
        api_key: str | None = None,
        temperature: Temperature | None = None,
        max_tokens: MaxTokens | None = None,
        timeout: Seconds = 120.0,  # noqa: ASYNC109 - of the provider, not of this call
        num_retries: Retries = 3,
        response_format: ResponseFormat = "text",
        name: str = DEFAULT_LM,
    ) -> dict[str, Any]:
        """Configure a language model for this session; nothing is sent to it yet.

        Programs use the one named "default" unless they name another.  A second model of the same
        name replaces the first.

        Args:
            model: "provider/model", such as "openai/gpt-4o-mini".
            ctx: The call.
            api_base: Address of an OpenAI-compatible server, or of a proxy.
            api_key: Key for the provider.  Without key and address the worker's environment counts.
            temperature: 0 for the likeliest answer, higher for more variety.
            max_tokens: Tokens of an answer at most.
            timeout: Seconds to wait for the provider's next sign of life.
            num_retries: Attempts after a first one that failed for a passing reason.
            response_format: Layout of answers: "text", "json", or "json_schema", which small models
                need.
            name: What programs call it.

        Returns:
            The handle and the settings, without the key.
        """
        from snakepit_adapters.dspy.language_models import LanguageModel

        settings = LMSettings(
            model=model,
            api_base=api_base,
            api_key=api_key,
            temperature=temperature,
            max_tokens=max_tokens,
            timeout=timeout,
            num_retries=num_retries,
            response_format=response_format,
        )
        configured = LanguageModel.configure(settings)
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
        return identity(resource) | description
