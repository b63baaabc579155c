"""Compiling: a run of an optimizer, from the rows to the program that has learned."""

from __future__ import annotations

import copy
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dspy
import msgspec

from snakepit_adapters.dspy.metering import Stopped
from snakepit_adapters.dspy.optimizer_specs import KNNFewShot
from snakepit_adapters.dspy.optimizers import Material, build
from snakepit_adapters.dspy.programs import Program
from snakepit_adapters.dspy.running import Request
from snakepit_adapters.dspy.swallowed import Errors
from snakepit_adapters.dspy.values import plain
from snakepit_adapters.dspy.watching import Watch
from snakepit_worker.errors import FrameworkError, ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from snakepit_adapters.dspy.plans import Plan
    from snakepit_adapters.dspy.spending import RunAccount
    from snakepit_adapters.dspy.watching import Scored
    from snakepit_worker import CallContext

__all__ = ["Compilation", "Outcome"]

_NEARLY = 0.99
"""How far a run is at most before it is done."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        program: A new program that has learned.
        score: Its average score, where the optimizer has scored it.
        facts: What the run did and used, as JSON values.
    """

    program: Program
    score: float | None
    facts: Mapping[str, object]


class Compilation:
    """One run.

    Args:
        plan: What to do.
        call: The call of the tool.
        account: Where calls of language models are counted.

    Attributes:
        watch: Sees what happens.
    """

    def __init__(self, plan: Plan, call: CallContext, account: RunAccount) -> None:
        self.plan = plan
        self.name = type(plan.spec).__name__
        self._call = call
        self._errors = Errors()
        batch = getattr(plan.spec, "bsize", None)
        self.watch = Watch(self._errors, plan.limits, self._state, self._news, batch)
        self._account = account
        self._lms = [
            _apart(model.lm)
            for model in (plan.model, plan.prompt_lm, plan.teacher_lm)
            if model is not None
        ]
        self._optimizer: Any = None
        self._expected: Mapping[str, int] = {}

    def cancel(self) -> None:
        """End the run: no further call of a model begins, and its threads end with their calls."""
        self.watch.stop("cancelled")
        self.close()

    def best(self) -> Outcome | None:
        """The best program so far, if there is one; blocks."""
        found = self._best()
        if found is None:
            return None
        learned, score = found
        return Outcome(learned, score, self.facts(learned))

    def close(self) -> None:
        """Close the connections of the run, so that no failed request is repeated."""
        for lm in self._lms:
            lm.close()

    def run(self) -> Outcome:
        """Run the optimizer; blocks.

        Raises:
            WorkerError: When nothing was learned, and why.
        """
        plan = self.plan
        if isinstance(plan.spec, KNNFewShot):
            nearest = self._nearest(plan.spec)
            return Outcome(nearest, None, self.facts() | {"changed": True})
        try:
            with self._settings():
                built = build(plan.spec, self._material())
                self._optimizer = built.optimizer
                self._expected = built.expected
                module = plan.program.copy().module
                if self.name == "BetterTogether":
                    module.set_lm(dspy.settings.lm)  # it insists
                compiled = built.optimizer.compile(module, **built.arguments)
        except Stopped:
            return self._stopped()
        except Exception as error:
            self._fail_if_nothing_worked()
            if self._errors.last is None:
                self._errors.add(error, "optimizer")
            raise self._errors.failure(f"{self.name} gave up: {error}", self.facts()) from error
        finally:
            self.close()
        if getattr(compiled, "flag_compilation_error_occurred", False):
            step = FrameworkError("a step failed, and those after it were left out")
            self._errors.add(step, "optimizer")
        self._fail_if_nothing_worked()
        learned = self._with(self._state(compiled))
        best = self.watch.best
        return Outcome(learned, None if best is None else best.score, self.facts(learned))

    def facts(self, learned: Program | None = None) -> dict[str, object]:
        """What the run did and used.

        Args:
            learned: The program that came of it.
        """
        watch = self.watch
        facts: dict[str, object] = {
            "optimizer": self.name,
            "trials": watch.trials,
            "calls": watch.calls,
            "failed_calls": watch.failed_calls,
            "metric_calls": watch.metric_calls,
            "failed_metric_calls": watch.failed_metric_calls,
            "usage": self._account.models(),
            "cost": self._account.cost,
            "seconds": round(watch.seconds, 3),
            "stopped": watch.stopped,
            "errors": self._errors.list(),
            "error_count": self._errors.count,
        }
        if learned is not None:
            facts["changed"] = learned.dump_state() != self.plan.program.dump_state()
        return facts

    @contextmanager
    def _settings(self) -> Iterator[None]:
        plan = self.plan
        layout = plan.layout or plan.model.settings.response_format
        with (
            Request(plan.program, plan.model, layout, {}).settings([self.watch]),
            dspy.context(
                lm=self._lms[0],
                num_threads=plan.threads,
                max_errors=plan.max_errors,
                **self._account.settings(),
            ),
        ):
            yield

    def _material(self) -> Material:
        plan = self.plan
        lms = iter(self._lms)
        return Material(
            trainset=plan.trainset,
            valset=plan.valset,
            judge=None if plan.metric is None else self.watch.metric(plan.metric),
            teacher=None if plan.teacher is None else plan.teacher.module,
            lm=next(lms),
            prompt_lm=None if plan.prompt_lm is None else next(lms),
            teacher_lm=None if plan.teacher_lm is None else next(lms),
            threads=plan.threads,
            max_errors=plan.max_errors,
        )

    def _nearest(self, spec: KNNFewShot) -> Program:
        plan = self.plan
        options = {
            **msgspec.structs.asdict(spec),
            "rows": [plain(dict(example.items())) for example in plan.trainset],
            "inputs": list(plan.trainset[0].inputs().keys()),
            "metric": msgspec.to_builtins(plan.measure),
        }
        wrapped = {"program": plan.program.copy()}
        return Program("KNNFewShot", programs=wrapped, options=options, lm=plan.program.lm)

    def _stopped(self) -> Outcome:
        """What is left of a run that was ended from inside."""
        self._fail_if_nothing_worked()
        best = self.best()
        if best is None:
            reason = self.watch.stopped
            raise ResourceExhausted(
                f"{self.name} was ended by {reason} before it had learned anything",
                details={"limit": reason, **self.facts()},
            )
        return best

    def _best(self) -> tuple[Program, float | None] | None:
        best = self.watch.best
        if not self.watch.answered_calls:  # a score of failures says nothing
            return None
        if best is not None:
            return self._with(best.state), best.score
        # A bootstrap scores no programs; what it has is the demos so far.
        traces = getattr(self._optimizer, "name2traces", None) or {}
        demos = defaultdict(list, {name: list(found) for name, found in traces.items()})
        if not any(demos.values()):
            return None
        module = self.plan.program.copy().module.reset_copy()
        for name, predictor in module.named_predictors():
            predictor.demos = demos[name]
        return self._with(self._state(module)), None

    def _state(self, module: Any) -> Mapping[str, Any]:  # noqa: ANN401 - DSPy has no types
        twin = copy.copy(self.plan.program)
        twin.module = module
        return twin.dump_state()

    def _with(self, state: Mapping[str, Any]) -> Program:
        twin = self.plan.program.copy()
        twin.load_state(state)
        return twin

    def _fail_if_nothing_worked(self) -> None:
        watch, facts = self.watch, self.facts()
        if watch.failed_calls and not watch.answered_calls:
            calls = f"all {watch.failed_calls} calls of the language model failed"
            raise self._errors.failure(f"{self.name} learned nothing: {calls}", facts, "model")
        if watch.metric_calls and watch.failed_metric_calls == watch.metric_calls:
            calls = f"the metric failed in all of its {watch.metric_calls} calls"
            raise self._errors.failure(f"{self.name} learned nothing: {calls}", facts, "metric")
        if self.plan.metric is not None and watch.failed_runs and not watch.metric_calls:
            text = "no run of the program came to an answer"
            raise self._errors.failure(f"{self.name} learned nothing: {text}", facts, "program")

    def _news(self, scored: Scored | None) -> None:
        watch = self.watch
        if watch.stopped is not None:
            return
        best = watch.best
        parts = [f"{watch.calls} calls"]
        if watch.trials:
            parts.insert(0, f"trial {watch.trials}")
        if best is not None:
            parts.insert(1, f"best score {best.score:.3f}")
        if watch.failed_calls:
            parts.append(f"{watch.failed_calls} failed")
        if self._account.cost is not None:
            parts.append(f"${self._account.cost:.4f}")
        self._call.progress(self._fraction(), ", ".join(parts))
        if scored is not None and best is not None:
            self._call.partial(
                {
                    "trial": watch.trials,
                    "score": scored.score,
                    "examples": scored.examples,
                    "best_score": best.score,
                    "calls": watch.calls,
                    "failed_calls": watch.failed_calls,
                    "cost": self._account.cost,
                }
            )

    def _fraction(self) -> float | None:
        expected = dict(self._expected)
        budget = getattr(self._optimizer, "max_metric_calls", None)  # GEPA's
        if budget:
            expected["metric_calls"] = budget
        for name, total in expected.items():
            return min(_NEARLY, float(getattr(self.watch, name)) / max(1, total))
        return None


def _apart(lm: Any) -> Any:  # noqa: ANN401 - DSPy has no types
    """The same language model with connections of its own, which can be closed with the run.

    DSPy repeats a failed request after a pause; on a closed connection it does not.
    """
    twin = lm.copy()
    twin.__setstate__(twin.__getstate__())  # as a pickled one: same settings, no connections yet
    return twin
