"""Everything that is wrong about arguments, each thing with its path, such as ``items[3].name``.

msgspec stops at the first value that does not fit.  After that, and only then, the value is walked
beside msgspec's description of its type.  The verdict on each part is msgspec's own, so the walk
cannot disagree with it; where the walk finds nothing, msgspec's first message stands.
"""

from __future__ import annotations

from itertools import chain, islice, repeat, zip_longest
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import inspect

from snakepit_worker.errors import Violation
from snakepit_worker.tools import refusals
from snakepit_worker.tools.conversion import hint_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from snakepit_worker.tools.refusals import Path

__all__ = ["Violations"]

_ENOUGH: Final = 50
"""Violations that are told; what sends more is no mistake of a person."""
_MOST_PARTS: Final = 50_000
"""Parts of values that are looked at, which takes a few tenths of a second at most."""
_DEEPEST: Final = 64
_ANY: Final = inspect.AnyType()

_Object = inspect.StructType | inspect.DataclassType | inspect.TypedDictType


class Violations:
    """What is wrong about the arguments of one call, as much of it as is worth telling."""

    def __init__(self) -> None:
        self._count = 0
        self._found: list[list[Violation]] = []
        self._seen = 0
        self._left = _MOST_PARTS
        self._hints: dict[int, tuple[inspect.Type, Any]] = {}

    def kept(self) -> list[Violation]:
        """Those that are told: the first of each argument before the second of any."""
        turns = chain.from_iterable(zip_longest(*self._found))
        kept = {id(found) for found in islice(filter(None, turns), _ENOUGH)}
        return [found for found in chain.from_iterable(self._found) if id(found) in kept]

    def text(self) -> str:
        """All of them in one line."""
        kept = self.kept()
        told = [f"{violation.field}: {violation.description}" for violation in kept]
        if more := self._count - len(kept):
            told.append(f"and {more} more" if self._left > 0 else f"and at least {more} more")
        return "; ".join(told)

    def search(self, name: str, value: object, hint: Any) -> None:  # noqa: ANN401 - any type hint
        """Note all that is wrong about one argument.

        Args:
            name: Of the argument.
            value: That was given.
            hint: Its type.
        """
        refusal = refusals.refusal(value, hint)
        if refusal is None:
            return
        self._found.append([])
        before = self._count
        kind = inspect.type_info(hint)
        self._visit(value, kind, (name,))
        if self._count == before:
            self._refused((name,), refusal, value, kind)

    def missing(self, name: str, hint: Any) -> None:  # noqa: ANN401 - any type hint
        """Note an argument that was not given.

        Args:
            name: Of the argument.
            hint: Its type.
        """
        self._found.append([])
        self._missing((name,), inspect.type_info(hint))

    def unknown(self, name: str, known: Collection[str], taker: str) -> None:
        """Note an argument that is none.

        Args:
            name: That was given.
            known: Names that could have been.
            taker: Who has these names.
        """
        if len(self._found) < _ENOUGH:
            self._found.append([])
        if self._is_told():
            told = refusals.unknown((name,), "argument", known, f"{taker} takes")
            self._found[-1].append(told)

    def _visit(self, value: object, kind: inspect.Type, path: Path) -> None:
        self._seen += 1
        self._left -= 1
        if self._left <= 0 or kind == _ANY:
            return
        kind = _narrowed(kind, value)
        before, seen = self._count, self._seen
        if len(path) <= _DEEPEST:
            self._descend(value, kind, path)
        if self._count > before:
            return
        # All parts fit; the whole may not: a class has checks of its own.
        self._left -= self._seen - seen
        refusal = refusals.refusal(value, self._hint(kind)) if self._left > 0 else None
        if refusal is not None:
            self._refused(path, refusal, value, kind)

    def _descend(self, value: object, kind: inspect.Type, path: Path) -> None:
        if isinstance(value, list) and _is_array(kind):
            self._items(value, kind, path)
        elif isinstance(value, dict) and isinstance(kind, inspect.DictType):
            self._entries(value, kind, path)
        elif isinstance(value, dict) and isinstance(kind, inspect.UnionType):
            self._untagged(value, kind, path)
        elif isinstance(value, dict) and isinstance(kind, _Object) and not _is_array(kind):
            self._fields(value, kind, path)

    def _fields(self, value: dict[str, Any], kind: _Object, path: Path) -> None:
        fields = {field.encode_name: field for field in kind.fields}
        for name, field in fields.items():
            if name in value:
                self._visit(value[name], field.type, (*path, name))
            elif field.required:
                self._missing((*path, name), field.type)
        if not isinstance(kind, inspect.StructType):
            return
        tag = kind.tag_field
        if tag is not None and tag in value:
            self._visit(value[tag], _tag_type(kind), (*path, tag))
        if kind.forbid_unknown_fields:
            for name in value:
                if name not in fields and name != tag:
                    self._unknown((*path, name), fields)

    def _untagged(self, value: dict[str, Any], kind: inspect.UnionType, path: Path) -> None:
        members = [_narrowed(member, value) for member in kind.types]
        tagged = [m for m in members if isinstance(m, inspect.StructType) and not m.array_like]
        if tagged and (name := tagged[0].tag_field) is not None and name not in value:
            self._missing((*path, name), inspect.LiteralType(tuple(m.tag for m in tagged)))

    def _entries(self, value: dict[str, Any], kind: inspect.DictType, path: Path) -> None:
        if kind.min_length is not None or kind.max_length is not None:
            self._shape(value, msgspec.structs.replace(kind, key_type=_ANY, value_type=_ANY), path)
        key_only = msgspec.structs.replace(kind, value_type=_ANY, min_length=None, max_length=None)
        plain = kind.key_type in (_ANY, inspect.StrType())
        for key, item in value.items():
            if self._left <= 0:
                break
            if not plain:
                self._key(key, key_only, (*path, key))
            self._visit(item, kind.value_type, (*path, key))

    def _items(self, value: list[Any], kind: inspect.Type, path: Path) -> None:
        kinds: Iterable[inspect.Type] = ()
        match kind:
            case inspect.CollectionType():
                kinds = repeat(kind.item_type)
                if kind.min_length is not None or kind.max_length is not None:
                    self._shape(value, msgspec.structs.replace(kind, item_type=_ANY), path)
            case inspect.TupleType():
                kinds = kind.item_types
                self._shape(value, inspect.TupleType((_ANY,) * len(kinds)), path)
            case inspect.NamedTupleType() | inspect.StructType():
                kinds = [field.type for field in kind.fields]
                if isinstance(kind, inspect.StructType) and kind.tag_field is not None:
                    kinds.insert(0, _tag_type(kind))
                is_long = isinstance(kind, inspect.NamedTupleType) and len(value) > len(kinds)
                if is_long or len(value) < len(kinds) - _optional(kind):
                    self._shape(value, kind, path)
        for index, (item, item_kind) in enumerate(zip(value, kinds, strict=False)):
            if self._left <= 0:
                break
            self._visit(item, item_kind, (*path, index))

    def _key(self, key: str, kind: inspect.DictType, path: Path) -> None:
        refusal = refusals.refusal({key: None}, self._hint(kind))
        if refusal is not None:
            self._refused(path, refusal, key, kind.key_type)

    def _shape(self, value: object, kind: inspect.Type, path: Path) -> None:
        """Note what is wrong about a container whatever it holds."""
        refusal = refusals.refusal(value, hint_of(kind))
        if refusal is not None:
            self._refused(path, refusal, value, kind)

    def _hint(self, kind: inspect.Type) -> Any:  # noqa: ANN401 - any type hint
        known = self._hints.get(id(kind))
        if known is None:
            known = self._hints[id(kind)] = (kind, hint_of(kind))  # kept, so that the id stays its
        return known[1]

    def _refused(self, path: Path, refusal: str, value: object, kind: inspect.Type) -> None:
        if self._is_told():
            self._found[-1].append(refusals.violation(path, refusal, value, kind))

    def _missing(self, path: Path, kind: inspect.Type) -> None:
        if self._is_told():
            words = f"expected {refusals.expected(kind)}, got nothing"
            description = refusals.with_remedy(path, words)
            self._found[-1].append(Violation(refusals.field(path), description))

    def _unknown(self, path: Path, known: Collection[str]) -> None:
        if self._is_told():
            self._found[-1].append(refusals.unknown(path, "field", known, "the object has"))

    def _is_told(self) -> bool:
        """Count one more; whether it is among those that are told."""
        self._count += 1
        return len(self._found[-1]) < _ENOUGH


def _narrowed(kind: inspect.Type, value: object) -> inspect.Type:
    """The member of a union that such a value belongs to; the union itself where none does."""
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    if not isinstance(kind, inspect.UnionType) or not isinstance(value, dict | list):
        return kind
    is_alike = _is_object if isinstance(value, dict) else _is_array
    members = [member for member in (_narrowed(m, value) for m in kind.types) if is_alike(member)]
    if len(members) == 1:
        return members[0]
    for member in members:  # msgspec allows several of a form only where tags tell them apart
        if isinstance(member, inspect.StructType) and member.tag == _tag(member, value):
            return member
    return kind


def _tag(kind: inspect.StructType, value: dict[str, Any] | list[Any]) -> object:
    if isinstance(value, dict):
        return value.get(kind.tag_field or "")
    return value[0] if value else None


def _tag_type(kind: inspect.StructType) -> inspect.Type:
    return inspect.LiteralType((kind.tag,))


def _optional(kind: inspect.NamedTupleType | inspect.StructType) -> int:
    return sum(not field.required for field in kind.fields)


def _is_object(kind: inspect.Type) -> bool:
    return isinstance(kind, _Object | inspect.DictType) and not _is_array(kind)


def _is_array(kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.StructType):
        return kind.array_like
    return isinstance(kind, (inspect.CollectionType, inspect.TupleType, inspect.NamedTupleType))
