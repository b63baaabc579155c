"""Items that a thread produces reach the loop in order, in bounded number, and end cleanly."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_worker.calls import streams
from snakepit_worker.calls.loop import LoopThread
from snakepit_worker.calls.streams import HandOff, from_thread, is_one_item
from snakepit_worker.calls.threads import Job, ThreadPool
from tests.conftest import name_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

LIMIT = 20.0
AHEAD = 100
"""Items that a producer may be ahead of its reader (interop 4.3)."""
variable: ContextVar[str] = ContextVar("variable", default="unset")


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    pool = ThreadPool(2, "s")
    yield pool
    pool.close()


class Producer:
    """A blocking iterator that counts, and notes on which thread it is used."""

    def __init__(self, end: int | None = None) -> None:
        self.end = end
        self.made = 0
        self.closed = 0
        self.threads: set[str] = set()
        self.was_closed = threading.Event()

    def __iter__(self) -> Producer:
        return self

    def __next__(self) -> int:
        self.threads.add(threading.current_thread().name)
        if self.made == self.end:
            raise StopIteration
        self.made += 1
        return self.made

    def close(self) -> None:
        self.threads.add(threading.current_thread().name)
        self.closed += 1
        self.was_closed.set()


def watch_for_stalls(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """An event that is set while a producer waits because its queue is full."""
    stalled = threading.Event()

    class Watched(HandOff):
        def _offer(self, item: object) -> Any:
            space = super()._offer(item)
            if space is not None:
                stalled.set()
            return space

        def _make_space(self) -> None:
            if self._space is not None:
                stalled.clear()
            super()._make_space()

    monkeypatch.setattr(streams, "HandOff", Watched)
    return stalled


def collect(source: Callable[[], AsyncGenerator[Any, None]]) -> list[Any]:
    async def read() -> list[Any]:
        async with asyncio.timeout(LIMIT), aclosing(source()) as items:
            return [item async for item in items]

    return asyncio.run(read())


@pytest.mark.parametrize("length", [0, 1, AHEAD - 1, AHEAD, AHEAD + 1, 10 * AHEAD + 3])
def test_every_item_arrives_in_order(pool: ThreadPool, length: int) -> None:
    producer = Producer(length)
    assert collect(lambda: from_thread(producer, pool)) == list(range(1, length + 1))
    assert producer.threads == {"s-0"}
    assert producer.closed == 1


def test_any_iterator_will_do(pool: ThreadPool) -> None:
    assert collect(lambda: from_thread(iter([1, None, "x"]), pool)) == [1, None, "x"]
    assert collect(lambda: from_thread(map(str, range(3)), pool)) == ["0", "1", "2"]


def test_items_arrive_as_they_are_made(pool: ThreadPool) -> None:
    """Each item is made only after the reader has seen the one before."""
    seen = threading.Semaphore(1)

    def careful() -> Iterator[int]:
        for number in range(5):
            assert seen.acquire(timeout=LIMIT)
            yield number

    async def read() -> list[int]:
        got = []
        async with asyncio.timeout(LIMIT):
            async for item in from_thread(careful(), pool):
                got.append(item)
                seen.release()
        return got

    assert asyncio.run(read()) == [0, 1, 2, 3, 4]


def test_a_producer_stays_ahead_by_no_more_than_the_queue(
    pool: ThreadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stalled = watch_for_stalls(monkeypatch)
    producer = Producer()
    ahead = []

    async def read() -> None:
        async with asyncio.timeout(LIMIT), aclosing(from_thread(producer, pool)) as items:
            count = 0
            async for _ in items:
                count += 1
                if count % 50 == 1:
                    assert await asyncio.to_thread(stalled.wait, LIMIT)
                    ahead.append(producer.made - count)
                if count == 5 * AHEAD:
                    break

    asyncio.run(read())
    assert max(ahead) <= AHEAD + 1, "one more is in the producer's hand"


def test_a_reader_that_never_begins_leaves_nothing_running(pool: ThreadPool) -> None:
    producer = Producer()

    async def begin() -> None:
        await from_thread(producer, pool).aclose()

    asyncio.run(begin())
    assert producer.made == 0


@pytest.mark.parametrize("taken", [1, 2, AHEAD, AHEAD + 1])
def test_when_the_reader_leaves_the_iterator_is_closed_once_by_its_own_thread(
    pool: ThreadPool, taken: int
) -> None:
    producer = Producer()

    async def read() -> None:
        async with aclosing(from_thread(producer, pool)) as items:
            for _ in range(taken):
                await anext(items)
        assert await asyncio.to_thread(producer.was_closed.wait, LIMIT)

    asyncio.run(read())
    assert producer.closed == 1
    assert producer.threads == {"s-0"}
    assert producer.made <= taken + 2 * AHEAD + 1


def test_a_generator_runs_its_finally(pool: ThreadPool) -> None:
    ended: list[str] = []
    closed = threading.Event()

    def numbers() -> Iterator[int]:
        try:
            while True:
                yield 1
        except GeneratorExit:
            ended.append("told")
            raise
        finally:
            ended.append(threading.current_thread().name)
            closed.set()

    async def read() -> None:
        async with aclosing(from_thread(numbers(), pool)) as items:
            await anext(items)
        assert await asyncio.to_thread(closed.wait, LIMIT)

    asyncio.run(read())
    assert ended == ["told", "s-0"]


def chunks(size: int, count: int, made: list[int]) -> Iterator[tuple[bytes, bool, dict[str, str]]]:
    for number in range(count):
        made.append(number)
        yield bytes(size), False, {}


@pytest.mark.parametrize(
    ("size", "ahead"), [(1024 * 1024, 16), (10 * 1024 * 1024, 1), (40 * 1024 * 1024, 1)]
)
def test_a_slow_reader_holds_a_producer_of_large_items_back(
    pool: ThreadPool, monkeypatch: pytest.MonkeyPatch, size: int, ahead: int
) -> None:
    stalled = watch_for_stalls(monkeypatch)
    made: list[int] = []

    async def read() -> int:
        count = 0
        async with asyncio.timeout(LIMIT), aclosing(from_thread(chunks(size, 40, made), pool)) as s:
            async for data, _, _ in s:
                assert len(data) == size
                if count == 0:
                    assert await asyncio.to_thread(stalled.wait, LIMIT)
                    # Those that are held, and the one in the producer's hands.
                    assert len(made) <= ahead + 1
                count += 1
        return count

    assert asyncio.run(read()) == 40


def test_a_cancelled_reader_leaves_too(pool: ThreadPool) -> None:
    producer = Producer()

    async def read() -> None:
        async with aclosing(from_thread(producer, pool)) as items:
            await anext(items)
            await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.ensure_future(read())
        while producer.made == 0:  # noqa: ASYNC110 - another thread's doing
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(producer.was_closed.wait, LIMIT)

    asyncio.run(main())
    assert producer.closed == 1


def test_a_producer_in_the_middle_of_an_item_is_closed_after_it(pool: ThreadPool) -> None:
    begun, release, closed = threading.Event(), threading.Event(), threading.Event()

    def slow() -> Iterator[int]:
        try:
            yield 1
            begun.set()
            assert release.wait(LIMIT)
            yield 2
            pytest.fail("pulled after the reader had left")
        finally:
            closed.set()

    async def read() -> None:
        async with aclosing(from_thread(slow(), pool)) as items:
            await anext(items)
            assert await asyncio.to_thread(begun.wait, LIMIT)
        assert not closed.is_set()  # leaving does not wait for the thread
        release.set()
        assert await asyncio.to_thread(closed.wait, LIMIT)

    asyncio.run(read())


def test_a_stream_that_never_got_a_thread_is_not_begun(pool: ThreadPool) -> None:
    release = threading.Event()
    producer = Producer()

    async def read() -> None:
        def wait() -> None:
            assert release.wait(LIMIT)

        for _ in range(2):  # both threads of the pool
            pool.submit(Job(wait, lambda: None))
        reading = asyncio.ensure_future(anext(from_thread(producer, pool)))
        while pool.waiting == 0:  # noqa: ASYNC110 - another thread's doing
            await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        release.set()
        while pool.busy:  # noqa: ASYNC110 - another thread's doing
            await asyncio.sleep(0)

    asyncio.run(read())
    assert producer.made == 0


@pytest.mark.parametrize("before", [0, 1, AHEAD, 3 * AHEAD])
@pytest.mark.parametrize(
    "error",
    [ValueError("no"), asyncio.CancelledError("of the tool"), BaseException("base")],
    ids=lambda error: type(error).__name__,
)
def test_an_error_comes_after_the_items_before_it(
    pool: ThreadPool, before: int, error: BaseException
) -> None:
    class Failing(Producer):
        def __next__(self) -> int:
            if self.made == before:
                raise error
            return super().__next__()

    producer = Failing()
    got: list[int] = []

    async def read() -> BaseException | None:
        try:
            async with asyncio.timeout(LIMIT), aclosing(from_thread(producer, pool)) as items:
                async for item in items:
                    got.append(item)  # noqa: PERF401 - what came before the error stays
        except BaseException as caught:  # noqa: BLE001 - all kinds are under test
            return caught
        return None

    assert asyncio.run(read()) is error
    assert got == list(range(1, before + 1))
    assert producer.closed == 1


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_an_error_that_ends_programs_ends_only_the_stream(
    pool: ThreadPool, error: BaseException
) -> None:
    """In a task of its own such an exception would end the event loop, and with it the worker."""

    def leaving() -> Iterator[int]:
        yield 1
        raise error

    async def read() -> tuple[list[int], BaseException | None]:
        got = []
        try:
            async for item in from_thread(leaving(), pool):
                got.append(item)  # noqa: PERF401 - what came before the error stays
        except BaseException as caught:  # noqa: BLE001 - all kinds are under test
            await asyncio.sleep(0)  # the loop turns on
            return got, caught
        return got, None

    try:
        outcome: object = asyncio.run(read())
    except BaseException as caught:  # noqa: BLE001 - all kinds are under test
        outcome = f"the loop was ended by {caught!r}"
    assert outcome == ([1], error)


def test_an_error_in_close_is_an_error_of_the_stream(pool: ThreadPool) -> None:
    class Bad(Producer):
        def close(self) -> NoReturn:
            raise ValueError("cannot close")

    got = []

    async def read() -> None:
        async for item in from_thread(Bad(3), pool):
            got.append(item)  # noqa: PERF401 - what came before the error stays

    with pytest.raises(ValueError, match="cannot close"):
        asyncio.run(read())
    assert got == [1, 2, 3]


def test_context_variables_are_carried_over(pool: ThreadPool) -> None:
    def values() -> Iterator[str]:
        yield variable.get()
        variable.set("set in the thread")
        yield variable.get()

    async def read() -> list[str]:
        variable.set("set by the caller")
        got = [item async for item in from_thread(values(), pool)]
        return [*got, variable.get()]

    assert asyncio.run(read()) == ["set by the caller", "set in the thread", "set by the caller"]


# --- From another event loop ----------------------------------------------------------------------


@pytest.fixture
def elsewhere() -> Iterator[LoopThread]:
    loop = LoopThread("elsewhere")
    loop.start()
    yield loop
    loop.close(LIMIT)


class AsyncProducer:
    """An asynchronous generator that counts."""

    def __init__(self, end: int | None = None) -> None:
        self.end = end
        self.made = 0
        self.ends: list[str] = []

    async def items(self) -> AsyncGenerator[int, None]:
        try:
            while self.made != self.end:
                self.made += 1
                yield self.made
        except BaseException as error:
            self.ends.append(type(error).__name__)
            raise
        finally:
            self.ends.append(threading.current_thread().name)


@pytest.mark.parametrize("length", [0, 1, AHEAD, 3 * AHEAD + 1])
def test_items_of_another_loop_arrive_in_order(elsewhere: LoopThread, length: int) -> None:
    producer = AsyncProducer(length)

    async def read() -> list[int]:
        hand_off = HandOff(asyncio.get_running_loop())
        draining = elsewhere.submit(hand_off.drain(producer.items()))
        draining.add_done_callback(lambda _: hand_off.end())
        got: list[int] = []
        while batch := await hand_off.batch():
            got += batch
        return got

    assert asyncio.run(asyncio.wait_for(read(), LIMIT)) == list(range(1, length + 1))
    assert producer.ends == ["elsewhere"]


def test_a_producer_on_another_loop_waits_and_is_closed_there(elsewhere: LoopThread) -> None:
    producer = AsyncProducer()

    async def read() -> int:
        hand_off = HandOff(asyncio.get_running_loop())
        draining = asyncio.wrap_future(elsewhere.submit(hand_off.drain(producer.items())))
        await hand_off.batch()
        before = producer.made
        hand_off.abandon()
        await draining
        return producer.made - before

    assert asyncio.run(asyncio.wait_for(read(), LIMIT)) <= AHEAD + 1
    assert producer.ends == ["GeneratorExit", "elsewhere"]


# --- One item or many -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "one"),
    [
        ({"a": 1}, True),
        ("text", True),
        (b"x", True),
        (bytearray(b"x"), True),
        (memoryview(b"x"), True),
        (np.arange(2), True),
        ([1], False),
        ((1,), False),
        ({1}, False),
        (range(2), False),
    ],
    ids=name_of,
)
def test_payloads_are_one_item(value: object, one: bool) -> None:  # noqa: FBT001 - a row of the table
    assert is_one_item(value) is one


@given(
    st.lists(st.integers(), max_size=300),
    st.lists(st.booleans(), max_size=300),
)
def test_whatever_the_rhythm_nothing_is_lost_or_doubled(
    items: list[int], pauses: list[bool]
) -> None:
    pool = ThreadPool(1, "h")

    async def read() -> list[int]:
        got = []
        rhythm = iter(pauses)
        async with asyncio.timeout(LIMIT):
            async for item in from_thread(iter(items), pool):
                got.append(item)
                if next(rhythm, False):
                    await asyncio.sleep(0)
        return got

    try:
        assert asyncio.run(read()) == items
    finally:
        pool.close()
