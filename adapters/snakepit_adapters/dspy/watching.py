"""Watching an optimizer from inside: its programs, their scores, what fails.

DSPy's optimizers tell nothing before they are done, and swallow exceptions.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dspy

from snakepit_adapters.dspy.metering import Meter
from snakepit_adapters.dspy.metrics import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from snakepit_adapters.dspy.metering import Limits
    from snakepit_adapters.dspy.metrics import Metric
    from snakepit_adapters.dspy.swallowed import Errors

__all__ = ["Best", "Scored", "Watch"]


@dataclass(frozen=True, slots=True)
class Scored:
    """A program that was scored.

    Attributes:
        score: Its average score.
        examples: On how many examples.
    """

    score: float
    examples: int


@dataclass(frozen=True, slots=True)
class Best:
    """The best program so far.

    Attributes:
        state: What it had learned when it was scored.
        score: Its average score.
        examples: On how many examples.
    """

    state: Mapping[str, Any]
    score: float
    examples: int


class Watch(Meter):
    """Sees what happens in a run, on all of its threads.

    Args:
        errors: Where errors are noted.
        limits: What the run may use.
        state: Gives what a module has learned.
        news: Told, on any thread, whenever there is something to tell, such as a program's score.
        batch: Examples after which a module counts as scored, for optimizers that do without DSPy's
            evaluations; ``None`` for those that make evaluations.

    Attributes:
        runs: Runs of whole programs.
        failed_runs: Those that failed.
        metric_calls: Calls of the metric.
        failed_metric_calls: Those that failed.
        trials: Programs that were scored.
        best: The best of them.
    """

    def __init__(
        self,
        errors: Errors,
        limits: Limits,
        state: Callable[[Any], Mapping[str, Any]],
        news: Callable[[Scored | None], None],
        batch: int | None = None,
    ) -> None:
        super().__init__(errors, limits)
        self.runs = 0
        self.failed_runs = 0
        self.metric_calls = 0
        self.failed_metric_calls = 0
        self.trials = 0
        self.best: Best | None = None
        self._state = state
        self._news = news
        self._batch = batch
        self._here = threading.local()
        self._evaluations: dict[str, tuple[Any, int]] = {}
        self._scores: weakref.WeakKeyDictionary[Any, list[float]] = weakref.WeakKeyDictionary()

    def on_lm_end(  # noqa: D102 - as the base class
        self, call_id: str, outputs: object, exception: BaseException | None = None
    ) -> None:
        super().on_lm_end(call_id, outputs, exception)
        self._news(None)

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:  # noqa: ANN401, D102 - as the base class
        del call_id, inputs
        self._enter_thread()
        self.checkpoint()
        here = self._here
        here.depth += 1
        if here.depth == 1 and not here.judging:
            here.program = instance

    def on_module_end(  # noqa: D102 - as the base class
        self, call_id: str, outputs: object, exception: BaseException | None = None
    ) -> None:
        del call_id, outputs
        here = self._here
        here.depth = max(0, here.depth - 1)
        if here.depth or here.judging:
            return
        with self._lock:
            self.runs += 1
            self.failed_runs += isinstance(exception, Exception)
        if isinstance(exception, Exception) and not isinstance(exception, dspy.LMError):
            self.errors.add(exception, "program")

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:  # noqa: ANN401, D102 - as the base class
        examples = inputs.get("devset") or instance.devset or ()
        instance.display_progress = False  # optimizers insist on a bar
        with self._lock:
            self._evaluations[call_id] = (inputs["program"], len(examples))

    def on_evaluate_end(  # noqa: D102 - as the base class
        self,
        call_id: str,
        outputs: Any,  # noqa: ANN401 - DSPy has no types
        exception: BaseException | None = None,
    ) -> None:
        with self._lock:
            module, examples = self._evaluations.pop(call_id, (None, 0))
        if exception is None and module is not None and self._batch is None:
            self._trial(module, float(outputs.score) / 100, examples)

    def on_compile_end(  # noqa: D102 - as the base class
        self, call_id: str, outputs: object, exception: BaseException | None = None
    ) -> None:
        del call_id, outputs
        if isinstance(exception, Exception) and exception is not self.errors.last:
            self.errors.add(exception, "optimizer")

    def metric(self, metric: Metric) -> Callable[..., Verdict]:
        """A metric whose failures fail one example and not the run.

        Args:
            metric: What compares.
        """

        def judge(example: Any, prediction: Any) -> Verdict:  # noqa: ANN401 - DSPy has no types
            self._enter_thread()
            self.checkpoint()
            if prediction is None:  # the program failed, which is noted already
                return Verdict(0.0, "the program failed")
            here = self._here
            judging, here.judging = here.judging, True
            try:
                verdict = metric.judge(example, prediction)
            except Exception as error:  # noqa: BLE001 - it fails one example, whatever it is
                self.checkpoint()
                self.errors.add(error, "metric")
                with self._lock:
                    self.failed_metric_calls += 1
                verdict = Verdict(0.0, f"the metric failed: {type(error).__name__}")
            finally:
                here.judging = judging
            with self._lock:
                self.metric_calls += 1
            self._note(here.program, verdict.score)
            self._news(None)
            return verdict

        return judge

    def _note(self, module: Any, score: float) -> None:  # noqa: ANN401 - DSPy has no types
        if self._batch is None or module is None:
            return
        with self._lock:
            scores = self._scores.setdefault(module, [])
            scores.append(score)
            count, average = len(scores), sum(scores) / len(scores)
        if count % self._batch == 0:
            self._trial(module, average, count, again=count > self._batch)

    def _trial(self, module: Any, score: float, examples: int, *, again: bool = False) -> None:  # noqa: ANN401 - DSPy has no types
        state = self._state(module)
        with self._lock:
            self.trials += not again
            best = self.best
            if best is None or (examples, score) > (best.examples, best.score):
                self.best = Best(state, score, examples)
        self._news(Scored(score, examples))

    def _enter_thread(self) -> None:
        if hasattr(self._here, "depth"):
            return
        self._here.depth = 0
        self._here.judging = False
        self._here.program = None
        self.adopt()
