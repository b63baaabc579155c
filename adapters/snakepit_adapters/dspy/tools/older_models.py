"""Language models as the older adapter's clients describe them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from snakepit_adapters.dspy.arguments import ModelType

__all__ = ["OlderProvider", "older_form"]

OlderProvider = Literal["openai", "anthropic", "gemini"]
"""What the older adapter's ``model_type`` says: the provider."""

_DEFAULTS: Final[Mapping[str, str]] = {
    "openai": "gpt-3.5-turbo",
    "anthropic": "claude-3-sonnet-20240229",
    "gemini": "gemini-pro",
}


def older_form(
    model_type: ModelType | OlderProvider, model: str | None
) -> tuple[ModelType, str | None, dict[str, Any]]:
    """The arguments as they are now, and what the older form adds to the result.

    Args:
        model_type: An interface of a provider, or in the older form the provider.
        model: ``provider/model``, or in the older form the model, which may be missing there.
    """
    if model_type == "chat" or model_type == "responses" or model_type == "text":  # noqa: PLR1714 - type checkers follow this
        return model_type, model, {}
    name = _DEFAULTS[model_type] if model is None else model
    prefix = f"{model_type}/"
    full = name if name.startswith(prefix) else prefix + name
    return "chat", full, {"success": True, "model_type": model_type}
