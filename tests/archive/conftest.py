"""Archives in SQLite files and in a real PostgreSQL server, and a way to change what is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
import sqlalchemy

from snakepit_worker.archive.database import Archive
from snakepit_worker.archive.model import Change, SavedResource
from snakepit_worker.archive.options import ArchiveOptions
from snakepit_worker.archive.owner import Owner
from snakepit_worker.archive.records import pack
from snakepit_worker.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT: Final = 25.0
"""Seconds after which a test gives up.  No test passes or fails by a shorter time than this."""
LEASE: Final = 3_600.0
"""Seconds of a lease that no test outlives, unless it ends the lease itself."""


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
