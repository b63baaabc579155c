"""Whether callers can fill a parameter: bytes come by themselves, never inside of JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import inspect

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["unfillable"]

_BYTES: Final = (inspect.BytesType, inspect.ByteArrayType, inspect.MemoryViewType)


def unfillable(name: str, hint: Any) -> str | None:  # noqa: ANN401 - any type hint
    """Where a parameter asks for bytes inside of something, if it does.

    Args:
        name: Of the parameter.
        hint: Its type.
    """
    return next(_search(name, inspect.type_info(hint), set(), outermost=True), None)


def _search(
    path: str, kind: inspect.Type, seen: set[object], *, outermost: bool = False
) -> Iterator[str]:
    kind = kind.type if isinstance(kind, inspect.Metadata) else kind
    members = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    members = tuple(member for member in members if not isinstance(member, inspect.NoneType))
    if not outermost and members and all(isinstance(member, _BYTES) for member in members):
        yield path
    for member in members:
        for step, part in _parts(member, seen):
            yield from _search(path + step, part, seen)


def _parts(kind: inspect.Type, seen: set[object]) -> Iterator[tuple[str, inspect.Type]]:
    """What lies inside a type, each with its step of the path; nothing of a class a second time."""
    match kind:
        case inspect.CollectionType():
            yield "[…]", kind.item_type
        case inspect.TupleType():
            for index, item in enumerate(kind.item_types):
                yield f"[{index}]", item
        case inspect.DictType():
            yield "[…]", kind.value_type
        case (
            inspect.StructType()
            | inspect.DataclassType()
            | inspect.TypedDictType()
            | inspect.NamedTupleType()
        ) if kind.cls not in seen:
            seen.add(kind.cls)
            for field in kind.fields:
                yield f".{field.encode_name}", field.type
