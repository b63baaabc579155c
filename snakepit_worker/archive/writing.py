"""Changes of many sessions in one transaction, each guarded by its session's fence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from snakepit_worker.archive.ownership import why_lost
from snakepit_worker.archive.tables import DatabaseTime, resources, sessions
from snakepit_worker.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection

    from snakepit_worker.archive.model import End
    from snakepit_worker.archive.records import PackedChange
    from snakepit_worker.errors import WorkerError

__all__ = ["write"]


@dataclass(slots=True)
class _Merged:
    """Changes of one session under one fence, that follow each other."""

    session_id: str
    fence: str
    created_at: float | None = None
    metadata: str | None = None
    put: dict[str, Mapping[str, object]] = field(default_factory=dict)
    remove: set[str] = field(default_factory=set)
    end: End | None = None
    indexes: list[int] = field(default_factory=list)

    def add(self, index: int, change: PackedChange) -> None:
        """Add a later change."""
        self.indexes.append(index)
        self.created_at = self.created_at if change.created_at is None else change.created_at
        self.metadata = self.metadata if change.metadata is None else change.metadata
        self.put.update(change.put)
        for handle in change.remove:
            self.put.pop(handle, None)
            self.remove.add(handle)
        self.end = change.end


def write(
    connection: Connection, namespace: str, owner_id: str, changes: Sequence[PackedChange]
) -> list[int | WorkerError]:
    """Write changes; what one of them loses does not harm the others.

    Args:
        connection: Inside a transaction.
        namespace: The application.
        owner_id: The worker, as the owner of sessions that begin.
        changes: In the order in which they were made.

    Returns:
        For each change its session's version, or why it lost: `Conflict` where somebody else holds
        the session, `NotFound` where it is no longer there.
    """
    outcomes: dict[int, int | WorkerError] = {}
    for group in _rounds(changes):
        written = _Group(connection, namespace, owner_id).write(group)
        for merged in group.values():
            outcomes.update(dict.fromkeys(merged.indexes, written[merged.session_id]))
    return [outcomes[index] for index in range(len(changes))]


def _rounds(changes: Sequence[PackedChange]) -> list[dict[str, _Merged]]:
    """Changes in groups in which each session is written once, in the order of their ids.

    What follows a session's end, or comes under another fence, is for a later group.  The order
    keeps workers that write the same sessions from waiting for each other in a circle.
    """
    rounds: list[dict[str, _Merged]] = []
    latest: dict[str, int] = {}
    for index, change in enumerate(changes):
        at = latest.get(change.session_id, 0)
        merged = rounds[at].get(change.session_id) if at < len(rounds) else None
        if merged is not None and (merged.end or merged.fence != change.fence):
            at, merged = at + 1, None
        if merged is None:
            if at == len(rounds):
                rounds.append({})
            merged = rounds[at][change.session_id] = _Merged(change.session_id, change.fence)
            latest[change.session_id] = at
        merged.add(index, change)
    return [dict(sorted(group.items())) for group in rounds]


class _Group:
    """Writes a group in which each session occurs once."""

    def __init__(self, connection: Connection, namespace: str, owner_id: str) -> None:
        self._connection = connection
        self._namespace = namespace
        self._owner_id = owner_id
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        self._insert = dialect.insert

    def write(self, group: Mapping[str, _Merged]) -> dict[str, int | WorkerError]:
        """Write the group; each session's version, or why it lost."""
        self._create(merged for merged in group.values() if merged.created_at is not None)
        versions = self._lock(group)
        outcomes: dict[str, int | WorkerError] = dict(versions)
        lost = [session_id for session_id in group if session_id not in versions]
        if lost:
            failures = why_lost(self._connection, self._namespace, lost)
            # Where it was deleted before, perhaps by an attempt whose answer got lost, all is well.
            outcomes.update(
                (
                    key,
                    0 if group[key].end == "delete" and isinstance(failure, NotFound) else failure,
                )
                for key, failure in failures.items()
            )
        owned = [merged for merged in group.values() if merged.session_id in versions]
        self._touch(owned)
        self._put_and_remove(owned)
        self._end(owned)
        return outcomes

    def _create(self, merged: Iterable[_Merged]) -> None:
        rows = [
            {
                "namespace": self._namespace,
                "session_id": item.session_id,
                "fence": item.fence,
                "owner_id": self._owner_id,
                "version": 0,
                "created_at": item.created_at,
                "metadata": "{}",
            }
            for item in merged
        ]
        statement = self._insert(sessions).values(used_at=DatabaseTime())
        self._many(statement.on_conflict_do_nothing(), rows)

    def _lock(self, group: Mapping[str, _Merged]) -> dict[str, int]:
        """Keep the sessions that are ours from being claimed; the version that each will have."""
        rows = self._connection.execute(
            select(sessions.c.session_id, sessions.c.fence, sessions.c.version)
            .where(self._among(list(group)))
            .order_by(sessions.c.session_id)
            .with_for_update()
        )
        return {
            session_id: int(version) + 1
            for session_id, fence, version in rows
            if fence == group[session_id].fence
        }

    def _touch(self, owned: Sequence[_Merged]) -> None:
        if owned:
            self._connection.execute(
                update(sessions)
                .where(self._among([merged.session_id for merged in owned]))
                .values(version=sessions.c.version + 1, used_at=DatabaseTime())
            )
        self._many(
            update(sessions)
            .where(
                sessions.c.namespace == self._namespace,
                sessions.c.session_id == bindparam("of_session"),
            )
            .values(metadata=bindparam("new_metadata")),
            [
                {"of_session": merged.session_id, "new_metadata": merged.metadata}
                for merged in owned
                if merged.metadata is not None
            ],
        )

    def _put_and_remove(self, owned: Sequence[_Merged]) -> None:
        self._many(
            delete(resources).where(
                resources.c.namespace == self._namespace,
                resources.c.session_id == bindparam("of_session"),
                resources.c.handle == bindparam("of_handle"),
            ),
            [
                {"of_session": merged.session_id, "of_handle": handle}
                for merged in owned
                for handle in sorted(merged.remove)
            ],
        )
        statement = self._insert(resources)
        changing = ("kind", "name", "metadata", "recipe", "lost", "created_at", "size")
        self._many(
            statement.on_conflict_do_update(
                index_elements=["namespace", "session_id", "handle"],
                set_={column: statement.excluded[column] for column in changing},
            ),
            [
                {"namespace": self._namespace, "session_id": merged.session_id, **row}
                for merged in owned
                for row in merged.put.values()
            ],
        )

    def _end(self, owned: Sequence[_Merged]) -> None:
        released = [merged.session_id for merged in owned if merged.end == "release"]
        if released:
            self._connection.execute(
                update(sessions).where(self._among(released)).values(owner_id=None, fence="")
            )
        deleted = [merged.session_id for merged in owned if merged.end == "delete"]
        if deleted:
            self._connection.execute(delete(sessions).where(self._among(deleted)))

    def _among(self, session_ids: Sequence[str]) -> ColumnElement[bool]:
        return and_(sessions.c.namespace == self._namespace, sessions.c.session_id.in_(session_ids))

    def _many(self, statement: Any, rows: Sequence[Mapping[str, object]]) -> None:  # noqa: ANN401 - any
        if rows:
            self._connection.execute(statement, rows)
