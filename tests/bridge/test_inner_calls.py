"""Tools that call other tools of their worker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from snakepit_worker import Adapter, Binary, CallContext, tool
from snakepit_worker.errors import Cancelled, InnerCallFailed, WorkerError
from snakepit_worker.testing import ToolFailure
from snakepit_worker.testing.connection import decode_response
from tests.bridge.conftest import LIMIT, in_thread

if TYPE_CHECKING:
    from snakepit_worker.testing import Connection
    from tests.bridge.conftest import Gate, Served

WAYS = ["awaiting", "blocking"]
ROUNDING = 1.0
"""Seconds that gRPC adds where it writes a timeout of several seconds on the wire."""


setting: ContextVar[str] = ContextVar("setting", default="none")
"""As frameworks keep their settings."""


class Tools(Adapter):
    """What is called, and what calls it."""

    name = "t"

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.ended = threading.Event()
        self.raised: list[BaseException] = []

    @tool
    async def awaiting(self, ctx: CallContext, tool: str, arguments: dict[str, Any]) -> Any:
        return await ctx.call(tool, arguments)

    @tool
    def blocking(self, ctx: CallContext, tool: str, arguments: dict[str, Any]) -> Any:
        return ctx.call_blocking(tool, arguments)

    @tool
    async def in_a_thread(self, ctx: CallContext, tool: str) -> Any:
        return await ctx.run_sync(ctx.call_blocking, tool)

    @tool(main_thread=True)
    def on_main(self, ctx: CallContext, tool: str) -> Any:
        return ctx.call_blocking(tool)

    @tool(main_thread=True)
    def thread(self) -> str:
        return threading.current_thread().name

    @tool
    def blocks_the_loop(self) -> str:
        return threading.current_thread().name

    @tool
    async def from_the_loop(self, ctx: CallContext) -> Any:
        return ctx.call_blocking("t.echo", {"value": 1})

    @tool
    def echo(self, value: Any) -> Any:
        return value

    @tool
    def fail(self) -> None:
        raise LookupError("nothing there")

    @tool
    def seen(self, ctx: CallContext) -> list[Any]:
        remaining = ctx.deadline.remaining()
        in_time = remaining is not None and remaining <= LIMIT + ROUNDING
        return [ctx.session.id, ctx.correlation_id, ctx.metadata["colour"], ctx.depth, in_time]

    @tool
    async def around(self, ctx: CallContext) -> list[Any]:
        """What the outer call sees once an inner one is over."""
        inner = await ctx.call("t.seen")
        return [inner, await ctx.call("t.seen")]

    @tool
    async def reverse(self, ctx: CallContext) -> list[Any]:
        result = await ctx.call("t.pack", binary={"data": b"abc"})
        assert isinstance(result, Binary)
        return [result.data.decode(), result.metadata]

    @tool
    def pack(self, data: bytes) -> Binary:
        return Binary(data[::-1], {"size": len(data)})

    @tool
    def count(self) -> Iterator[int]:
        yield 1

    @tool
    async def hang(self) -> None:
        try:
            await self.gate.wait_async()
        finally:
            self.ended.set()

    @tool
    def waits(self, ctx: CallContext) -> None:
        try:
            ctx.call_blocking("t.hang")
        except BaseException as error:
            self.raised.append(error)
            self.gate.pass_by()
            raise

    @tool
    async def alone(self, ctx: CallContext) -> None:
        ctx.session.put("t.thing", object(), name="thing")
        async with ctx.session.lease("thing", "t.thing", exclusive=True):
            await ctx.call("t.echo", {"value": 1})

    @tool
    async def told(self, ctx: CallContext) -> list[Any]:
        try:
            await ctx.call("t.fail")
        except InnerCallFailed as failure:
            return [failure.tool, failure.type, failure.reason]
        return []

    @tool
    async def down(self, ctx: CallContext, levels: int) -> int:
        if levels == 0:
            return ctx.depth
        tool = "t.down_blocking" if levels % 2 else "t.down"
        depth: int = await ctx.call(tool, {"levels": levels - 1})
        return depth

    @tool
    def down_blocking(self, ctx: CallContext, levels: int) -> int:
        if levels == 0:
            return ctx.depth
        depth: int = ctx.call_blocking("t.down", {"levels": levels - 1})
        return depth

    @tool
    async def keeps(self, ctx: CallContext) -> list[str]:
        """What the other tool sees of a setting of this one."""
        setting.set("outer")
        kept: str = await ctx.call("t.setting")
        return [kept, setting.get(), await ctx.run_sync(ctx.call_blocking, "t.setting")]

    @tool
    def setting(self) -> str:
        return setting.get()

    @tool
    async def batch_again(self, ctx: CallContext) -> int:
        """Calls itself through a batch, as deep as it gets."""
        [outcome] = await ctx.call("worker.batch", {"calls": [{"tool": "t.batch_again"}]})
        return 1 + (outcome["result"] if outcome["success"] else 0)


@pytest.fixture
def tools(gate: Gate) -> Tools:
    return Tools(gate)


@pytest.fixture
def connection(serve: Served, tools: Tools) -> Connection:
    return serve(tools)


def failure(connection: Connection, name: str, **arguments: Any) -> dict[str, Any]:
    with pytest.raises(ToolFailure) as caught:
        connection.call(name, arguments, timeout=LIMIT)
    return dict(caught.value.failure)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", [None, 2**70, 1.5, "é", [1, {"a": None}]], ids=str)
def test_a_tool_has_anothers_result(connection: Connection, way: str, value: Any) -> None:
    arguments = {"tool": "t.echo", "arguments": {"value": value}}
    assert connection.call(f"t.{way}", arguments, timeout=LIMIT) == value


def test_bytes_need_no_base64(connection: Connection) -> None:
    assert connection.call("t.reverse") == ["cba", {"size": 3}]


@pytest.mark.parametrize("way", WAYS)
def test_it_runs_in_the_session_of_the_call_that_makes_it(connection: Connection, way: str) -> None:
    arguments = {"session_id": "mine", "tool": "t.seen", "arguments": {}}
    request = connection.request(f"t.{way}", arguments)
    request.metadata.update({"correlation_id": "c-1", "colour": "red"})
    seen = decode_response(connection.execute(request, LIMIT))
    assert seen == ["mine", "c-1", "red", 1, True]


def test_an_outer_call_stays_what_it_is(connection: Connection) -> None:
    request = connection.request("t.around")
    request.metadata.update({"correlation_id": "c-1", "colour": "red"})
    first, second = decode_response(connection.execute(request, LIMIT))
    assert first == second
    assert first[3] == 1


def test_settings_of_an_outer_call_are_not_the_others(connection: Connection) -> None:
    assert connection.call("t.keeps") == ["none", "outer", "none"]


@pytest.mark.parametrize("way", WAYS)
def test_another_session_cannot_be_named(connection: Connection, way: str) -> None:
    arguments = {"tool": "t.seen", "arguments": {"session_id": "theirs"}}
    failed = failure(connection, f"t.{way}", **arguments)
    assert (failed["code"], failed["violations"][0]["field"]) == ("INVALID_ARGUMENT", "session_id")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("called", "arguments", "code", "message"),
    [
        ("t.fail", {}, "INTERNAL", "t.fail: LookupError: nothing there"),
        ("t.absent", {}, "NOT_FOUND", "t.absent: KeyError: unknown tool 't.absent'"),
        ("t.echo", {}, "INVALID_ARGUMENT", "t.echo: ValueError: wrong arguments for t.echo"),
        ("t.count", {}, "FAILED_PRECONDITION", "t.count: "),
    ],
)
def test_a_failure_of_the_other_tool_is_one_of_this(  # noqa: PLR0917 - fixtures and a table
    connection: Connection,
    way: str,
    called: str,
    arguments: dict[str, Any],
    code: str,
    message: str,
) -> None:
    failed = failure(connection, f"t.{way}", tool=called, arguments=arguments)
    assert (failed["code"], failed["details"]["tool"]) == (code, called)
    assert failed["message"].startswith(message)


def test_a_tool_can_tell_what_failed(connection: Connection) -> None:
    assert connection.call("t.told") == ["t.fail", "LookupError", "nothing there"]


def test_calls_that_wait_for_others_do_not_take_their_places(serve: Served, tools: Tools) -> None:
    connection = serve(tools, max_workers=1, max_calls=1, max_session_calls=1)
    for way in WAYS:
        for called in ("t.echo", "t.blocking"):
            inner = {"value": 7} if called == "t.echo" else _echo(7)
            arguments = {"tool": called, "arguments": inner}
            assert connection.call(f"t.{way}", arguments, timeout=LIMIT) == 7
    name = connection.call("t.in_a_thread", {"tool": "t.blocks_the_loop"}, timeout=LIMIT)
    assert name.startswith("tool-1")


def test_many_that_wait_for_others_at_once(serve: Served, tools: Tools) -> None:
    connection = serve(tools, max_workers=2)
    calls = [
        in_thread(lambda i=i: connection.call("t.blocking", {"tool": "t.blocking"} | _inner(i)))  # type: ignore[misc]
        for i in range(8)
    ]
    assert [call() for call in calls] == list(range(8))


def test_calls_are_so_deep_at_most(connection: Connection) -> None:
    assert connection.call("t.down", {"levels": 4}, timeout=LIMIT) == 4
    failed = failure(connection, "t.down", levels=5)
    assert (failed["code"], failed["retryable"]) == ("RESOURCE_EXHAUSTED", False)
    assert "a call can be inside of 4 others at most" in failed["message"]


def test_a_batch_does_not_make_calls_deeper_than_they_may_be(connection: Connection) -> None:
    assert connection.call("t.batch_again", timeout=LIMIT) == 4


def test_the_main_thread_waits_for_nobody(connection: Connection) -> None:
    failed = failure(connection, "t.on_main", tool="t.thread")
    assert failed["code"] == "FAILED_PRECONDITION"
    arguments = {"tool": "t.thread", "arguments": {}}
    assert connection.call("t.blocking", arguments, timeout=LIMIT) == "main-thread"


def test_nobody_waits_with_a_resource_for_himself(connection: Connection) -> None:
    failed = failure(connection, "t.alone")
    assert failed["code"] == "FAILED_PRECONDITION"
    assert "no call of another tool while" in failed["message"]


def test_the_event_loop_is_not_blocked(connection: Connection) -> None:
    assert "would block the event loop" in failure(connection, "t.from_the_loop")["message"]


@pytest.mark.parametrize("way", WAYS)
def test_a_cancelled_call_cancels_the_other(connection: Connection, tools: Tools, way: str) -> None:
    request = connection.request(f"t.{way}", {"tool": "t.hang", "arguments": {}})
    call = connection.stub.ExecuteTool.future(request, timeout=LIMIT)
    tools.gate.reached()
    call.cancel()
    assert tools.ended.wait(LIMIT)


def test_a_thread_learns_that_its_call_was_cancelled(connection: Connection, tools: Tools) -> None:
    call = connection.stub.ExecuteTool.future(connection.request("t.waits"), timeout=LIMIT)
    tools.gate.reached()
    call.cancel()
    tools.gate.reached()
    assert [type(error) for error in tools.raised] == [Cancelled]
    assert isinstance(tools.raised[0], WorkerError)


@pytest.mark.parametrize("way", WAYS)
def test_the_other_call_ends_with_this_ones_time(
    connection: Connection, tools: Tools, way: str
) -> None:
    call = {"tool": f"t.{way}", "arguments": {"tool": "t.hang", "arguments": {}}}
    [outcome] = connection.call("worker.batch", {"calls": [{**call, "timeout_ms": 50}]})
    assert outcome["error"]["code"] == "DEADLINE_EXCEEDED"
    assert tools.ended.wait(LIMIT)


def _echo(value: int) -> dict[str, Any]:
    return {"tool": "t.echo", "arguments": {"value": value}}


def _inner(value: int) -> dict[str, Any]:
    return {"arguments": _echo(value)}
