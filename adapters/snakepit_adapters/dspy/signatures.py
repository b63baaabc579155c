"""Signatures as callers write them: ``question, limit: int -> answer: list[str]``, or as data."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from snakepit_adapters.dspy.type_grammar import FieldType, GrammarError, Reader, read_type
from snakepit_worker.errors import InvalidArgument, Violation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from snakepit_adapters.dspy.arguments import FieldSpec, SignatureSpec

__all__ = ["TEXT", "Field", "Signature", "read_signature"]

TEXT: Final = FieldType("str", str)
"""The type of a field that names none."""

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_RESERVED: Final = frozenset(
    {
        # Attributes of DSPy's signature class.
        *("copy", "fields", "input_fields", "instructions", "output_fields", "signature"),
        # Keywords that DSPy's modules take for themselves; an input of that name would be lost.
        *("config", "demos", "lm", "new_signature", "prediction"),
        # Parameters of the methods that pass inputs on as keywords.
        *("completions", "instance", "self"),
    }
)


@dataclass(frozen=True, slots=True)
class Field:
    """One field.

    Attributes:
        name: How inputs and outputs call it.
        type: Its type.
        description: What the model is told about it.
    """

    name: str
    type: FieldType = TEXT
    description: str | None = None

    def describe(self) -> dict[str, str]:
        """The field as JSON values."""
        description = {} if self.description is None else {"description": self.description}
        return {"name": self.name, "type": self.type.text, **description}


@dataclass(frozen=True, slots=True)
class Signature:
    """What a program takes and gives.

    Attributes:
        inputs: Fields that the caller gives.
        outputs: Fields that the model gives.
        instructions: The task in words; DSPy writes a sentence of its own when ``None``.
    """

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    instructions: str | None = None

    def describe(self) -> dict[str, object]:
        """The signature as JSON values."""
        return {
            "inputs": [field.describe() for field in self.inputs],
            "outputs": [field.describe() for field in self.outputs],
            "instructions": self.instructions,
        }


def read_signature(source: str | SignatureSpec, instructions: str | None = None) -> Signature:
    """The signature that a caller describes.

    Args:
        source: A string or data.
        instructions: The task in words.

    Raises:
        InvalidArgument: When it describes none; the message names the field or the place.
    """
    if isinstance(source, str):
        inputs, outputs = _read_text(source)
    else:
        inputs = _read_specs("inputs", source.inputs)
        outputs = _read_specs("outputs", source.outputs)
    _check_names(inputs, outputs)
    return Signature(inputs, outputs, instructions)


def _read_text(text: str) -> tuple[tuple[Field, ...], tuple[Field, ...]]:
    try:
        reader = Reader(text)
        inputs = _read_side(reader)
        if not reader.accept("->"):
            raise reader.unexpected("',' or '->'")
        outputs = _read_side(reader)
        if not reader.at_end:
            raise reader.unexpected("',' or the end")
    except GrammarError as error:
        raise _invalid("signature", str(error)) from None
    return inputs, outputs


def _read_side(reader: Reader) -> tuple[Field, ...]:
    fields: list[Field] = []
    while not fields or reader.accept(","):
        name = reader.name("the name of a field")
        fields.append(Field(name, reader.type()) if reader.accept(":") else Field(name))
    return tuple(fields)


def _read_specs(side: str, specs: Sequence[FieldSpec]) -> tuple[Field, ...]:
    if not specs:
        raise _invalid(f"signature.{side}", "expected at least one field")
    fields = []
    for index, spec in enumerate(specs):
        try:
            fields.append(Field(spec.name, read_type(spec.type), spec.description))
        except GrammarError as error:
            path = f"signature.{side}[{index}].type"
            raise _invalid(path, f"field {spec.name!r}: {error}") from None
    return tuple(fields)


def _check_names(inputs: Sequence[Field], outputs: Sequence[Field]) -> None:
    seen: set[str] = set()
    for field in (*inputs, *outputs):
        name = field.name
        if not _NAME.match(name) or keyword.iskeyword(name):
            raise _invalid("signature", f"field {name!r}: expected a name such as 'max_items2'")
        if name in _RESERVED or name.startswith("model_"):
            raise _invalid("signature", f"field {name!r}: the name is DSPy's own")
        if name in seen:
            raise _invalid("signature", f"field {name!r}: the name is taken by a field before it")
        if field.type.text == "None":
            raise _invalid("signature", f"field {name!r}: None is a type only within a union")
        seen.add(name)


def _invalid(path: str, description: str) -> InvalidArgument:
    return InvalidArgument(f"{path}: {description}", violations=[Violation(path, description)])
