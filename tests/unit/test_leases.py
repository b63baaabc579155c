"""Leases: shared or exclusive, for threads and for coroutines, in the order in which they come."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_worker import deadline
from snakepit_worker.deadline import Deadline
from snakepit_worker.errors import Conflict, DeadlineExceeded, FailedPrecondition, NotFound
from snakepit_worker.sessions import Session, exclusively_held

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from snakepit_worker.sessions.leases import Waiter

T = TypeVar("T")

LIMIT = 20.0


@pytest.fixture
def session() -> Session:
    session = Session("s1", changed=lambda _: None)
    session.put("a.x", "value", name="n")
    session.changes()
    return session


@pytest.fixture
def hurried() -> Iterator[None]:
    """The call's time is over soon."""
    token = deadline.current.set(Deadline.after(0.05))
    yield
    deadline.current.reset(token)


def waiting(session: Session) -> int:
    return len(session.get("n").waiting or ())


def until_waiting(session: Session, count: int) -> None:
    while waiting(session) != count:
        pass


async def in_line(session: Session, count: int) -> None:
    while waiting(session) != count:  # noqa: ASYNC110 - leases tell nobody that they wait
        await asyncio.sleep(0)


def of_another_call(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that has inherited no lease."""
    return asyncio.create_task(coroutine, context=contextvars.Context())


def use(session: Session, log: list[str], label: str, *, exclusive: bool) -> threading.Thread:
    """Lease in a thread, once those before have got in line."""

    def work() -> None:
        with session.lease("n", exclusive=exclusive):
            log.append(label)

    before = waiting(session)
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    until_waiting(session, before + 1)
    return thread


def test_an_exclusive_lease_waits_for_the_others_and_they_for_it(session: Session) -> None:
    log: list[str] = []
    with session.lease("n"):
        threads = [
            use(session, log, "first", exclusive=True),
            use(session, log, "second", exclusive=False),
            use(session, log, "third", exclusive=True),
        ]
        log.append("holder")
    for thread in threads:
        thread.join(LIMIT)
    assert log == ["holder", "first", "second", "third"]
    assert (session.get("n").leases, session.get("n").waiting) == (0, None)


def test_shared_leases_run_together_also_after_a_wait(session: Session) -> None:
    barrier = threading.Barrier(3)
    together: list[int] = []

    def work() -> None:
        with session.lease("n"):
            together.append(barrier.wait(LIMIT))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
    with session.lease("n", exclusive=True):
        for thread in threads:
            thread.start()
        until_waiting(session, 3)
    for thread in threads:
        thread.join(LIMIT)
    assert sorted(together) == [0, 1, 2]


def test_coroutines_wait_without_holding_up_the_loop(session: Session) -> None:
    async def reader(log: list[str]) -> None:
        async with session.lease("n") as value:
            log.append(value)

    async def main() -> list[str]:
        log: list[str] = []
        async with session.lease("n", exclusive=True):
            task = of_another_call(reader(log))
            await in_line(session, 1)
            log.append("still mine")
        await task
        return log

    assert asyncio.run(main()) == ["still mine", "value"]


def test_a_coroutine_and_a_thread_share_one_line(session: Session) -> None:
    async def main(log: list[str]) -> None:
        async with session.lease("n", exclusive=True):
            log.append("coroutine")

    log: list[str] = []
    with session.lease("n"):
        coroutine = threading.Thread(target=lambda: asyncio.run(main(log)), daemon=True)
        coroutine.start()
        until_waiting(session, 1)
        thread = use(session, log, "thread", exclusive=True)
    coroutine.join(LIMIT)
    thread.join(LIMIT)
    assert log == ["coroutine", "thread"]


def test_a_plain_with_in_a_coroutine_never_waits(session: Session) -> None:
    async def main() -> None:
        with session.lease("n") as value:  # free: no need to wait
            assert value == "value"
        with (
            session.lease("n"),
            pytest.raises(Conflict, match="a coroutine waits for it with `async with`"),
        ):
            await of_another_call(attempt())

    async def attempt() -> None:
        with session.lease("n", exclusive=True):
            pytest.fail("it was in use")

    asyncio.run(main())
    assert (session.get("n").leases, session.get("n").waiting) == (0, None)


@pytest.mark.usefixtures("hurried")
def test_no_wait_is_longer_than_the_call(session: Session) -> None:
    def elsewhere() -> None:
        with session.lease("n", exclusive=True):
            held.set()
            release.wait(LIMIT)

    held, release = threading.Event(), threading.Event()
    thread = threading.Thread(target=elsewhere, daemon=True)
    thread.start()
    assert held.wait(LIMIT)
    with pytest.raises(DeadlineExceeded, match="'n' was in use"), session.lease("n"):
        pass

    async def main() -> None:
        async with session.lease("n"):
            pass

    with pytest.raises(DeadlineExceeded, match="'n' was in use"):
        asyncio.run(main())
    release.set()
    thread.join(LIMIT)
    assert (session.get("n").leases, session.get("n").waiting) == (0, None)


def test_a_cancelled_wait_lets_those_behind_pass(session: Session) -> None:
    async def exclusive() -> None:
        async with session.lease("n", exclusive=True):
            pytest.fail("it was in use")

    async def shared() -> str:
        async with session.lease("n") as value:
            return str(value)

    async def main() -> None:
        async with session.lease("n"):
            first = of_another_call(exclusive())
            await in_line(session, 1)
            second = of_another_call(shared())
            await in_line(session, 2)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert await second == "value"

    asyncio.run(main())


def test_what_is_released_meanwhile_is_gone_for_those_who_waited(session: Session) -> None:
    found: list[BaseException] = []

    def work() -> None:
        try:
            with session.lease("n"):
                pytest.fail("it was released")
        except NotFound as error:
            found.append(error)

    closed: list[int] = []
    session.get("n").close = lambda: closed.append(1)
    thread = threading.Thread(target=work, daemon=True)
    with session.lease("n", exclusive=True):
        resource = session.get("n")
        thread.start()
        while not resource.waiting:
            pass
        session.release("n")
        assert closed == []
    thread.join(LIMIT)
    assert "was released" in str(found[0])
    assert closed == [1]


@pytest.mark.parametrize(("outer", "inner"), [(True, True), (True, False), (False, True)])
def test_a_call_that_would_wait_for_itself_is_told(
    session: Session,
    outer: bool,  # noqa: FBT001 - a row of the table
    inner: bool,  # noqa: FBT001 - a row of the table
) -> None:
    with (
        session.lease("n", exclusive=outer),
        pytest.raises(FailedPrecondition, match="would wait for itself"),
        session.lease("n", exclusive=inner),
    ):
        pass
    assert session.get("n").leases == 0


def test_a_call_may_share_with_itself_past_those_who_wait(session: Session) -> None:
    log: list[str] = []
    with session.lease("n"):
        thread = use(session, log, "writer", exclusive=True)
        with session.lease("n"):
            log.append("again")
    thread.join(LIMIT)
    assert log == ["again", "writer"]


def test_what_is_held_exclusively_is_known_to_the_call(session: Session) -> None:
    handle = session.get("n").handle
    assert exclusively_held() is None
    with session.lease("n"):
        assert exclusively_held() is None
    with session.lease("n", exclusive=True):
        assert exclusively_held() == handle
        other: list[str | None] = []
        thread = threading.Thread(target=lambda: other.append(exclusively_held()))
        thread.start()
        thread.join(LIMIT)
        assert other == [None], "other calls do not hold it"
    assert exclusively_held() is None


def test_the_end_of_an_exclusive_lease_is_a_change(session: Session) -> None:
    resource = session.get("n")
    with session.lease("n"):
        pass
    assert session.changes() == []
    with session.lease("n", exclusive=True):
        assert session.changes() == []
    assert session.changes() == [resource.handle]
    with session.lease("n", exclusive=True):
        session.release("n")
    assert session.changes() == [resource.handle]
    assert session.changes() == []
    session.note([resource.handle])
    assert session.changes() == [resource.handle]


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("take"), st.booleans()),
            st.tuples(st.just("end"), st.integers(0, 9)),
            st.tuples(st.just("give up"), st.integers(0, 9)),
        ),
        max_size=30,
    )
)
def test_any_sequence_is_fair_and_forgets_nobody(steps: list[tuple[str, int]]) -> None:
    session = Session("s1")
    resource = session.put("a.x", None)
    line: list[Waiter] = []
    holders = 0
    for step, argument in steps:
        if step == "take":
            waiter = session.begin_lease(resource, exclusive=bool(argument), at_once=False)
            if waiter is None:
                holders += 1
            else:
                line.append(waiter)
        elif step == "end" and holders:
            holders -= 1
            session.end_lease(resource)
        elif step == "give up" and line:
            waiter = line.pop(argument % len(line))
            assert waiter.cancel()
            session.end_wait(resource)
        granted = [waiter for waiter in line if waiter.done()]
        assert granted == line[: len(granted)], "somebody was overtaken"
        line = line[len(granted) :]
        holders += len(granted)
        assert resource.leases == holders
        assert not (resource.exclusive and holders != 1)
        if line:  # and rightly so
            assert holders, "free, and yet somebody waits"
            assert resource.exclusive or line[0].exclusive
    with ExitStack() as ends:
        for _ in range(holders):
            ends.callback(session.end_lease, resource)
