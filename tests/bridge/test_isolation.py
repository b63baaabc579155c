"""One call never delays another, nor Ping, nor Heartbeat.

Each test blocks something until the other side has been answered: a worker in which one waits for
the other would not get through it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from snakepit_worker import Adapter, CallContext, tool
from snakepit_worker.testing.connection import decode_response
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from tests.bridge.conftest import LIMIT

if TYPE_CHECKING:
    from snakepit_worker.testing import Connection
    from tests.bridge.conftest import Gate, Served

ANSWER = 5.0
"""Seconds within which everything that must not be held up answers."""


class Lazy:
    """A value of a framework: what it takes to turn it into JSON is the framework's business."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def to_dict(self) -> dict[str, int]:
        self.gate.wait()
        return {"done": 1}

    def __iter__(self) -> Iterator[int]:
        self.gate.wait()
        yield 1


class LazyIterable:
    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def __iter__(self) -> Iterator[int]:
        self.gate.wait()
        yield 1


class Blocking(Adapter):
    name = "blocking"

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    @tool
    def in_thread(self) -> str:
        self.gate.wait()
        return "done"

    @tool(main_thread=True)
    def on_main_thread(self) -> str:
        self.gate.wait()
        return "done"

    @tool
    async def on_loop(self) -> str:
        await self.gate.wait_async()
        return "done"

    @tool
    async def through_helper(self, ctx: CallContext) -> str:
        await ctx.run_sync(self.gate.wait)
        return "done"

    @tool
    async def to_thread(self) -> str:
        await asyncio.to_thread(self.gate.wait)
        return "done"

    @tool
    def stream(self) -> Iterator[int]:
        self.gate.wait()
        yield 1

    @tool
    def lazy_result(self) -> Any:
        return Lazy(self.gate)

    @tool
    async def lazy_async(self) -> Any:
        return Lazy(self.gate)

    @tool
    async def lazy_inside_async(self) -> Any:
        return {"inside": [Lazy(self.gate)]}

    @tool
    async def lazy_items_async(self) -> AsyncIterator[Any]:
        yield Lazy(self.gate)

    @tool
    async def lazy_inside_items_async(self) -> AsyncIterator[Any]:
        yield {"inside": [Lazy(self.gate)]}

    @tool
    def lazy_items(self) -> Iterator[Any]:
        yield Lazy(self.gate)

    @tool
    def lazy_iterable(self) -> Any:
        return LazyIterable(self.gate)

    @tool
    def lazy_closer(self, ctx: CallContext) -> None:
        ctx.session.put("blocking.thing", None, close=self.gate.wait)

    @tool
    async def quick_on_loop(self) -> str:
        return "quick"

    @tool
    def quick_in_thread(self) -> str:
        return "quick"


@pytest.fixture
def blocking(gate: Gate) -> Blocking:
    return Blocking(gate)


def everything_answers(connection: Connection, *names: str) -> None:
    """Everything that must not be held up."""
    stub = connection.stub
    assert stub.Ping(pb.PingRequest(message="x"), timeout=ANSWER).message.endswith("x")
    stub.Heartbeat(pb.HeartbeatRequest(session_id=connection.session_id), timeout=ANSWER)
    assert connection.call("worker.info", timeout=ANSWER)
    assert connection.call("blocking.quick_on_loop", timeout=ANSWER) == "quick"
    for name in names:
        assert connection.call(name, timeout=ANSWER) == "quick"


@pytest.mark.conforms(29, "D24")
@pytest.mark.parametrize(
    "name", ["in_thread", "on_main_thread", "on_loop", "through_helper", "to_thread"]
)
def test_tools_that_wait_hold_up_nobody(serve: Served, blocking: Blocking, name: str) -> None:
    connection = serve(blocking, max_workers=4)
    calls = [
        connection.stub.ExecuteTool.future(connection.request(f"blocking.{name}"), timeout=LIMIT)
        for _ in range(3)
    ]
    blocking.gate.reached(1 if name == "on_main_thread" else 3)
    everything_answers(connection, "blocking.quick_in_thread")
    blocking.gate.open()
    assert [decode_response(call.result()) for call in calls] == ["done"] * 3


@pytest.mark.conforms(29)
def test_a_full_pool_holds_up_only_what_needs_a_thread(serve: Served, blocking: Blocking) -> None:
    connection = serve(blocking, max_workers=2)
    calls = [
        connection.stub.ExecuteTool.future(connection.request("blocking.in_thread"), timeout=LIMIT)
        for _ in range(5)
    ]
    blocking.gate.reached(2)
    everything_answers(connection)
    while connection.call("worker.stats")["threads"]["waiting"] < 3:
        pass
    threads = {"size": 2, "busy": 2, "waiting": 3, "abandoned": 0}
    assert connection.call("worker.stats")["threads"] == threads
    assert not blocking.gate.reached_by_more()
    blocking.gate.open()
    assert [decode_response(call.result()) for call in calls] == ["done"] * 5


@pytest.mark.conforms(70, "D2")
def test_threads_run_side_by_side_up_to_their_number(serve: Served, blocking: Blocking) -> None:
    connection = serve(blocking, max_workers=16)
    calls = [
        connection.stub.ExecuteTool.future(connection.request("blocking.in_thread"), timeout=LIMIT)
        for _ in range(16)
    ]
    blocking.gate.reached(16)  # all at once, or this would not get here
    blocking.gate.open()
    assert all(call.result().success for call in calls)


def test_without_a_number_there_are_ten_threads(serve: Served, blocking: Blocking) -> None:
    assert serve(blocking).call("worker.stats")["threads"]["size"] == 10


@pytest.mark.parametrize("name", ["lazy_result", "lazy_async", "lazy_inside_async"])
def test_a_result_that_takes_its_time_to_become_json_holds_up_nobody(
    serve: Served, blocking: Blocking, name: str
) -> None:
    """Converting a result may run any code of a framework."""
    connection = serve(blocking)
    call = connection.stub.ExecuteTool.future(connection.request(f"blocking.{name}"), timeout=LIMIT)
    blocking.gate.reached()
    everything_answers(connection, "blocking.quick_in_thread")
    blocking.gate.open()
    assert "done" in str(decode_response(call.result()))


@pytest.mark.parametrize(
    "name",
    [
        "stream",
        "lazy_items",
        "lazy_items_async",
        "lazy_inside_items_async",
        "lazy_iterable",
        "lazy_result",
        "lazy_async",
        "lazy_inside_async",
    ],
)
def test_streams_that_wait_hold_up_nobody(serve: Served, blocking: Blocking, name: str) -> None:
    connection = serve(blocking)
    chunks = connection.stub.ExecuteStreamingTool(
        connection.request(f"blocking.{name}"), timeout=LIMIT
    )
    blocking.gate.reached()
    everything_answers(connection, "blocking.quick_in_thread")
    blocking.gate.open()
    assert len(list(chunks)) == 2


@pytest.mark.parametrize("how", ["CleanupSession", "session.close", "eviction", "no session"])
def test_a_closer_that_waits_holds_up_nobody(serve: Served, blocking: Blocking, how: str) -> None:
    connection = serve(blocking, max_sessions=1)
    request = connection.request("blocking.lazy_closer")
    if how == "no session":
        request.session_id = ""
    other = serve.connect()
    held = connection.stub.ExecuteTool.future(request, timeout=LIMIT)
    closing: Any = held
    if how != "no session":
        assert held.result().success
    if how == "CleanupSession":
        closing = connection.stub.CleanupSession.future(
            pb.CleanupSessionRequest(session_id=connection.session_id), timeout=LIMIT
        )
    elif how == "session.close":
        closing = connection.stub.ExecuteTool.future(
            connection.request("session.close"), timeout=LIMIT
        )
    elif how == "eviction":
        closing = other.stub.ExecuteTool.future(
            other.request("blocking.quick_on_loop"), timeout=LIMIT
        )
    blocking.gate.reached()
    stub = connection.stub
    assert stub.Ping(pb.PingRequest(message="x"), timeout=ANSWER).message.endswith("x")
    stub.Heartbeat(pb.HeartbeatRequest(session_id="x"), timeout=ANSWER)
    blocking.gate.open()
    assert closing.result().success


def test_a_tool_that_blocks_the_loop_is_the_one_thing_that_holds_up_others(
    serve: Served, gate: Gate
) -> None:
    """The counter-proof: these tests would notice."""

    class Careless(Adapter):
        name = "careless"

        @tool
        async def block(self) -> str:
            gate.wait()
            return "done"

    connection = serve(Careless())
    call = connection.stub.ExecuteTool.future(connection.request("careless.block"), timeout=LIMIT)
    gate.reached()
    with pytest.raises(grpc.RpcError) as caught:
        connection.stub.Ping(pb.PingRequest(), timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    gate.open()
    assert call.result().success


def test_calls_of_one_session_run_side_by_side(serve: Served, blocking: Blocking) -> None:
    connection = serve(blocking)
    same = serve.connect(connection.session_id)
    first = connection.stub.ExecuteTool.future(
        connection.request("blocking.in_thread"), timeout=LIMIT
    )
    blocking.gate.reached()
    assert same.call("blocking.quick_in_thread", timeout=ANSWER) == "quick"
    blocking.gate.open()
    assert first.result().success
