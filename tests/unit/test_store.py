"""All sessions of a worker: opened by use, expired when idle, bounded in number."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from snakepit_worker.errors import Conflict, NotFound, ResourceExhausted
from snakepit_worker.sessions import Ended, Limits, SessionStore
from tests.conftest import Clock

LIMIT = 20.0


@pytest.fixture
def clock() -> Clock:
    return Clock(100.0)


@pytest.fixture
def store(clock: Clock) -> SessionStore:
    return SessionStore(Limits(max_sessions=3, max_resources=2, ttl=60.0), clock)


def ids(store: SessionStore) -> list[str]:
    return [session.id for session in store.sessions()]


def expired(store: SessionStore) -> list[str]:
    ended = store.expire()
    assert all(session.reason == "idle" for session in ended)
    return [session.session_id for session in ended]


def test_a_session_begins_with_its_first_use(store: SessionStore) -> None:
    assert "a" not in store
    session = store.open("a")
    assert store.open("a") is session is store.get("a")
    assert "a" in store
    assert len(store) == 1


def test_an_unknown_session(store: SessionStore) -> None:
    with pytest.raises(NotFound, match="no session 'a' in this worker") as caught:
        store.get("a")
    assert caught.value.details == {"session_id": "a"}
    assert store.close("a") is None
    assert len(store) == 0


def test_looking_is_no_use(store: SessionStore) -> None:
    for session_id in "abc":
        store.open(session_id)
    store.get("a")
    assert ids(store) == ["a", "b", "c"]
    store.open("a")
    assert ids(store) == ["b", "c", "a"]


def test_a_call_counts_and_ends(store: SessionStore) -> None:
    session = store.enter("a")
    assert store.enter("a") is session
    assert session.calls == 2
    store.leave(session)
    store.leave(session)
    assert session.calls == 0
    assert "a" in store


def test_a_call_without_a_session_gets_one_that_ends_with_it(store: SessionStore) -> None:
    closed: list[int] = []
    session = store.enter("")
    assert store.enter("") is not session
    session.put("a.x", None, close=lambda: closed.append(1))
    assert len(store) == 0
    store.leave(session)
    assert closed == [1]


def test_a_session_takes_the_limit_of_the_store(store: SessionStore) -> None:
    for session in (store.open("a"), store.enter("")):
        session.put("a.x", None)
        session.put("a.x", None)
        with pytest.raises(ResourceExhausted):
            session.put("a.x", None)


def test_beyond_the_limit_the_one_unused_for_longest_goes(store: SessionStore) -> None:
    closed: list[str] = []
    for session_id in "abc":
        store.open(session_id).put("a.x", None, close=partial(closed.append, session_id))
    store.open("a")
    store.open("d")
    assert (ids(store), closed) == (["c", "a", "d"], ["b"])


def test_sessions_in_use_are_not_evicted(store: SessionStore) -> None:
    first = store.enter("a")
    store.open("b")
    store.enter("c")
    store.open("d")
    assert ids(store) == ["a", "c", "d"]
    store.enter("d")
    with pytest.raises(
        ResourceExhausted, match="its limit of 3 sessions, all of them in use"
    ) as caught:
        store.enter("e")
    assert caught.value.details == {"max_sessions": 3}
    assert caught.value.retry_after is not None
    assert store.enter("a") is first, "a session that is there needs no room"
    store.leave(first)
    store.leave(first)
    store.enter("e")
    assert "a" not in store


@pytest.mark.parametrize(("idle", "stays"), [(59.9, True), (60.0, False), (1000.0, False)])
def test_idle_sessions_expire(store: SessionStore, clock: Clock, idle: float, stays: bool) -> None:  # noqa: FBT001 - a row of the table
    closed: list[int] = []
    store.open("a").put("a.x", None, close=lambda: closed.append(1))
    clock.now += idle
    assert expired(store) == ([] if stays else ["a"])
    assert ("a" in store) == stays
    assert closed == ([] if stays else [1])


def test_use_keeps_a_session_alive(store: SessionStore, clock: Clock) -> None:
    store.open("a")
    store.open("b")
    clock.now += 40
    store.open("a")
    clock.now += 40
    assert expired(store) == ["b"]


def test_a_call_keeps_its_session_alive_however_long_it_takes(
    store: SessionStore, clock: Clock
) -> None:
    session = store.enter("a")
    store.open("b")
    clock.now += 1000
    assert expired(store) == ["b"]
    store.leave(session)
    assert expired(store) == []
    clock.now += 60
    assert expired(store) == ["a"]


def test_closing_a_session_during_a_call(store: SessionStore) -> None:
    session = store.enter("a")
    session.put("a.x", None)
    ended = store.close("a")
    assert ended is not None
    assert (ended.reason, ended.released) == ("closed", {"a.x": 1})
    again = store.enter("a")
    assert again is not session
    store.leave(session)
    assert store.get("a") is again
    assert again.calls == 1


def test_closing_all_goes_from_the_youngest_to_the_oldest(store: SessionStore) -> None:
    closed: list[str] = []
    for session_id in "abc":
        session = store.open(session_id)
        for number in "12":
            session.put("a.x", None, close=partial(closed.append, session_id + number))
    assert [ended.session_id for ended in store.close_all()] == ["c", "b", "a"]
    assert closed == ["c2", "c1", "b2", "b1", "a2", "a1"]
    assert len(store) == 0
    assert store.close_all() == []


def test_closers_run_without_the_lock(store: SessionStore, clock: Clock) -> None:
    """However a session goes, others can be opened while its closers run."""
    opened: list[bool] = []

    def close() -> None:
        other = threading.Thread(target=store.open, args=("other",))
        other.start()
        other.join(LIMIT)
        opened.append(not other.is_alive())
        store.close("other")

    for session_id in ("closed", "expired", "evicted"):
        store.open(session_id).put("a.x", None, close=close)
    store.close("closed")
    clock.now += 30
    store.open("evicted")
    clock.now += 30
    assert expired(store) == ["expired"]
    store.open("x")
    store.open("y")
    store.open("z")
    assert opened == [True, True, True]


def test_one_session_however_many_ask_for_it(store: SessionStore) -> None:
    barrier = threading.Barrier(4)
    found: list[object] = []

    def work() -> None:
        barrier.wait(LIMIT)
        for _ in range(100):
            session = store.enter("a")
            found.append(session)
            store.leave(session)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert len(found) == 400
    assert len({id(session) for session in found}) == 1
    assert store.get("a").calls == 0


# --- Bytes ----------------------------------------------------------------------------------------


@pytest.fixture
def ended() -> list[Ended]:
    return []


@pytest.fixture
def small(clock: Clock, ended: list[Ended]) -> SessionStore:
    return SessionStore(Limits(max_bytes=100), clock, ended=ended.append)


def test_bytes_are_counted_wherever_they_come_and_go(small: SessionStore) -> None:
    session = small.open("a")
    first = session.put("a.x", None, size=30)
    session.put("a.x", None, size=10, name="n")
    assert (session.size, small.size) == (40, 40)
    session.put("a.x", None, size=20, name="n", replace=True)
    assert (session.size, small.size) == (50, 50)
    with pytest.raises(Conflict):
        session.put("a.x", None, size=20, name="n")
    session.release(first.handle)
    assert (session.size, small.size) == (20, 20)
    anonymous = small.enter("")
    anonymous.put("a.x", None, size=50)
    assert small.size == 70
    small.leave(anonymous)
    small.close("a")
    assert (session.size, small.size) == (0, 0)


def test_beyond_the_bytes_idle_sessions_go(small: SessionStore, ended: list[Ended]) -> None:
    small.open("empty")
    for session_id in "abc":
        small.open(session_id).put("a.x", None, size=30)
    busy = small.enter("a")
    small.open("d").put("a.x", None, size=50)
    assert ids(small) == ["empty", "a", "d"]
    assert [(e.session_id, e.reason, e.size) for e in ended] == [
        ("b", "too many bytes", 30),
        ("c", "too many bytes", 30),
    ]
    assert small.size == 80
    small.leave(busy)


def test_bytes_that_nothing_makes_room_for(small: SessionStore, ended: list[Ended]) -> None:
    small.enter("a").put("a.x", None, size=60)
    session = small.enter("b")
    with pytest.raises(ResourceExhausted, match="hold 60 of at most 100 bytes, and 50") as caught:
        session.put("a.x", None, size=50)
    assert caught.value.details == {"max_bytes": 100, "size": 50}
    assert (small.size, len(session), ended) == (60, 0, [])
    with pytest.raises(ResourceExhausted):
        small.open("c").put("a.x", None, size=101)


def test_why_a_session_ended_is_told(clock: Clock, ended: list[Ended]) -> None:
    store = SessionStore(Limits(max_sessions=2, ttl=60.0), clock, ended=ended.append)
    for session_id in "abc":
        store.open(session_id)
        clock.now += 40
    store.expire()
    store.close("c")
    store.open("d")
    store.leave(store.enter(""))
    store.close_all()
    assert [(e.session_id, e.reason) for e in ended] == [
        ("a", "too many sessions"),
        ("b", "idle"),
        ("c", "closed"),
        ("d", "shutdown"),
    ]
