"""The connection to the archive's database: SQLite or PostgreSQL, by URL."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, create_engine, event, exc, make_url

from snakepit_worker.errors import StartError, Unavailable, WorkerError
from snakepit_worker.wire.redaction import REDACTED, redact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

    from snakepit_worker.archive.options import ArchiveOptions

__all__ = ["Database"]

_FORMS: Final = "sqlite:///file or postgresql://user:password@host/database"
_CONNECT_SECONDS: Final = 5
_LONGEST_WAIT: Final = 5.0
"""Seconds to wait for another worker's transaction before trying again."""
_PAUSE: Final = 0.02
_READ_ONLY: Final = "25006"
"""SQLSTATE of a server that takes no writes, because another has just replaced it."""
_POSTGRESQL: Final = {
    "application_name": "snakepit-worker",
    "connect_timeout": _CONNECT_SECONDS,
    # A server that has gone without a word is noticed after about ten seconds.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}


class Database:
    """Transactions, and failures that callers can tell apart.

    Args:
        options: Where the archive is, and how durable.

    Raises:
        StartError: For a URL that names no such database, or one whose driver is missing.
    """

    def __init__(self, options: ArchiveOptions) -> None:
        self._url = _parse(options.url)
        self._name = _shown(self._url).replace("+psycopg:", ":").replace("+pysqlite:", ":")
        wait = min(options.lease / 3, _LONGEST_WAIT)
        synchronous = options.durability == "commit"
        try:
            self._engine = (
                _sqlite(self._url, wait, synchronous=synchronous)
                if self._url.get_backend_name() == "sqlite"
                else _postgresql(self._url, wait, options.lease, synchronous=synchronous)
            )
        except ModuleNotFoundError as error:
            msg = f"--archive {self._name} needs {error.name}: install snakepit-worker[archive]"
            raise StartError(msg) from None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction that is committed at the end of a ``with`` block.

        Raises:
            Unavailable: When the database is away or busy; the same may succeed later.
            WorkerError: When it refuses.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except exc.SQLAlchemyError as error:
            text = self._text(error)
            if _may_pass(error):
                self._engine.dispose()  # also what else was connected before a restart
                raise Unavailable(f"the archive {self._name} is not available: {text}") from None
            raise WorkerError(f"the archive {self._name} refused: {text}") from None

    def close(self) -> None:
        """Disconnect."""
        self._engine.dispose()

    def _text(self, error: exc.SQLAlchemyError) -> str:
        """What the driver says: SQLAlchemy's own text would show statements."""
        text = redact(" ".join(str(getattr(error, "orig", error)).split()))
        password = self._url.password
        return text.replace(str(password), REDACTED) if password else text


def _may_pass(error: exc.SQLAlchemyError) -> bool:
    if not isinstance(error, exc.DBAPIError):
        return False
    return (
        error.connection_invalidated
        or isinstance(error, exc.OperationalError | exc.InterfaceError)
        or getattr(error.orig, "sqlstate", None) == _READ_ONLY
    )


def _parse(text: str) -> URL:
    try:
        url = make_url(text)
        backend = url.get_backend_name()
    except (exc.SQLAlchemyError, ValueError):
        raise StartError(f"--archive is not a URL; expected {_FORMS}", exit_status=2) from None
    shown = _shown(url)
    if backend == "sqlite" and url.drivername in {"sqlite", "sqlite+pysqlite"}:
        if not url.database or url.database == ":memory:" or "mode=memory" in text:
            raise StartError(f"--archive {shown} names no file; expected {_FORMS}", exit_status=2)
        return url.set(drivername="sqlite+pysqlite")
    if url.drivername in {"postgresql", "postgres", "postgresql+psycopg"}:
        return url.set(drivername="postgresql+psycopg")
    raise StartError(f"--archive {shown} is not supported; expected {_FORMS}", exit_status=2)


def _shown(url: URL) -> str:
    """The URL without its password."""
    return redact(url.render_as_string(hide_password=True))


def _sqlite(url: URL, wait: float, *, synchronous: bool) -> Engine:
    _create_file(url)
    engine = create_engine(
        url, pool_size=1, max_overflow=0, hide_parameters=True, connect_args={"timeout": wait}
    )
    pragmas = (
        # With FULL a commit is on the disk when it returns, with NORMAL after the next checkpoint.
        f"synchronous = {'FULL' if synchronous else 'NORMAL'}",
        "foreign_keys = ON",
    )

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's
        connection.isolation_level = None  # the transactions are ours
        connection.text_factory = _text
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        _write_ahead(cursor, wait)
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # Writers take turns from the start, instead of failing in the middle.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _write_ahead(cursor: Any, wait: float) -> None:  # noqa: ANN401 - the driver's
    """Switch the file to its write-ahead log, with which a commit is one write.

    SQLite fails at once where another connection is in the way.
    """
    end = time.monotonic() + wait
    while cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(_PAUSE)
        else:
            return  # also on file systems where it cannot be had


def _create_file(url: URL) -> None:
    """Let nobody else read what sessions hold; whoever wants to share the file creates it."""
    if url.database and not url.database.startswith("file:"):
        try:
            os.close(os.open(Path(url.database), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except OSError:  # it is there, or connecting says what is wrong
            return


def _text(data: bytes) -> str:
    """Text of a column: damaged bytes fail where the value is decoded, not in the driver."""
    return data.decode("utf-8", "surrogateescape")


def _postgresql(url: URL, wait: float, lease: float, *, synchronous: bool) -> Engine:
    defaults = {key: value for key, value in _POSTGRESQL.items() if key not in url.query}
    engine = create_engine(
        url,
        pool_size=1,
        max_overflow=0,
        hide_parameters=True,
        # Others' commits have to be seen after waiting for their locks.
        isolation_level="READ COMMITTED",
        connect_args=defaults,
    )
    settings = {
        "lock_timeout": round(wait * 1000),
        # A worker that was stopped in the middle must not hold its locks for ever.
        "idle_in_transaction_session_timeout": round(lease * 1000),
        "synchronous_commit": "on" if synchronous else "off",
    }

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's
        with connection.cursor() as cursor:
            for name, value in settings.items():
                cursor.execute(f"SET {name} = {value}")
        connection.commit()

    return engine
