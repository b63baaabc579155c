"""What a session holds: an object, the handle that names it, and how to close it."""

from __future__ import annotations

import re
import secrets
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Mapping

    from snakepit_worker.sessions.leases import Waiter

__all__ = ["Recipe", "Resource", "estimated_size", "looks_like_a_handle", "new_handle"]

Recipe: TypeAlias = "Mapping[str, Any]"
"""How to build a resource again, as a JSON object; only its adapter knows what it means."""

_HANDLE_BYTES: Final = 12
_HANDLE: Final = re.compile(rf".+-[0-9a-f]{{{2 * _HANDLE_BYTES}}}")
_COUNTED: Final = 10_000
"""Items of containers that an estimate looks at; the rest is taken to be like them."""


@dataclass(slots=True, eq=False)
class Resource:
    """One object of a session.

    Attributes:
        handle: The string that names it, unique across workers and not to be guessed.
        kind: What it is, such as ``dspy.module``; getting it as another kind is an error.
        value: The object itself.
        name: The caller's own name for it, unique in the session.
        metadata: JSON values that describe it.
        close: Called once when the resource is released or its session ends.  What it returns is
            awaited if it can be.
        recipe: Gives the present recipe, from which another worker can build it again; ``None``
            for what cannot be built again.
        lost: Why there is no object: the session has moved here from another worker, and this part
            of it could not be built again.
        size: Bytes of memory that it takes, as far as anybody knows.
        created_at: Unix seconds.
        used_at: Seconds on the monotonic clock.
        leases: Calls that are using it now.
        exclusive: Whether the one lease it has allows no other.
        waiting: Leases that wait for it, the first come first.
    """

    handle: str
    kind: str
    value: Any
    name: str | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    close: Callable[[], object] | None = None
    recipe: Callable[[], Recipe] | None = None
    lost: str | None = None
    size: int = 0
    created_at: float = field(default_factory=time.time)
    used_at: float = field(default_factory=time.monotonic)
    leases: int = 0
    exclusive: bool = False
    waiting: deque[Waiter] | None = None

    def describe(self, now: float) -> dict[str, object]:
        """The resource as JSON values.

        Args:
            now: Seconds on the clock of ``used_at``.
        """
        described: dict[str, object] = {
            "handle": self.handle,
            "kind": self.kind,
            "name": self.name,
            "created_at": self.created_at,
            "idle_s": round(now - self.used_at, 3),
            "size": self.size,
            "leases": self.leases,
            "can_be_rebuilt": self.recipe is not None,
            "metadata": dict(self.metadata),
        }
        if self.lost is not None:
            described["lost"] = self.lost
        return described


def new_handle(kind: str) -> str:
    """A fresh handle: readable by its kind, unguessable by its 96 random bits.

    Args:
        kind: Kind of the resource; its last part becomes the handle's first.
    """
    return f"{kind.rpartition('.')[2]}-{secrets.token_hex(_HANDLE_BYTES)}"


def looks_like_a_handle(reference: str) -> bool:
    """Whether a text has the form of a handle.

    Args:
        reference: What a caller gave for one.
    """
    return _HANDLE.fullmatch(reference) is not None


def estimated_size(value: object) -> int:
    """Bytes that an object takes, roughly.

    Arrays say it themselves (``nbytes``), containers of JSON are counted; of any other object only
    the object itself is seen, not what it refers to.

    Args:
        value: The object.
    """
    total, seen, pending = 0, 0, [value]
    while pending and seen < _COUNTED:
        item = pending.pop()
        seen += 1
        nbytes = getattr(item, "nbytes", None)
        total += nbytes if isinstance(nbytes, int) else sys.getsizeof(item, 0)
        if isinstance(item, dict):
            pending.extend(item)
            pending.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            pending.extend(item)
    return total * (seen + len(pending)) // seen
