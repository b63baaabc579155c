"""Signatures as callers write them: ``question, limit: int -> answer: list[str]``, or as data."""

from __future__ import annotations

import dataclasses
import keyword
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from snakepit_adapters.dspy.own_types import NAME, limits_of, read_types
from snakepit_adapters.dspy.refusing import invalid
from snakepit_adapters.dspy.type_grammar import FieldType, GrammarError, Reader, read_type

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from snakepit_adapters.dspy.arguments import EnumSpec, FieldSpec, ObjectSpec, SignatureSpec

__all__ = ["TEXT", "Field", "Signature", "read_signature"]

TEXT: Final = FieldType("str", str)
"""The type of a field that names none."""

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
        limits: Of its values, by the names that pydantic has for them.
    """

    name: str
    type: FieldType = TEXT
    description: str | None = None
    limits: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)

    def describe(self) -> dict[str, Any]:
        """The field as JSON values."""
        description = {} if self.description is None else {"description": self.description}
        return {"name": self.name, "type": self.type.text, **description, **self.limits}


@dataclass(frozen=True, slots=True)
class Signature:
    """What a program takes and gives.

    Attributes:
        inputs: Fields that the caller gives.
        outputs: Fields that the model gives.
        instructions: The task in words; DSPy writes a sentence of its own when ``None``.
        types: Objects and choices that the types of fields name.
    """

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    instructions: str | None = None
    types: tuple[ObjectSpec | EnumSpec, ...] = ()

    def describe(self) -> dict[str, object]:
        """The signature as JSON values."""
        return {
            "inputs": [field.describe() for field in self.inputs],
            "outputs": [field.describe() for field in self.outputs],
            "instructions": self.instructions,
            **({"types": msgspec.to_builtins(self.types)} if self.types else {}),
        }


def read_signature(source: str | SignatureSpec, instructions: str | None = None) -> Signature:
    """The signature that a caller describes.

    Args:
        source: A string or data.
        instructions: The task in words.

    Raises:
        InvalidArgument: When it describes none; the message names the field or the place.
    """
    types: Sequence[ObjectSpec | EnumSpec] = ()
    if isinstance(source, str):
        inputs, outputs = _read_text(source)
    else:
        types = source.types
        try:
            own = read_types(types)
        except GrammarError as error:
            raise invalid("signature.types", str(error)) from None
        inputs = _read_specs("inputs", source.inputs, own)
        outputs = _read_specs("outputs", source.outputs, own)
    _check_names(inputs, outputs)
    for field in outputs:
        if field.type.media:
            raise invalid("signature", f"field {field.name!r}: {field.type.media} is for inputs")
    return Signature(inputs, outputs, instructions, tuple(types))


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
        raise invalid("signature", str(error)) from None
    return inputs, outputs


def _read_side(reader: Reader) -> tuple[Field, ...]:
    fields: list[Field] = []
    while not fields or reader.accept(","):
        name = reader.name("the name of a field")
        fields.append(Field(name, reader.type()) if reader.accept(":") else Field(name))
    return tuple(fields)


def _read_specs(
    side: str, specs: Sequence[FieldSpec], own: Mapping[str, FieldType]
) -> tuple[Field, ...]:
    if not specs:
        raise invalid(f"signature.{side}", "expected at least one field")
    fields = []
    for index, spec in enumerate(specs):
        try:
            field_type = read_type(spec.type, own)
            limits = limits_of(spec, field_type)
            fields.append(Field(spec.name, field_type, spec.description, limits))
        except GrammarError as error:
            path = f"signature.{side}[{index}].type"
            raise invalid(path, f"field {spec.name!r}: {error}") from None
    return tuple(fields)


def _check_names(inputs: Sequence[Field], outputs: Sequence[Field]) -> None:
    seen: set[str] = set()
    for field in (*inputs, *outputs):
        name = field.name
        if not NAME.match(name) or keyword.iskeyword(name):
            raise invalid("signature", f"field {name!r}: expected a name such as 'max_items2'")
        if name in _RESERVED or name.startswith("model_"):
            raise invalid("signature", f"field {name!r}: the name is DSPy's own")
        if name in seen:
            raise invalid("signature", f"field {name!r}: the name is taken by a field before it")
        if field.type.text == "None":
            raise invalid("signature", f"field {name!r}: None is a type only within a union")
        seen.add(name)
