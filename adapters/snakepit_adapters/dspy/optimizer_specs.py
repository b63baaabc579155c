"""Optimizers as callers describe them: each with its options, their limits and defaults."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from snakepit_adapters.dspy.arguments import Temperature

__all__ = [
    "COPRO",
    "GEPA",
    "SIMBA",
    "BetterTogether",
    "BootstrapFewShot",
    "BootstrapFewShotWithOptuna",
    "BootstrapFewShotWithRandomSearch",
    "Bootstrapping",
    "InferRules",
    "LabeledFewShot",
    "MIPROv2",
    "OptimizerSpec",
    "Spec",
    "StepSpec",
]

Demos = Annotated[int, msgspec.Meta(ge=0, le=1000)]
SomeDemos = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Count = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
Calls = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
Seed = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
Score = Annotated[float, msgspec.Meta(ge=0, le=1)]
Level = Literal["light", "medium", "heavy"]


class Spec(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag_field="name",
    omit_defaults=True,
):
    """What all optimizers have: a name."""


class LabeledFewShot(Spec, tag=True, frozen=True, kw_only=True):
    """Shows rows of the training set as demos, as they are.  Calls no model and needs no metric.

    Attributes:
        k: Demos.
        sample: Whether they are chosen by chance, or from the top.
    """

    k: Demos = 16
    sample: bool = True


class Bootstrapping(Spec, frozen=True, kw_only=True):
    """What optimizers have that let the program, or a teacher, work out demos.

    Attributes:
        metric_threshold: Score from which on a run becomes a demo; without it any score but 0.
        max_bootstrapped_demos: Demos that are worked out.
        max_labeled_demos: Rows of the training set that are added, as they are.
        max_rounds: Attempts at each row.
    """

    metric_threshold: float | None = None
    max_bootstrapped_demos: Demos = 4
    max_labeled_demos: Demos = 16
    max_rounds: Count = 1


class BootstrapFewShot(Bootstrapping, tag=True, frozen=True, kw_only=True):
    """Keeps runs that the metric likes as demos."""


class BootstrapFewShotWithRandomSearch(Bootstrapping, tag=True, frozen=True, kw_only=True):
    """Tries many sets of demos and keeps the one that scores best.

    Attributes:
        max_bootstrapped_demos: Demos that are worked out, at most, for a set.
        num_candidate_programs: Sets to try, beside three simple ones.
        stop_at_score: Average score that is good enough.
        labeled_sample: Whether labelled demos are chosen by chance.
    """

    max_bootstrapped_demos: SomeDemos = 4
    num_candidate_programs: Count = 16
    stop_at_score: Score | None = None
    labeled_sample: bool = True


class BootstrapFewShotWithOptuna(Spec, tag=True, frozen=True, kw_only=True):
    """Looks for the best single demo of each predictor with Optuna.

    Attributes:
        max_bootstrapped_demos: Demos to choose from.
        max_labeled_demos: Rows of the training set to choose from, too.
        max_rounds: Attempts at each row.
        num_candidate_programs: Choices to try.
    """

    max_bootstrapped_demos: SomeDemos = 4
    max_labeled_demos: Demos = 16
    max_rounds: Count = 1
    num_candidate_programs: Count = 16


class KNNFewShot(Bootstrapping, tag=True, frozen=True, kw_only=True):
    """Shows, in each call, demos of the rows that are most like the inputs.  Learns when called.

    Attributes:
        k: Rows that are found for a call.
    """

    k: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 3


class COPRO(Spec, tag=True, frozen=True, kw_only=True):
    """Has instructions rewritten, again and again.

    Attributes:
        breadth: Instructions that are proposed at a time.
        depth: Times.
        init_temperature: Variety of the proposals.
    """

    breadth: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 10
    depth: Count = 3
    init_temperature: Temperature = 1.4


class MIPROv2(Spec, tag=True, frozen=True, kw_only=True):
    """Proposes instructions and demos, and looks for the best combination with Optuna.

    Attributes:
        auto: How much to try; null to say so in num_candidates and num_trials.
        num_candidates: Instructions and sets of demos to choose from.
        num_trials: Combinations to try.
        max_bootstrapped_demos: Demos that are worked out.
        max_labeled_demos: Rows of the training set that are shown as they are.
        metric_threshold: Score from which on a run becomes a demo.
        minibatch: Whether combinations are tried on a part of the validation set first.
        minibatch_size: Rows of that part.
        minibatch_full_eval_steps: Trials between evaluations on the whole validation set.
        program_aware_proposer: Whether the proposer sees a description of the program.
        data_aware_proposer: Whether it sees a summary of the rows.
        view_data_batch_size: Rows that are summed up at a time.
        tip_aware_proposer: Whether it is given tips.
        fewshot_aware_proposer: Whether it sees demos.
        init_temperature: Variety of the proposals.
        seed: Decides what is left to chance.
    """

    auto: Level | None = "light"
    num_candidates: Count | None = None
    num_trials: Count | None = None
    max_bootstrapped_demos: Demos = 4
    max_labeled_demos: Demos = 4
    metric_threshold: float | None = None
    minibatch: bool = True
    minibatch_size: Count = 35
    minibatch_full_eval_steps: Count = 5
    program_aware_proposer: bool = True
    data_aware_proposer: bool = True
    view_data_batch_size: Count = 10
    tip_aware_proposer: bool = True
    fewshot_aware_proposer: bool = True
    init_temperature: Temperature = 1.0
    seed: Annotated[int, msgspec.Meta(ge=1, lt=2**32)] = 9


class SIMBA(Spec, tag=True, frozen=True, kw_only=True):
    """Looks at rows that sometimes go well, and adds a rule or a demo.

    Attributes:
        bsize: Rows at a time.
        num_candidates: New programs in each step.
        max_steps: Steps.
        max_demos: Demos that a predictor holds at most.
        demo_input_field_maxlen: Characters of an input that a demo keeps.
        temperature_for_sampling: Variety in the choice of programs to run.
        temperature_for_candidates: Variety in the choice of programs to change.
        seed: Decides what is left to chance.
    """

    bsize: Count = 32
    num_candidates: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 6
    max_steps: Count = 8
    max_demos: Demos = 4
    demo_input_field_maxlen: Calls = 100_000
    temperature_for_sampling: Annotated[float, msgspec.Meta(gt=0, le=10)] = 0.2
    temperature_for_candidates: Annotated[float, msgspec.Meta(gt=0, le=10)] = 0.2
    seed: Seed = 0


class GEPA(Spec, tag=True, frozen=True, kw_only=True):
    """Has a model reflect on what went wrong, and evolves instructions.

    One of auto, max_full_evals and max_metric_calls says how much to try; "light" without any.

    Attributes:
        auto: How much to try.
        max_full_evals: Evaluations of all rows.
        max_metric_calls: Runs of the program.
        reflection_minibatch_size: Rows to reflect on at a time.
        candidate_selection_strategy: Which program is changed next.
        component_selector: Which of its predictors.
        skip_perfect_score: Whether rows that go well are left alone.
        add_format_failure_as_feedback: Whether answers that cannot be read are reflected on.
        use_merge: Whether good programs are merged.
        max_merge_invocations: How often.
        seed: Decides what is left to chance.
    """

    auto: Level | None = None
    max_full_evals: Count | None = None
    max_metric_calls: Calls | None = None
    reflection_minibatch_size: Count = 3
    candidate_selection_strategy: Literal["pareto", "current_best"] = "pareto"
    component_selector: Literal["round_robin", "all"] = "round_robin"
    skip_perfect_score: bool = True
    add_format_failure_as_feedback: bool = False
    use_merge: bool = True
    max_merge_invocations: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 5
    seed: Seed = 0


class InferRules(Bootstrapping, tag=True, frozen=True, kw_only=True):
    """Bootstraps demos, and has rules inferred from the training set.

    Attributes:
        num_candidates: Sets of rules to try.
        num_rules: Rules in a set.
    """

    num_candidates: Count = 10
    num_rules: Count = 10


StepSpec = (
    LabeledFewShot
    | BootstrapFewShot
    | BootstrapFewShotWithRandomSearch
    | BootstrapFewShotWithOptuna
    | COPRO
    | MIPROv2
    | SIMBA
    | GEPA
    | InferRules
)
"""An optimizer of its own."""


class BetterTogether(Spec, tag=True, frozen=True, kw_only=True):
    """Runs several optimizers one after the other, and keeps the best program on the way.

    Attributes:
        steps: The optimizers, in this order.
        valset_ratio: Share of the training set to validate on, where there is no validation set.
        shuffle_trainset_between_steps: Whether each of them sees the rows in another order.
        seed: Decides the orders.
    """

    steps: Annotated[list[StepSpec], msgspec.Meta(min_length=1, max_length=10)]
    valset_ratio: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.1
    shuffle_trainset_between_steps: bool = True
    seed: Seed = 0


OptimizerSpec = StepSpec | KNNFewShot | BetterTogether
"""Any optimizer."""
