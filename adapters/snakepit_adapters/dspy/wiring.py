"""What is wired to what in a program of several steps: read from data, and checked."""

from __future__ import annotations

from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, Final

from snakepit_adapters.dspy.signatures import Field, Signature
from snakepit_adapters.dspy.type_grammar import read_type
from snakepit_adapters.dspy.values import refuse
from snakepit_worker.errors import Violation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from snakepit_adapters.dspy.module_options import Graph, Step
    from snakepit_adapters.dspy.programs import Program
    from snakepit_adapters.dspy.type_grammar import FieldType

__all__ = ["INPUTS", "Constant", "Reference", "Wiring", "wire"]

INPUTS: Final = "inputs"
"""What references call the inputs of the whole."""
_ANY: Final = read_type("Any")


@dataclass(frozen=True, slots=True)
class Reference:
    """An input of the whole (`step` is ``inputs``), or an output of a step."""

    step: str
    field: str


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that is the same in each call."""

    value: Any


@dataclass(frozen=True, slots=True)
class Wiring:
    """A graph, checked.

    Attributes:
        sources: Where each input of each step comes from; steps in an order in which they can run.
        outputs: Where each output of the whole comes from.
        signature: What the whole takes and gives.
    """

    sources: Mapping[str, Mapping[str, Reference | Constant]]
    outputs: Mapping[str, Reference]
    signature: Signature


def wire(graph: Graph, programs: Mapping[str, Program]) -> Wiring:
    """A graph, checked against the programs of its steps.

    Args:
        graph: What the caller describes.
        programs: The programs of the steps, by name.

    Raises:
        InvalidArgument: Naming every name, type and cycle that is wrong.
    """
    return _Wiring(graph, programs).read()


class _Wiring:
    """Reads a graph and collects what is wrong with it."""

    def __init__(self, graph: Graph, programs: Mapping[str, Program]) -> None:
        self._graph = graph
        self._programs = programs
        self._inputs: dict[str, FieldType] = {}
        self._wrong: list[Violation] = []

    def read(self) -> Wiring:
        sources: dict[str, dict[str, Reference | Constant]] = {}
        for index, step in enumerate(self._graph.steps):
            path = f"steps[{index}]"
            if step.name == INPUTS or not step.name.isidentifier() or step.name in sources:
                self._add(f"{path}.name", f"{step.name!r} is taken, or no name such as 'answer'")
            sources[step.name] = self._step(f"{path}.inputs", step)
        outputs = {
            name: Field(name, of.type, of.description)
            for name, at in self._graph.outputs.items()
            if (of := self._output(f"outputs.{name}", at)) is not None
        }
        for name in self._graph.outputs:
            if not name.isidentifier():
                self._add(f"outputs.{name}", "expected a name such as 'answer'")
        refuse(self._wrong)
        try:
            order = list(TopologicalSorter(_needs(sources)).static_order())
        except CycleError as error:
            circle = " -> ".join(error.args[1])
            refuse([Violation("steps", f"they wait for each other: {circle}")])
        return Wiring(
            {name: sources[name] for name in order},
            {name: Reference(*at.split(".", 1)) for name, at in self._graph.outputs.items()},
            Signature(
                tuple(Field(name, kind) for name, kind in self._inputs.items()),
                tuple(outputs.values()),
            ),
        )

    def _step(self, path: str, step: Step) -> dict[str, Reference | Constant]:
        fields = {field.name: field for field in self._programs[step.name].signature.inputs}
        sources: dict[str, Reference | Constant] = {}
        for name, given in step.inputs.items():
            if name not in fields:
                self._add(f"{path}.{name}", f"unknown field; known are {', '.join(fields)}")
                continue
            if isinstance(given, str):
                if self._fits(f"{path}.{name}", given, fields[name].type):
                    sources[name] = Reference(*given.split(".", 1))
            elif isinstance(given, dict) and set(given) == {"value"}:
                sources[name] = Constant(given["value"])
            elif isinstance(given, dict | list):
                self._add(f"{path}.{name}", 'expected "inputs.x", "step.y" or {"value": ...}')
            else:
                sources[name] = Constant(given)
        for name, field in fields.items():
            if name not in step.inputs and not field.type.optional:
                self._add(f"{path}.{name}", f"expected {field.type.text}, got nothing")
        constants = {n: s.value for n, s in sources.items() if isinstance(s, Constant)}
        self._wrong += self._programs[step.name].values.wrong(constants, path)
        return sources

    def _fits(self, path: str, given: str, wanted: FieldType) -> bool:
        step, _, field = given.partition(".")
        if step == INPUTS and field.isidentifier():
            known = self._inputs.setdefault(field, wanted)
            if known.text != wanted.text:
                self._add(path, f"inputs.{field} is {known.text} elsewhere, here {wanted.text}")
            return True
        of = self._output(path, given)
        if of is None:
            return False
        if not _assignable(of.type, wanted):
            self._add(path, f"expected {wanted.text}, {given} is {of.type.text}")
        return True

    def _output(self, path: str, given: str) -> Field | None:
        step, _, name = given.partition(".")
        program = self._programs.get(step)
        if program is None:
            known = ", ".join((INPUTS, *self._programs))
            self._add(path, f"{given!r} names no step; known are {known}")
            return None
        outputs = {field.name: field for field in program.signature.outputs}
        if name in outputs:
            return outputs[name]
        if program.open:
            return Field(name, _ANY)
        self._add(path, f"step {step} has no output {name!r}; it has {', '.join(outputs)}")
        return None

    def _add(self, field: str, description: str) -> None:
        self._wrong.append(Violation(field, description))


def _needs(sources: Mapping[str, Mapping[str, Reference | Constant]]) -> dict[str, set[str]]:
    return {
        name: {s.step for s in of.values() if isinstance(s, Reference) and s.step != INPUTS}
        for name, of in sources.items()
    }


def _assignable(given: FieldType, wanted: FieldType) -> bool:
    """Whether values of one type can be of another; what only some can is refused in the call."""
    have = {member.text for member in given.members or (given,)}
    want = {member.text for member in wanted.members or (wanted,)}
    if "float" in want:
        want.add("int")
    return "Any" in have | want or have <= want
