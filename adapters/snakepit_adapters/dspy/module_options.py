"""What each of DSPy's modules takes beyond its signature, as callers write it.

No DSPy here: the tools describe these options before it is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from snakepit_adapters.dspy.metric_specs import MetricSpec
from snakepit_worker.errors import InvalidArgument, Violation

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "OPTIONS",
    "Attempts",
    "Chains",
    "CodeSteps",
    "Graph",
    "Neighbours",
    "NoOptions",
    "Recursion",
    "RegisteredOptions",
    "Rows",
    "SideBySide",
    "Step",
    "Steps",
    "Votes",
    "options_of",
]

Iterations = Annotated[int, msgspec.Meta(ge=1, le=100)]


class _Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options that are all known by name."""


class NoOptions(_Options, frozen=True):
    """No options."""


class Steps(_Options, frozen=True):
    """Options of an agent.

    Attributes:
        max_iters: Thoughts and tool calls at most.
    """

    max_iters: Iterations = 20


class CodeSteps(_Options, frozen=True):
    """Options of a program that writes code and runs it.

    Attributes:
        max_iters: Attempts at most.
    """

    max_iters: Iterations = 5


class Recursion(_Options, frozen=True):
    """Options of a program that explores its inputs with code.

    Attributes:
        max_iters: Steps at most.
        max_llm_calls: Calls of the model from the code at most.
        max_output_chars: Characters of the code's output that the model sees.
    """

    max_iters: Iterations = 20
    max_llm_calls: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 50
    max_output_chars: Annotated[int, msgspec.Meta(ge=100, le=1_000_000)] = 10_000


class Attempts(_Options, frozen=True):
    """Options of a program that tries another one several times.

    Attributes:
        reward: The metric that says how good an attempt is.
        n: Attempts at most.
        threshold: A reward that ends the attempts.
        max_failures: Attempts that may fail; all of them if ``None``.
        expected: Values by output field that the metric compares with.
    """

    reward: MetricSpec
    n: Annotated[int, msgspec.Meta(ge=1, le=64)] = 3
    threshold: float = 1.0
    max_failures: Annotated[int, msgspec.Meta(ge=0, le=64)] | None = None
    expected: dict[str, Any] = {}


class Chains(_Options, frozen=True):
    """Options of a program that compares chains of thought.

    Attributes:
        m: How many chains.
        temperature: Of its own answer.
    """

    m: Annotated[int, msgspec.Meta(ge=1, le=32)] = 3
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.7


class SideBySide(_Options, frozen=True):
    """Options of a program that runs calls of others at the same time.

    Attributes:
        concurrency: How many of them run at once.
    """

    concurrency: Annotated[int, msgspec.Meta(ge=1, le=64)] = 8


class Search(_Options, frozen=True):
    """Options of a program that finds passages of a corpus.

    Attributes:
        corpus: Handle or name of the corpus.
        k: Passages at most.
    """

    corpus: str
    k: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 5


class Votes(_Options, frozen=True):
    """Options of a program that asks others and gives the answer of most of them.

    Attributes:
        size: How many of them are asked, chosen by chance; all if ``None``.
        field: The output that is voted on; the last one if ``None``.
    """

    size: Annotated[int, msgspec.Meta(ge=1)] | None = None
    field: str | None = None


class Neighbours(_Options, frozen=True):
    """Options of a program that is shown demos of the rows that are most like its inputs.

    Attributes:
        rows: The rows.
        inputs: Which of their fields are the program's inputs.
        k: How many of them are found.
        metric: What tells good demos from bad ones; all are good if ``None``.
        metric_threshold: Score from which on a run becomes a demo.
        max_bootstrapped_demos: Demos that are worked out, in each call.
        max_labeled_demos: Rows that are shown as they are.
        max_rounds: Attempts at each row.
    """

    rows: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=2, max_length=10_000)]
    inputs: Annotated[list[str], msgspec.Meta(min_length=1)]
    k: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 3
    metric: MetricSpec | None = None
    metric_threshold: float | None = None
    max_bootstrapped_demos: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 4
    max_labeled_demos: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 16
    max_rounds: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1


class Rows(_Options, frozen=True):
    """Options of a program that finds the rows that are most like its inputs.

    Attributes:
        rows: The rows.
        inputs: Which of their fields are the program's inputs.
        k: How many of them are found.
    """

    rows: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=2, max_length=10_000)]
    inputs: Annotated[list[str], msgspec.Meta(min_length=1)]
    k: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 3


class RegisteredOptions(_Options, frozen=True):
    """Options of a module that the operator has registered.

    Attributes:
        name: Its name.
        arguments: Keyword arguments of its class.
    """

    name: str
    arguments: dict[str, Any] = {}


class Step(_Options, frozen=True):
    """A step of a composed program.

    Attributes:
        name: What references call it.
        inputs: By input field of its program: "inputs.x" for an input of the whole, "step.y" for an
            output of another step, and for a constant a number, a boolean, null, or
            {"value": anything}.
    """

    name: str
    inputs: dict[str, Any]


class Graph(_Options, frozen=True):
    """What is wired to what.

    Attributes:
        steps: The steps, in any order.
        outputs: Outputs of the whole by name, each "step.y".
    """

    steps: Annotated[list[Step], msgspec.Meta(min_length=1, max_length=100)]
    outputs: Annotated[dict[str, str], msgspec.Meta(min_length=1, max_length=100)]


OPTIONS: Final[dict[str, type[msgspec.Struct]]] = {
    "Predict": NoOptions,
    "ChainOfThought": NoOptions,
    "ReAct": Steps,
    "ReActV2": Steps,
    "ProgramOfThought": CodeSteps,
    "CodeAct": CodeSteps,
    "RLM": Recursion,
    "BestOfN": Attempts,
    "Refine": Attempts,
    "MultiChainComparison": Chains,
    "Parallel": SideBySide,
    "Ensemble": Votes,
    "KNNFewShot": Neighbours,
    "Retrieve": Search,
    "KNN": Rows,
    "Registered": RegisteredOptions,
    "Composed": Graph,
}
"""The options of each module."""


def options_of(module: str, options: Mapping[str, Any]) -> Any:  # noqa: ANN401 - of any module
    """The options of a module, checked.

    Args:
        module: Its name.
        options: JSON values.

    Raises:
        InvalidArgument: Naming what is wrong.
    """
    if module not in OPTIONS:
        known = ", ".join(OPTIONS)
        text = f"expected one of {known}, got {module!r}"
        raise InvalidArgument(f"module: {text}", violations=[Violation("module", text)])
    try:
        return msgspec.convert(dict(options), OPTIONS[module])
    except msgspec.ValidationError as error:
        text = f"options of {module}: {error}"
        raise InvalidArgument(text, violations=[Violation("options", text)]) from None
