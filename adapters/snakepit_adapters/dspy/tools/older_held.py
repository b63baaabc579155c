"""What the older adapter's tools keep in a session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from snakepit_worker.errors import Conflict, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from snakepit_worker.sessions import Recipe, Resource, Session

__all__ = [
    "KINDS",
    "OBJECT",
    "SIGNATURE",
    "TOOL",
    "Stored",
    "find",
    "names_of",
    "refuse_foreign",
    "store",
]

SIGNATURE: Final = "dspy.signature"
OBJECT: Final = "dspy.object"
TOOL: Final = "dspy.tool"
KINDS: Final = (SIGNATURE, OBJECT, TOOL)


@dataclass(frozen=True, slots=True)
class Stored:
    """JSON values under a name.

    Attributes:
        data: The values.
    """

    data: Mapping[str, Any]

    def recipe(self) -> Recipe:
        """The values."""
        return self.data


def store(session: Session, kind: str, name: str, data: Mapping[str, Any]) -> Resource:
    """Keep values under a name; others of this kind and name are replaced.

    The older adapter had a space of names for each kind; here they share the session's.

    Args:
        session: The session.
        kind: What they are.
        name: The caller's name for them.
        data: The values.
    """
    kept = Stored(data)
    return session.put(
        kind,
        kept,
        name=_name(kind, name),
        metadata={"name": name},
        recipe=kept.recipe,
        size=len(msgspec.json.encode(data)),
        replace=True,
    )


def find(session: Session, kind: str, name: str) -> Mapping[str, Any] | None:
    """The values under a name, or ``None``.

    Args:
        session: The session.
        kind: What they are.
        name: The caller's name for them.
    """
    try:
        stored: Stored = session.get(_name(kind, name), kind).value
    except NotFound:
        return None
    return stored.data


def names_of(session: Session, kind: str) -> list[str]:
    """The callers' names of all resources of a kind; the handles of those without one.

    Args:
        session: The session.
        kind: What they are.
    """
    prefix = _name(kind, "")
    return [(r.name or r.handle).removeprefix(prefix) for r in session.resources(kind)]


def refuse_foreign(session: Session, name: str, kind: str) -> None:
    """Refuse to replace something of another kind.

    Args:
        session: The session.
        name: The name that something new would have.
        kind: What may be replaced.

    Raises:
        Conflict: When something else goes by that name.
    """
    try:
        taken = session.get(name)
    except NotFound:
        return
    if taken.kind != kind:
        msg = f"{name!r} is the name of a {taken.kind} in this session"
        raise Conflict(msg, retryable=False, details={"name": name, "kind": taken.kind})


def _name(kind: str, name: str) -> str:
    return f"{kind.rpartition('.')[2]}:{name}" if kind in KINDS else name
