"""Rows that somebody or something has damaged."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.archive.conftest import new_session, resource, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from snakepit_worker.archive.database import Archive
    from snakepit_worker.archive.model import SavedSession


@pytest.fixture
def claim(open_archive: Callable[..., Archive]) -> Callable[[], SavedSession]:
    """Claims a session of two resources that was just released."""
    archive = open_archive()
    write(
        archive,
        new_session("s", resource("bad"), resource("good"), metadata={"x": 1}, end="release"),
    )

    def claim_it() -> SavedSession:
        session = archive.claim("s")
        assert session is not None
        return session

    return claim_it


@pytest.mark.parametrize("recipe", ['{"of": "ba', "[1, 2]", "", "null", '"\\ud800"', "[" * 100_000])
def test_a_recipe_that_cannot_be_read_is_listed_as_lost(
    recipe: str,
    claim: Callable[[], SavedSession],
    sql: Callable[..., list[Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    sql("UPDATE snakepit_resources SET recipe = :recipe WHERE handle = 'bad'", recipe=recipe)
    bad, good = claim().resources
    assert (bad.handle, bad.kind, bad.recipe) == ("bad", "shop.basket", None)
    assert bad.lost is not None
    assert bad.lost.startswith("its row in the archive is corrupt: ")
    assert good == resource("good")
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (
        logging.WARNING,
        "the archive holds a corrupt resource",
    )
    assert (vars(record)["session_id"], vars(record)["handle"]) == ("s", "bad")


@pytest.mark.parametrize("table", ["snakepit_sessions", "snakepit_resources"])
def test_metadata_that_cannot_be_read_is_left_out(
    table: str,
    claim: Callable[[], SavedSession],
    sql: Callable[..., list[Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    sql(f"UPDATE {table} SET metadata = '[1'")  # noqa: S608 - a parameter of this test
    session = claim()
    assert session.metadata == ({} if table == "snakepit_sessions" else {"x": 1})
    assert [r.recipe for r in session.resources] == [{"of": "bad"}, {"of": "good"}]
    assert {r.getMessage() for r in caplog.records} == {"the archive holds corrupt metadata"}


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("value", ["'text'", "x'00ff'", "CAST(x'7b22ff227d' AS TEXT)"])
@pytest.mark.parametrize("column", ["recipe", "metadata", "created_at", "size", "kind", "name"])
def test_sqlite_takes_any_type_in_any_column(
    column: str,
    value: str,
    claim: Callable[[], SavedSession],
    sql: Callable[..., list[Any]],
) -> None:
    change = f"UPDATE snakepit_resources SET {column} = {value}"  # noqa: S608 - parameters above
    sql(f"{change} WHERE handle = 'bad'")
    bad, good = claim().resources
    assert bad.handle == "bad"
    assert good == resource("good")


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("column", ["version", "created_at"])
def test_a_session_with_damaged_numbers(
    column: str,
    claim: Callable[[], SavedSession],
    sql: Callable[..., list[Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    sql(f"UPDATE snakepit_sessions SET {column} = 'text'")  # noqa: S608 - a parameter above
    session = claim()
    assert (session.version, session.created_at) == (1, 0.0)
    assert len(session.resources) == 2
    assert [r.getMessage() for r in caplog.records] == ["the archive holds a corrupt session"]
    assert claim().version == 2 if column == "version" else 1
