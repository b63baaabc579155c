"""Deadlines and callers that leave: they reach the tool, and the next call is served."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from snakepit_worker import Adapter, CallContext, tool
from snakepit_worker.errors import Cancelled, DeadlineExceeded
from tests.bridge.conftest import LIMIT

if TYPE_CHECKING:
    from snakepit_worker.testing import Connection
    from tests.bridge.conftest import Gate, Served

DEADLINES = (0.15, 1.0, 5.0)
"""Seconds of a deadline that is there to be missed, but not before the tool has begun: on a machine
that is too slow for one the next is tried."""


class Slow(Adapter):
    """Tools that outlive their callers, and tell what they saw."""

    name = "slow"

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.seen: list[str] = []
        self.ended = threading.Semaphore(0)
        self.contexts: list[CallContext] = []

    def note(self, what: str) -> None:
        self.seen.append(what)
        self.ended.release()

    def wait_for_end(self) -> None:
        assert self.ended.acquire(timeout=LIMIT)

    @tool
    async def on_loop(self, ctx: CallContext) -> None:
        self.contexts.append(ctx)
        self.gate.pass_by()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.note("cancelled")
            raise

    @tool
    async def stubborn(self) -> str:
        self.gate.pass_by()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.note("ignored")
        return "too late"

    @tool
    async def rude(self) -> str:
        self.gate.pass_by()
        try:
            await asyncio.Event().wait()
        finally:
            self.note("raised")
            raise ValueError("instead of the cancellation")

    @tool
    async def with_helper(self, ctx: CallContext) -> None:
        await ctx.run_sync(self.polling, ctx)

    @tool
    def polling(self, ctx: CallContext) -> None:
        """Go on until told that nobody waits any more."""
        self.contexts.append(ctx)
        self.gate.pass_by()
        pause = threading.Event()
        while not ctx.cancelled:
            pause.wait(0.001)
        self.note("saw it")

    @tool
    def checking(self, ctx: CallContext) -> None:
        """The same through the checkpoint."""
        self.contexts.append(ctx)
        self.gate.pass_by()
        pause = threading.Event()
        try:
            while True:
                ctx.checkpoint()
                pause.wait(0.001)
        except (Cancelled, DeadlineExceeded) as error:
            self.note(type(error).__name__)
            raise

    @tool
    def ignoring(self) -> str:
        self.gate.wait()
        self.note("ended")
        return "too late"

    @tool
    def quick(self, label: str = "") -> str:
        self.seen.append(f"quick {label}".strip())
        return threading.current_thread().name


@pytest.fixture
def slow(gate: Gate) -> Slow:
    return Slow(gate)


def begin(connection: Connection, name: str, timeout: float = LIMIT, **arguments: Any) -> Any:
    return connection.stub.ExecuteTool.future(
        connection.request(f"slow.{name}", arguments), timeout=timeout
    )


def wait_until_idle(connection: Connection) -> dict[str, Any]:
    """Ask until the asking call is the only one; every question is a turn of the loop."""
    for _ in range(10_000):
        stats: dict[str, Any] = connection.call("worker.stats")
        if stats["calls"]["in_flight"] == 1:
            return stats
    pytest.fail("calls stay in flight")


ENDINGS = pytest.mark.parametrize("ending", ["deadline", "cancel", "disconnect"])
SEEN = pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("on_loop", "cancelled"),
        ("stubborn", "ignored"),
        ("rude", "raised"),
        ("polling", "saw it"),
        ("with_helper", "saw it"),
    ],
)


def abandon(serve: Served, slow: Slow, name: str, ending: str) -> None:
    """Begin a call, and leave it in one of the ways."""
    connection = serve.connect()
    if ending == "deadline":
        for seconds in DEADLINES:
            call = begin(connection, name, seconds)
            call.exception()
            wait_until_idle(connection)
            if slow.gate.reached_by_more():
                return
        pytest.fail("too slow a machine")
    call = begin(connection, name)
    slow.gate.reached()
    if ending == "cancel":
        call.cancel()
    else:
        connection.close()


@pytest.mark.conforms(67, "D16")
@ENDINGS
@SEEN
def test_a_tool_learns_that_nobody_waits_any_more(
    serve: Served, slow: Slow, ending: str, name: str, seen: str
) -> None:
    connection = serve(slow)
    abandon(serve, slow, name, ending)
    slow.wait_for_end()
    assert slow.seen == [seen]
    wait_until_idle(connection)
    assert connection.call("slow.quick")
    assert all(ctx.cancelled for ctx in slow.contexts)


@pytest.mark.parametrize("ending", ["deadline", "cancel"])
def test_a_checkpoint_ends_a_synchronous_tool(serve: Served, slow: Slow, ending: str) -> None:
    connection = serve(slow)
    abandon(serve, slow, "checking", ending)
    slow.wait_for_end()
    # Of a deadline the clock may tell before the connection does.
    assert slow.seen[0] in {"Cancelled", "DeadlineExceeded" if ending == "deadline" else ""}
    wait_until_idle(connection)
    assert connection.call("slow.quick")


@pytest.mark.conforms(67)
@ENDINGS
def test_a_tool_that_does_not_look_runs_on_and_its_thread_is_free_afterwards(
    serve: Served, slow: Slow, ending: str
) -> None:
    connection = serve(slow, max_workers=2)
    abandon(serve, slow, "ignoring", ending)
    stats = wait_until_idle(connection)
    assert stats["threads"]["busy"] == 1
    assert connection.call("slow.quick") == "tool-1"
    slow.gate.open()
    slow.wait_for_end()
    assert slow.seen == ["quick", "ended"]
    while connection.call("worker.stats")["threads"]["busy"]:
        pass
    assert connection.call("slow.quick") == "tool-0"


@pytest.mark.parametrize("ending", ["deadline", "cancel"])
def test_a_call_that_is_abandoned_before_it_got_a_thread_never_runs(
    serve: Served, slow: Slow, ending: str
) -> None:
    connection = serve(slow, max_workers=1)
    first = begin(connection, "ignoring")
    slow.gate.reached()
    seconds = DEADLINES[0] if ending == "deadline" else LIMIT
    abandoned = begin(connection, "quick", seconds, label="never")
    if ending == "cancel":
        while connection.call("worker.stats")["threads"]["waiting"] == 0:
            pass
    last = begin(connection, "quick", label="last")
    if ending == "cancel":
        abandoned.cancel()
    with pytest.raises((grpc.RpcError, grpc.FutureCancelledError)):
        abandoned.result()
    while connection.call("worker.stats")["calls"]["in_flight"] != 3:
        pass
    slow.gate.open()
    assert first.result().success
    assert last.result().success
    assert slow.seen == ["ended", "quick last"]


@pytest.mark.conforms("D51")
def test_a_tool_sees_how_much_time_is_left(serve: Served, gate: Gate) -> None:
    class Timed(Adapter):
        name = "timed"

        @tool
        def left(self, ctx: CallContext) -> Any:
            return [ctx.deadline.remaining(), ctx.deadline.passed, ctx.deadline.bound(1.0)]

    del gate
    remaining, passed, bound = serve(Timed()).call("timed.left", timeout=7.0)
    assert 0 < remaining < 7.5
    assert (passed, bound) == (False, 1.0)


def test_many_abandoned_calls_leave_nothing_behind(serve: Served, slow: Slow) -> None:
    connection = serve(slow)
    calls = [begin(connection, "on_loop") for _ in range(50)]
    slow.gate.reached(50)
    for call in calls:
        call.cancel()
    for _ in calls:
        slow.wait_for_end()
    stats = wait_until_idle(connection)
    assert slow.seen == ["cancelled"] * 50
    assert stats["calls"]["failed"] == 0
    assert stats["sessions"] == 1


def test_a_timeout_inside_of_a_tool_is_a_failure_and_no_cancellation(serve: Served) -> None:
    class Impatient(Adapter):
        name = "impatient"

        @tool
        async def wait(self) -> None:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()

        @tool
        async def cancel_itself(self) -> None:
            inner = asyncio.ensure_future(asyncio.Event().wait())
            await asyncio.sleep(0)
            inner.cancel()
            await inner

    connection = serve(Impatient())
    for name, error in (("wait", "TimeoutError"), ("cancel_itself", "CancelledError")):
        response = connection.stub.ExecuteTool(
            connection.request(f"impatient.{name}"), timeout=LIMIT
        )
        assert f'"type":"{error}"' in response.error_message
