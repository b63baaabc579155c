"""What callers leave behind: nothing, however many of them leave."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest

from snakepit_worker import Adapter, CallContext, tool
from snakepit_worker.calls import foreign
from tests.bridge.conftest import LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from snakepit_worker.calls.loop import LoopThread
    from snakepit_worker.testing import Connection
    from tests.bridge.conftest import Served

SESSIONS: Final = 10
THREADS: Final = 10
EVENTS: Final = 1024
"""Kept for a host that does not read."""

begun: Final = threading.Semaphore(0)
"""Released by each tool once it runs.  Of the module, because instances live for one request."""


class Leaving(Adapter):
    """Tools that end only when their callers leave."""

    name = "leaving"

    @tool
    def checking(self, ctx: CallContext) -> None:
        begun.release()
        pause = threading.Event()
        while True:
            ctx.checkpoint()
            pause.wait(0.001)

    @tool
    async def waiting(self) -> None:
        begun.release()
        await asyncio.Event().wait()

    @tool
    def stream(self) -> Iterator[int]:
        yield from itertools.count()

    @tool
    async def stream_async(self) -> AsyncIterator[int]:
        for number in itertools.count():
            yield number


class Foreign:
    """The same for Snakepit's own worker."""

    async def execute_tool(
        self, tool_name: str, arguments: Mapping[str, Any], context: object
    ) -> Any:
        del arguments, context
        if tool_name == "waiting":
            begun.release()
            await asyncio.Event().wait()
        return self.items() if tool_name == "stream" else self.items_async()

    def items(self) -> Iterator[int]:
        yield from itertools.count()

    async def items_async(self) -> AsyncIterator[int]:
        for number in itertools.count():
            await asyncio.sleep(0)
            yield number


@pytest.fixture
def connection(serve: Served) -> Connection:
    connection = serve(Leaving(), adapters=(f"{__name__}.Foreign",))
    for _ in range(EVENTS):  # nobody reads them, so that they stay
        serve.worker._events.emit("tool.execution.start", {}, {}, "")
    return connection


def held(serve: Served) -> dict[str, int]:
    """What calls take while they run; nothing of it is left when all have ended."""
    worker = serve.worker
    assert worker._foreign is not None
    pool = worker._threads
    found = {
        "tasks": tasks_of(worker._loop),
        "tasks of foreign instances": tasks_of(worker._foreign._loop),
        "lives of foreign instances": len(foreign._lives),
        "calls": len(worker._dispatcher._running),
        "pins": sum(session.calls for session in worker._store.sessions()),
        "busy threads": pool.busy + pool.waiting + pool.abandoned,
        "threads too many": max(0, len(pool._inboxes) - THREADS),
        "events too many": max(0, len(worker._events._buffer) - EVENTS),
    }
    places = worker._places
    for lane in (places.at(0).loop, places.at(0).threads.lane, places.main.lane):
        found[f"places on {lane.name}"] = lane.running + lane.waiting + lane.size - lane.places
        found[f"sessions waiting for {lane.name}"] = len(lane._sessions) + len(lane._turns)
    return found


def tasks_of(loop: LoopThread) -> int:
    """All but those that run as long as the worker does."""

    async def count() -> int:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        names = (getattr(task.get_coro(), "__qualname__", "") for task in tasks)
        return sum(not name.startswith(("AioServer.", "Worker.")) for name in names)

    return loop.run(count())


def have_begun(count: int) -> None:
    for _ in range(count):
        assert begun.acquire(timeout=LIMIT)


def settled(serve: Served) -> None:
    """Wait until nothing is held any more."""
    for _ in range(20_000):
        left = {name: number for name, number in held(serve).items() if number}
        if not left:
            break
    assert left == {}
    while begun.acquire(blocking=False):
        pass


def memory() -> tuple[int, Counter[type]]:
    """Blocks allocated, and live objects by their classes."""
    gc.collect()
    blocks = sys.getallocatedblocks()
    return blocks, Counter(map(type, gc.get_objects()))


def check_growth(run: Callable[[int], None], first: int, further: int, calls: int) -> None:
    """Run rounds of so many calls; after the first ones memory grows no more."""
    for number in range(first):
        run(number)
    blocks, objects = memory()
    for number in range(further):
        run(number)
    more_blocks, more_objects = memory()
    # Whatever one kind of call leaves behind, at least 250 of them do.
    assert {kind: n for kind, n in (more_objects - objects).items() if n > 100} == {}
    assert more_blocks - blocks < calls * further // 5


def test_ten_thousand_cancelled_calls(connection: Connection, serve: Served) -> None:
    """In each of 50 rounds: 50 in threads or waiting for one, 100 coroutines, 50 foreign ones."""
    tools = ["leaving.waiting"] * 100 + ["waiting"] * 50 + ["leaving.checking"] * 50
    requests = [connection.request(tool) for tool in tools]
    for number, request in enumerate(requests):
        request.session_id = f"session {number % SESSIONS}"

    def run(number: int) -> None:
        calls = []
        for count, request in enumerate(requests, 1):
            calls.append(connection.stub.ExecuteTool.future(request))
            if count == 150 and number % 5:  # else they leave as early as they can
                have_begun(150)  # those that hold threads come last
        if number % 5:
            have_begun(THREADS)
            while connection.call("worker.stats")["threads"]["waiting"] < 50 - THREADS:
                pass
        for call in calls:
            call.cancel()
        settled(serve)

    check_growth(run, 5, 45, len(requests))
    assert connection.call("worker.stats")["calls"]["failed"] == 0


def test_two_thousand_abandoned_streams(connection: Connection, serve: Served) -> None:
    """In each of 126 rounds: 4 generators and 4 asynchronous ones, native and foreign."""
    tools = ["leaving.stream", "leaving.stream_async", "stream", "stream_async"] * 4
    requests = [connection.request(tool) for tool in tools]

    def run(number: int) -> None:
        streams = [connection.stub.ExecuteStreamingTool(request) for request in requests]
        if number % 5:  # else they leave as early as they can
            assert [json.loads(next(stream).data) for stream in streams] == [0] * len(streams)
        for stream in streams:
            stream.cancel()
        settled(serve)

    check_growth(run, 63, 63, len(requests))
    assert connection.call("worker.stats")["calls"]["failed"] == 0
