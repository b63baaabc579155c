"""What a namespace of the archive holds, for people and tools that look at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from snakepit_worker.archive.model import ArchivedSession, Totals
from snakepit_worker.archive.ownership import holders, owner_of
from snakepit_worker.archive.tables import resources, sessions

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["list_sessions", "totals"]

_BYTES = func.coalesce(func.sum(func.length(resources.c.recipe)), 0)


def list_sessions(
    connection: Connection, namespace: str, limit: int, after: str
) -> list[ArchivedSession]:
    """Sessions in the order of their ids.

    Args:
        connection: Inside a transaction.
        namespace: The application.
        limit: Sessions at most.
        after: The last id of the page before.
    """
    page = (
        holders(namespace)
        .where(sessions.c.session_id > after)
        .order_by(sessions.c.session_id)
        .limit(limit)
        .subquery()
    )
    held = (
        select(resources.c.session_id, func.count().label("resources"), _BYTES.label("bytes"))
        .where(
            resources.c.namespace == namespace,
            resources.c.session_id.in_(select(page.c.session_id)),
        )
        .group_by(resources.c.session_id)
        .subquery()
    )
    rows = connection.execute(
        select(page, held.c.resources, held.c.bytes)
        .select_from(page.outerjoin(held, held.c.session_id == page.c.session_id))
        .order_by(page.c.session_id)
    ).mappings()
    return [
        ArchivedSession(
            session_id=row["session_id"],
            version=row["version"],
            created_at=row["created_at"],
            used_at=row["used_at"],
            resources=row["resources"] or 0,
            bytes=row["bytes"] or 0,
            owner=owner_of(row),
            expires_in=row["expires_in"],
        )
        for row in rows
    ]


def totals(connection: Connection, namespace: str) -> Totals:
    """How much there is.

    Args:
        connection: Inside a transaction.
        namespace: The application.
    """
    held = holders(namespace).subquery()
    count, owned = connection.execute(
        select(func.count(), func.count().filter(held.c.expires_in > 0)).select_from(held)
    ).one()
    number, size = connection.execute(
        select(func.count(), _BYTES).where(resources.c.namespace == namespace)
    ).one()
    return Totals(sessions=count, owned=owned, resources=number, bytes=size)
