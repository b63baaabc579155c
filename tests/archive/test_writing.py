"""Changes of many sessions in one transaction, each guarded by its fence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from snakepit_worker.archive.model import Change
from snakepit_worker.archive.records import pack
from snakepit_worker.errors import Conflict, NotFound
from tests.archive.conftest import new_session, resource, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from snakepit_worker.archive.database import Archive
    from snakepit_worker.archive.model import End


@pytest.fixture
def archive(open_archive: Callable[..., Archive]) -> Archive:
    return open_archive()


def held(archive: Archive, session_id: str = "s") -> dict[str, object]:
    """Recipes by handle, of a session that this worker then holds under another fence."""
    session = archive.claim(session_id)
    assert session is not None
    return {r.handle: r.recipe for r in session.resources}


def test_a_change_puts_replaces_and_removes(archive: Archive) -> None:
    write(archive, new_session("s", resource("a"), resource("b"), resource("c")))
    change = Change(
        session_id="s",
        fence="first",
        put=(resource("d"), resource("a", {"of": "another"}, name="first", size=7)),
        remove=("b", "never there"),
    )
    assert write(archive, change) == [2]
    session = archive.claim("s")
    assert session is not None
    assert session.resources == (
        resource("a", {"of": "another"}, name="first", size=7),
        resource("c"),
        resource("d"),
    ), "in the order in which they were first saved"


def test_metadata_stays_until_it_is_replaced(archive: Archive) -> None:
    def metadata() -> object:
        session = archive.claim("s")
        assert session is not None
        write(archive, Change(session_id="s", fence=session.fence, end="release"))
        return session.metadata

    write(archive, new_session("s"))
    assert write(archive, Change(session_id="s", fence="first", metadata={"a": 1})) == [2]
    assert write(archive, Change(session_id="s", fence="first", put=(resource("a"),))) == [3]
    write(archive, Change(session_id="s", fence="first", end="release"))
    assert metadata() == {"a": 1}
    session = archive.claim("s")
    assert session is not None
    write(archive, Change(session_id="s", fence=session.fence, metadata={}, end="release"))
    assert metadata() == {}


def test_a_session_is_deleted_with_all_that_it_holds(
    archive: Archive, sql: Callable[..., list[Any]]
) -> None:
    write(archive, new_session("s", resource("a")), new_session("t", resource("b")))
    assert write(archive, Change(session_id="s", fence="first", end="delete")) == [2]
    assert archive.claim("s") is None
    assert sql("SELECT handle FROM snakepit_resources") == [("b",)]


def test_a_stale_writer_loses_and_harms_nobody(
    open_archive: Callable[..., Archive], end_lease: Callable[[str], None]
) -> None:
    first, second = open_archive("a"), open_archive("b")
    write(first, new_session("r"), new_session("s", resource("a")), new_session("t"))
    end_lease("a")
    assert second.claim("s") is not None
    ends: list[tuple[str, End | None]] = [
        ("r", None),
        ("s", "delete"),
        ("t", None),
        ("s", "release"),
    ]
    changes = [
        Change(
            session_id=session_id,
            fence="first",
            put=(resource(f"{session_id}-2"),),
            remove=("a",),
            metadata={"late": True},
            end=end,
        )
        for session_id, end in ends
    ]
    outcomes = first.write([pack(change, 1 << 20) for change in changes])
    assert [o for o in outcomes if isinstance(o, int)] == [2, 2]
    for outcome in outcomes[1], outcomes[3]:
        assert isinstance(outcome, Conflict)
        assert str(outcome) == f"session 's' lives on worker 'b' of {outcome.details['host']}"
    session = second.claim("s")
    assert session is not None
    assert session.metadata == {}
    assert [r.handle for r in session.resources] == ["a"]
    assert second.find("t-2") == "t"


def test_a_session_that_is_gone_does_not_come_back(archive: Archive) -> None:
    (outcome,) = archive.write([pack(Change(session_id="s", fence="first"), 100)])
    assert isinstance(outcome, NotFound)
    assert str(outcome) == "session 's' is no longer in the archive"
    assert archive.claim("s") is None


def test_a_fence_is_void_after_the_release(archive: Archive) -> None:
    write(archive, new_session("s", end="release"))
    (outcome,) = archive.write([pack(Change(session_id="s", fence="first"), 100)])
    assert isinstance(outcome, Conflict)
    assert str(outcome) == "session 's' is no longer held by this worker"


def test_one_of_two_that_begin_the_same_session_wins(open_archive: Callable[..., Archive]) -> None:
    first, second = open_archive("a"), open_archive("b")
    assert write(first, new_session("s", resource("a"), fence="1")) == [1]
    (failure,) = write(second, new_session("s", resource("b"), fence="2"))
    assert "lives on worker 'a'" in str(failure)
    assert list(held(first)) == ["a"]


def test_doing_it_again_is_harmless(archive: Archive) -> None:
    """After a connection is lost nobody knows whether the commit came through."""
    first = new_session("s", resource("a"), metadata={"x": 1})
    second = Change(session_id="s", fence="first", put=(resource("b"),), remove=("a",))
    last = Change(session_id="s", fence="first", end="delete")
    assert write(archive, first) == [1]
    assert write(archive, first) == [2]
    assert write(archive, second) == [3]
    assert write(archive, second) == [4]
    assert archive.find("a") is None
    assert write(archive, last) == [5]
    assert write(archive, last) == [0], "it is gone, which is what was asked for"


def test_changes_of_one_session_in_one_group_are_made_in_their_order(archive: Archive) -> None:
    outcomes = write(
        archive,
        new_session("s", resource("a"), resource("b")),
        Change(session_id="s", fence="first", put=(resource("a", {"x": 2}),), metadata={"n": 1}),
        new_session("t"),
        Change(session_id="s", fence="first", remove=("b",), put=(resource("c"),)),
        Change(session_id="s", fence="first", put=(resource("b", {"x": 3}),), metadata={"n": 2}),
    )
    assert outcomes == [1, 1, 1, 1, 1], "one transaction, one version"
    session = archive.claim("s")
    assert session is not None
    assert session.metadata == {"n": 2}
    assert {r.handle: r.recipe for r in session.resources} == {
        "a": {"x": 2},
        "b": {"x": 3},
        "c": {"of": "c"},
    }


def test_a_session_may_end_and_begin_in_one_group(archive: Archive) -> None:
    write(archive, new_session("s", resource("a")))
    outcomes = write(
        archive,
        Change(session_id="s", fence="first", put=(resource("b"),)),
        Change(session_id="s", fence="first", end="delete"),
        Change(session_id="s", fence="first", put=(resource("c"),)),
        new_session("s", resource("d"), fence="second"),
        Change(session_id="s", fence="second", put=(resource("e"),)),
    )
    assert outcomes == [2, 2, "session 's' is no longer in the archive", 1, 1]
    assert list(held(archive)) == ["d", "e"]


def test_a_hundred_sessions_in_one_group(archive: Archive) -> None:
    changes = [new_session(f"s{i}", resource(f"r{i}")) for i in range(100)]
    assert write(archive, *changes) == [1] * 100
    assert archive.totals().resources == 100
    assert archive.find("r57") == "s57"


def test_nothing_to_write(archive: Archive) -> None:
    assert archive.write([]) == []
