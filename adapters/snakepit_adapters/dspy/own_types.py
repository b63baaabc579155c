"""Types of a signature's own: objects and choices that a caller describes as data."""

from __future__ import annotations

import enum
import keyword
import re
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field, create_model

from snakepit_adapters.dspy.arguments import EnumSpec, FieldSpec, ObjectSpec
from snakepit_adapters.dspy.type_grammar import (
    RESERVED_TYPES,
    FieldType,
    GrammarError,
    read_type,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["LIMITS", "NAME", "limits_of", "read_types"]

NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
"""How names of fields look."""

LIMITS: Final = (
    *("ge", "gt", "le", "lt", "multiple_of"),
    *("min_length", "max_length"),
    "pattern",
)
_NUMBERS: Final = frozenset({"int", "float"})
_LONGEST_NAME: Final = 100


def limits_of(spec: FieldSpec, field_type: FieldType) -> dict[str, Any]:
    """The limits of a field by the names that pydantic has for them.

    Args:
        spec: The field.
        field_type: Its type.

    Raises:
        GrammarError: For a limit that such values cannot have.
    """
    limits = {name: value for name in LIMITS if (value := getattr(spec, name)) is not None}
    kinds = {member.text for member in field_type.members or (field_type,)} - {"None"}
    for name in limits:
        if name == "pattern":
            fits = kinds == {"str"}
        elif name.endswith("length"):
            fits = all(kind == "str" or kind.startswith(("list[", "dict[")) for kind in kinds)
        else:
            fits = kinds <= _NUMBERS
        if not fits:
            raise GrammarError(f"{name} is no limit for {field_type.text}", None)
    return limits


def read_types(specs: Sequence[ObjectSpec | EnumSpec]) -> dict[str, FieldType]:
    """The types by name.

    Args:
        specs: What the caller describes; each may name those before it.

    Raises:
        GrammarError: When one is no type, or bears a name that is taken.
    """
    own: dict[str, FieldType] = {}
    for spec in specs:
        _check_name(spec.name, own)
        own[spec.name] = _choice(spec) if isinstance(spec, EnumSpec) else _object(spec, own)
    return own


def _check_name(name: str, own: Mapping[str, FieldType]) -> None:
    if not NAME.match(name) or len(name) > _LONGEST_NAME or keyword.iskeyword(name):
        raise GrammarError(f"type {name!r}: expected a name such as 'Person'", None)
    if name in RESERVED_TYPES or name in own:
        raise GrammarError(f"type {name!r}: the name is taken", None)


def _choice(spec: EnumSpec) -> FieldType:
    values = list(dict.fromkeys(spec.values))
    members = [(f"VALUE_{number}", value) for number, value in enumerate(values)]
    annotation = enum.Enum(spec.name, members, type=str)  # type: ignore[misc]  # made at run time
    return FieldType(spec.name, annotation, converted=True)


def _object(spec: ObjectSpec, own: Mapping[str, FieldType]) -> FieldType:
    fields: dict[str, Any] = {}
    for field in spec.fields:
        where = f"type {spec.name!r}: field {field.name!r}"
        name = field.name
        if not NAME.match(name) or keyword.iskeyword(name) or len(name) > _LONGEST_NAME:
            raise GrammarError(f"{where}: expected a name such as 'max_items2'", None)
        if hasattr(BaseModel, name) or name in fields:
            raise GrammarError(f"{where}: the name is taken", None)
        try:
            field_type = read_type(field.type, own)
            limits = limits_of(field, field_type)
        except GrammarError as error:
            raise GrammarError(f"{where}: {error}", None) from None
        if field_type.media or field_type.text == "None":
            raise GrammarError(f"{where}: {field_type.text} cannot be in an object", None)
        default = None if field_type.optional else ...
        fields[name] = (
            field_type.annotation,
            Field(default, description=field.description, **limits),
        )
    model = create_model(
        spec.name,
        __config__=ConfigDict(extra="forbid", protected_namespaces=()),
        __doc__=spec.description,
        **fields,
    )
    return FieldType(spec.name, model, converted=True)
