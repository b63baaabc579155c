"""What a session holds: an object, the handle that names it, and how to close it."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Resource", "new_handle"]

_HANDLE_BYTES: Final = 12


@dataclass(slots=True, eq=False)
class Resource:
    """One object of a session.

    Attributes:
        handle: The string that names it, unique across workers and not to be guessed.
        kind: What it is, such as ``dspy.module``; getting it as another kind is an error.
        value: The object itself.
        name: The caller's own name for it, unique in the session.
        metadata: JSON values that describe it.
        close: Called once when the resource is released or its session ends.
        created_at: Unix seconds.
        used_at: Seconds on the monotonic clock.
        leases: Calls that are using it now.
    """

    handle: str
    kind: str
    value: Any
    name: str | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    close: Callable[[], object] | None = None
    created_at: float = field(default_factory=time.time)
    used_at: float = field(default_factory=time.monotonic)
    leases: int = 0

    def describe(self, now: float) -> dict[str, object]:
        """The resource as JSON values.

        Args:
            now: Seconds on the clock of ``used_at``.
        """
        return {
            "handle": self.handle,
            "kind": self.kind,
            "name": self.name,
            "created_at": self.created_at,
            "idle_s": round(now - self.used_at, 3),
            "metadata": dict(self.metadata),
        }


def new_handle(kind: str) -> str:
    """A fresh handle: readable by its kind, unguessable by its 96 random bits.

    Args:
        kind: Kind of the resource; its last part becomes the handle's first.
    """
    return f"{kind.rpartition('.')[2]}-{secrets.token_hex(_HANDLE_BYTES)}"
