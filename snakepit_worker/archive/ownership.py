"""Who holds which session: the lease of a worker, and what to say to others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, select

from snakepit_worker.archive.owner import Owner
from snakepit_worker.archive.tables import DatabaseTime, owner_columns, sessions, workers
from snakepit_worker.errors import Conflict, NotFound

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy import Connection, RowMapping

    from snakepit_worker.errors import WorkerError

__all__ = ["held_by", "holders", "owner_of", "why_lost"]

_AT_LEAST: Final = 0.05
"""Seconds to wait where the lease ends this moment."""


def owner_of(row: Mapping[str, Any] | RowMapping) -> Owner | None:
    """The owner in a row that has the columns of ``workers``, or none of them."""
    if row["worker_id"] is None:
        return None
    return Owner(**{column: row[column] for column in owner_columns})


def held_by(session_id: str, owner: Owner, expires_in: float) -> Conflict:
    """The failure of a claim of a session that somebody holds.

    Args:
        session_id: The session.
        owner: Who holds it.
        expires_in: Seconds until its lease ends.
    """
    return Conflict(
        f"session {session_id!r} lives on worker {owner.worker_id!r} of {owner.host}",
        retry_after=round(max(expires_in, _AT_LEAST), 3),
        details={
            "session_id": session_id,
            "worker_id": owner.worker_id,
            "host": owner.host,
            "address": owner.address,
            "expires_in_s": round(expires_in, 3),
        },
        help="send the call to that worker, or try again when its lease has ended",
    )


def why_lost(
    connection: Connection, namespace: str, session_ids: Collection[str]
) -> dict[str, WorkerError]:
    """What to say about sessions whose writer is not, or no longer, the one that holds them.

    Args:
        connection: Inside a transaction.
        namespace: The application.
        session_ids: The sessions.
    """
    rows = connection.execute(
        holders(namespace).where(sessions.c.session_id.in_(session_ids))
    ).mappings()
    found = {row["session_id"]: row for row in rows}
    failures: dict[str, WorkerError] = {}
    for session_id in session_ids:
        if session_id not in found:
            msg = f"session {session_id!r} is no longer in the archive"
            failures[session_id] = NotFound(msg, details={"session_id": session_id})
            continue
        owner = owner_of(found[session_id])
        if owner is None:
            msg = f"session {session_id!r} is no longer held by this worker"
            failures[session_id] = Conflict(msg, details={"session_id": session_id})
        else:
            failures[session_id] = held_by(session_id, owner, found[session_id]["expires_in"])
    return failures


def holders(namespace: str) -> Any:  # noqa: ANN401 - a statement of many columns
    """A statement for all sessions with their owners, as far as they have any."""
    mine = and_(
        workers.c.namespace == sessions.c.namespace, workers.c.owner_id == sessions.c.owner_id
    )
    return (
        select(
            sessions,
            *(workers.c[column] for column in owner_columns),
            (workers.c.expires_at - DatabaseTime()).label("expires_in"),
        )
        .select_from(sessions.outerjoin(workers, mine))
        .where(sessions.c.namespace == namespace)
    )
