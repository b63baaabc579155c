"""Tools over the data sets of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from snakepit_adapters.dspy.tools.held import identity
from snakepit_worker import CallContext, tool
from snakepit_worker.errors import InvalidArgument, Violation

if TYPE_CHECKING:
    from snakepit_adapters.dspy.datasets import Dataset

__all__ = ["DATASET", "DatasetTools"]

DATASET: Final = "dspy.dataset"

Part = Annotated[float, msgspec.Meta(gt=0)]
Seed = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]


class DatasetTools:
    """Keeping rows to evaluate and to learn from."""

    @tool
    def dataset(  # noqa: PLR0913 - the parts of a data set
        self,
        ctx: CallContext,
        *,
        rows: list[dict[str, Any]] | None = None,
        jsonl: bytes | None = None,
        csv: bytes | None = None,
        types: dict[str, str] | None = None,
        inputs: list[str] | None = None,
        split: dict[str, Part] | None = None,
        shuffle: bool = False,
        seed: Seed = 0,
        name: str | None = None,
        replace: bool = False,
    ) -> dict[str, Any]:
        """Keep a data set in this session: rows as JSON, JSONL or CSV.

        Args:
            ctx: The call.
            rows: Objects with field names as keys.
            jsonl: Binary parameter in place of rows: a JSON object on each line.
            csv: Binary parameter in place of rows: a table whose first line names the fields.
            types: Types of CSV columns, as in a signature, such as {"stars": "int"}; the others are
                text.
            inputs: Fields that programs are given; the rest are the expected outputs.  By default
                the inputs of the program that uses the data set.
            split: Named parts: shares of the rows such as {"train": 0.7, "test": 0.3}, or numbers
                of rows.  Rows are shuffled first.
            shuffle: Shuffle without a split, too.
            seed: Decides the order.
            name: A name of your own, to use in place of the handle.
            replace: Whether a data set of that name gives way.

        Returns:
            The handle, the fields with the types that occur, and the sizes of the splits.
        """
        from snakepit_adapters.dspy.datasets import Dataset, Source, read_csv, read_jsonl

        if sum(given is not None for given in (rows, jsonl, csv)) != 1:
            text = "expected one of rows, jsonl and csv"
            raise InvalidArgument(text, violations=[Violation("rows", text)])
        if types and csv is None:
            raise InvalidArgument(
                "types: only the columns of csv have them",
                violations=[Violation("types", "only the columns of csv have them")],
            )
        if jsonl is not None:
            rows = read_jsonl(jsonl)
        elif csv is not None:
            rows = read_csv(csv, types or {})
        source = Source(None if inputs is None else tuple(inputs), split, shuffle, seed)
        dataset = Dataset(rows or [], source)
        facts = {"rows": len(dataset.rows)}
        resource = ctx.session.put(
            DATASET,
            dataset,
            name=name,
            metadata=facts,
            recipe=dataset.recipe if dataset.archived else None,
            size=dataset.size,
            replace=replace,
        )
        return identity(resource) | dataset.describe()

    @tool
    def dataset_info(self, handle: str, ctx: CallContext) -> dict[str, Any]:
        """Show a data set: its fields, its splits and its first rows.

        Args:
            handle: Handle or name of the data set.
            ctx: The call.
        """
        resource = ctx.session.get(handle, DATASET)
        dataset: Dataset = resource.value
        return identity(resource) | dataset.describe()
