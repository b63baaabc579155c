"""The archive as blocking calls, for one thread at a time."""

from __future__ import annotations

import secrets
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from snakepit_worker.archive import inspection, writing
from snakepit_worker.archive.engine import Database
from snakepit_worker.archive.migrations import migrate
from snakepit_worker.archive.model import SavedSession, new_fence
from snakepit_worker.archive.ownership import held_by, holders, owner_of
from snakepit_worker.archive.records import check_text, unpack_resource, unpack_session
from snakepit_worker.archive.tables import DatabaseTime, owner_columns, resources, sessions, workers
from snakepit_worker.errors import InvalidArgument, StartError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, RowMapping

    from snakepit_worker.archive.model import ArchivedSession, Totals
    from snakepit_worker.archive.options import ArchiveOptions
    from snakepit_worker.archive.owner import Owner
    from snakepit_worker.archive.records import PackedChange

__all__ = ["Archive"]

_AT_ONCE: Final = 1_000
"""Sessions that one transaction deletes at most: others wait for it."""


class Archive:
    """Sessions in a database.

    Every call is one transaction, and raises `Unavailable` where the database is away or busy.

    Args:
        options: Where it is, and whose.

    Raises:
        StartError: For a URL that cannot be an archive.
    """

    def __init__(self, options: ArchiveOptions) -> None:
        try:
            check_text("namespace", options.namespace)
        except InvalidArgument as error:
            raise StartError(str(error), exit_status=2) from None
        self._options = options
        self._database = Database(options)
        self._namespace = options.namespace
        self._owner_id = secrets.token_hex(16)

    def open(self) -> None:
        """Connect, bring the schema up to date, and begin the lease.

        Raises:
            StartError: When the database cannot be reached, used, or written to.
        """
        try:
            with self._database.transaction() as connection:
                migrate(connection)
            self.renew()
        except StartError:
            self.close()
            raise
        except WorkerError as error:
            self.close()
            raise StartError(str(error)) from None

    def close(self) -> None:
        """Disconnect, and hold on to what is owned until the lease ends."""
        self._database.close()

    def claim(self, session_id: str) -> SavedSession | None:
        """Take a session that is free, or whose owner's lease or process has ended.

        The lease should have been renewed before: a claim does not.

        Args:
            session_id: The id that callers use.

        Returns:
            The session, or ``None`` where the archive does not know it.

        Raises:
            Conflict: When another worker holds it.
        """
        with self._database.transaction() as connection:
            mine = (sessions.c.namespace == self._namespace, sessions.c.session_id == session_id)
            row = connection.execute(select(sessions).where(*mine).with_for_update())
            session = row.mappings().one_or_none()
            if session is None:
                return None
            taken_from = self._previous(connection, session)
            fence = new_fence()
            version, created_at, metadata = unpack_session(dict(session))
            connection.execute(
                update(sessions)
                .where(*mine)
                .values(
                    owner_id=self._owner_id,
                    fence=fence,
                    version=version + 1,
                    used_at=DatabaseTime(),
                )
            )
            rows = connection.execute(
                select(resources)
                .where(
                    resources.c.namespace == self._namespace, resources.c.session_id == session_id
                )
                .order_by(resources.c.id)
            ).mappings()
            return SavedSession(
                session_id=session_id,
                fence=fence,
                version=version + 1,
                created_at=created_at,
                metadata=metadata,
                resources=tuple(unpack_resource(dict(row), session_id) for row in rows),
                taken_from=taken_from,
            )

    def write(self, changes: Sequence[PackedChange]) -> list[int | WorkerError]:
        """Write changes in one transaction; see `writing.write`.

        Doing the same again, when it is not known whether the commit came through, is harmless.
        """
        with self._database.transaction() as connection:
            return writing.write(connection, self._namespace, self._owner_id, changes)

    def renew(self) -> Mapping[str, str] | None:
        """Extend this worker's lease, and with it the ownership of all that it holds.

        Returns:
            ``None`` where the lease was still running.  Where it had ended, others may have taken
            sessions: then what is still held, as fences by session.
        """
        key = (workers.c.namespace == self._namespace, workers.c.owner_id == self._owner_id)
        with self._database.transaction() as connection:
            left = connection.execute(
                select(workers.c.expires_at - DatabaseTime()).where(*key).with_for_update()
            ).scalar()
            insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            expires_at = DatabaseTime() + self._options.lease
            connection.execute(
                insert(workers)
                .values(
                    namespace=self._namespace,
                    owner_id=self._owner_id,
                    expires_at=expires_at,
                    **asdict(self._options.owner),
                )
                .on_conflict_do_update(
                    index_elements=["namespace", "owner_id"], set_={"expires_at": expires_at}
                )
            )
            if left is not None and left > 0:
                return None
            rows = connection.execute(
                select(sessions.c.session_id, sessions.c.fence).where(
                    sessions.c.namespace == self._namespace,
                    sessions.c.owner_id == self._owner_id,
                )
            )
            return {row.session_id: row.fence for row in rows}

    def release_all(self) -> None:
        """Give up everything, so that others may claim it at once."""
        with self._database.transaction() as connection:
            connection.execute(
                update(sessions)
                .where(
                    sessions.c.namespace == self._namespace, sessions.c.owner_id == self._owner_id
                )
                .values(owner_id=None, fence="", used_at=DatabaseTime())
            )
            connection.execute(
                delete(workers).where(
                    workers.c.namespace == self._namespace, workers.c.owner_id == self._owner_id
                )
            )

    def find(self, handle: str) -> str | None:
        """The session that holds a handle, whoever owns it.

        Args:
            handle: A resource's handle.
        """
        with self._database.transaction() as connection:
            found = connection.execute(
                select(resources.c.session_id)
                .where(resources.c.namespace == self._namespace, resources.c.handle == handle)
                .limit(1)
            ).scalar()
        return None if found is None else str(found)

    def expire(self) -> list[str]:
        """Delete sessions that nobody has held or used for the time to live, some at a time.

        Also forgets workers that hold nothing and have ended.

        Returns:
            The sessions' ids; as many as there are at once mean that there may be more.
        """
        cutoff = DatabaseTime() - self._options.ttl
        with self._database.transaction() as connection:
            idle = connection.execute(
                holders(self._namespace)
                .with_only_columns(sessions.c.session_id)
                .where(
                    sessions.c.used_at < cutoff,
                    # What was only read is used for as long as its owner lived.
                    func.coalesce(workers.c.expires_at, 0.0) < cutoff,
                )
                .order_by(sessions.c.session_id)
                .limit(_AT_ONCE)
                .with_for_update(of=sessions, skip_locked=True)
            )
            ids = [str(session_id) for session_id in idle.scalars()]
            connection.execute(
                delete(sessions).where(
                    sessions.c.namespace == self._namespace, sessions.c.session_id.in_(ids)
                )
            )
            holds = exists().where(
                sessions.c.namespace == workers.c.namespace,
                sessions.c.owner_id == workers.c.owner_id,
            )
            connection.execute(
                delete(workers).where(
                    workers.c.namespace == self._namespace,
                    workers.c.expires_at < DatabaseTime() - self._options.lease,
                    ~holds,
                )
            )
        return ids

    def sessions(self, limit: int, after: str = "") -> list[ArchivedSession]:
        """What the archive holds; see `inspection.list_sessions`."""
        with self._database.transaction() as connection:
            return inspection.list_sessions(connection, self._namespace, limit, after)

    def totals(self) -> Totals:
        """How much the archive holds."""
        with self._database.transaction() as connection:
            return inspection.totals(connection, self._namespace)

    def _previous(self, connection: Connection, session: RowMapping) -> Owner | None:
        """Who held the session until now.

        Raises:
            Conflict: When somebody else still does.
        """
        if session["owner_id"] in {None, self._owner_id}:
            return None
        # A renewal that runs now is waited for, and one that comes later sees the claim.
        row = (
            connection.execute(
                select(
                    *(workers.c[column] for column in owner_columns),
                    (workers.c.expires_at - DatabaseTime()).label("expires_in"),
                )
                .where(
                    workers.c.namespace == self._namespace,
                    workers.c.owner_id == session["owner_id"],
                )
                .with_for_update(read=True)
            )
            .mappings()
            .one_or_none()
        )
        if row is None:
            return None
        owner = owner_of(row)
        if owner is not None and row["expires_in"] > 0 and not owner.has_ended():
            raise held_by(session["session_id"], owner, row["expires_in"])
        return owner
