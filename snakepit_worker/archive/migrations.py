"""The archive's schema: made at first use, brought up to date by whoever comes first.

A change of a table is made in `tables`, and is a step here for databases that are older.  A new
database gets the tables as they are and skips the steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from sqlalchemy import func, insert, inspect, select, update

from snakepit_worker.archive.tables import METADATA, schema
from snakepit_worker.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

__all__ = ["migrate"]

_Step: TypeAlias = "Callable[[Connection], None]"

_LOCK: Final = 0x736E616B65
"""Number of PostgreSQL's lock for this; whatever others use, they do not use this."""


def migrate(connection: Connection, steps: Sequence[_Step] = (METADATA.create_all,)) -> None:
    """Make the schema what this version knows, in the transaction of ``connection``.

    Args:
        connection: Inside a transaction, which in SQLite keeps other writers out.
        steps: What leads from each version to the next.  The first one makes the tables as they
            are now, and is all that a new database needs.

    Raises:
        StartError: When the archive was made by a later version than this one.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    version = 0
    if inspect(connection).has_table(schema.name):
        version = connection.execute(select(schema.c.version)).scalar() or 0
    if version == len(steps):
        return
    if version > len(steps):
        msg = (
            f"the archive has schema {version}, this version of snakepit-worker knows none above "
            f"{len(steps)}: upgrade it, or use another archive"
        )
        raise StartError(msg)
    if version == 0:
        steps[0](connection)
        connection.execute(insert(schema).values(id=1, version=len(steps)))
        return
    for step in steps[version:]:
        step(connection)
    connection.execute(update(schema).values(version=len(steps)))
