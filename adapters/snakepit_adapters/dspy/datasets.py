"""Data sets: rows of JSON values, in splits that a seed decides."""

from __future__ import annotations

import csv
import io
import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import dspy
import msgspec
from pydantic import TypeAdapter, ValidationError

from snakepit_adapters.dspy.refusing import invalid
from snakepit_adapters.dspy.type_grammar import FieldType, GrammarError, read_type
from snakepit_adapters.dspy.values import refuse
from snakepit_worker.errors import NotFound, Violation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from snakepit_worker.sessions import Recipe

__all__ = ["MAX_ROWS", "Dataset", "Source", "read_csv", "read_jsonl"]

MAX_ROWS: Final = 100_000
"""Rows of a data set at most."""

MAX_BYTES: Final = 64 * 1024 * 1024
"""Bytes of a data set, as JSON, at most."""

LARGEST_RECIPE: Final = 4 * 1024 * 1024
"""Bytes, as JSON, of what goes into an archive; a larger data set does not outlive its worker."""

_SHOWN: Final = 3
"""Rows that a description shows."""
_MOST_VIOLATIONS: Final = 20

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """How a data set is made of its rows.

    Attributes:
        inputs: Fields that a program is given; those of the program that uses the rows if ``None``.
        split: Parts by name: fractions of the rows, or numbers of rows.
        shuffle: Whether rows change their order before they are split.
        seed: Decides the order; the same seed gives the same order everywhere.
    """

    inputs: tuple[str, ...] | None = None
    split: Mapping[str, float] | None = None
    shuffle: bool = False
    seed: int = 0


class Dataset:
    """Rows, and the parts that they are split into.

    Args:
        rows: Objects with field names as keys.
        source: How they are split.

    Raises:
        InvalidArgument: When there are no rows or too many, a row lacks an input, or the parts are
            larger than the whole.

    Attributes:
        rows: In the order of the splits.
        size: Bytes of the rows as JSON.
    """

    def __init__(self, rows: Sequence[Row], source: Source) -> None:
        _check_rows(rows, source.inputs)
        self.source = source
        self.size = len(msgspec.json.encode(rows))
        if self.size > MAX_BYTES:
            raise invalid("rows", f"expected at most {MAX_BYTES} bytes of JSON, got {self.size}")
        self._given = rows
        self.rows = list(rows)
        if source.shuffle or source.split:
            random.Random(source.seed).shuffle(self.rows)  # noqa: S311 - not a secret
        self._parts = _parts(len(self.rows), source.split or {})

    @classmethod
    def rebuild(cls, recipe: Recipe) -> Dataset:
        """The data set that a recipe describes.

        Args:
            recipe: What ``recipe`` gave.
        """
        inputs = recipe["inputs"]
        source = Source(
            None if inputs is None else tuple(inputs),
            recipe["split"],
            recipe["shuffle"],
            recipe["seed"],
        )
        return cls(recipe["rows"], source)

    def recipe(self) -> Recipe:
        """What it takes to build it again: all of it."""
        source = self.source
        return {
            "rows": self._given,
            "inputs": None if source.inputs is None else list(source.inputs),
            "split": None if source.split is None else dict(source.split),
            "shuffle": source.shuffle,
            "seed": source.seed,
        }

    @property
    def archived(self) -> bool:
        """Whether it is small enough to outlive its worker."""
        return self.size <= LARGEST_RECIPE

    def part(self, split: str | None) -> list[Row]:
        """The rows of a split, or all of them.

        Args:
            split: Its name.

        Raises:
            NotFound: When there is no such split.
        """
        if split is None:
            return self.rows
        if split not in self._parts:
            known = ", ".join(self._parts) or "none"
            raise NotFound(f"the data set has no split {split!r}; its splits: {known}")
        return self.rows[self._parts[split]]

    def examples(self, split: str | None, inputs: Sequence[str]) -> list[Any]:
        """The rows of a split as DSPy's examples.

        Args:
            split: Its name; all rows if ``None``.
            inputs: Input fields, where the data set itself names none.
        """
        names = self.source.inputs or tuple(inputs)
        return [dspy.Example(row).with_inputs(*names) for row in self.part(split)]

    def describe(self) -> dict[str, object]:
        """The data set as JSON values: sizes, fields with the types that occur, the first rows."""
        types: dict[str, set[str]] = {}
        for row in self.rows:
            for name, value in row.items():
                types.setdefault(name, set()).add(_kind(value))
        return {
            "rows": len(self.rows),
            "bytes": self.size,
            "inputs": None if self.source.inputs is None else list(self.source.inputs),
            "fields": {name: sorted(kinds) for name, kinds in types.items()},
            "splits": {name: part.stop - part.start for name, part in self._parts.items()},
            "seed": self.source.seed,
            "first": self.rows[:_SHOWN],
            "can_be_rebuilt": self.archived,
        }


def read_jsonl(data: bytes) -> list[Row]:
    """The rows of a text with a JSON object on each line.

    Args:
        data: UTF-8; empty lines do not count.

    Raises:
        InvalidArgument: When a line is something else; the message names it.
    """
    rows = []
    for number, line in enumerate(_text("jsonl", data).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise invalid("jsonl", f"line {number}: {error}") from None
        if not isinstance(row, dict):
            raise invalid("jsonl", f"line {number}: expected an object, got {_kind(row)}")
        rows.append(row)
    return rows


def read_csv(data: bytes, types: Mapping[str, str]) -> list[Row]:
    """The rows of a table in CSV, whose first line names the fields.

    Args:
        data: UTF-8, with commas.
        types: Types of columns, as in a signature; the others are text.

    Raises:
        InvalidArgument: When a line does not fit the first one, or a cell its type.
    """
    reader = csv.reader(io.StringIO(_text("csv", data), newline=""), strict=True)
    try:
        header = next(reader, [])
        if not header or len(set(header)) != len(header) or not all(header):
            raise invalid("csv", "expected different names of fields in the first line")
        converters = _converters(types, header)
        rows = []
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                text = f"line {reader.line_num}: expected {len(header)} cells, got {len(cells)}"
                raise invalid("csv", text)
            row: Row = dict(zip(header, cells, strict=True))
            for name, (field_type, converter) in converters.items():
                row[name] = _convert(row[name], field_type, converter, name, reader.line_num)
            rows.append(row)
    except csv.Error as error:
        raise invalid("csv", f"line {reader.line_num}: {error}") from None
    return rows


def _converters(
    types: Mapping[str, str], header: Sequence[str]
) -> dict[str, tuple[FieldType, TypeAdapter[Any]]]:
    converters = {}
    for name, text in types.items():
        if name not in header:
            raise invalid(f"types.{name}", f"no such column; the columns: {', '.join(header)}")
        try:
            field_type = read_type(text)
        except GrammarError as error:
            raise invalid(f"types.{name}", str(error)) from None
        converters[name] = (field_type, TypeAdapter(field_type.annotation))
    return converters


def _convert(
    cell: str, field_type: FieldType, converter: TypeAdapter[Any], name: str, line: int
) -> object:
    if not cell and field_type.optional:
        return None
    try:
        return converter.validate_python(cell)
    except ValidationError:
        pass
    try:  # lists, objects and the like are JSON within a cell
        return converter.validate_json(cell)
    except ValidationError:
        text = f"line {line}, {name}: expected {field_type.text}, got {cell[:50]!r}"
        raise invalid("csv", text) from None


def _check_rows(rows: Sequence[Row], inputs: Sequence[str] | None) -> None:
    if not rows:
        raise invalid("rows", "expected at least one row")
    if len(rows) > MAX_ROWS:
        raise invalid("rows", f"expected at most {MAX_ROWS} rows, got {len(rows)}")
    if inputs is not None and not inputs:
        raise invalid("inputs", "expected at least one field")
    violations = []
    for index, row in enumerate(rows):
        missing = [name for name in inputs or () if name not in row]
        if missing:
            violations.append(Violation(f"rows[{index}]", f"has no {', '.join(missing)}"))
            if len(violations) == _MOST_VIOLATIONS:
                break
    refuse(violations)


def _parts(count: int, split: Mapping[str, float]) -> dict[str, slice]:
    """Where the parts lie.  A number up to one is a share, a larger one a number of rows."""
    parts: dict[str, slice] = {}
    start = 0
    total = sum(split.values())
    shares = all(0 < size <= 1 for size in split.values())
    for index, (name, size) in enumerate(split.items()):
        if size <= 0 or (not shares and size != int(size)):
            raise invalid(f"split.{name}", "expected a share up to 1, or a number of rows")
        rows = round(count * size) if shares else int(size)
        if shares and index == len(split) - 1 and abs(total - 1) < 1e-9:  # noqa: PLR2004 - rounding
            rows = count - start
        if rows < 1 or start + rows > count:
            text = f"{rows} rows from the {count - start} that are left of {count}"
            raise invalid(f"split.{name}", text)
        parts[name] = slice(start, start + rows)
        start += rows
    return parts


def _text(argument: str, data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise invalid(argument, f"expected at most {MAX_BYTES} bytes, got {len(data)}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise invalid(argument, f"expected UTF-8: {error}") from None


def _kind(value: object) -> str:
    names: Iterable[tuple[type, str]] = (
        (bool, "bool"),
        (int, "int"),
        (float, "float"),
        (str, "str"),
        (list, "list"),
        (dict, "object"),
    )
    return next((name for kind, name in names if isinstance(value, kind)), "null")
