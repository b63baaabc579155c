"""What DSPy's optimizers ``Ensemble`` and ``KNNFewShot`` give, as modules of their own.

DSPy makes classes and methods for them on the fly, which nothing could describe or build again.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import dspy
import msgspec
from dspy.evaluate.metrics import normalize_text

from snakepit_adapters.dspy.composed import call_module, together
from snakepit_adapters.dspy.local_embedder import local_embeddings
from snakepit_adapters.dspy.metrics import metric
from snakepit_adapters.dspy.values import plain, refuse
from snakepit_worker.errors import Violation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from snakepit_adapters.dspy.module_options import Neighbours, Votes
    from snakepit_adapters.dspy.programs import Program
    from snakepit_adapters.dspy.signatures import Signature

__all__ = ["Ensemble", "KNNFewShot", "ensemble", "nearest"]


class Ensemble(dspy.Module):  # type: ignore[misc]  # DSPy has no types
    """Asks several programs, and gives the answer that most of them give.

    Args:
        modules: The programs' modules.
        size: How many of them are asked, chosen by chance; all if ``None``.
        field: The output that is voted on.
    """

    def __init__(self, modules: Sequence[Any], size: int | None, field: str) -> None:
        super().__init__()
        self.programs = list(modules)
        self._size = size
        self._field = field

    def forward(self, **inputs: Any) -> Any:  # noqa: ANN401 - DSPy has no types
        """Ask one after the other."""
        return self._vote([module(**inputs) for module in self._asked()])

    async def aforward(self, **inputs: Any) -> Any:  # noqa: ANN401 - DSPy has no types
        """Ask all at the same time."""
        return self._vote(await together(call_module(m, inputs) for m in self._asked()))

    def _asked(self) -> list[Any]:
        if self._size is None:
            return self.programs
        return random.sample(self.programs, self._size)  # no secret, and DSPy's way

    def _vote(self, predictions: list[Any]) -> Any:  # noqa: ANN401 - DSPy has no types
        winner = dspy.majority(predictions, normalize=_normalized, field=self._field)
        return dspy.Prediction(**dict(winner.items()))


class KNNFewShot(dspy.Module):  # type: ignore[misc]  # DSPy has no types
    """A program that is shown, in each call, demos of the rows that are most like its inputs.

    Args:
        module: The program's module.
        options: The rows, and how demos are worked out from them.
    """

    def __init__(self, module: Any, options: Neighbours) -> None:  # noqa: ANN401 - DSPy has no types
        super().__init__()
        self.program = module
        rows = [dspy.Example(row).with_inputs(*options.inputs) for row in options.rows]
        embed = dspy.Embedder(lambda texts: local_embeddings(texts), caching=False)  # noqa: PLW0108 - so that it stays replaceable
        self._find = dspy.KNN(options.k, rows, embed)
        self._bootstrap = {
            "metric": None if options.metric is None else metric(options.metric),
            "metric_threshold": options.metric_threshold,
            "max_bootstrapped_demos": options.max_bootstrapped_demos,
            "max_labeled_demos": options.max_labeled_demos,
            "max_rounds": options.max_rounds,
        }

    def forward(self, **inputs: Any) -> Any:  # noqa: ANN401 - DSPy has no types
        """Work out demos, and answer."""
        rows = self._find(**inputs)
        taught = dspy.BootstrapFewShot(**self._bootstrap).compile(self.program, trainset=rows)
        return taught(**inputs)


def ensemble(programs: Mapping[str, Program], options: Votes) -> tuple[Ensemble, Signature]:
    """The module, and what its callers give and get.

    Args:
        programs: The programs by name.
        options: How they vote.

    Raises:
        InvalidArgument: When they do not fit together.
    """
    first = next(iter(programs.values())).signature
    field = options.field or first.outputs[-1].name
    wrong = []
    for name, program in programs.items():
        if [f.name for f in program.signature.inputs] != [f.name for f in first.inputs]:
            wrong.append(Violation(f"programs.{name}", "it takes other inputs than the first one"))
        if field not in [f.name for f in program.signature.outputs]:
            wrong.append(Violation(f"programs.{name}", f"it has no output {field!r}"))
    if options.size is not None and options.size > len(programs):
        wrong.append(Violation("options.size", f"expected at most {len(programs)}"))
    refuse(wrong)
    modules = [program.module for program in programs.values()]
    return Ensemble(modules, options.size, field), first


def nearest(program: Program, options: Neighbours) -> KNNFewShot:
    """The module of a program that finds its demos anew in each call.

    Args:
        program: The program.
        options: The rows, and how demos are worked out from them.

    Raises:
        InvalidArgument: When a row lacks an input.
    """
    refuse(
        [
            Violation(f"options.rows[{index}]", f"it has no {name}")
            for index, row in enumerate(options.rows)
            for name in options.inputs
            if name not in row
        ]
    )
    return KNNFewShot(program.module, options)


def _normalized(value: object) -> str | None:
    if isinstance(value, str):
        return normalize_text(value) or None
    return msgspec.json.encode(plain(value)).decode()
