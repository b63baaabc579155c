"""The rows that are most like the inputs of a call: DSPy's ``KNN``, as a program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dspy

from snakepit_adapters.dspy.local_embedder import local_embeddings
from snakepit_adapters.dspy.signatures import Field, Signature
from snakepit_adapters.dspy.type_grammar import read_type
from snakepit_adapters.dspy.values import refuse
from snakepit_worker.errors import Violation

if TYPE_CHECKING:
    from snakepit_adapters.dspy.module_options import Rows

__all__ = ["Nearest", "nearest_rows"]


class Nearest(dspy.Module):  # type: ignore[misc]  # DSPy has no types
    """Finds rows by embeddings of their inputs.

    Args:
        options: The rows.
    """

    def __init__(self, options: Rows) -> None:
        super().__init__()
        rows = [dspy.Example(row).with_inputs(*options.inputs) for row in options.rows]
        embed = dspy.Embedder(lambda texts: local_embeddings(texts), caching=False)  # noqa: PLW0108 - so that it stays replaceable
        self._find = dspy.KNN(options.k, rows, embed)

    def forward(self, **inputs: Any) -> Any:  # noqa: ANN401 - DSPy has no types
        """The rows, the nearest first."""
        return dspy.Prediction(rows=[row.toDict() for row in self._find(**inputs)])


def nearest_rows(options: Rows) -> tuple[Nearest, Signature]:
    """The module, and what its callers give and get.

    Args:
        options: The rows.

    Raises:
        InvalidArgument: When a row lacks an input.
        FailedPrecondition: When the package with the embeddings is not installed.
    """
    refuse(
        [
            Violation(f"options.rows[{index}]", f"expected a value of {name}")
            for index, row in enumerate(options.rows)
            for name in options.inputs
            if name not in row
        ]
    )
    inputs = tuple(Field(name, read_type("Any")) for name in options.inputs)
    return Nearest(options), Signature(inputs, (Field("rows", read_type("list[dict[str, Any]]")),))
