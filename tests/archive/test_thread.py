"""The archive's thread: groups, bounds, durability, the lease, and closing."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any

import pytest

from snakepit_worker.archive.database import Archive
from snakepit_worker.archive.model import Change, new_fence
from snakepit_worker.archive.thread import ArchiveThread
from snakepit_worker.errors import (
    Conflict,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    SerializationError,
    StartError,
    Unavailable,
    WorkerError,
)
from tests.archive.conftest import LIMIT, new_session, options_of, resource, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from snakepit_worker.archive.records import PackedChange


@pytest.fixture
def start(url: str) -> Iterator[Callable[..., ArchiveThread]]:
    """Starts an archive's thread, as some worker."""
    started: list[ArchiveThread] = []

    def start_it(worker_id: str = "a", *, on_lost: Any = None, **options: Any) -> ArchiveThread:
        thread = ArchiveThread(options_of(url, worker_id, **options), on_lost or (lambda _: None))
        started.append(thread)
        thread.start().result(LIMIT)
        return thread

    yield start_it
    for thread in started:
        thread.close(LIMIT)


class Hold:
    """Holds up the writes of all archives, and remembers them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.groups: list[list[str]] = []
        self.arrived = threading.Event()
        self.free = threading.Event()
        original = Archive.write

        def write(archive: Archive, changes: Sequence[PackedChange]) -> list[int | WorkerError]:
            self.groups.append([change.session_id for change in changes])
            self.arrived.set()
            assert self.free.wait(LIMIT)
            return original(archive, changes)

        monkeypatch.setattr(Archive, "write", write)


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hold]:
    held = Hold(monkeypatch)
    yield held
    held.free.set()


def test_sqlalchemy_is_loaded_by_the_thread(tmp_path: Path) -> None:
    program = f"""
import sys, threading
from snakepit_worker.archive.options import ArchiveOptions
from snakepit_worker.archive.owner import Owner
from snakepit_worker.archive.thread import ArchiveThread
assert "sqlalchemy" not in sys.modules and "psycopg" not in sys.modules
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "sqlalchemy":
            print(threading.current_thread().name)
sys.meta_path.insert(0, Watch())
archive = ArchiveThread(ArchiveOptions(url="sqlite:///{tmp_path / "a.db"}", owner=Owner.here("a")))
archive.start().result()
assert archive.close(10)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=LIMIT
    )
    assert done.stdout == "archive\n"


@pytest.mark.parametrize("missing", ["sqlalchemy", "psycopg"])
def test_a_package_that_is_missing(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules]:
        if name.startswith(("snakepit_worker.archive.", f"{missing}.")) or name == missing:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    thread = ArchiveThread(options_of("postgresql://u@127.0.0.1:1/x"))
    with pytest.raises(
        StartError, match=rf"needs {missing}: install snakepit-worker\[archive\]"
    ) as caught:
        thread.start().result(LIMIT)
    assert caught.value.exit_status == 1


def test_an_archive_that_cannot_be_opened(tmp_path: Path) -> None:
    thread = ArchiveThread(options_of(f"sqlite:///{tmp_path / 'none' / 'a.db'}"))
    early = thread.claim("s")
    with pytest.raises(StartError, match="unable to open database file"):
        thread.start().result(LIMIT)
    for future in early, thread.claim("s"):
        with pytest.raises(Unavailable):
            future.result(LIMIT)
    assert thread.close(LIMIT)


def test_a_thread_that_was_never_started(tmp_path: Path) -> None:
    thread = ArchiveThread(options_of(f"sqlite:///{tmp_path / 'a.db'}"))
    waiting = thread.claim("s")
    assert not thread.is_owner
    assert thread.close(LIMIT)
    with pytest.raises(Unavailable, match="the archive is closing"):
        waiting.result(0)


def test_a_write_is_there_when_its_future_is_done(
    start: Callable[..., ArchiveThread], open_archive: Callable[..., Archive]
) -> None:
    thread, other = start(), open_archive("b")
    assert thread.is_owner
    written = thread.write(new_session("s", resource("basket-1"))).result(LIMIT)
    assert (written.version, written.lost) == (1, {})
    assert other.find("basket-1") == "s"
    written = thread.write(
        Change(session_id="s", fence="first", put=(resource("lm-1", {"api_key": "x"}),))
    ).result(LIMIT)
    assert written.version == 2
    assert list(written.lost) == ["lm-1"]
    assert thread.find("basket-1").result(LIMIT) == "s"
    assert [s.session_id for s in thread.sessions(5).result(LIMIT)] == ["s"]
    assert thread.totals().result(LIMIT).resources == 2


def test_sessions_go_from_thread_to_thread(start: Callable[..., ArchiveThread]) -> None:
    first, second = start("a"), start("b")
    fence = new_fence()
    first.write(new_session("s", resource("basket-1"), fence=fence)).result(LIMIT)
    with pytest.raises(Conflict, match="lives on worker 'a'"):
        second.claim("s").result(LIMIT)
    assert second.claim("unknown").result(LIMIT) is None
    first.write(Change(session_id="s", fence=fence, end="release")).result(LIMIT)
    session = second.claim("s").result(LIMIT)
    assert session is not None
    assert session.resources == (resource("basket-1"),)
    with pytest.raises(Conflict, match="lives on worker 'b'"):
        first.write(Change(session_id="s", fence=fence)).result(LIMIT)
    assert second.close(LIMIT)
    assert first.claim("s").result(LIMIT) is not None


def test_what_cannot_be_saved_fails_alone(start: Callable[..., ArchiveThread], hold: Hold) -> None:
    thread = start(max_recipe=100)
    first = thread.write(new_session("s"))
    assert hold.arrived.wait(LIMIT)
    good = thread.write(new_session("t"))
    bad: list[tuple[Future[Any], type[WorkerError]]] = [
        (thread.write(new_session("x\0")), InvalidArgument),
        (thread.write(new_session("u", resource("r", {"x": b""}))), SerializationError),
        (thread.write(new_session("u", resource("r", {"x": "y" * 100}))), ResourceExhausted),
        (thread.write(Change(session_id="v", fence="f")), NotFound),
        (thread.claim("x\0"), InvalidArgument),
        (thread.find(""), InvalidArgument),
    ]
    hold.free.set()
    assert first.result(LIMIT).version == good.result(LIMIT).version == 1
    for future, error in bad:
        assert type(future.exception(LIMIT)) is error
    assert hold.groups == [["s"], ["t", "v"]]


def test_what_came_during_a_commit_goes_together(
    start: Callable[..., ArchiveThread], hold: Hold
) -> None:
    thread = start()
    futures = [thread.write(new_session("s0"))]
    assert hold.arrived.wait(LIMIT)
    futures += [thread.write(new_session(f"s{i}")) for i in range(1, 6)]
    claim = thread.claim("s3")
    futures.append(thread.write(new_session("s6")))
    hold.free.set()
    assert [future.result(LIMIT).version for future in futures] == [1] * 7
    assert hold.groups == [["s0"], [f"s{i}" for i in range(1, 6)], ["s6"]]
    session = claim.result(LIMIT)
    assert session is not None
    assert session.session_id == "s3"


def test_a_write_cannot_be_cancelled_a_question_can(
    start: Callable[..., ArchiveThread], hold: Hold, open_archive: Callable[..., Archive]
) -> None:
    thread, other = start(), open_archive("b")
    thread.write(new_session("s"))
    assert hold.arrived.wait(LIMIT)
    late, claim = thread.write(new_session("t", end="release")), thread.claim("t")
    assert not late.cancel()
    assert claim.cancel()
    hold.free.set()
    assert late.result(LIMIT).version == 1
    thread.totals().result(LIMIT)
    assert other.claim("t") is not None


def test_what_waits_is_bounded(start: Callable[..., ArchiveThread], hold: Hold) -> None:
    thread = start(max_waiting=3, max_waiting_bytes=100)
    running = thread.write(new_session("s"))
    assert hold.arrived.wait(LIMIT)
    large = thread.write(new_session("t", resource("r", {"x": "y" * 200})))
    refused = [thread.write(new_session("u", resource("r", {"x": 1})))]
    waiting: list[Future[Any]] = [thread.write(new_session("u")), thread.claim("none")]
    refused += [thread.write(new_session("v"))]
    hold.free.set()
    wait([running, large, *waiting], LIMIT)
    for future in refused:
        error = future.exception(0)
        assert isinstance(error, ResourceExhausted)
        assert error.retry_after is not None
        assert error.details["max_waiting"] == 3
        assert error.details["max_waiting_bytes"] == 100
    assert thread.write(new_session("v")).result(LIMIT).version == 1
    assert large.result(LIMIT).version == 1


def test_delayed_writes_are_answered_at_once_and_gathered(
    start: Callable[..., ArchiveThread], hold: Hold
) -> None:
    thread = start(durability="delayed")
    first = thread.write(new_session("s"))
    for i in range(3):
        put = (resource(f"r{i}", {"password": "x"}),)
        written = thread.write(Change(session_id="s", fence="first", put=put))
        assert written.result(0).version is None
        assert list(written.result(0).lost) == [f"r{i}"]
    assert not first.done(), "whether it may have the session only the archive knows"
    hold.free.set()
    assert first.result(LIMIT).version == 1
    assert thread.totals().result(LIMIT).resources == 3, "questions come after what was written"


def test_delayed_writes_that_lose_are_told_to_the_owner(
    start: Callable[..., ArchiveThread], open_archive: Callable[..., Archive], end_lease: Any
) -> None:
    lost: Future[dict[str, str]] = Future()
    thread, other = start(durability="delayed", on_lost=lost.set_result), open_archive("b")
    thread.write(new_session("s"))
    thread.totals().result(LIMIT)
    end_lease("a")
    assert other.claim("s") is not None
    assert thread.write(Change(session_id="s", fence="first")).result(0).version is None
    assert lost.result(LIMIT) == {"s": "first"}


def test_a_lost_session_is_told_once(
    start: Callable[..., ArchiveThread], open_archive: Callable[..., Archive], end_lease: Any
) -> None:
    lost: list[dict[str, str]] = []

    def on_lost(sessions: dict[str, str]) -> None:
        lost.append(sessions)
        raise RuntimeError

    thread, other = start(on_lost=on_lost), open_archive("b")
    for session_id in "stu":
        thread.write(new_session(session_id)).result(LIMIT)
    end_lease("a")
    assert other.claim("s") is not None
    for _ in range(2):
        with pytest.raises(Conflict):
            thread.write(Change(session_id="s", fence="first")).result(LIMIT)
    assert lost == [{"s": "first"}]
    assert thread.write(Change(session_id="t", fence="first")).result(LIMIT).version == 2


def test_the_lease_is_renewed_while_nothing_happens(
    start: Callable[..., ArchiveThread], monkeypatch: pytest.MonkeyPatch, sql: Any
) -> None:
    renewed = threading.Semaphore(0)
    renew = Archive.renew

    def counted(archive: Archive) -> Any:
        held = renew(archive)
        renewed.release()
        return held

    monkeypatch.setattr(Archive, "renew", counted)
    start(lease=0.3)
    ends = []
    for _ in range(4):
        assert renewed.acquire(timeout=LIMIT)
        ends += sql("SELECT expires_at FROM snakepit_workers")
    assert ends[-1] > ends[0]


def test_what_was_taken_while_the_lease_had_ended_is_found_out(
    start: Callable[..., ArchiveThread], open_archive: Callable[..., Archive], end_lease: Any
) -> None:
    lost: Future[dict[str, str]] = Future()
    thread, other = start(lease=0.3, on_lost=lost.set_result), open_archive("b")
    thread.write(new_session("s")).result(LIMIT)
    thread.write(new_session("t")).result(LIMIT)
    while True:  # until the claim comes before the next renewal
        end_lease("a")
        try:
            assert other.claim("s") is not None
        except Conflict:
            continue
        break
    assert lost.result(LIMIT) == {"s": "first"}
    assert thread.write(Change(session_id="t", fence="first")).result(LIMIT).version == 2


def test_old_sessions_are_deleted_by_and_by(
    start: Callable[..., ArchiveThread],
    open_archive: Callable[..., Archive],
    sql: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive = open_archive("b")
    write(archive, new_session("s", end="release"), new_session("t", end="release"))
    sql("UPDATE snakepit_sessions SET used_at = 0 WHERE session_id = 's'")
    expired: Future[list[str]] = Future()
    expire = Archive.expire
    monkeypatch.setattr(Archive, "expire", lambda self: expired.set_result(expire(self)))
    start(lease=0.3)  # it comes with the first renewal
    assert expired.result(LIMIT) == ["s"]
    assert [session.session_id for session in archive.sessions(5)] == ["t"]


def test_a_group_that_the_database_refuses_is_written_one_by_one(
    start: Callable[..., ArchiveThread], hold: Hold, sql: Any
) -> None:
    thread = start()
    first = thread.write(new_session("s"))
    assert hold.arrived.wait(LIMIT)
    rest = [thread.write(new_session(f"{i}", resource("r", size=i))) for i in (1, 2**63, 3)]
    hold.free.set()
    assert first.result(LIMIT).version == 1
    assert rest[0].result(LIMIT).version == rest[2].result(LIMIT).version == 1
    assert rest[1].exception(LIMIT) is not None
    assert sql("SELECT count(*) FROM snakepit_sessions") == [(3,)]


def test_closing_writes_what_waits_and_gives_everything_up(
    start: Callable[..., ArchiveThread], hold: Hold, open_archive: Callable[..., Archive]
) -> None:
    thread, other = start(), open_archive("b")
    thread.write(new_session("s"))
    assert hold.arrived.wait(LIMIT)
    waiting = thread.write(new_session("t"))
    closed: list[bool] = []
    closing = threading.Thread(target=lambda: closed.append(thread.close(LIMIT)))
    closing.start()
    hold.free.set()
    closing.join(LIMIT)
    assert closed == [True]
    assert waiting.result(0).version == 1
    for session_id in "st":
        session = other.claim(session_id)
        assert session is not None
        assert session.taken_from is None
    with pytest.raises(Unavailable, match="the archive is closing"):
        thread.write(new_session("u")).result(0)
    assert thread.close(0), "again"


def test_closing_does_not_wait_for_ever(start: Callable[..., ArchiveThread], hold: Hold) -> None:
    thread = start()
    running = thread.write(new_session("s"))
    assert hold.arrived.wait(LIMIT)
    waiting = thread.write(new_session("t")), thread.claim("x")
    assert not thread.close(0.05)
    for future in waiting:
        with pytest.raises(Unavailable, match="the archive is closing"):
            future.result(0)
    hold.free.set()
    assert running.result(LIMIT).version == 1
