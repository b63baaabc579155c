"""DSPy's optimizers, built from what callers say."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import dspy
import msgspec

from snakepit_adapters.dspy import optimizer_specs as specs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from snakepit_adapters.dspy.metrics import Verdict

__all__ = ["Built", "Material", "build"]


@dataclass(frozen=True, slots=True)
class Material:
    """What an optimizer learns from.

    Attributes:
        trainset: DSPy's examples.
        valset: More of them, to choose by; the optimizer's own way if ``None``.
        judge: The metric.
        teacher: DSPy's object of a program that works out demos.
        lm: DSPy's language model that answers.
        prompt_lm: The one that writes instructions; the same if ``None``.
        teacher_lm: The one that works out demos; the same if ``None``.
        threads: Examples at a time.
        max_errors: Errors until the optimizer gives up.
    """

    trainset: Sequence[Any]
    valset: Sequence[Any] | None
    judge: Callable[[Any, Any], Verdict] | None
    teacher: Any
    lm: Any
    prompt_lm: Any
    teacher_lm: Any
    threads: int
    max_errors: int

    def data(self, *more: str) -> dict[str, Any]:
        """Arguments of ``compile`` with the rows, in lists that the optimizer may change.

        Args:
            *more: Which others it takes: ``teacher``, ``valset``.
        """
        valset = None if self.valset is None else list(self.valset)
        others = {"teacher": self.teacher, "valset": valset}
        return {"trainset": list(self.trainset), **{name: others[name] for name in more}}

    def scoring(self) -> dict[str, Any]:
        """Arguments of constructors with the metric, and who works out demos."""
        judge = self.judge

        def score(example: Any, prediction: Any, trace: object = None) -> float:  # noqa: ANN401 - DSPy has no types
            del trace
            return 0.0 if judge is None else judge(example, prediction).score

        teaching = {} if self.teacher_lm is None else {"lm": self.teacher_lm}
        return {"metric": None if judge is None else score, "teacher_settings": teaching}

    def bounds(self) -> dict[str, int]:
        """Arguments that bound an evaluation."""
        return {"num_threads": self.threads, "max_errors": self.max_errors}


@dataclass(frozen=True, slots=True)
class Built:
    """An optimizer of DSPy, ready to run.

    Attributes:
        optimizer: DSPy's object.
        arguments: Keyword arguments of its ``compile``.
        batch: Examples after which a program counts as scored, where DSPy does not say.
        expected: How many of something there will be, for progress, where that is known.
    """

    optimizer: Any
    arguments: Mapping[str, Any]
    batch: int | None = None
    expected: Mapping[str, int] = field(default_factory=dict)


def build(spec: specs.Spec, material: Material) -> Built:
    """The optimizer that a caller describes; `check` has let it pass.

    Args:
        spec: Its options.
        material: What it learns from.
    """
    return _BUILDERS[type(spec)](spec, material)


def _labeled_few_shot(spec: specs.LabeledFewShot, material: Material) -> Built:
    arguments = {"trainset": list(material.trainset), "sample": spec.sample}
    return Built(dspy.LabeledFewShot(k=spec.k), arguments)


def _bootstrap_few_shot(spec: specs.BootstrapFewShot, material: Material) -> Built:
    optimizer = dspy.BootstrapFewShot(
        **material.scoring(), max_errors=material.max_errors, **_options(spec)
    )
    data = material.data("teacher")
    return Built(
        optimizer, data, expected={"metric_calls": len(material.trainset) * spec.max_rounds}
    )


def _random_search(spec: specs.BootstrapFewShotWithRandomSearch, material: Material) -> Built:
    options = _options(spec)
    labeled = options.pop("labeled_sample")
    if spec.stop_at_score is not None:
        options["stop_at_score"] = 100 * spec.stop_at_score
    optimizer = dspy.BootstrapFewShotWithRandomSearch(
        **material.scoring(), **material.bounds(), **options
    )
    arguments = {**material.data("teacher", "valset"), "labeled_sample": labeled}
    return Built(optimizer, arguments, expected={"trials": spec.num_candidate_programs + 3})


def _optuna(spec: specs.BootstrapFewShotWithOptuna, material: Material) -> Built:
    logging.getLogger("optuna").setLevel(logging.WARNING)  # it has a handler of its own
    optimizer = dspy.BootstrapFewShotWithOptuna(
        **material.scoring(), num_threads=material.threads, **_options(spec)
    )
    arguments = {
        **material.data("teacher", "valset"),
        "max_demos": spec.max_bootstrapped_demos,
    }
    return Built(optimizer, arguments, expected={"trials": spec.num_candidate_programs})


def _copro(spec: specs.COPRO, material: Material) -> Built:
    score = material.scoring()["metric"]
    optimizer = dspy.COPRO(prompt_model=material.prompt_lm, metric=score, **_options(spec))
    evaluation = {"num_threads": material.threads}
    return Built(optimizer, {**material.data(), "eval_kwargs": evaluation})


def _miprov2(spec: specs.MIPROv2, material: Material) -> Built:
    options = _options(spec)
    of_constructor = (
        *("auto", "num_candidates", "max_bootstrapped_demos", "max_labeled_demos"),
        *("metric_threshold", "init_temperature", "seed"),
    )
    optimizer = dspy.MIPROv2(
        **material.scoring(),
        **material.bounds(),
        **{name: options.pop(name) for name in of_constructor},
        prompt_model=material.prompt_lm,
        task_model=material.lm,
        track_stats=False,
    )
    return Built(optimizer, {**material.data("teacher", "valset"), **options})


def _simba(spec: specs.SIMBA, material: Material) -> Built:
    options = _options(spec)
    seed = options.pop("seed")
    scoring = material.scoring()
    optimizer = dspy.SIMBA(
        metric=scoring["metric"],
        teacher_settings=scoring["teacher_settings"] or None,
        prompt_model=material.prompt_lm,
        num_threads=material.threads,
        **options,
    )
    runs = spec.max_steps * spec.bsize * (2 * spec.num_candidates + 1)
    expected = {"metric_calls": runs + len(material.trainset) * (spec.num_candidates + 1)}
    return Built(optimizer, {**material.data(), "seed": seed}, spec.bsize, expected)


def _infer_rules(spec: specs.InferRules, material: Material) -> Built:
    optimizer = dspy.InferRules(**material.scoring(), **material.bounds(), **_options(spec))
    data = material.data("teacher", "valset")
    return Built(optimizer, data, expected={"trials": spec.num_candidates})


def _gepa(spec: specs.GEPA, material: Material) -> Built:
    options = _options(spec)
    if (spec.auto, spec.max_full_evals, spec.max_metric_calls) == (None, None, None):
        options["auto"] = "light"
    judge = material.judge

    def reflected(
        gold: Any,  # noqa: ANN401 - DSPy has no types
        pred: Any,  # noqa: ANN401
        trace: object = None,
        pred_name: str | None = None,
        pred_trace: object = None,
    ) -> Any:  # noqa: ANN401
        del trace, pred_name, pred_trace
        if judge is None:
            raise TypeError("GEPA needs a metric")
        verdict = judge(gold, pred)
        text = verdict.feedback or f"This got a score of {verdict.score}."
        return dspy.Prediction(score=verdict.score, feedback=text)

    optimizer = dspy.GEPA(
        metric=reflected,
        reflection_lm=material.prompt_lm or material.lm,
        num_threads=material.threads,
        **options,
    )
    return Built(optimizer, material.data("valset"))


def _better_together(spec: specs.BetterTogether, material: Material) -> Built:
    steps = {f"step{number}": build(step, material) for number, step in enumerate(spec.steps, 1)}
    given = ("trainset", "valset", "teacher")  # by BetterTogether itself
    arguments = {
        name: {key: value for key, value in step.arguments.items() if key not in given}
        for name, step in steps.items()
    }
    score = material.scoring()["metric"]
    optimizer = dspy.BetterTogether(
        metric=score, **{name: step.optimizer for name, step in steps.items()}
    )
    return Built(
        optimizer,
        {
            **material.data("valset"),
            **material.bounds(),
            "seed": spec.seed,
            "valset_ratio": spec.valset_ratio,
            "shuffle_trainset_between_steps": spec.shuffle_trainset_between_steps,
            "strategy": " -> ".join(steps),
            "optimizer_compile_args": arguments,
        },
    )


def _options(spec: specs.Spec) -> dict[str, Any]:
    options: dict[str, Any] = msgspec.structs.asdict(spec)
    return options


_BUILDERS: Final[Mapping[type[specs.Spec], Callable[[Any, Material], Built]]] = {
    specs.LabeledFewShot: _labeled_few_shot,
    specs.BootstrapFewShot: _bootstrap_few_shot,
    specs.BootstrapFewShotWithRandomSearch: _random_search,
    specs.BootstrapFewShotWithOptuna: _optuna,
    specs.COPRO: _copro,
    specs.MIPROv2: _miprov2,
    specs.SIMBA: _simba,
    specs.GEPA: _gepa,
    specs.InferRules: _infer_rules,
    specs.BetterTogether: _better_together,
}
