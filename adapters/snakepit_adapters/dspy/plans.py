"""What is to be compiled, by what, from what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import dspy

from snakepit_adapters.dspy.values import refuse
from snakepit_worker.errors import InvalidArgument, Violation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from snakepit_adapters.dspy.arguments import ResponseFormat
    from snakepit_adapters.dspy.language_models import LanguageModel
    from snakepit_adapters.dspy.metering import Limits
    from snakepit_adapters.dspy.metric_specs import MetricSpec
    from snakepit_adapters.dspy.metrics import Metric
    from snakepit_adapters.dspy.optimizer_specs import Spec
    from snakepit_adapters.dspy.programs import Program

__all__ = ["Plan", "examples"]

_MOST_VIOLATIONS: Final = 20


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be compiled, by what, from what.

    Attributes:
        program: The program; it stays as it is.
        model: The language model that answers.
        layout: How answers are laid out; the language model's way if ``None``.
        spec: The optimizer.
        metric: What tells good answers from bad ones.
        measure: How the caller described it.
        trainset: DSPy's examples.
        valset: More of them.
        teacher: A program that works out demos.
        prompt_lm: The language model that writes instructions.
        teacher_lm: The one that works out demos.
        limits: What the run may use.
        threads: Examples at a time.
        max_errors: Errors until the optimizer gives up.
    """

    program: Program
    model: LanguageModel
    layout: ResponseFormat | None
    spec: Spec
    metric: Metric | None
    measure: MetricSpec | None
    trainset: Sequence[Any]
    valset: Sequence[Any] | None
    teacher: Program | None
    prompt_lm: LanguageModel | None
    teacher_lm: LanguageModel | None
    limits: Limits
    threads: int
    max_errors: int


def examples(
    argument: str,
    rows: Sequence[Mapping[str, Any]],
    inputs: Sequence[str] | None,
    program: Program,
    model: LanguageModel,
) -> list[Any]:
    """Rows as examples of DSPy, their inputs checked against a program.

    Args:
        argument: Where they come from, for messages.
        rows: The rows.
        inputs: Fields that the program is given; its own if ``None``.
        program: The program.
        model: The language model that answers.

    Raises:
        InvalidArgument: Naming the rows that do not fit.
    """
    names = inputs or [field.name for field in program.signature.inputs]
    made: list[Any] = []
    violations: list[Violation] = []
    for index, row in enumerate(rows):
        given = {name: row[name] for name in names if name in row}
        try:
            arguments = dict(program.request(given, model).arguments)
        except InvalidArgument as error:
            violations.extend(
                Violation(f"{argument}[{index}].{violation.field}", violation.description)
                for violation in error.violations
            )
            if len(violations) >= _MOST_VIOLATIONS:
                break
            continue
        arguments.pop("config", None)
        made.append(dspy.Example({**row, **arguments}).with_inputs(*arguments))
    refuse(violations)
    return made
