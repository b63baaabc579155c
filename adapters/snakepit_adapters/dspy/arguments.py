"""What callers say to the tools, beyond plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec

__all__ = [
    "FieldSpec",
    "Generation",
    "LMSettings",
    "MaxTokens",
    "ResponseFormat",
    "SignatureSpec",
    "Temperature",
]

ResponseFormat = Literal["text", "json", "json_schema"]
"""How a model is asked to lay out its answer.

``text``: field markers, DSPy's own layout, which strong models follow best.
``json``: a JSON object, constrained where DSPy knows that the model can be.
``json_schema``: a JSON object, and every request carries a JSON Schema of the output fields; small
models need it, and the server has to support it.
"""

Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]
"""0 for the likeliest answer, higher for more variety."""

MaxTokens = Annotated[int, msgspec.Meta(ge=1)]
"""Tokens of an answer at most."""


class FieldSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One field of a signature.

    Attributes:
        name: How inputs and outputs call it.
        type: Its type, as in a signature string.
        description: What the model is told about it.
    """

    name: str
    type: str = "str"
    description: str | None = None


class SignatureSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A signature as data, where a string has no room for descriptions.

    Attributes:
        inputs: What the caller gives.
        outputs: What the model gives.
    """

    inputs: list[FieldSpec]
    outputs: list[FieldSpec]


class Generation(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """Options of one call, over those of the language model.

    The list is closed: DSPy would also take an address and a key here, and send the call there.

    Attributes:
        temperature: 0 for the likeliest answer, higher for more variety.
        max_tokens: Tokens of the answer at most.
        top_p: Share of the likeliest tokens to choose from.
        seed: For repeatable choices, where the provider supports it.
        stop: Texts that end the answer.
    """

    temperature: Temperature | None = None
    max_tokens: MaxTokens | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    seed: int | None = None
    stop: list[str] | None = None

    def given(self) -> dict[str, Any]:
        """The options that are set, by the names that DSPy knows."""
        options: dict[str, Any] = msgspec.to_builtins(self)
        return options


@dataclass(frozen=True, slots=True, kw_only=True)
class LMSettings:
    """A language model as the caller describes it.

    Attributes:
        model: ``provider/model``.
        api_base: Address of the provider; the provider's own when ``None``.
        api_key: Key for the provider.
        temperature: 0 for the likeliest answer, higher for more variety.
        max_tokens: Tokens of an answer at most.
        timeout: Seconds to wait for the provider's next sign of life.
        num_retries: Attempts after a first one that failed for a passing reason.
        response_format: How answers are laid out where a call does not say.
    """

    model: str
    api_base: str | None = None
    api_key: str | None = field(default=None, repr=False)
    temperature: float | None = None
    max_tokens: int | None = None
    timeout: float = 120.0
    num_retries: int = 3
    response_format: ResponseFormat = "text"
