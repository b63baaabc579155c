"""Sessions: resources by handle and by name, leased while in use, closed exactly once."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from snakepit_worker.errors import Conflict, InvalidArgument, NotFound, ResourceExhausted
from snakepit_worker.sessions import Ended, Limits, Resource, Session, SessionStore
from snakepit_worker.sessions.resources import new_handle

if TYPE_CHECKING:
    from collections.abc import Callable

    from snakepit_worker.sessions.leases import Waiter

LIMIT = 20.0


class Closer:
    """Counts how often it was called."""

    def __init__(self, order: list[Closer] | None = None) -> None:
        self.closed = 0
        self._order = order

    def __call__(self) -> None:
        self.closed += 1
        if self._order is not None:
            self._order.append(self)


@pytest.fixture
def session() -> Session:
    return Session("s1")


def test_a_resource_is_found_by_handle_and_by_name(session: Session) -> None:
    value = object()
    resource = session.put("shop.basket", value, name="mine", metadata={"a": 1})
    assert resource.value is value
    assert session.get(resource.handle) is session.get("mine") is resource
    assert session.get("mine", "shop.basket") is resource
    assert (resource.kind, resource.name, resource.metadata) == ("shop.basket", "mine", {"a": 1})
    assert len(session) == 1


def test_handles_are_readable_unique_and_long(session: Session) -> None:
    handles = {session.put("shop.basket", None).handle for _ in range(100)}
    assert len(handles) == 100
    for handle in handles:
        kind, _, random_part = handle.partition("-")
        assert kind == "basket"
        assert len(random_part) == 24
    assert new_handle("plain").startswith("plain-")


def test_resources_are_listed_oldest_first_and_by_kind(session: Session) -> None:
    first = session.put("a.x", 1)
    second = session.put("a.y", 2)
    third = session.put("a.x", 3)
    assert session.resources() == [first, second, third]
    assert session.resources("a.x") == [first, third]
    assert session.resources("a.z") == []


def test_another_kind_is_an_error_that_names_both(session: Session) -> None:
    handle = session.put("a.x", 1).handle
    for look in (session.get, lambda *a: session.lease(*a).__enter__()):
        with pytest.raises(InvalidArgument, match=r"is a a\.x, expected a a\.y") as caught:
            look(handle, "a.y")
        assert caught.value.details == {"kind": "a.x", "expected": "a.y"}
    assert session.resources()[0].leases == 0


def test_an_unknown_reference_is_told_its_neighbours(session: Session) -> None:
    session.put("a.x", 1, name="basket")
    with pytest.raises(NotFound, match=r"has no resource 'baskett'; did you mean basket\?"):
        session.get("baskett")
    with pytest.raises(NotFound, match=r"has no resource 'zzz'$") as caught:
        session.release("zzz")
    assert caught.value.details == {"reference": "zzz", "near": []}


def test_a_released_reference_says_so(session: Session) -> None:
    handle = session.put("a.x", 1).handle
    session.release(handle)
    for look in (session.get, session.release):
        with pytest.raises(NotFound, match="was released") as caught:
            look(handle)
        assert caught.value.details["released"] is True


def test_only_so_many_released_handles_are_remembered(session: Session) -> None:
    handles = [session.put("a.x", number).handle for number in range(300)]
    for handle in handles:
        session.release(handle)
    with pytest.raises(NotFound, match="was released"):
        session.get(handles[-1])
    with pytest.raises(NotFound, match="has no resource"):
        session.get(handles[0])


def test_releasing_closes_once(session: Session) -> None:
    closer = Closer()
    resource = session.put("a.x", 1, name="n", close=closer)
    assert session.release("n") is resource
    assert closer.closed == 1
    assert len(session) == 0
    session.put("a.x", 2, name="n")
    assert len(session.close()[0]) == 1
    assert closer.closed == 1


def test_a_name_can_be_taken_once(session: Session) -> None:
    closer = Closer()
    first = session.put("a.x", 1, name="n", close=closer)
    with pytest.raises(Conflict, match="already has a resource named 'n'") as caught:
        session.put("a.x", 2, name="n")
    assert caught.value.retryable is False
    assert session.get("n") is first
    assert (len(session), closer.closed) == (1, 0)


def test_a_name_can_be_taken_over(session: Session) -> None:
    closer = Closer()
    first = session.put("a.x", 1, name="n", close=closer)
    second = session.put("a.y", 2, name="n", replace=True)
    assert session.get("n") is second
    assert session.resources() == [second]
    assert closer.closed == 1
    with pytest.raises(NotFound, match="was released"):
        session.get(first.handle)
    assert session.put("a.x", 3, name="free", replace=True).name == "free"


def test_a_full_session_takes_no_more() -> None:
    session = Session("s1", max_resources=2)
    closer = Closer()
    session.put("a.x", 1, name="n")
    last = session.put("a.x", 2)
    with pytest.raises(ResourceExhausted, match="its limit of 2 resources") as caught:
        session.put("a.x", 3, close=closer)
    assert caught.value.details == {"max_resources": 2}
    assert closer.closed == 0, "it never became the session's"
    session.put("a.x", 4, name="n", replace=True)
    session.release(last.handle)
    session.put("a.x", 5)
    assert len(session) == 2


def test_closing_goes_from_the_youngest_to_the_oldest(session: Session) -> None:
    order: list[Closer] = []
    closers = [Closer(order) for _ in range(4)]
    for closer in closers:
        session.put("a.x", None, close=closer)
    assert len(session.close()[0]) == 4
    assert order == closers[::-1]
    assert len(session.close()[0]) == 0
    assert len(session) == 0


def test_a_closed_session_takes_nothing(session: Session) -> None:
    handle = session.put("a.x", 1).handle
    session.close()
    with pytest.raises(NotFound, match="is closed"):
        session.put("a.x", 2)
    with pytest.raises(NotFound):
        session.get(handle)


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1), KeyboardInterrupt()], ids=repr)
def test_a_closer_that_raises_does_not_stop_the_others(
    session: Session, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    order: list[Closer] = []
    outer, inner = Closer(order), Closer(order)

    def fail() -> NoReturn:
        raise error

    session.put("a.x", None, close=outer)
    failing = session.put("a.x", None, close=fail)
    session.put("a.x", None, close=inner)
    try:
        assert len(session.close()[0]) == 3
    except BaseException as caught:  # noqa: BLE001 - all kinds are under test
        pytest.fail(f"close() raised {caught!r}", pytrace=False)
    assert order == [inner, outer]
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "closing a resource failed" in record.getMessage()
    assert getattr(record, "handle", failing.handle) == failing.handle


# --- Leases ---------------------------------------------------------------------------------------


def test_a_lease_gives_the_value(session: Session) -> None:
    value = object()
    handle = session.put("a.x", value, name="n").handle
    with session.lease(handle) as by_handle, session.lease("n", "a.x") as by_name:
        assert by_handle is by_name is value
        assert session.get(handle).leases == 2
    assert session.get(handle).leases == 0


@pytest.mark.parametrize(
    "let_go",
    [
        pytest.param(lambda session: session.release("n"), id="release"),
        pytest.param(lambda session: session.close(), id="close"),
        pytest.param(lambda session: session.put("a.x", 2, name="n", replace=True), id="replace"),
    ],
)
def test_nothing_is_closed_under_a_lease_nor_twice(
    session: Session, let_go: Callable[[Session], object]
) -> None:
    closer = Closer()
    handle = session.put("a.x", 1, name="n", close=closer).handle
    with session.lease("n"), session.lease(handle):
        let_go(session)
        assert closer.closed == 0
        with pytest.raises(NotFound):  # gone at once for everybody else
            session.get(handle)
    assert closer.closed == 1
    session.close()
    assert closer.closed == 1


def test_a_lease_ends_when_its_block_fails(session: Session) -> None:
    closer = Closer()
    handle = session.put("a.x", 1, close=closer).handle

    def use() -> None:
        with session.lease(handle):
            session.release(handle)
            raise KeyError

    with pytest.raises(KeyError):
        use()
    assert closer.closed == 1


def test_closers_run_without_the_lock(session: Session) -> None:
    """A closer may use the session, and may be waited for by somebody who does."""
    seen: list[int] = []

    def close() -> None:
        session.put("a.y", None)
        other = threading.Thread(target=lambda: seen.append(len(session.resources())))
        other.start()
        other.join(LIMIT)
        assert not other.is_alive()

    session.release(session.put("a.x", None, close=close).handle)
    assert seen == [1]


def test_many_threads_close_each_resource_once(session: Session) -> None:
    closers = [Closer() for _ in range(50)]
    handles = [session.put("a.x", None, close=closer).handle for closer in closers]
    barrier = threading.Barrier(4)
    released = [0] * 4
    problems: list[BaseException] = []

    def work(me: int) -> None:
        try:
            barrier.wait(LIMIT)
            for handle in handles:
                try:
                    with session.lease(handle):
                        session.release(handle)
                        released[me] += 1
                except NotFound:
                    pass
        except BaseException as error:  # noqa: BLE001 - all kinds are under test
            problems.append(error)

    threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert problems == []
    assert sum(released) == 50
    assert [closer.closed for closer in closers] == [1] * 50


def test_descriptions_are_json_values(session: Session) -> None:
    session.metadata["elixir_node"] = "nonode@nohost"
    resource = session.put("a.x", object(), name="n", metadata={"rows": 2})
    (described,) = session.describe_resources()
    assert described == {
        "handle": resource.handle,
        "kind": "a.x",
        "name": "n",
        "created_at": resource.created_at,
        "idle_s": described["idle_s"],
        "size": resource.size,
        "leases": 0,
        "can_be_rebuilt": False,
        "metadata": {"rows": 2},
    }
    assert isinstance(described["idle_s"], float)
    whole = session.describe()
    assert whole == {
        "session_id": "s1",
        "created_at": session.created_at,
        "idle_s": whole["idle_s"],
        "calls": 0,
        "resources": 1,
        "size": resource.size,
        "metadata": {"elixir_node": "nonode@nohost"},
    }


def test_idle_times_follow_one_clock() -> None:
    now = [5.0]
    session = Session("s1", clock=lambda: now[0])
    resource = session.put("a.x", None)
    now[0] += 7.0
    assert session.describe()["idle_s"] == 7.0
    assert session.describe_resources()[0]["idle_s"] == 7.0
    session.get(resource.handle)
    assert session.describe_resources()[0]["idle_s"] == 0.0


# --- A store against a model ----------------------------------------------------------------------


class StoreMachine(RuleBasedStateMachine):
    """Any sequence of uses: nothing is closed twice, nothing under a lease, nothing is leaked."""

    ids = st.sampled_from(["a", "b", "c"])
    names = st.sampled_from(["x", None])

    @initialize(
        max_sessions=st.integers(1, 3), max_resources=st.integers(1, 4), max_bytes=st.integers(5, 9)
    )
    def start(self, max_sessions: int, max_resources: int, max_bytes: int) -> None:
        self.now = 0.0
        self.limits = Limits(max_sessions, max_resources, max_bytes, ttl=10.0)
        self.store = SessionStore(self.limits, clock=lambda: self.now, ended=self.told)
        self.ended: list[str] = []  # what the store told, in the order of the model
        self.expected: list[str] = []
        self.waiting: list[tuple[Session, Resource, Waiter]] = []
        self.sizes: dict[str, int] = {}  # by handle
        self.model: dict[str, dict[str, Any]] = {}  # by id, in order of use
        self.calls: list[Session] = []
        self.leases: list[tuple[Session, Resource, Closer]] = []
        self.closers: dict[str, Closer] = {}  # by handle, of everything ever put
        self.held: dict[str, str] = {}  # session id by handle
        self.closed_sessions: set[int] = set()

    # What the model knows of a session: the object, its calls, when it was used.

    def touch(self, session_id: str, session: Session, calls: int = 0) -> None:
        known = self.model.pop(session_id, {"session": session, "calls": 0})
        assert known["session"] is session, "a session was replaced behind its caller's back"
        self.model[session_id] = {
            "session": session,
            "calls": known["calls"] + calls,
            "used": self.now,
        }

    def told(self, ended: Ended) -> None:
        self.ended.append(ended.session_id)

    def gone(self, session_id: str) -> None:
        self.expected.append(session_id)
        self.closed_sessions.add(id(self.model.pop(session_id)["session"]))
        self.held = {handle: owner for handle, owner in self.held.items() if owner != session_id}

    def make_room(self, session_id: str) -> bool:
        """Evict as the store should; whether there is room for the session."""
        if session_id in self.model or len(self.model) < self.limits.max_sessions:
            return True
        for candidate, known in self.model.items():
            if known["calls"] == 0:
                self.gone(candidate)
                return True
        return False

    def held_bytes(self, session_id: str | None = None) -> int:
        return sum(
            self.sizes[handle]
            for handle, owner in self.held.items()
            if session_id is None or owner == session_id
        )

    def make_room_for_bytes(self, session: Session, size: int) -> bool:
        while self.held_bytes() + size > self.limits.max_bytes:
            candidates = [
                session_id
                for session_id, known in self.model.items()
                if known["calls"] == 0
                and self.held_bytes(session_id)
                and known["session"] is not session
            ]
            if not candidates:
                return False
            self.gone(candidates[0])
        return True

    @rule(session_id=ids)
    def open(self, session_id: str) -> None:
        if self.make_room(session_id):
            self.touch(session_id, self.store.open(session_id))
        else:
            with pytest.raises(ResourceExhausted):
                self.store.open(session_id)

    @rule(session_id=ids)
    def enter(self, session_id: str) -> None:
        if self.make_room(session_id):
            session = self.store.enter(session_id)
            self.touch(session_id, session, calls=1)
            self.calls.append(session)
        else:
            with pytest.raises(ResourceExhausted):
                self.store.enter(session_id)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        session = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        self.store.leave(session)
        known = self.model.get(session.id)
        if known is not None and known["session"] is session:
            self.touch(session.id, session, calls=-1)

    @precondition(lambda self: self.model or self.calls)
    @rule(data=st.data(), name=names, replace=st.booleans(), size=st.integers(0, 6))
    def put(self, data: st.DataObject, name: str | None, replace: bool, size: int) -> None:  # noqa: FBT001 - arguments come by name
        known = [known["session"] for known in self.model.values()]
        session = data.draw(st.sampled_from([*known, *self.calls]))
        closer = Closer()
        before = {resource.name: resource.handle for resource in session.resources()}
        full = len(session) >= self.limits.max_resources
        taken = name is not None and name in before
        fits = self.make_room_for_bytes(session, size)
        try:
            resource = session.put("k.x", None, name=name, close=closer, replace=replace, size=size)
        except NotFound:
            assert id(session) in self.closed_sessions
        except Conflict:
            assert taken
            assert not replace
        except ResourceExhausted:
            assert not fits or (full and not taken)
        else:
            assert fits
            self.sizes[resource.handle] = size
            self.closers[resource.handle] = closer
            if taken:
                del self.held[before[name]]
            self.held[resource.handle] = session.id

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def lease(self, data: st.DataObject) -> None:
        handle = data.draw(st.sampled_from(list(self.held)))
        session = self.model[self.held[handle]]["session"]
        resource = session.get(handle)
        exclusive = data.draw(st.booleans())
        waiter = session.begin_lease(resource, exclusive=exclusive, at_once=False)
        if waiter is None:
            self.leases.append((session, resource, self.closers[handle]))
        else:
            self.waiting.append((session, resource, waiter))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def end_lease(self, data: st.DataObject) -> None:
        session, resource, _ = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        session.end_lease(resource)
        self.those_whose_turn_it_is()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        session, resource, waiter = self.waiting.pop(
            data.draw(st.integers(0, len(self.waiting) - 1))
        )
        assert waiter.cancel()
        session.end_wait(resource)
        self.those_whose_turn_it_is()

    def those_whose_turn_it_is(self) -> None:
        for entry in [entry for entry in self.waiting if entry[2].done()]:
            self.waiting.remove(entry)
            session, resource, _ = entry
            self.leases.append((session, resource, self.closers[resource.handle]))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        handle = data.draw(st.sampled_from(list(self.held)))
        session_id = self.held.pop(handle)
        self.model[session_id]["session"].release(handle)

    @rule(session_id=ids)
    def close(self, session_id: str) -> None:
        expected = sum(owner == session_id for owner in self.held.values())
        ended = self.store.close(session_id)
        assert (ended.released.total() if ended is not None else 0) == expected
        if session_id in self.model:
            self.gone(session_id)

    @rule(seconds=st.sampled_from([1.0, 4.0, 9.0, 10.0, 25.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        expected = [
            session_id
            for session_id, known in self.model.items()
            if known["calls"] == 0 and known["used"] <= self.now - self.limits.ttl
        ]
        assert [ended.session_id for ended in self.store.expire()] == expected
        for session_id in expected:
            self.gone(session_id)

    @invariant()
    def sessions_are_those_of_the_model_in_order_of_use(self) -> None:
        if hasattr(self, "store"):
            assert [session.id for session in self.store.sessions()] == list(self.model)
            assert len(self.store) == len(self.model) <= self.limits.max_sessions
            for session_id, known in self.model.items():
                assert session_id in self.store
                assert known["session"].calls == known["calls"]

    @invariant()
    def bytes_and_ends_are_those_of_the_model(self) -> None:
        if hasattr(self, "store"):
            assert self.store.size == self.held_bytes() <= self.limits.max_bytes
            assert self.ended == self.expected

    @invariant()
    def nobody_waits_for_what_is_free_nor_shares_what_is_not(self) -> None:
        if hasattr(self, "store"):
            for _, resource, waiter in self.waiting:
                assert resource.leases
                assert not waiter.done()
            for _, resource, _ in self.leases:
                assert resource.leases == 1 or not resource.exclusive

    @invariant()
    def resources_are_closed_once_and_never_in_use(self) -> None:
        if hasattr(self, "store"):
            leased = {id(closer) for _, _, closer in self.leases}
            for handle, closer in self.closers.items():
                expected = 0 if handle in self.held or id(closer) in leased else 1
                assert closer.closed == expected, f"{handle} closed {closer.closed} times"

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        expected = len(self.held)
        assert sum(ended.released.total() for ended in self.store.close_all()) == expected
        while self.leases:
            session, resource, closer = self.leases.pop()
            assert closer.closed == 0, "closed under a lease"
            session.end_lease(resource)
            self.those_whose_turn_it_is()
        assert self.waiting == []
        for session in self.calls:
            self.store.leave(session)
        for handle, closer in self.closers.items():
            assert closer.closed == 1, f"{handle} closed {closer.closed} times"
        assert len(self.store) == 0


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=120, stateful_step_count=40)


@pytest.mark.parametrize("name", ["", "x" * 201, 7, b"x"])
def test_a_name_is_text_of_a_sane_length(session: Session, name: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^name: expected text of 1 to 200") as caught:
        session.put("a.x", 1, name=name)
    assert [violation.field for violation in caught.value.violations] == ["name"]
    assert len(session) == 0
    assert session.put("a.x", 1, name="x" * 200).name == "x" * 200


def test_a_name_is_no_handle_of_another(session: Session) -> None:
    first = session.put("a.x", 1)
    with pytest.raises(InvalidArgument, match=r"name: .* is the handle of another resource"):
        session.put("a.x", 2, name=first.handle, replace=True)
    assert session.get(first.handle) is first
    assert session.resources() == [first]


@pytest.mark.parametrize("argument", ["close", "recipe"])
def test_what_is_called_later_must_be_callable(session: Session, argument: str) -> None:
    odd: dict[str, Any] = {argument: "no"}
    with pytest.raises(TypeError, match=f"^{argument} must be callable, got str"):
        session.put("a.x", 1, **odd)
    assert len(session) == 0


def test_a_handle_that_nobody_knows_may_have_expired(session: Session) -> None:
    for reference, said in ((new_handle("a.x"), True), ("x-123", False), ("module", False)):
        with pytest.raises(NotFound) as caught:
            session.get(reference)
        assert ("may have expired" in str(caught.value)) is said, reference
