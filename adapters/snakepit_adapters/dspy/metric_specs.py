"""Metrics as callers describe them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

__all__ = [
    "F1",
    "Contains",
    "Elixir",
    "ExactMatch",
    "JsonEqual",
    "Judge",
    "MetricSpec",
    "Numeric",
    "Registered",
    "Similarity",
    "Spec",
]

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Tolerance = Annotated[float, msgspec.Meta(ge=0)]
Concurrency = Annotated[int, msgspec.Meta(ge=1, le=64)]
Fields = Annotated[list[str], msgspec.Meta(min_length=1)]


class Spec(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag_field="type",
    omit_defaults=True,
):
    """What all metrics have.

    Attributes:
        fields: Output fields to compare, all that the example has if ``None``; their scores are
            averaged.
    """

    fields: Fields | None = None


class ExactMatch(Spec, tag="exact_match", frozen=True, kw_only=True):
    """1 where the output is what was expected, or one of a list of expected texts.

    Attributes:
        normalize: Texts differ in more than case, punctuation, English articles and spaces.
    """

    normalize: bool = True


class Contains(Spec, tag="contains", frozen=True, kw_only=True):
    """1 where the output contains the expected text, or one of a list of them.

    Attributes:
        case_sensitive: Whether case counts.
    """

    case_sensitive: bool = False


class F1(Spec, tag="f1", frozen=True, kw_only=True):
    """Shared words of the output and the expected text, from 0 to 1.

    Attributes:
        threshold: Below it the score is 0, else 1; without it the score is the measure itself.
    """

    threshold: Share | None = None


class Numeric(Spec, tag="numeric", frozen=True, kw_only=True):
    """1 where the output, or the only number in it, is close enough to the expected number.

    Attributes:
        absolute: Difference that is allowed.
        relative: Share of the expected number by which it may differ.
    """

    absolute: Tolerance = 0.0
    relative: Tolerance = 1e-9


class JsonEqual(Spec, tag="json_equal", frozen=True, kw_only=True):
    """1 where both are equal as JSON; texts are parsed first.

    Attributes:
        ignore_order: Whether the order within lists does not count.
    """

    ignore_order: bool = False


class Similarity(Spec, tag="semantic_similarity", frozen=True, kw_only=True):
    """Nearness of meaning, from 0 to 1, by embeddings that the worker computes itself.

    Attributes:
        threshold: Below it the score is 0, else 1; without it the score is the measure itself.
    """

    threshold: Share | None = None


class Judge(Spec, tag="judge", frozen=True, kw_only=True):
    """A language model's opinion, from 0 to 1, with a reason.

    Attributes:
        criteria: What makes an output good.
        lm: Name of the language model that judges; the one that answers if ``None``.
        threshold: Below it the score is 0, else 1; without it the score is the opinion itself.
    """

    criteria: str = "The output means the same as the expected one."
    lm: str | None = None
    threshold: Share | None = None


class Registered(Spec, tag="python", frozen=True, kw_only=True):
    """A Python function that the worker's operator has registered.

    Attributes:
        name: Its name.
    """

    name: str


class Elixir(Spec, tag="elixir", frozen=True, kw_only=True):
    """An Elixir tool, called with ``example`` and ``prediction``.

    It answers with a number, a boolean, or ``{score, feedback}``.

    Attributes:
        tool: Its name.
        concurrency: Calls of it at once.
    """

    tool: str
    concurrency: Concurrency = 8


MetricSpec = (
    ExactMatch
    | Contains
    | F1
    | Numeric
    | JsonEqual
    | Similarity
    | Judge
    | Registered
    | Elixir
    | Literal[
        "exact_match", "contains", "f1", "numeric", "json_equal", "semantic_similarity", "judge"
    ]
)
"""A metric with its parameters, or the name of one that needs none."""
