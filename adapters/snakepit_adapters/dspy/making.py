"""How each of DSPy's modules is made of its parts, and what its callers give and get."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import dspy
import msgspec

from snakepit_adapters.dspy import registered
from snakepit_adapters.dspy.attempts import attempting
from snakepit_adapters.dspy.composed import Composed
from snakepit_adapters.dspy.ensembles import ensemble, nearest
from snakepit_adapters.dspy.knn import nearest_rows
from snakepit_adapters.dspy.retrieval import Retrieve
from snakepit_adapters.dspy.side_by_side import side_by_side
from snakepit_adapters.dspy.signatures import Field, Signature
from snakepit_adapters.dspy.type_grammar import read_type
from snakepit_adapters.dspy.values import refuse
from snakepit_adapters.dspy.wiring import wire
from snakepit_worker.errors import InvalidArgument, Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from snakepit_adapters.dspy.programs import Program

__all__ = [
    "TRAJECTORY",
    "Built",
    "Parts",
    "agent",
    "attempts",
    "chain_of_thought",
    "code_act",
    "comparison",
    "composed",
    "few_shot",
    "knn",
    "own",
    "parallel",
    "predict",
    "program_of_thought",
    "retrieve",
    "rlm",
    "voting",
]

TRAJECTORY: Final = Field("trajectory", read_type("dict"))
"""What an agent did, by step."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a module is made of.

    Attributes:
        signature: What the caller declared; ``None`` for modules that take it from elsewhere.
        options: The module's own, see `module_options`.
        programs: Other programs that it calls, by name.
        tools: Tools of DSPy that it may call.
        lm: Name of the language model that answers.
    """

    signature: Signature | None
    options: Any
    programs: Mapping[str, Program]
    tools: Sequence[Any]
    lm: str = "default"

    @property
    def declared(self) -> Signature:
        """The signature, where there has to be one."""
        if self.signature is None:
            raise InvalidArgument("signature: expected one")
        return self.signature

    @property
    def program(self) -> Program:
        """The program that is wrapped, where there has to be one."""
        return self.programs["program"]


@dataclass(frozen=True, slots=True)
class Built:
    """A module, made.

    Attributes:
        module: DSPy's object.
        signature: What its callers give and get.
        open: Whether it gives outputs that no signature names.
    """

    module: Any
    signature: Signature
    open: bool = False


def _for_dspy(signature: Signature) -> Any:  # noqa: ANN401 - DSPy has no types
    fields: dict[str, tuple[Any, Any]] = {}
    for make, side in (
        (dspy.InputField, signature.inputs),
        (dspy.OutputField, signature.outputs),
    ):
        for field in side:
            description = {} if field.description is None else {"desc": field.description}
            fields[field.name] = (field.type.annotation, make(**description, **field.limits))
    return dspy.make_signature(fields, signature.instructions)


def _with(signature: Signature, *before: Field, after: Sequence[Field] = ()) -> Signature:
    return replace(signature, outputs=(*before, *signature.outputs, *after))


def predict(parts: Parts) -> Built:
    """``Predict``."""
    return Built(dspy.Predict(_for_dspy(parts.declared)), parts.declared)


def chain_of_thought(parts: Parts) -> Built:
    """``ChainOfThought``."""
    module = dspy.ChainOfThought(_for_dspy(parts.declared))
    return Built(module, _with(parts.declared, Field("reasoning")))


def agent(kind: Any, *more: Field) -> Callable[[Parts], Built]:  # noqa: ANN401 - DSPy has no types
    """``ReAct`` and its like."""

    def make(parts: Parts) -> Built:
        signature = _for_dspy(parts.declared)
        module = kind(signature, tools=list(parts.tools), max_iters=parts.options.max_iters)
        return Built(module, _with(parts.declared, after=more))

    return make


def program_of_thought(parts: Parts) -> Built:
    """``ProgramOfThought``."""
    module = dspy.ProgramOfThought(_for_dspy(parts.declared), max_iters=parts.options.max_iters)
    return Built(module, _with(parts.declared, Field("reasoning")))


def code_act(parts: Parts) -> Built:
    """``CodeAct``."""
    # Its tools are copied into the sandbox as source code, so that none of ours could be one.
    module = dspy.CodeAct(_for_dspy(parts.declared), tools=[], max_iters=parts.options.max_iters)
    return Built(module, _with(parts.declared, after=(TRAJECTORY,)))


def rlm(parts: Parts) -> Built:
    """``RLM``."""
    options = msgspec.to_builtins(parts.options)
    module = dspy.RLM(_for_dspy(parts.declared), tools=list(parts.tools), **options)
    more = (Field("trajectory", read_type("list")), Field("final_reasoning"))
    return Built(module, _with(parts.declared, after=more))


def attempts(kind: Any) -> Callable[[Parts], Built]:  # noqa: ANN401 - DSPy has no types
    """``BestOfN`` and ``Refine``."""

    def make(parts: Parts) -> Built:
        wrapped = parts.program
        module = attempting(kind, wrapped.module, parts.options)
        return Built(module, wrapped.signature, wrapped.open)

    return make


class _Comparison(dspy.MultiChainComparison):  # type: ignore[misc]  # DSPy has no types
    """DSPy's, which fails without a word where a chain lacks what it compares."""

    def forward(self, completions: Sequence[Mapping[str, Any]], **inputs: Any) -> Any:  # noqa: ANN401 - DSPy has no types
        """Compare the chains."""
        refuse(
            [
                Violation(f"inputs.completions[{index}]", f"expected reasoning and {self.last_key}")
                for index, chain in enumerate(completions)
                if not isinstance(chain.get("rationale", chain.get("reasoning")), str)
                or self.last_key not in chain
            ]
        )
        return super().forward(completions, **inputs)


def comparison(parts: Parts) -> Built:
    """``MultiChainComparison``."""
    declared = parts.declared
    module = _Comparison(
        _for_dspy(declared), M=parts.options.m, temperature=parts.options.temperature
    )
    limits = {"min_length": parts.options.m, "max_length": parts.options.m}
    chains = Field(
        "completions",
        read_type("list[dict[str, Any]]"),
        f"the chains to compare: reasoning and {declared.outputs[-1].name} of each",
        limits,
    )
    signature = replace(_with(declared, Field("rationale")), inputs=(*declared.inputs, chains))
    return Built(module, signature)


def parallel(parts: Parts) -> Built:
    """``Parallel``."""
    return Built(*side_by_side(parts.programs, parts.options.concurrency))


def voting(parts: Parts) -> Built:
    """``Ensemble``."""
    return Built(*ensemble(parts.programs, parts.options))


def few_shot(parts: Parts) -> Built:
    """``KNNFewShot``."""
    return Built(nearest(parts.program, parts.options), parts.program.signature)


def retrieve(parts: Parts) -> Built:
    """``Retrieve``."""
    module = Retrieve(parts.options.corpus, parts.options.k)
    passages = Field("passages", read_type("list[str]"))
    return Built(module, Signature((Field("query"),), (passages,)))


def knn(parts: Parts) -> Built:
    """``KNN``."""
    return Built(*nearest_rows(parts.options))


def own(parts: Parts) -> Built:
    """A class of the operator's."""
    module = registered.make(parts.options.name, parts.options.arguments)
    signature = registered.signature_of(module)
    return Built(module, signature, open=not signature.outputs)


def composed(parts: Parts) -> Built:
    """Several steps."""
    wiring = wire(parts.options, parts.programs)
    return Built(Composed(parts.programs, wiring, parts.lm), wiring.signature)
