"""What a tool may return or yield when it has more to say than a plain value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Binary", "Chunk", "as_chunk"]


@dataclass(frozen=True, slots=True)
class Binary:
    """A result of raw bytes that says something about itself.

    Elixir receives ``{:binary, data}``, or ``{:binary, data, metadata}`` with metadata.  A tool
    that has nothing to say returns plain ``bytes``.

    Attributes:
        data: The bytes; must not be empty, which the host could not tell from no bytes at all.
        metadata: JSON values.
    """

    data: bytes
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chunk:
    """An item of a stream that says more than its data.

    A tool that has nothing more to say yields the data itself.  In the map that Elixir receives,
    ``is_final`` and ``_metadata`` are the host's keys; data with such keys has them overwritten.

    Attributes:
        data: The payload.
        is_final: Whether it is the last one; without any such item an empty one is added.
        metadata: Delivered to Elixir as ``_metadata``; values are sent as text.
    """

    data: Any
    is_final: bool = False
    metadata: Mapping[str, object] = field(default_factory=dict)


def as_chunk(item: object) -> Chunk:
    """The item of a stream as a chunk.

    An object with attributes ``data`` and ``is_final``, of whatever class, is taken for one, since
    adapters written for Snakepit bring their own class.
    """
    if isinstance(item, Chunk):
        return item
    if isinstance(item, type) or not (hasattr(item, "data") and hasattr(item, "is_final")):
        return Chunk(item)
    metadata = getattr(item, "metadata", None)
    return Chunk(item.data, bool(item.is_final), metadata if isinstance(metadata, dict) else {})
