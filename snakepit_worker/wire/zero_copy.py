"""References to objects that live inside the host.

The host sends them as JSON objects with a marker key.  They are tickets: a worker hands them back
unchanged and looks at nothing but their attributes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MARKER", "ZeroCopyReference"]

MARKER: Final = "__snakepit_zero_copy__"


class ZeroCopyReference:
    """A host object by reference.

    The fields of the reference are attributes: ``kind``, ``device``, ``dtype``, ``shape``,
    ``owner``, ``ref``, ``copy``, ``bytes``, ``metadata``; one that the host left out is ``None``.

    Attributes:
        payload: The JSON object as it came, which is also what goes back.
    """

    __slots__ = ("payload",)

    def __init__(self, payload: Mapping[str, Any]) -> None:
        self.payload = dict(payload)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the host decides the types
        if name in _FIELDS:
            return self.payload.get(name)
        raise AttributeError(name)

    def __repr__(self) -> str:
        return f"ZeroCopyReference({self.payload!r})"


_FIELDS: Final = frozenset(
    ("kind", "device", "dtype", "shape", "owner", "ref", "copy", "bytes", "metadata")
)
