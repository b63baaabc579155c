"""Programs of several steps, wired as data."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import dspy

from snakepit_adapters.dspy.agent_tools import emit
from snakepit_adapters.dspy.answering import answering
from snakepit_adapters.dspy.guarding import awaitable, guarded
from snakepit_adapters.dspy.values import plain
from snakepit_adapters.dspy.wiring import INPUTS, Constant, Reference
from snakepit_worker.tools.context import current_call

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping

    from snakepit_adapters.dspy.programs import Program
    from snakepit_adapters.dspy.wiring import Wiring

__all__ = ["Composed", "call_module", "together"]

T = TypeVar("T")


class Composed(dspy.Module):  # type: ignore[misc]  # DSPy has no types
    """The module of a composed program.

    Args:
        programs: The programs of the steps.
        wiring: What is wired to what.
        lm: Name of the language model that answers; a step whose program has another one is
            answered by that.
    """

    def __init__(self, programs: Mapping[str, Program], wiring: Wiring, lm: str) -> None:
        super().__init__()
        self.steps = {name: program.module for name, program in programs.items()}
        self._values = {name: program.values for name, program in programs.items()}
        self._wiring = wiring
        self._lms = {name: part.lm for name, part in programs.items() if part.lm != lm}

    def __deepcopy__(self, memo: dict[int, Any]) -> Composed:
        """DSPy's optimizers copy modules; of this one only the steps change."""
        made = Composed.__new__(Composed)
        memo[id(self)] = made
        made.__dict__.update(self.__dict__)
        made.history, made.callbacks = [], []
        made.steps = {name: step.deepcopy() for name, step in self.steps.items()}
        return made

    def forward(self, **inputs: Any) -> Any:  # noqa: ANN401 - DSPy has no types
        """Run the steps one after the other."""
        done: dict[str, Mapping[str, Any]] = {INPUTS: inputs}
        for name in self._wiring.sources:
            with answering(self._lms.get(name)):
                done[name] = _outputs(self.steps[name](**self._inputs(name, done)))
        return self._prediction(done)

    async def aforward(self, **inputs: Any) -> Any:  # noqa: ANN401 - DSPy has no types
        """Run the steps, those that do not wait for each other at the same time."""
        done: dict[str, Mapping[str, Any]] = {INPUTS: inputs}
        ready = {name: asyncio.Event() for name in self._wiring.sources}

        async def run(name: str) -> None:
            for source in self._wiring.sources[name].values():
                if isinstance(source, Reference) and source.step != INPUTS:
                    await ready[source.step].wait()
            inputs = self._inputs(name, done)
            await emit({"type": "status", "step": name, "state": "started"})
            with answering(self._lms.get(name)):
                done[name] = _outputs(await call_module(self.steps[name], inputs))
            await emit({"type": "status", "step": name, "state": "done"})
            ready[name].set()

        await together(run(name) for name in self._wiring.sources)
        return self._prediction(done)

    def _inputs(self, name: str, done: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        given: dict[str, Any] = {}
        for field, source in self._wiring.sources[name].items():
            if isinstance(source, Constant):
                given[field] = source.value
            elif source.step == INPUTS:
                if source.field in done[INPUTS]:
                    given[field] = _of_json(done[INPUTS][source.field])
            else:
                given[field] = plain(done[source.step].get(source.field))
        checked: dict[str, Any] = self._values[name].inputs(given, f"{name}.inputs")
        return checked

    def _prediction(self, done: Mapping[str, Mapping[str, Any]]) -> Any:  # noqa: ANN401 - DSPy has no types
        outputs = self._wiring.outputs.items()
        return dspy.Prediction(**{name: done[at.step].get(at.field) for name, at in outputs})


async def together(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines at the same time; the first that fails cancels the others.

    Args:
        coroutines: The coroutines.

    Returns:
        Their results, in the same order.

    Raises:
        Exception: That of the first one to fail, with its own cause.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
        return [task.result() for task in tasks]
    except BaseExceptionGroup as errors:
        failed = errors.exceptions[0]
    raise failed  # here, where it does not get another cause or context


async def call_module(module: Any, inputs: Mapping[str, Any]) -> Any:  # noqa: ANN401 - DSPy has no types
    """Call a module of DSPy, in a thread if it only blocks.

    Args:
        module: The module.
        inputs: Its inputs.
    """
    if awaitable(type(module)):
        return await module.acall(**inputs)
    call = current_call.get()
    run_sync = asyncio.to_thread if call is None else call.run_sync
    return await run_sync(guarded, module, **inputs)


def _outputs(prediction: Any) -> Mapping[str, Any]:  # noqa: ANN401 - DSPy has no types
    return dict(prediction.items())


def _of_json(value: Any) -> Any:  # noqa: ANN401 - of any type
    """An input as it came; media stay what they have become."""
    if isinstance(value, dspy.Image | dspy.Audio | dspy.History):
        return value
    if isinstance(value, list):
        return [_of_json(item) for item in value]
    if isinstance(value, dict):
        return {name: _of_json(item) for name, item in value.items()}
    return plain(value)
