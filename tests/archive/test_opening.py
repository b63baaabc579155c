"""Opening an archive: URLs, databases that cannot be used, and the schema."""

from __future__ import annotations

import re
import socket
import sqlite3
import stat
import threading
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy

from snakepit_worker.archive.database import Archive
from snakepit_worker.archive.engine import Database
from snakepit_worker.archive.migrations import migrate
from snakepit_worker.archive.tables import METADATA
from snakepit_worker.errors import StartError, Unavailable, WorkerError
from tests.archive.conftest import LIMIT, new_session, options_of, resource, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.databases import PostgresServer

SECRET = "hunter2hunter"  # noqa: S105 - not to be shown


def failure(url: str, **options: Any) -> StartError:
    """What opening an archive fails with."""
    with pytest.raises(StartError) as caught:
        Archive(options_of(url, **options)).open()
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None, "which would show the URL"
    return caught.value


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("archive.db", "--archive is not a URL"),
        ("", "--archive is not a URL"),
        (f"postgresql://u:{SECRET}@host:port/db", "--archive is not a URL"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///file:x?mode=memory&uri=true", "names no file"),
        (f"mysql://u:{SECRET}@db/x", r"mysql://u:\[REDACTED\]@db/x is not supported"),
        (f"postgresql+asyncpg://u:{SECRET}@db/x", "is not supported"),
        ("sqlite+aiosqlite:///x", "is not supported"),
    ],
)
def test_urls_that_name_no_archive(url: str, says: str) -> None:
    error = failure(url)
    assert error.exit_status == 2
    assert re.search(says, str(error))
    assert "sqlite:///file or postgresql://" in str(error)


def test_a_namespace_that_cannot_be_a_key(tmp_path: Path) -> None:
    error = failure(f"sqlite:///{tmp_path / 'a.db'}", namespace="")
    assert (str(error), error.exit_status) == (
        "namespace must not be empty, so it cannot be archived",
        2,
    )


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    error = failure(f"sqlite:///{tmp_path / 'none' / 'a.db'}")
    assert "unable to open database file" in str(error)
    assert str(tmp_path) in str(error)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text("something else, and long enough to be looked at" * 20)
    assert "file is not a database" in str(failure(f"sqlite:///{tmp_path / 'a.db'}"))


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    archive = Archive(options_of(f"sqlite:///{path}"))
    archive.open()
    archive.close()
    # Permissions would not stop root, who may be running this.
    error = failure(f"sqlite:///file:{path}?mode=ro&uri=true")
    assert "attempt to write a readonly database" in str(error)


def test_a_file_is_for_its_owner(tmp_path: Path) -> None:
    archive = Archive(options_of(f"sqlite:///{tmp_path / 'a.db'}"))
    archive.open()
    write(archive, new_session("s"))
    assert {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()
    } == dict.fromkeys(("a.db", "a.db-wal", "a.db-shm"), 384)
    archive.close()


def test_a_server_that_cannot_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = failure(f"postgresql://u:{SECRET}@127.0.0.1:{port}/db")
    assert error.exit_status == 1
    assert f"postgresql://u:[REDACTED]@127.0.0.1:{port}/db" in str(error)
    assert "refused" in str(error)


def test_a_database_that_is_not_there(postgres: PostgresServer) -> None:
    url = postgres.url().replace("/postgres?", "/another?").replace("//postgres@", f"//u:{SECRET}@")
    assert 'role "u" does not exist' in str(failure(url))


@pytest.mark.parametrize(("durability", "on"), [("commit", "on"), ("delayed", "off")])
def test_sessions_of_the_server(postgres: PostgresServer, durability: str, on: str) -> None:
    database = Database(options_of(postgres.url(), durability=durability, lease=9.0))
    with database.transaction() as connection:
        shown = [
            connection.exec_driver_sql(f"SHOW {name}").scalar()
            for name in (
                "synchronous_commit",
                "lock_timeout",
                "idle_in_transaction_session_timeout",
                "transaction_isolation",
                "application_name",
            )
        ]
    database.close()
    assert shown == [on, "3s", "9s", "read committed", "snakepit-worker"]


@pytest.mark.parametrize(("durability", "level"), [("commit", 2), ("delayed", 1)])
def test_durability_of_a_file(tmp_path: Path, durability: str, level: int) -> None:
    database = Database(options_of(f"sqlite:///{tmp_path / 'a.db'}", durability=durability))
    with database.transaction() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == level
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    database.close()


def test_what_the_database_refuses_is_told_from_what_may_pass(url: str) -> None:
    database = Database(options_of(url))
    with database.transaction() as connection:
        connection.exec_driver_sql("CREATE TABLE x (a INTEGER CHECK (a < 5))")
    with (
        pytest.raises(WorkerError, match="refused") as caught,
        database.transaction() as connection,
    ):
        connection.exec_driver_sql("INSERT INTO x VALUES (7)")
    assert not isinstance(caught.value, Unavailable)
    assert not caught.value.retryable
    database.close()


def test_a_file_that_another_holds_may_be_free_later(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    first, second = Database(options_of(url)), Database(options_of(url, lease=0.03))
    with (
        first.transaction(),
        pytest.raises(Unavailable, match="database is locked"),
        second.transaction(),
    ):
        pytest.fail("two writers at once")
    for database in (first, second):
        database.close()


def test_a_file_is_switched_to_its_log_when_others_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite does not wait here by itself."""
    path = tmp_path / "a.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            other.execute("COMMIT")

    monkeypatch.setattr("snakepit_worker.archive.engine.time.sleep", sleep)
    database = Database(options_of(f"sqlite:///{path}"))
    with database.transaction() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    assert len(pauses) == 2
    database.close()
    other.close()


def test_an_archive_stays_what_it_is(open_archive: Callable[..., Archive]) -> None:
    write(open_archive("a"), new_session("s", resource("basket-1")))
    assert open_archive("b").find("basket-1") == "s"


def test_many_workers_may_be_the_first(url: str, sql: Callable[..., list[Any]]) -> None:
    failures: list[BaseException] = []
    together = threading.Barrier(8, timeout=LIMIT)

    def start(number: int) -> None:
        try:
            archive = Archive(options_of(url, str(number)))
            together.wait()
            archive.open()
            archive.close()
        except BaseException as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=start, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert failures == []
    assert sql("SELECT id, version FROM snakepit_archive") == [(1, 1)]
    assert sql("SELECT count(*) FROM snakepit_workers") == [(8,)]


def test_an_archive_of_a_later_version(
    open_archive: Callable[..., Archive], url: str, sql: Callable[..., list[Any]]
) -> None:
    open_archive()
    sql("UPDATE snakepit_archive SET version = 7")
    assert "the archive has schema 7" in str(failure(url))
    assert sql("SELECT version FROM snakepit_archive") == [(7,)]


def test_an_older_archive_takes_the_steps_that_it_lacks(
    url: str, open_archive: Callable[..., Archive], sql: Callable[..., list[Any]]
) -> None:
    open_archive()
    taken: list[str] = []

    def add_column(connection: sqlalchemy.Connection) -> None:
        taken.append("add")
        connection.exec_driver_sql("ALTER TABLE snakepit_sessions ADD COLUMN more TEXT")

    def fill_column(connection: sqlalchemy.Connection) -> None:
        taken.append("fill")
        connection.exec_driver_sql("UPDATE snakepit_sessions SET more = 'x'")

    database = Database(options_of(url))
    for _ in range(2):
        with database.transaction() as connection:
            migrate(connection, (METADATA.create_all, add_column, fill_column))
    assert taken == ["add", "fill"]
    assert sql("SELECT version FROM snakepit_archive") == [(3,)]
    assert sql("SELECT more FROM snakepit_sessions") == []
    database.close()


def test_a_new_archive_takes_no_steps(url: str, sql: Callable[..., list[Any]]) -> None:
    database = Database(options_of(url))
    with database.transaction() as connection:
        migrate(connection, (METADATA.create_all, lambda _: pytest.fail("an old step")))
    assert sql("SELECT version FROM snakepit_archive") == [(2,)]
    database.close()


def test_a_migration_that_fails_leaves_nothing(url: str) -> None:
    def fail(_connection: sqlalchemy.Connection) -> None:
        raise RuntimeError

    def make_and_fail(connection: sqlalchemy.Connection) -> None:
        METADATA.create_all(connection)
        fail(connection)

    database = Database(options_of(url))
    with pytest.raises(RuntimeError), database.transaction() as connection:
        migrate(connection, (make_and_fail,))
    with database.transaction() as connection:
        assert sqlalchemy.inspect(connection).get_table_names() == []
    database.close()
