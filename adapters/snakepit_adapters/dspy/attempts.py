"""`BestOfN` and `Refine`, safe to call from several sides at once, and honest about failures.

DSPy's classes count failures on themselves, print the failures (a provider may quote a key in
them), give ``None`` where no attempt succeeded, and need a list for the trace of the call.
"""

from __future__ import annotations

import copy
import inspect
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import dspy
import msgspec
from dspy.predict import best_of_n, refine
from dspy.utils.callback import BaseCallback

from snakepit_adapters.dspy.answering import answering
from snakepit_adapters.dspy.metric_specs import Judge
from snakepit_adapters.dspy.metrics import metric
from snakepit_worker.errors import FrameworkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from snakepit_adapters.dspy.module_options import Attempts

__all__ = ["BestOfN", "Refine", "attempting"]


def _print_nothing(*_: object) -> None:
    """What these two modules of DSPy have instead of ``print``."""


vars(best_of_n)["print"] = vars(refine)["print"] = _print_nothing


class _Failures(BaseCallback):  # type: ignore[misc]  # DSPy has no types
    """Keeps the last failure of an attempt."""

    def __init__(self) -> None:
        self.last: Exception | None = None

    def on_module_end(
        self, call_id: str, outputs: object, exception: BaseException | None = None
    ) -> None:
        del call_id, outputs
        if isinstance(exception, Exception):
            self.last = exception


_failures: Final[ContextVar[_Failures | None]] = ContextVar("failures", default=None)


@contextmanager
def _attempts() -> Iterator[_Failures]:
    failures = _Failures()
    token = _failures.set(failures)
    trace = dspy.settings.trace
    try:
        with dspy.context(
            callbacks=[*dspy.settings.callbacks, failures], trace=[] if trace is None else trace
        ):
            yield failures
    finally:
        _failures.reset(token)


def _best(prediction: Any, failures: _Failures) -> Any:  # noqa: ANN401 - DSPy has no types
    if prediction is None:
        raise failures.last or FrameworkError("no attempt gave an answer")
    return prediction


class BestOfN(dspy.BestOfN):  # type: ignore[misc]  # DSPy has no types
    """The best of several attempts."""

    def forward(self, **inputs: Any) -> Any:  # noqa: ANN401 - DSPy has no types
        """The best answer.

        Raises:
            Exception: That of the last attempt, when none succeeded.
        """
        with _attempts() as failures:
            return _best(dspy.BestOfN.forward(copy.copy(self), **inputs), failures)


class Refine(dspy.Refine):  # type: ignore[misc]  # DSPy has no types
    """The best of several attempts, each advised by what was wrong with the one before."""

    def forward(self, **inputs: Any) -> Any:  # noqa: ANN401 - DSPy has no types
        """The best answer.

        Raises:
            Exception: That of the last attempt, when none succeeded.
        """
        with _attempts() as failures:
            return _best(dspy.Refine.forward(copy.copy(self), **inputs), failures)


def attempting(kind: type[Any], module: Any, options: Attempts) -> Any:  # noqa: ANN401 - DSPy has no types
    """A module that tries another one several times.

    Args:
        kind: One of the two classes.
        module: What it tries.
        options: How often, and what is good.
    """
    made = kind(
        module=module,
        N=options.n,
        reward_fn=_reward(options),
        threshold=options.threshold,
        fail_count=options.n if options.max_failures is None else options.max_failures,
    )
    if isinstance(made, Refine):
        # What the model reads of the reward: the metric, rather than the source of this file.
        shown = {"metric": options.reward, "expected": options.expected}
        made.reward_fn_code = msgspec.json.encode(shown).decode()
        made.module_code = inspect.cleandoc(type(module).__doc__ or type(module).__name__)
    return made


def _reward(options: Attempts) -> Callable[[Mapping[str, Any], Any], float]:
    judge = metric(options.reward)
    judging = options.reward.lm if isinstance(options.reward, Judge) else None
    expected = dict(options.expected)

    def reward(inputs: Mapping[str, Any], prediction: Any) -> float:  # noqa: ANN401 - DSPy has no types
        given = {name: value for name, value in inputs.items() if name != "config"}
        example = dspy.Example(**given, **expected).with_inputs(*given)
        try:
            with answering(judging):
                return judge(example, prediction)
        except Exception as error:
            failures = _failures.get()
            if failures is not None:
                failures.last = error
            raise

    return reward
