"""What callers say to the tools, beyond plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec

from snakepit_adapters.dspy.tool_specs import ToolSpecs

__all__ = [
    "Engine",
    "EnumSpec",
    "FieldSpec",
    "Generation",
    "LMSettings",
    "MaxTokens",
    "ModelType",
    "ObjectSpec",
    "Penalty",
    "ProgramSpec",
    "ReasoningEffort",
    "ResponseFormat",
    "Share",
    "SignatureSpec",
    "StepSpec",
    "Temperature",
]

ResponseFormat = Literal["text", "json", "json_schema"]
"""How a model is asked to lay out its answer.

``text``: field markers, DSPy's own layout, which strong models follow best.
``json``: a JSON object, constrained where DSPy knows that the model can be.
``json_schema``: a JSON object, and every request carries a JSON Schema of the output fields; small
models need it, and the server has to support it.
"""

Engine = Literal["auto", "native", "litellm", "elixir"]
"""What talks to a model.

``native``: DSPy itself, which knows the providers of ``language_models.PROVIDERS``.
``litellm``: the package LiteLLM, which knows many more and takes seconds to import.
``auto``: the first of the two that can.
``elixir``: an Elixir tool.
"""

ModelType = Literal["chat", "responses", "text"]
"""Which of a provider's interfaces is used: chat completions, OpenAI's responses, completions."""

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
"""How long a reasoning model thinks before it answers."""

Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
"""Above 0 against repetition, below 0 in favour of it."""

Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
"""Share of the likeliest tokens to choose from."""

Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]
"""0 for the likeliest answer, higher for more variety."""

MaxTokens = Annotated[int, msgspec.Meta(ge=1)]
"""Tokens of an answer at most."""


Length = Annotated[int, msgspec.Meta(ge=0)]
"""Characters of a text, items of a list, keys of a dict."""


class FieldSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One field of a signature or of an object.

    Attributes:
        name: How inputs and outputs call it.
        type: Its type, as in a signature string.
        description: What the model is told about it.
        ge: The least number.
        gt: A number that it is above.
        le: The greatest number.
        lt: A number that it is below.
        multiple_of: A number that divides it.
        min_length: The least length of a text, a list or a dict.
        max_length: The greatest.
        pattern: A regular expression that a text contains a match of.
    """

    name: str
    type: str = "str"
    description: str | None = None
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    multiple_of: Annotated[float, msgspec.Meta(gt=0)] | None = None
    min_length: Length | None = None
    max_length: Length | None = None
    pattern: Annotated[str, msgspec.Meta(max_length=1000)] | None = None


class ObjectSpec(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="object"
):
    """An object that types of fields may name.

    Attributes:
        name: A name of its own, such as Person.
        fields: Its fields; their types may name the types that stand before this one.
        description: What the model is told about it.
    """

    name: str
    fields: Annotated[list[FieldSpec], msgspec.Meta(min_length=1, max_length=100)]
    description: str | None = None


class EnumSpec(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="enum"
):
    """A choice of texts that types of fields may name.

    Attributes:
        name: A name of its own, such as Colour.
        values: The texts.
    """

    name: str
    values: Annotated[list[str], msgspec.Meta(min_length=1, max_length=1000)]


class SignatureSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A signature as data, where a string has no room for descriptions.

    Attributes:
        inputs: What the caller gives.
        outputs: What the model gives.
        types: Objects and choices that the types of fields name.
    """

    inputs: list[FieldSpec]
    outputs: list[FieldSpec]
    types: Annotated[list[ObjectSpec | EnumSpec], msgspec.Meta(max_length=100)] = []


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
        engine: What talks to the provider.
        tool: The Elixir tool that answers, where the engine is Elixir's.
        api_base: Address of the provider; the provider's own when ``None``.
        api_key: Key for the provider.
        credential: Name of a key that the operator has declared.
        model_type: Which of the provider's interfaces is used.
        temperature: 0 for the likeliest answer, higher for more variety.
        max_tokens: Tokens of an answer at most.
        top_p: Share of the likeliest tokens to choose from.
        top_k: Number of the likeliest tokens to choose from.
        seed: For repeatable choices, where the provider supports it.
        stop: Texts that end the answer.
        presence_penalty: Above 0 against tokens that occurred already.
        frequency_penalty: Above 0 against tokens that occurred often.
        reasoning_effort: How long a reasoning model thinks.
        timeout: Seconds to wait for the provider's next sign of life.
        num_retries: Attempts after a first one that failed for a passing reason.
        max_concurrency: Calls of the Elixir tool that may run at once.
        response_format: How answers are laid out where a call does not say.
    """

    model: str
    engine: Engine = "auto"
    tool: str | None = None
    api_base: str | None = None
    api_key: str | None = field(default=None, repr=False)
    credential: str | None = None
    model_type: ModelType = "chat"
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    reasoning_effort: ReasoningEffort | None = None
    timeout: float = 120.0
    num_retries: int = 3
    max_concurrency: int = 8
    response_format: ResponseFormat = "text"


class ProgramSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A program within another one, as `dspy.create` takes it.

    Attributes:
        module: Name of DSPy's class.
        signature: What it takes and gives.
        instructions: The task in words.
        demos: Worked examples.
        options: Of the module.
        program: The program that it wraps: a handle, a name, or a description such as this.
        programs: Programs that it calls, by name.
        tools: Tools that it may call.
        config: Options of each call of the model.
    """

    module: str = "Predict"
    signature: str | SignatureSpec | None = None
    instructions: str | None = None
    demos: list[dict[str, Any]] = []
    options: dict[str, Any] = {}
    program: str | ProgramSpec | None = None
    programs: dict[str, str | ProgramSpec] = {}
    tools: ToolSpecs = []
    config: Generation | None = None


class StepSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A step of a composed program.

    Attributes:
        name: What references call it.
        program: A handle, a name, or a description as `dspy.create` takes it.
        inputs: By input field: "inputs.x" for an input of the whole, "step.y" for an output of
            another step, and for a constant a number, a boolean, null, or {"value": anything}.
    """

    name: str
    program: str | ProgramSpec
    inputs: dict[str, Any]
