"""Turning objects that JSON does not know into something it does.

An object is asked, in this order, for ``model_dump()``, ``to_dict()``, ``_asdict()``,
``tolist()`` and ``isoformat()``; one that has none of them becomes a marker: an object that says
what it was.  The order, the marker's keys and the policies are the host's contract.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import msgspec

from snakepit_worker.wire.redaction import redact
from snakepit_worker.wire.zero_copy import ZeroCopyReference

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DETAIL_POLICIES", "DetailPolicy", "MarkerRules"]

DetailPolicy = Literal["none", "type", "repr_truncated", "repr_redacted_truncated"]
DETAIL_POLICIES: Final[tuple[DetailPolicy, ...]] = get_args(DetailPolicy)


@dataclass(frozen=True, slots=True)
class MarkerRules:
    """How much of an object that is not JSON may be shown, and how large an array may grow.

    Attributes:
        detail: What a marker says beside the type.
        repr_max_length: Characters of ``repr`` kept in a marker.
        tolist_max_elements: Arrays with more elements are not expanded into lists.
    """

    detail: DetailPolicy = "none"
    repr_max_length: int = 500
    tolist_max_elements: int = 1_000_000

    def convert(self, value: object) -> object:
        """One step towards JSON; the result is encoded again.

        Args:
            value: Anything that the encoder refused.
        """
        if isinstance(value, ZeroCopyReference):
            return value.payload
        if isinstance(value, type):  # its methods would be called without an instance
            return self.marker(value)
        if isinstance(value, msgspec.Struct):
            return _fields(value)
        if dataclasses.is_dataclass(value):
            # Field by field: one that still has its default may be on the class alone.
            return {
                field.name: getattr(value, field.name)
                for field in dataclasses.fields(value)
                if not field.name.startswith("_")
            }
        for name in ("model_dump", "to_dict", "_asdict", "tolist", "isoformat"):
            try:
                method = getattr(value, name, None)
                if not callable(method):
                    continue
                converted = self._tolist(value, method) if name == "tolist" else method()
            except Exception:  # noqa: BLE001, S112 - a step that raises is skipped
                continue
            if converted is not value:
                return converted
        return self.marker(value)

    def marker(self, value: object) -> dict[str, object]:
        """The object that stands for a value which cannot be encoded."""
        kind = type(value)
        name = f"{kind.__module__}.{kind.__qualname__}"
        marker: dict[str, object] = {"__ffi_unserializable__": True, "__type__": name}
        text = self._describe(value, name)
        if text is not None:
            marker["__repr__"] = text
        return marker

    def _describe(self, value: object, type_name: str) -> str | None:
        if self.detail == "none":
            return None
        if self.detail == "type":
            return f"<{type_name}>"
        try:
            text = repr(value)
        except Exception:  # noqa: BLE001 - a repr that fails must not fail the reply
            return f"<{type_name} (repr failed)>"
        if self.detail == "repr_redacted_truncated":  # before cutting, or half a secret stays
            text = redact(text)
        return text[: self.repr_max_length]

    def _tolist(self, value: object, method: Callable[[], object]) -> object:
        """Expand an array unless that would be too much.

        Raises:
            OverflowError: When it has more elements than the limit.
        """
        known = _element_count(value)
        if known is not None and known > self.tolist_max_elements:
            raise OverflowError(known)
        expanded = method()
        if known is None and _leaves(expanded, self.tolist_max_elements) < 0:
            raise OverflowError
        return expanded


def _fields(value: msgspec.Struct) -> dict[str, object] | list[object]:
    """A struct as its schema describes it: with the names of its fields outside, and its tag."""
    config = value.__struct_config__
    values = [getattr(value, name) for name in value.__struct_fields__]
    if config.array_like:
        return values if config.tag is None else [config.tag, *values]
    tag = {} if config.tag is None else {config.tag_field or "type": config.tag}
    named = zip(value.__struct_encode_fields__, values, strict=True)
    return tag | {name: field for name, field in named if field is not msgspec.UNSET}


def _element_count(value: Any) -> int | None:  # noqa: ANN401 - duck typing over foreign arrays
    """Elements of an array-like as it would be expanded, or ``None`` where it does not say."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and (hasattr(value, "nnz") or hasattr(value, "dtype")):
        count = 1
        for dimension in shape:
            count *= int(dimension)
        return count
    size = getattr(value, "size", None)
    return size if isinstance(size, int) and hasattr(value, "values") else None


def _leaves(value: object, budget: int) -> int:
    """What is left of ``budget`` after counting the leaves of nested lists; negative when over."""
    if not isinstance(value, list | tuple):
        return budget - 1
    for item in value:
        budget = _leaves(item, budget)
        if budget < 0:
            break
    return budget
