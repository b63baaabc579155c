"""JSON values to the types of hints, and hints from msgspec's descriptions of them."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from typing import Annotated, Any, Final, Literal, Union

import msgspec
from msgspec import inspect

__all__ = ["convert", "hint_of"]

_BINARY: Final = (bytes, bytearray, memoryview)
"""Given as binary parameters only: a JSON string is never taken for base64."""
_PLAIN: Final[dict[type[inspect.Type], Any]] = {
    inspect.AnyType: Any,
    inspect.NoneType: None,
    inspect.BoolType: bool,
    inspect.IntType: int,
    inspect.FloatType: float,
    inspect.StrType: str,
    inspect.BytesType: bytes,
    inspect.ByteArrayType: bytearray,
    inspect.MemoryViewType: memoryview,
    inspect.DateTimeType: dt.datetime,
    inspect.TimeType: dt.time,
    inspect.DateType: dt.date,
    inspect.TimeDeltaType: dt.timedelta,
    inspect.UUIDType: uuid.UUID,
    inspect.DecimalType: decimal.Decimal,
    inspect.RawType: msgspec.Raw,
    inspect.ExtType: msgspec.msgpack.Ext,
}
_LIMITS: Final = (
    "gt",
    "ge",
    "lt",
    "le",
    "multiple_of",
    "pattern",
    "min_length",
    "max_length",
    "tz",
)


def convert(value: object, hint: Any) -> Any:  # noqa: ANN401 - any type hint, and what it says
    """The value as the hint wants it.

    Args:
        value: A JSON value, or bytes.
        hint: A type that msgspec knows.

    Raises:
        msgspec.ValidationError: When it does not fit.
        TypeError: When an item of a set cannot be in one.
    """
    return msgspec.convert(value, hint, builtin_types=_BINARY, str_keys=True)


def hint_of(kind: inspect.Type) -> Any:  # noqa: ANN401 - any type hint
    """The hint that msgspec describes so.

    Args:
        kind: The description.
    """
    hint: Any
    match kind:
        case inspect.Metadata():
            return hint_of(kind.type)
        case inspect.ListType():
            hint = list[hint_of(kind.item_type)]  # type: ignore[misc]  # made at run time
        case inspect.SetType():
            hint = set[hint_of(kind.item_type)]  # type: ignore[misc]
        case inspect.FrozenSetType():
            hint = frozenset[hint_of(kind.item_type)]  # type: ignore[misc]
        case inspect.VarTupleType():
            hint = tuple[hint_of(kind.item_type), ...]  # type: ignore[misc]
        case inspect.TupleType():
            hint = tuple[tuple(map(hint_of, kind.item_types))]  # type: ignore[misc]
        case inspect.DictType():
            hint = dict[hint_of(kind.key_type), hint_of(kind.value_type)]  # type: ignore[misc]
        case inspect.LiteralType():
            return Literal[kind.values]
        case inspect.UnionType():
            return Union[tuple(map(hint_of, kind.types))]  # noqa: UP007 - of any number of types
        case _:
            hint = _PLAIN.get(type(kind)) or getattr(kind, "cls", None)
    limits = {name: getattr(kind, name, None) for name in _LIMITS}
    limits = {name: limit for name, limit in limits.items() if limit is not None}
    return Annotated[hint, msgspec.Meta(**limits)] if limits else hint
