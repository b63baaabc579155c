"""Closers: apart from whoever lets go, in order, each within its time."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from snakepit_worker.sessions import Closers, Resource

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Coroutine, Iterator

LIMIT = 20.0


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(LIMIT)
    loop.close()


@pytest.fixture
def make(loop: asyncio.AbstractEventLoop) -> Iterator[Callable[..., Closers]]:
    made: list[Closers] = []

    def on_loop(coroutine: Coroutine[Any, Any, None]) -> concurrent.futures.Future[None]:
        return asyncio.run_coroutine_threadsafe(coroutine, loop)

    def make(**options: float) -> Closers:
        made.append(Closers(on_loop, **options))
        return made[-1]

    yield make
    for closers in made:
        closers.shut_down()


def resource(close: Callable[[], object] | None) -> Resource:
    return Resource("x-1", "a.x", None, close=close)


def test_they_run_in_order_apart_from_the_caller(make: Callable[..., Closers]) -> None:
    seen: list[Any] = []

    def note(label: str) -> None:
        seen.append((label, threading.current_thread() is threading.main_thread()))

    closing = make()([resource(lambda: note("a")), resource(None), resource(lambda: note("b"))])
    closing.result(LIMIT)
    assert seen == [("a", False), ("b", False)]


def test_what_can_be_awaited_is_awaited_on_the_loop(
    make: Callable[..., Closers], loop: asyncio.AbstractEventLoop
) -> None:
    seen: list[bool] = []

    async def close() -> None:
        await asyncio.sleep(0)
        seen.append(asyncio.get_running_loop() is loop)

    make()([resource(close)]).result(LIMIT)
    assert seen == [True]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_one_that_takes_too_long_is_left_behind(
    kind: str, make: Callable[..., Closers], caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    ended: list[str] = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    def block() -> None:
        release.wait(LIMIT)

    slow = resource(block if kind == "sync" else hang)
    make(limit=0.02)([slow, resource(lambda: ended.append("next"))]).result(LIMIT)
    release.set()
    assert "next" in ended
    assert ("cancelled" in ended) == (kind == "async")
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert "takes too long" in record.getMessage()


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("sync", ValueError("no")),
        ("sync", SystemExit(1)),
        ("sync", TimeoutError()),
        ("async", ValueError("no")),
        ("async", TimeoutError()),
    ],
    ids=str,
)
def test_one_that_fails_is_logged_and_the_next_one_runs(
    kind: str,
    error: BaseException,
    make: Callable[..., Closers],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> None:
        raise error

    async def fail_on_loop() -> None:
        raise error

    closed: list[int] = []
    failing = resource(fail if kind == "sync" else fail_on_loop)
    make()([failing, resource(lambda: closed.append(1))]).result(LIMIT)
    assert closed == [1]
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert "closing a resource failed" in record.getMessage()


def test_nothing_to_close_takes_no_thread(make: Callable[..., Closers]) -> None:
    before = threading.active_count()
    assert make()([resource(None)] * 100).done()
    assert threading.active_count() == before


def test_after_the_end_nothing_begins(make: Callable[..., Closers]) -> None:
    closers = make()
    closers.shut_down()
    closed: list[int] = []
    assert closers([resource(lambda: closed.append(1))]).done()
    assert closed == []
