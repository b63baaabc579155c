"""Running a function elsewhere and awaiting it here, whatever it returns or raises."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, NoReturn

import pytest
import uvloop

from snakepit_worker.calls import executors
from snakepit_worker.calls.threads import Job, ThreadPool

LIMIT = 20.0
variable: ContextVar[str] = ContextVar("variable", default="unset")


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a coroutine on a loop of either kind, within a limit."""
    factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(asyncio.wait_for(coroutine, LIMIT))

    return run


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    pool = ThreadPool(2, "e")
    yield pool
    pool.close()


Run = Callable[[Coroutine[Any, Any, Any]], Any]


class Waiting:
    """Jobs for later; nothing runs before it is told to."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def submit(self, job: Job) -> None:
        self.jobs.append(job)

    def abandon(self, job: Job) -> None:
        """Nothing to count here."""

    def run(self) -> None:
        for job in self.jobs:
            job.work()
            job.finished()


def test_the_result_comes_from_another_thread(run: Run, pool: ThreadPool) -> None:
    name, ident = run(
        executors.run(pool, lambda: (threading.current_thread().name, threading.get_ident()))
    )
    assert name == "e-0"
    assert ident != threading.get_ident()


@pytest.mark.parametrize("value", [None, 0, (), "x", ValueError("a value, not raised")])
def test_any_value_is_a_result(run: Run, pool: ThreadPool, value: object) -> None:
    assert run(executors.run(pool, lambda: value)) is value


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        StopAsyncIteration(),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError("of the tool"),
        asyncio.InvalidStateError(),
        BaseException("base"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_is_raised_there_is_raised_here(
    run: Run, pool: ThreadPool, error: BaseException
) -> None:
    def fail() -> NoReturn:
        raise error

    async def caller() -> object:
        try:
            await executors.run(pool, fail)
        except BaseException as caught:  # noqa: BLE001 - all kinds are under test
            return caught
        return None

    caught = run(caller())
    assert caught is error, f"raised {type(caught).__name__}: {caught}"


def test_stop_iteration_comes_as_python_makes_any_coroutine_raise_it(
    run: Run, pool: ThreadPool
) -> None:
    error = StopIteration(5)

    def fail() -> NoReturn:
        raise error

    with pytest.raises(RuntimeError, match="StopIteration") as caught:
        run(executors.run(pool, fail))
    assert caught.value.__cause__ is error


def test_context_variables_are_carried_over_and_not_back(run: Run, pool: ThreadPool) -> None:
    def function() -> str:
        seen = variable.get()
        variable.set("set in the thread")
        return seen

    async def caller() -> tuple[str, str, str]:
        variable.set("set by the caller")
        first = await executors.run(pool, function)
        second = await executors.run(pool, variable.get)
        return first, second, variable.get()

    assert run(caller()) == ("set by the caller",) * 3
    assert run(executors.run(pool, variable.get)) == "unset"


def test_the_loop_runs_on_meanwhile(run: Run, pool: ThreadPool) -> None:
    release = threading.Event()

    async def caller() -> str:
        blocked = asyncio.ensure_future(executors.run(pool, lambda: release.wait(LIMIT)))
        other = await executors.run(pool, lambda: "other")
        assert not blocked.done()
        release.set()
        assert await blocked
        return other

    assert run(caller()) == "other"


def test_cancelled_before_its_begin_it_never_runs(run: Run) -> None:
    runner = Waiting()
    ran: list[int] = []

    async def caller() -> None:
        task = asyncio.ensure_future(executors.run(runner, lambda: ran.append(1)))
        await asyncio.sleep(0)
        assert len(runner.jobs) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        runner.run()

    run(caller())
    assert ran == []


def test_cancelled_after_its_begin_it_runs_to_its_end_and_the_result_is_dropped(
    run: Run, pool: ThreadPool
) -> None:
    begun, release, ended = threading.Event(), threading.Event(), threading.Event()

    def function() -> str:
        begun.set()
        assert release.wait(LIMIT)
        ended.set()
        return "nobody wants this"

    async def caller() -> None:
        task = asyncio.ensure_future(executors.run(pool, function))
        assert await asyncio.to_thread(begun.wait, LIMIT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not ended.is_set()
        release.set()
        assert await asyncio.to_thread(ended.wait, LIMIT)
        assert await executors.run(pool, lambda: "served") == "served"

    run(caller())


def test_a_loop_that_has_gone_meanwhile_is_no_mistake() -> None:
    runner = Waiting()
    ran: list[int] = []

    async def caller() -> None:
        task = asyncio.ensure_future(executors.run(runner, lambda: ran.append(1)))
        await asyncio.sleep(0)
        assert not task.done()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(caller())
    tasks = asyncio.all_tasks(loop)
    loop.close()
    runner.run()  # on a worker thread, in a worker that has stopped
    assert ran == [1]
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_a_runner_that_refuses_raises_at_once(run: Run, pool: ThreadPool) -> None:
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        run(executors.run(pool, lambda: None))


def test_an_error_leaves_no_cycle_behind(pool: ThreadPool) -> None:
    """Errors hold tracebacks, tracebacks frames, frames results: they must go without the GC."""

    class Payload:
        pass

    alive: list[int] = []

    def fail() -> None:
        payload = Payload()
        alive.append(sys.getrefcount(payload))
        raise ValueError

    async def caller() -> None:
        with suppress(ValueError):
            await executors.run(pool, fail)

    gc.collect()
    gc.disable()
    try:
        asyncio.run(caller())
        left = [found for found in gc.get_objects() if isinstance(found, Payload)]
        assert left == []
    finally:
        gc.enable()


def test_calls_that_come_one_at_a_time_stay_on_one_thread() -> None:
    """Libraries bind settings to a thread, so a lone caller must not wander.

    The thread of the first call is held up as soon as it has told the loop about its end, until
    the second call is there.
    """
    pool = ThreadPool(4, "one")
    second = threading.Event()
    names: list[str] = []

    class Noting:
        calls = 0

        def submit(self, job: Job) -> None:
            pool.submit(job)
            self.calls += 1
            if self.calls == 2:
                second.set()

        def abandon(self, job: Job) -> None:
            pool.abandon(job)

    async def caller() -> None:
        loop = asyncio.get_running_loop()
        tell = loop.call_soon_threadsafe

        def tell_and_wait(*args: Any, **more: Any) -> Any:
            told = tell(*args, **more)
            assert second.wait(LIMIT)
            return told

        loop.call_soon_threadsafe = tell_and_wait  # type: ignore[method-assign, assignment]
        runner = Noting()
        for _ in range(2):
            name = await executors.run(runner, lambda: threading.current_thread().name)
            names.append(name)

    try:
        asyncio.run(caller())
    finally:
        second.set()
        pool.close()
    assert names == ["one-0", "one-0"]
