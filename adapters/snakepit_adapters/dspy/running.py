"""One call of a program: DSPy's settings for it, and what comes of it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import dspy
import msgspec

from snakepit_adapters.dspy.answering import CONFIG
from snakepit_adapters.dspy.guarding import Guard, guarded
from snakepit_adapters.dspy.layouts import LAYOUTS
from snakepit_adapters.dspy.usage import attributed
from snakepit_adapters.dspy.values import outputs_of, plain
from snakepit_worker.errors import FrameworkError
from snakepit_worker.tools.context import current_call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from snakepit_adapters.dspy.arguments import ResponseFormat
    from snakepit_adapters.dspy.language_models import LanguageModel
    from snakepit_adapters.dspy.programs import Program

__all__ = ["Request", "answer"]

_STEPS: Final = 200
"""Entries of a trace; of a longer one the latest are shown."""
_LONGEST: Final = 4000
"""Characters of a value in a trace."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a program.

    Attributes:
        program: What is called.
        language_model: Who answers.
        response_format: How the answer is laid out.
        arguments: Keyword arguments for DSPy's object.
        config: Options of each call of the model, for modules that take none in their arguments.
    """

    program: Program
    language_model: LanguageModel
    response_format: ResponseFormat
    arguments: Mapping[str, Any] = field(repr=False)
    config: Mapping[str, Any] = field(default_factory=dict)

    @contextmanager
    def settings(
        self, callbacks: Sequence[Any] = (), trace: list[Any] | None = None
    ) -> Iterator[None]:
        """DSPy's settings for this call, in this task alone, leaving no trace of it behind.

        DSPy keeps prompts of all sessions in lists of the process unless each call forbids it.

        Args:
            callbacks: Who is told what happens in the call.
            trace: Gets what each predictor was given and gave.
        """
        lm = self.language_model.lm
        with dspy.context(
            lm=lm.copy(**self.config) if self.config else lm,
            adapter=LAYOUTS[self.response_format],
            callbacks=list(callbacks),
            disable_history=True,
            max_history_size=0,
            trace=trace,
            max_trace_size=_STEPS,
            track_usage=True,
            warn_on_type_mismatch=False,
            **{CONFIG: self.config},
            **attributed(self.program),
        ):
            yield

    async def run(
        self, run_sync: Callable[..., Awaitable[Any]], *, trace: bool = False
    ) -> dict[str, object]:
        """Call the program and wait for its answer.

        Args:
            run_sync: Runs a blocking function elsewhere, context variables included.
            trace: Whether to tell what each predictor was given and gave.
        """
        module = self.program.module
        steps: list[Any] | None = [] if trace else None
        guards = self.guards()
        with self.settings(guards, steps):
            if self.program.asynchronous:
                prediction = await module.acall(**self.arguments)
            else:
                prediction = await run_sync(guarded, module, **self.arguments)
        told = answer(prediction)
        return told if steps is None else told | {"trace": self._trace(steps)}

    def guards(self) -> list[Guard]:
        """Callbacks that end threads of this call when it is cancelled; none where none start."""
        return [Guard(current_call.get())] if _blocks(self.program) else []

    def _trace(self, steps: Sequence[Any]) -> list[dict[str, object]]:
        # Attempts are made with copies of the predictors, which keep this attribute.
        names = {p.stage: name for name, p in self.program.module.named_predictors()}
        return [
            {
                "predictor": names.get(predictor.stage),
                "inputs": _short(inputs),
                "outputs": _short(dict(outputs.items())),
            }
            for predictor, inputs, outputs in steps
        ]


def answer(prediction: Any) -> dict[str, object]:  # noqa: ANN401 - DSPy has no types
    """A prediction of DSPy as plain data: the outputs, and the tokens used by model.

    Args:
        prediction: What a module gave.

    Raises:
        FrameworkError: When it is none.
    """
    if not isinstance(prediction, dspy.Prediction):
        raise FrameworkError(f"the module gave no prediction, but {type(prediction).__name__}")
    return {"outputs": outputs_of(prediction), "usage": prediction.get_lm_usage() or {}}


def _blocks(program: Program) -> bool:
    return not program.asynchronous or any(map(_blocks, program.programs.values()))


def _short(values: Mapping[str, Any]) -> dict[str, object]:
    return {name: _cut(plain(value)) for name, value in values.items()}


def _cut(value: Any) -> Any:  # noqa: ANN401 - a JSON value
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return value if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
