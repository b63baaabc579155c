"""Calls of several programs at the same time, as one program: DSPy's ``Parallel``.

DSPy's class runs threads, sends what is slow a second time, and loses which call failed how.  This
one has its interface of calls in and results out.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

import dspy

from snakepit_adapters.dspy.composed import call_module
from snakepit_adapters.dspy.signatures import Field, Signature
from snakepit_adapters.dspy.swallowed import described
from snakepit_adapters.dspy.type_grammar import read_type
from snakepit_adapters.dspy.values import outputs_of, refuse
from snakepit_worker.errors import Violation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from snakepit_adapters.dspy.programs import Program

__all__ = ["SideBySide", "side_by_side"]

_CALLS: Final = Field(
    "calls", read_type("list[dict[str, Any]]"), 'each {"program": name, "inputs": {...}}'
)
_RESULTS: Final = Field(
    "results", read_type("list[dict[str, Any]]"), "of each call its outputs, or its error"
)


class SideBySide(dspy.Module):  # type: ignore[misc]  # DSPy has no types
    """Runs calls of programs.

    Args:
        programs: The programs by name.
        concurrency: How many calls run at once.
    """

    def __init__(self, programs: Mapping[str, Program], concurrency: int) -> None:
        super().__init__()
        self.programs = {name: program.module for name, program in programs.items()}
        self._values = {name: program.values for name, program in programs.items()}
        self._concurrency = concurrency

    def forward(self, calls: Sequence[Mapping[str, Any]]) -> Any:  # noqa: ANN401 - DSPy has no types
        """The results, in the order of the calls."""
        checked = self._checked(calls)
        with ThreadPoolExecutor(self._concurrency) as pool:
            running = [
                pool.submit(copy_context().run, _result, self.programs[name], inputs)
                for name, inputs in checked
            ]
            return dspy.Prediction(results=[one.result() for one in running])

    async def aforward(self, calls: Sequence[Mapping[str, Any]]) -> Any:  # noqa: ANN401 - DSPy has no types
        """The results, in the order of the calls."""
        checked = self._checked(calls)
        free = asyncio.Semaphore(self._concurrency)

        async def run(name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
            async with free:
                try:
                    prediction = await call_module(self.programs[name], inputs)
                except Exception as error:  # noqa: BLE001 - it fails one call, whatever it is
                    return {"error": described(error)}
                return {"outputs": outputs_of(prediction)}

        async with asyncio.TaskGroup() as group:
            running = [group.create_task(run(*call)) for call in checked]
        return dspy.Prediction(results=[task.result() for task in running])

    def _checked(self, calls: Sequence[Mapping[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
        checked = []
        for index, call in enumerate(calls):
            path = f"inputs.calls[{index}]"
            name = call.get("program")
            if name not in self.programs or not set(call) <= {"program", "inputs"}:
                known = ", ".join(self.programs)
                refuse([Violation(path, f"expected program and inputs; programs are {known}")])
            inputs = self._values[str(name)].inputs(call.get("inputs") or {}, f"{path}.inputs")
            checked.append((str(name), inputs))
        return checked


def _result(module: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - DSPy has no types
    try:
        return {"outputs": outputs_of(module(**inputs))}
    except Exception as error:  # noqa: BLE001 - it fails one call, whatever it is
        return {"error": described(error)}


def side_by_side(programs: Mapping[str, Program], concurrency: int) -> tuple[SideBySide, Signature]:
    """The module, and what its callers give and get.

    Args:
        programs: The programs by name.
        concurrency: How many calls run at once.
    """
    return SideBySide(programs, concurrency), Signature((_CALLS,), (_RESULTS,))
