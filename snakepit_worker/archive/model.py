"""What is saved of a session, and what changes about it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from snakepit_worker.archive.owner import Owner

__all__ = [
    "ArchivedSession",
    "Change",
    "End",
    "SavedResource",
    "SavedSession",
    "Totals",
    "Written",
    "new_fence",
]


End: TypeAlias = Literal["release", "delete"]
"""How a worker parts with a session; see `Change`."""


def new_fence() -> str:
    """A fresh fence, for a session that begins here and is not in the archive yet."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedResource:
    """What is saved of a resource.

    Attributes:
        handle: The string that names it.
        kind: What it is, such as ``dspy.module``.
        created_at: Unix seconds.
        name: The caller's own name for it.
        metadata: JSON values that describe it.
        recipe: JSON from which it is rebuilt; ``None`` where that cannot be done.
        lost: Why there is no recipe, for people.
        size: Bytes of memory that it takes, estimated.
    """

    handle: str
    kind: str
    created_at: float
    name: str | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    recipe: Mapping[str, object] | None = None
    lost: str | None = None
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedSession:
    """A session that a claim has given to this worker.

    Attributes:
        session_id: The id that callers use.
        fence: Names this claim; every change of the session has to bring it.
        version: Grows with each claim and each transaction that changes the session.
        created_at: Unix seconds.
        metadata: JSON values that describe it.
        resources: In the order in which they were first saved.
        taken_from: Who held it until now, where somebody did.
    """

    session_id: str
    fence: str
    version: int
    created_at: float
    metadata: Mapping[str, object]
    resources: tuple[SavedResource, ...]
    taken_from: Owner | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What becomes of one session, all of it or nothing.

    Attributes:
        session_id: The id that callers use.
        fence: That of the claim, or a new one where the session begins here.
        created_at: Unix seconds at which the session began, until a write of it has succeeded: it
            is put into the archive if it is not there.  ``None`` later, so that a session which
            was deleted meanwhile does not come back in pieces.
        metadata: Replaces what is there; ``None`` leaves it.
        put: Resources that are new or have changed.
        remove: Handles of resources that are no more.
        end: ``release`` gives the session up, so that another worker may claim it at once;
            ``delete`` removes it with all that it holds.  The fence is void after either.
    """

    session_id: str
    fence: str
    created_at: float | None = None
    metadata: Mapping[str, object] | None = None
    put: tuple[SavedResource, ...] = ()
    remove: tuple[str, ...] = ()
    end: End | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """A change that is saved.

    Attributes:
        version: The session's version, ``None`` where the write was delayed.
        lost: Resources that were saved without their recipe, by handle, and why.
    """

    version: int | None
    lost: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedSession:
    """One line of the archive's contents.

    Attributes:
        session_id: The id that callers use.
        version: See `SavedSession`.
        created_at: Unix seconds.
        used_at: Unix seconds of the last claim or change, by the database's clock.
        resources: How many it holds.
        bytes: What its recipes take.
        owner: Who holds it.
        expires_in: Seconds until the owner's lease ends; negative after that.
    """

    session_id: str
    version: int
    created_at: float
    used_at: float
    resources: int
    bytes: int
    owner: Owner | None
    expires_in: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What a namespace of the archive holds.

    Attributes:
        sessions: All of them.
        owned: Those that a worker with a running lease holds.
        resources: All of them.
        bytes: What the recipes take.
    """

    sessions: int
    owned: int
    resources: int
    bytes: int
