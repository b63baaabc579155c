"""The archive's tables, the same in both databases."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement

__all__ = [
    "METADATA",
    "DatabaseTime",
    "owner_columns",
    "resources",
    "schema",
    "sessions",
    "workers",
]

METADATA: Final = MetaData()
_SERIAL: Final = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts in no other type

schema: Final = Table(
    "snakepit_archive",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
)
"""One row: how many migrations were made."""

owner_columns: Final = ("worker_id", "host", "machine", "pid", "started", "address")
"""Columns of ``workers`` that are fields of `Owner`."""

workers: Final = Table(
    "snakepit_workers",
    METADATA,
    Column("namespace", Text, primary_key=True),
    Column("owner_id", Text, primary_key=True),
    Column("worker_id", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("machine", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("address", Text, nullable=False),
    Column("expires_at", Double, nullable=False),
)
"""Workers with the end of their leases: a worker renews one row, however many sessions it holds."""

sessions: Final = Table(
    "snakepit_sessions",
    METADATA,
    Column("namespace", Text, primary_key=True),
    Column("session_id", Text, primary_key=True),
    Column("fence", Text, nullable=False),  # empty while nobody holds it
    Column("owner_id", Text),
    Column("version", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("used_at", Double, nullable=False),
    Column("metadata", Text, nullable=False),
    Index("snakepit_sessions_owner", "namespace", "owner_id"),
    Index("snakepit_sessions_used", "namespace", "used_at"),
)

resources: Final = Table(
    "snakepit_resources",
    METADATA,
    Column("id", _SERIAL, primary_key=True),  # their order
    Column("namespace", Text, nullable=False),
    Column("session_id", Text, nullable=False),
    Column("handle", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text),
    Column("metadata", Text, nullable=False),
    Column("recipe", Text),
    Column("lost", Text),
    Column("created_at", Double, nullable=False),
    Column("size", BigInteger, nullable=False),
    UniqueConstraint("namespace", "session_id", "handle"),
    ForeignKeyConstraint(
        ["namespace", "session_id"],
        ["snakepit_sessions.namespace", "snakepit_sessions.session_id"],
        ondelete="CASCADE",
    ),
    Index("snakepit_resources_handle", "namespace", "handle"),
)


class DatabaseTime(FunctionElement[float]):
    """Unix seconds on the database's clock, the only one that all workers share.

    It is the time at which the statement came: a transaction may have waited for locks before.
    """

    name = "database_time"
    type = Double()
    inherit_cache = True


@compiles(DatabaseTime, "sqlite")
def _in_sqlite(*_: Any, **__: Any) -> str:  # noqa: ANN401 - SQLAlchemy's signature
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(DatabaseTime, "postgresql")
def _in_postgresql(*_: Any, **__: Any) -> str:  # noqa: ANN401 - SQLAlchemy's signature
    return "extract(epoch FROM statement_timestamp())::double precision"
