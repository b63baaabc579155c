"""DSPy's modules: one table of how each is made and what is special about it."""

from __future__ import annotations

import importlib
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import dspy
import msgspec

from snakepit_adapters.dspy import making
from snakepit_adapters.dspy.agents import ReAct, ReActV2
from snakepit_adapters.dspy.attempts import BestOfN, Refine
from snakepit_adapters.dspy.composed import Composed
from snakepit_adapters.dspy.ensembles import Ensemble
from snakepit_adapters.dspy.guarding import awaitable
from snakepit_adapters.dspy.knn import Nearest
from snakepit_adapters.dspy.making import Built, Parts
from snakepit_adapters.dspy.module_options import OPTIONS
from snakepit_adapters.dspy.registered import names
from snakepit_adapters.dspy.retrieval import Retrieve
from snakepit_adapters.dspy.side_by_side import SideBySide
from snakepit_adapters.dspy.signatures import Field
from snakepit_adapters.dspy.type_grammar import read_type
from snakepit_adapters.dspy.values import refuse
from snakepit_worker.errors import (
    FailedPrecondition,
    InvalidArgument,
    PermissionDenied,
    Violation,
)

if TYPE_CHECKING:
    from collections.abc import Callable


__all__ = ["CODE_VARIABLE", "KINDS", "Built", "Kind", "Parts", "build", "described"]

CODE_VARIABLE: Final = "SNAKEPIT_DSPY_ALLOW_CODE"
"""Environment variable: ``true`` allows modules that run code which a model has written."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What is special about one of DSPy's modules.

    Attributes:
        build: Makes one.
        signature: Whether it takes a signature of the caller's.
        programs: Which other programs it calls: none, one, or several by name.
        tools: Whether it takes tools.
        code: Whether it runs code that the model writes.
        one_predictor: Whether all it does is one call of the model, with demos of its signature,
            and options of the call as an argument ``config``.
        reserved: Names of inputs and outputs that it has for itself.
    """

    build: Callable[[Parts], Built]
    signature: bool = True
    programs: Literal["none", "one", "many"] = "none"
    tools: bool = False
    code: bool = False
    one_predictor: bool = False
    reserved: tuple[str, ...] = ()


def build(name: str, parts: Parts) -> Built:
    """A module by the name of its class.

    Args:
        name: The name.
        parts: What it is made of.

    Raises:
        InvalidArgument: When a part is missing, does not belong, or is refused by the class.
        PermissionDenied: When it would run code, and the worker's operator does not allow that.
        FailedPrecondition: When it would run code, and there is no interpreter.
    """
    kind = KINDS[name]
    _check(name, kind, parts)
    if kind.code:
        _check_code(name)
    try:
        return kind.build(parts)
    except (ValueError, TypeError) as error:  # DSPy's own checks of names, tools and types
        raise InvalidArgument(f"{name}: {error}") from error


def described() -> list[dict[str, Any]]:
    """The table as JSON values, with a JSON Schema of the options of each module."""
    return [
        {
            "module": name,
            "description": (OPTIONS[name].__doc__ or "").partition("\n")[0],
            "signature": kind.signature,
            "programs": kind.programs,
            "tools": kind.tools,
            "awaitable": _awaitable(name),
            "executes_code": kind.code,
            "available": not kind.code or _code_allowed(),
            "options": msgspec.json.schema(OPTIONS[name]),
            **({"names": names()} if name == "Registered" else {}),
        }
        for name, kind in KINDS.items()
    ]


def _awaitable(name: str) -> bool | None:
    own = {
        "Composed": Composed,
        "Ensemble": Ensemble,
        "KNN": Nearest,
        "Parallel": SideBySide,
        "Retrieve": Retrieve,
    }
    found = own.get(name) or getattr(dspy, name, None)
    return None if found is None else awaitable(found)


def _check(name: str, kind: Kind, parts: Parts) -> None:
    wrong = []
    if kind.signature != (parts.signature is not None):
        wrong.append(Violation("signature", _expected("a signature", kind.signature, name)))
    if (kind.programs == "none") != (not parts.programs):
        wrong.append(Violation("programs", _expected("programs", kind.programs != "none", name)))
    if kind.programs == "one" and parts.programs and set(parts.programs) != {"program"}:
        wrong.append(Violation("programs", f"expected one for {name}, called 'program'"))
    if parts.tools and not kind.tools:
        wrong.append(Violation("tools", _expected("tools", wanted=False, name=name)))
    if parts.signature is not None:
        for field in (*parts.signature.inputs, *parts.signature.outputs):
            if field.name in kind.reserved:
                text = f"field {field.name!r}: {name} has it for itself"
                wrong.append(Violation("signature", text))
    refuse(wrong)


def _expected(what: str, wanted: bool, name: str) -> str:  # noqa: FBT001 - part of a sentence
    return f"expected {what} for {name}" if wanted else f"{name} takes none of its own"


def _code_allowed() -> bool:
    return os.environ.get(CODE_VARIABLE, "").strip().lower() in ("true", "1", "yes")


def _check_code(name: str) -> None:
    if not _code_allowed():
        raise PermissionDenied(
            f"{name} runs code that a model writes, which this worker does not allow",
            help=f"the worker's operator allows it with {CODE_VARIABLE}=true",
        )
    try:
        found = importlib.import_module("deno").find_deno_bin()
    except (ImportError, FileNotFoundError):
        found = shutil.which("deno")
    if not found:
        raise FailedPrecondition(
            f"{name} runs code in Deno, which is not installed",
            help="pip install 'dspy[deno]' on the worker's machine",
        )


_OF_AGENTS: Final = ("trajectory", "max_iters", "next_thought", "next_tool_name", "next_tool_args")
_OF_CODE: Final = (
    *("reasoning", "generated_code", "previous_code", "error", "interpreter", "max_iters"),
    *("final_generated_code", "code_output"),
)

KINDS: Final[dict[str, Kind]] = {
    "Predict": Kind(making.predict, one_predictor=True),
    "ChainOfThought": Kind(making.chain_of_thought, one_predictor=True, reserved=("reasoning",)),
    "ReAct": Kind(making.agent(ReAct, making.TRAJECTORY), tools=True, reserved=_OF_AGENTS),
    "ReActV2": Kind(
        making.agent(
            ReActV2,
            Field("history", read_type("Any")),
            Field("termination_reason"),
        ),
        tools=True,
        reserved=("history", "tools", "termination_reason", "max_iters"),
    ),
    "ProgramOfThought": Kind(making.program_of_thought, code=True, reserved=_OF_CODE),
    "CodeAct": Kind(making.code_act, code=True, reserved=(*_OF_CODE, "trajectory", "finished")),
    "RLM": Kind(
        making.rlm,
        tools=True,
        code=True,
        reserved=("interpreter_factory", "trajectory", "final_reasoning", "max_iters"),
    ),
    "BestOfN": Kind(making.attempts(BestOfN), signature=False, programs="one"),
    "Refine": Kind(making.attempts(Refine), signature=False, programs="one"),
    "MultiChainComparison": Kind(making.comparison, reserved=("rationale",)),
    "Parallel": Kind(making.parallel, signature=False, programs="many"),
    "Ensemble": Kind(making.voting, signature=False, programs="many"),
    "KNNFewShot": Kind(making.few_shot, signature=False, programs="one"),
    "Retrieve": Kind(making.retrieve, signature=False),
    "KNN": Kind(making.knn, signature=False),
    "Registered": Kind(making.own, signature=False),
    "Composed": Kind(making.composed, signature=False, programs="many"),
}
"""The modules by name."""
