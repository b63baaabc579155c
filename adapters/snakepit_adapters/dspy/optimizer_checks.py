"""Which optimizers there are for callers, and what each of them can use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, get_args

from snakepit_adapters.dspy import optimizer_specs as specs
from snakepit_adapters.dspy.local_embedder import needs
from snakepit_adapters.dspy.values import refuse
from snakepit_worker.errors import NotFound, Unimplemented, Violation

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NAMES", "check", "named"]

_BY_NAME: Final[Mapping[str, type[specs.Spec]]] = {
    kind.__name__: kind
    for kind in get_args(specs.OptimizerSpec)
    if kind is not specs.BetterTogether
}
NAMES: Final = tuple(_BY_NAME)
"""Optimizers that need no options."""

_ELSEWHERE: Final[Mapping[str, str]] = {
    "BetterTogether": "give it as an object, with its steps",
    "BootstrapFinetune": "it trains weights, which needs a provider that can",
    "GRPO": "it trains weights, which needs a provider that can",
    "AvatarOptimizer": "it changes nothing but dspy.Avatar, which is not served",
    "ReAnchor": "it is an experiment of DSPy",
    "Ensemble": "it joins programs, which dspy.create does with the module 'Ensemble'",
}
"""What else DSPy ships, and why it is not here."""

_OPTUNA: Final = (specs.MIPROv2, specs.BootstrapFewShotWithOptuna)
_NUMPY: Final = (specs.SIMBA, specs.KNNFewShot)
_WITHOUT_METRIC: Final = (specs.LabeledFewShot, specs.BootstrapFewShot, specs.KNNFewShot)
_WITH_VALSET: Final = (
    specs.BootstrapFewShotWithRandomSearch,
    specs.BootstrapFewShotWithOptuna,
    specs.MIPROv2,
    specs.GEPA,
    specs.InferRules,
    specs.BetterTogether,
)
_WITH_TEACHER: Final = (
    specs.BootstrapFewShot,
    specs.BootstrapFewShotWithRandomSearch,
    specs.BootstrapFewShotWithOptuna,
    specs.MIPROv2,
    specs.InferRules,
)
_WITH_TEACHER_LM: Final = (*_WITH_TEACHER, specs.SIMBA)
_WITH_PROMPT_LM: Final = (specs.COPRO, specs.MIPROv2, specs.SIMBA, specs.GEPA)


def named(name: str) -> specs.Spec:
    """The optimizer of a name, with the options that it has by default.

    Args:
        name: DSPy's name.

    Raises:
        Unimplemented: When DSPy has it, and callers cannot.
        NotFound: When there is none.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]()
    known = ", ".join(NAMES)
    if name in _ELSEWHERE:
        raise Unimplemented(f"optimizer {name}: {_ELSEWHERE[name]}; there are {known}")
    raise NotFound(f"unknown optimizer {name!r}; there are {known}")


def check(  # noqa: PLR0913 - what a caller may say
    spec: specs.Spec,
    *,
    metric: bool,
    valset: bool,
    teacher: bool,
    prompt_lm: bool,
    teacher_lm: bool,
    rows: int,
) -> None:
    """Refuse what an optimizer could not use, before anything is run.

    Args:
        spec: The optimizer.
        metric: Whether there is a metric.
        valset: Whether there is a validation set.
        teacher: Whether there is a teacher.
        prompt_lm: Whether there is a language model for instructions.
        teacher_lm: Whether there is a language model for demos.
        rows: Rows of the training set.

    Raises:
        InvalidArgument: Naming everything that does not fit.
        FailedPrecondition: When a package that it needs is not installed.
    """
    name = type(spec).__name__
    for step in spec.steps if isinstance(spec, specs.BetterTogether) else (spec,):
        if isinstance(step, _OPTUNA):
            needs("optuna", type(step).__name__, "dspy[optuna]")
        if isinstance(step, _NUMPY):
            needs("numpy", type(step).__name__, "dspy[numpy]")
    wrong = [
        Violation(argument, f"{name} uses none")
        for argument, given, users in (
            ("valset", valset, _WITH_VALSET),
            ("teacher", teacher, _WITH_TEACHER),
            ("prompt_lm", prompt_lm, _WITH_PROMPT_LM),
            ("teacher_lm", teacher_lm, _WITH_TEACHER_LM),
        )
        if given and not isinstance(spec, users)
    ]
    if not metric and not isinstance(spec, _WITHOUT_METRIC):
        wrong.append(Violation("metric", f"{name} needs one"))
    wrong.extend(_budget(spec))
    wrong.extend(_rows(spec, rows, valset=valset))
    refuse(wrong)


def _budget(spec: specs.Spec) -> list[Violation]:
    if isinstance(spec, specs.MIPROv2):
        counts = (spec.num_candidates, spec.num_trials)
        if spec.auto is not None and counts != (None, None):
            text = "null where num_candidates and num_trials are given"
            return [Violation("optimizer.auto", f"expected {text}")]
        if spec.auto is None and None in counts:
            text = "expected num_candidates and num_trials where auto is null"
            return [Violation("optimizer", text)]
    if isinstance(spec, specs.GEPA):
        budgets = (spec.auto, spec.max_full_evals, spec.max_metric_calls)
        if sum(given is not None for given in budgets) > 1:
            text = "expected one of auto, max_full_evals and max_metric_calls"
            return [Violation("optimizer", text)]
    if isinstance(spec, specs.BetterTogether):
        return [violation for step in spec.steps for violation in _budget(step)]
    return []


def _rows(spec: specs.Spec, rows: int, *, valset: bool) -> list[Violation]:
    least = 1
    if isinstance(spec, specs.SIMBA):
        least = spec.bsize
    elif isinstance(spec, specs.KNNFewShot):
        least = 2  # DSPy cannot compare with one alone
    elif not valset and isinstance(spec, specs.MIPROv2 | specs.InferRules | specs.BetterTogether):
        least = 2  # one to learn from, one to choose by
    if rows >= least:
        return []
    text = f"{type(spec).__name__} needs at least {least} rows, got {rows}"
    return [Violation("trainset", text)]
