"""Unary calls, front to back: names, sessions, correlation ids, contexts, failures."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import grpc
import msgspec
import pytest

from snakepit_worker import Adapter, Binary, CallContext, tool
from snakepit_worker.calls.threads import Job
from snakepit_worker.errors import (
    Conflict,
    DeadlineExceeded,
    FailedPrecondition,
    Meaning,
    NotFound,
    PermissionDenied,
    ProviderError,
    ResourceExhausted,
    Unimplemented,
    WorkerError,
)
from snakepit_worker.testing import ToolFailure
from snakepit_worker.testing.connection import decode_response
from snakepit_worker.tools.context import current_call
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from snakepit_worker.wire.values import to_any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from snakepit_worker.testing import Connection
    from tests.bridge.conftest import Gate, Served

variable: ContextVar[str] = ContextVar("variable", default="unset")


class Item(msgspec.Struct):
    name: str
    count: Annotated[int, msgspec.Meta(ge=1)] = 1


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise ValueError

    __repr__ = __str__


class ForeignError(Exception):
    """Of a framework."""


class OfTheFrameworkError(RuntimeError):
    """One that its adapter knows."""


ERRORS: dict[str, Any] = {
    "ValueError": ValueError("plain text"),
    "KeyError": KeyError("k"),
    "ForeignError": ForeignError("of a framework"),
    "FileNotFoundError": FileNotFoundError(2, "No such file", "x.txt"),
    "StopAsyncIteration": StopAsyncIteration("s"),
    "SystemExit": SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt("k"),
    "GeneratorExit": GeneratorExit("g"),
    "CancelledError": asyncio.CancelledError("of the tool"),
    "TimeoutError": TimeoutError("slow"),
    "BaseException": BaseException("base"),
    "UnspeakableError": UnspeakableError(),
    "ExceptionGroup": ExceptionGroup("many", [ValueError("one"), KeyError("two")]),
}


class Shop(Adapter):
    name = "shop"

    @tool
    def order(
        self,
        article: str,
        quantity: Annotated[int, msgspec.Meta(ge=1)] = 1,
        mode: Literal["slow", "fast"] = "slow",
        items: list[Item] | None = None,
        note: str | None = None,
    ) -> Any:
        return [article, quantity, mode, [item.name for item in items or []], note]

    @tool
    def fail(self, how: str) -> NoReturn:
        raise ERRORS[how]

    @tool
    async def fail_async(self, how: str) -> NoReturn:
        raise ERRORS[how]

    @tool
    def fail_late(self, seconds: float) -> NoReturn:
        time.sleep(seconds)
        raise ValueError("late")

    @tool
    def stop_iteration(self) -> NoReturn:
        raise StopIteration(5)

    @tool
    async def stop_iteration_async(self) -> NoReturn:
        raise StopIteration(5)

    @tool
    def recurse(self) -> Any:
        return self.recurse()

    @tool
    async def recurse_async(self) -> Any:
        return await self.recurse_async()

    @tool
    def generator(self) -> Any:
        return (number for number in range(3))

    @tool
    async def generator_async(self) -> Any:
        async def numbers() -> Any:
            yield 1

        return numbers()

    @tool
    def coroutine(self) -> Any:
        async def answer() -> int:
            return 42

        return answer()

    @tool
    def not_bytes(self) -> Any:
        return Binary("text")  # type: ignore[arg-type]

    @tool
    def long_message(self, size: int) -> NoReturn:
        raise ValueError("x" * size)

    @tool
    def framework(self, how: str) -> NoReturn:
        raise OfTheFrameworkError(how)

    @tool
    def none(self) -> None: ...

    def meanings(self) -> Sequence[Meaning]:
        return [Meaning(OfTheFrameworkError, ProviderError)]

    def explain(self, error: BaseException, failure: WorkerError) -> WorkerError:
        if str(error) == "broken":
            raise RuntimeError("explain is broken")
        return type(failure)("", retry_after=0.5, details={"how": str(error)})


class Facts(Adapter):
    """What a tool sees of its call."""

    name = "facts"

    @tool
    def sync(self, ctx: CallContext, key: str = "") -> Any:
        del key
        return facts(ctx)

    @tool
    async def on_loop(self, ctx: CallContext) -> Any:
        return facts(ctx)

    @tool
    async def in_helper_thread(self, ctx: CallContext) -> Any:
        return await ctx.run_sync(facts, ctx)

    @tool
    async def to_thread(self, ctx: CallContext) -> Any:
        return await asyncio.to_thread(facts, ctx)

    @tool
    async def in_task(self, ctx: CallContext) -> Any:
        async def task() -> Any:
            return facts(ctx)

        return await asyncio.create_task(task())

    @tool
    def without_context(self) -> Any:
        ctx = current_call.get()
        return facts(ctx) if ctx is not None else None

    @tool
    def leave_a_mark(self) -> str:
        seen = variable.get()
        variable.set("set by a call")
        return seen

    @tool
    async def leave_a_mark_async(self) -> str:
        seen = variable.get()
        variable.set("set by a call")
        return seen


def facts(ctx: CallContext) -> dict[str, Any]:
    current = current_call.get()
    return {
        "same": current is ctx,
        "tool": ctx.tool,
        "session": ctx.session.id,
        "worker_session": ctx.worker_session_id,
        "correlation_id": ctx.correlation_id,
        "metadata": dict(ctx.metadata),
        "thread": threading.current_thread().name,
        "cancelled": ctx.cancelled,
        "remaining": ctx.deadline.remaining(),
    }


@pytest.fixture
def connection(serve: Served) -> Connection:
    return serve(Shop(), Facts())


def failure_of(connection: Connection, name: str, *args: Any, **more: Any) -> dict[str, Any]:
    with pytest.raises(ToolFailure) as caught:
        connection.call(name, *args, **more)
    return dict(caught.value.failure)


# --- Names and arguments --------------------------------------------------------------------------


def test_tools_of_several_adapters_answer_side_by_side(connection: Connection) -> None:
    assert connection.call("shop.order", {"article": "tea"}) == ["tea", 1, "slow", [], None]
    assert connection.call("facts.sync")["tool"] == "facts.sync"
    assert {tool["name"].partition(".")[0] for tool in connection.call("worker.tools")} == {
        "shop",
        "facts",
        "job",
        "session",
        "worker",
    }


def test_arguments_are_converted(connection: Connection) -> None:
    arguments = {
        "article": "tea",
        "quantity": 3,
        "mode": "fast",
        "items": [{"name": "a"}, {"name": "b", "count": 2}],
        "note": None,
    }
    assert connection.call("shop.order", arguments) == ["tea", 3, "fast", ["a", "b"], None]


def test_everything_wrong_about_the_arguments_is_told_at_once(connection: Connection) -> None:
    arguments = {
        "quantity": "many",
        "items": [{"name": "a"}, {"name": "b", "count": 0}],
        "mod": "x",
    }
    failure = failure_of(connection, "shop.order", arguments)
    assert (failure["type"], failure["code"], failure["category"], failure["retryable"]) == (
        "ValueError",
        "INVALID_ARGUMENT",
        "validation",
        False,
    )
    found = {violation["field"]: violation["description"] for violation in failure["violations"]}
    assert set(found) == {"quantity", "items[1].count", "mod", "article"}
    assert found["quantity"] == "expected int, got str ('many')"
    assert found["article"] == "expected str, got nothing"
    assert "did you mean mode?" in found["mod"]
    assert "expected int >= 1" in found["items[1].count"]
    for field in found:
        assert field in failure["message"]


@pytest.mark.parametrize("name", ["shop.ordr", "order", "shop", "", "Shop.order", "job.wait"])
def test_an_unknown_tool_is_a_failure(connection: Connection, name: str) -> None:
    failure = failure_of(connection, name)
    assert (failure["type"], failure["code"]) == ("KeyError", "NOT_FOUND")
    assert failure["context"]["tool_name"] == name


def test_a_near_miss_is_told_its_neighbour(connection: Connection) -> None:
    assert "did you mean shop.order" in failure_of(connection, "shop.ordr")["message"]
    assert failure_of(connection, "shop.ordr")["details"]["near"][0] == "shop.order"


@pytest.mark.conforms(58)
def test_a_tool_that_streams_cannot_be_called_for_one_value(serve: Served) -> None:
    class Streams(Adapter):
        name = "streams"

        @tool
        def numbers(self) -> Any:
            yield 1

    failure = failure_of(serve(Streams()), "streams.numbers")
    assert (failure["type"], failure["code"]) == ("RuntimeError", "FAILED_PRECONDITION")
    assert "call it as a streaming tool" in failure["message"]


@pytest.mark.conforms(58)
@pytest.mark.parametrize("name", ["shop.generator", "shop.generator_async"])
def test_a_generator_is_no_result_of_a_unary_call(connection: Connection, name: str) -> None:
    """A marker in its place would look like a success."""
    failure = failure_of(connection, name)
    assert failure["code"] == "FAILED_PRECONDITION"
    assert connection.call("shop.none") is None


def test_a_coroutine_is_no_result_either(connection: Connection) -> None:
    """What a plain function returns that was meant to be awaited: do so, or say so."""
    try:
        assert connection.call("shop.coroutine") == 42
    except ToolFailure as error:
        assert error.failure["code"] == "FAILED_PRECONDITION"  # noqa: PT017 - either is fine


def test_runtime_arguments_are_consumed_before_binding(connection: Connection) -> None:
    arguments = {"article": "tea", "session_id": "mine", "idempotent": True}
    assert connection.call("shop.order", arguments)[0] == "tea"


# --- Sessions and contexts ------------------------------------------------------------------------


def test_the_session_is_that_of_the_request(connection: Connection) -> None:
    seen = connection.call("facts.sync")
    assert seen["session"] == seen["worker_session"] == connection.session_id


def test_a_session_named_in_the_arguments_wins(connection: Connection) -> None:
    seen = connection.call("facts.sync", {"session_id": "mine"})
    assert seen["session"] == "mine"
    assert seen["worker_session"] == connection.session_id
    assert connection.call("session.info", {"session_id": "mine"})["session_id"] == "mine"


@pytest.mark.parametrize("value", ["", None])
def test_an_empty_session_argument_names_none(connection: Connection, value: object) -> None:
    assert connection.call("facts.sync", {"session_id": value})["session"] == connection.session_id


@pytest.mark.parametrize("value", [5, ["a"], {"id": "a"}, True])
def test_a_session_that_is_no_text_is_a_wrong_argument(
    connection: Connection, value: object
) -> None:
    failure = failure_of(connection, "facts.sync", {"session_id": value})
    assert failure["code"] == "INVALID_ARGUMENT"
    assert failure["violations"][0]["field"] == "session_id"


def test_a_failure_names_the_session_of_the_request(connection: Connection) -> None:
    failure = failure_of(connection, "shop.fail", {"how": "ValueError", "session_id": "mine"})
    assert failure["context"]["session_id"] == connection.session_id


def test_a_call_without_any_session_has_one_of_its_own(connection: Connection) -> None:
    request = connection.request("facts.sync")
    request.session_id = ""
    assert decode_response(connection.stub.ExecuteTool(request, timeout=20))["session"] == ""
    assert connection.call("worker.stats")["sessions"] == 1  # of the asking call itself


@pytest.mark.conforms(32)
@pytest.mark.parametrize(
    ("name", "thread"),
    [
        ("sync", "tool-0"),
        ("on_loop", "bridge"),
        ("in_helper_thread", "tool-0"),
        ("to_thread", "default"),
        ("in_task", "bridge"),
        ("without_context", "tool-0"),
    ],
)
def test_the_call_is_known_wherever_the_tool_runs(
    connection: Connection, name: str, thread: str
) -> None:
    seen = connection.call(f"facts.{name}", metadata={"correlation_id": "sp-here", "more": "x"})
    assert 0 < seen.pop("remaining") < 31
    assert thread in seen.pop("thread")
    assert seen == {
        "same": True,
        "tool": f"facts.{name}",
        "session": connection.session_id,
        "worker_session": connection.session_id,
        "correlation_id": "sp-here",
        "metadata": {"correlation_id": "sp-here", "more": "x"},
        "cancelled": False,
    }


@pytest.mark.conforms(32)
def test_the_call_is_known_nowhere_else(connection: Connection, serve: Served) -> None:
    connection.call("facts.sync")
    connection.call("facts.on_loop")
    assert current_call.get() is None

    async def on_the_loop() -> object:
        return current_call.get()

    assert serve.worker._loop.run(on_the_loop()) is None
    seen: list[object] = []
    done = threading.Event()

    def on_the_thread() -> None:
        seen.append(current_call.get())

    serve.worker._threads.submit(Job(on_the_thread, done.set))
    assert done.wait(20)
    assert seen == [None]


@pytest.mark.parametrize("name", ["leave_a_mark", "leave_a_mark_async"])
def test_context_variables_do_not_leak_from_call_to_call(connection: Connection, name: str) -> None:
    assert [connection.call(f"facts.{name}") for _ in range(3)] == ["unset"] * 3


def test_no_deadline_is_no_deadline(connection: Connection) -> None:
    assert connection.call("facts.sync", timeout=None)["remaining"] is None


# --- Correlation ids ------------------------------------------------------------------------------


def call_with(connection: Connection, headers: Any, **metadata: str) -> dict[str, Any]:
    request = pb.ExecuteToolRequest(tool_name="facts.sync", session_id="s", metadata=metadata)
    response = connection.stub.ExecuteTool(request, timeout=20, metadata=headers)
    seen: dict[str, Any] = decode_response(response)
    return seen


def test_the_correlation_id_of_the_header_comes_first(connection: Connection) -> None:
    headers = (("x-snakepit-correlation-id", "sp-header"),)
    seen = call_with(connection, headers, correlation_id="sp-metadata")
    assert seen["correlation_id"] == "sp-header"


def test_then_that_of_the_metadata(connection: Connection) -> None:
    assert call_with(connection, (), correlation_id="sp-meta")["correlation_id"] == "sp-meta"
    empty = (("x-snakepit-correlation-id", ""),)
    assert call_with(connection, empty, correlation_id="sp-meta")["correlation_id"] == "sp-meta"


def test_and_else_a_fresh_one(connection: Connection) -> None:
    ids = {call_with(connection, ())["correlation_id"] for _ in range(3)}
    assert len(ids) == 3
    for correlation_id in ids:
        assert len(correlation_id) == 32
        int(correlation_id, 16)


def test_a_failure_carries_the_correlation_id(connection: Connection) -> None:
    failure = failure_of(
        connection, "shop.fail", {"how": "ValueError"}, metadata={"correlation_id": "sp-here"}
    )
    assert failure["correlation_id"] == "sp-here"


def test_concurrent_calls_keep_their_ids_apart(serve: Served, gate: Gate) -> None:
    class Together(Adapter):
        name = "together"

        @tool
        def here(self, ctx: CallContext) -> list[str]:
            before = ctx.correlation_id
            gate.wait()
            current = current_call.get()
            assert current is not None
            return [before, current.correlation_id]

        @tool
        async def here_async(self, ctx: CallContext) -> list[str]:
            before = ctx.correlation_id
            await gate.wait_async()
            current = current_call.get()
            assert current is not None
            return [before, current.correlation_id]

    connection = serve(Together())
    requests = [
        connection.request(
            f"together.here{'_async' * (number % 2)}", metadata={"correlation_id": f"sp-{number}"}
        )
        for number in range(8)
    ]
    calls = [connection.stub.ExecuteTool.future(request, timeout=20) for request in requests]
    gate.reached(8)
    gate.open()
    for number, call in enumerate(calls):
        assert decode_response(call.result()) == [f"sp-{number}"] * 2


# --- Failures -------------------------------------------------------------------------------------


@pytest.mark.conforms(54, 55, 56, 57, "D19")
@pytest.mark.parametrize("name", ["shop.fail", "shop.fail_async"])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("ValueError", "plain text"),
        ("KeyError", "'k'"),
        ("ForeignError", "of a framework"),
        ("FileNotFoundError", "[Errno 2] No such file: 'x.txt'"),
        ("StopAsyncIteration", "s"),
        ("SystemExit", "3"),
        ("KeyboardInterrupt", "k"),
        ("CancelledError", "of the tool"),
        ("TimeoutError", "slow"),
        ("BaseException", "base"),
        ("UnspeakableError", "<UnspeakableError whose text cannot be read>"),
        ("ExceptionGroup", "many (2 sub-exceptions)"),
    ],
)
def test_whatever_a_tool_raises_is_a_failure_and_the_worker_serves_on(
    connection: Connection, name: str, how: str, message: str
) -> None:
    response = connection.stub.ExecuteTool(connection.request(name, {"how": how}), timeout=20)
    assert not response.success
    assert not response.HasField("result")
    failure = json.loads(response.error_message)
    assert (failure["type"], failure["message"]) == (how, message)
    assert (failure["code"], failure["category"]) == ("INTERNAL", "internal")
    assert isinstance(failure["stacktrace"], list)
    assert failure["traceback"] == "".join(failure["stacktrace"])
    assert failure["context"]["tool_name"] == name
    assert connection.call("shop.none") is None


@pytest.mark.parametrize("name", ["shop.fail", "shop.fail_async"])
def test_generator_exit_is_a_failure_too(connection: Connection, name: str) -> None:
    request = connection.request(name, {"how": "GeneratorExit"})
    response = connection.stub.ExecuteTool(request, timeout=2)
    assert json.loads(response.error_message)["type"] == "GeneratorExit"


@pytest.mark.conforms(56, "D18")
@pytest.mark.parametrize("name", ["shop.stop_iteration", "shop.stop_iteration_async"])
def test_stop_iteration_is_a_failure(connection: Connection, name: str) -> None:
    failure = failure_of(connection, name)
    assert "StopIteration" in {failure["type"], failure["message"].split()[-1]}
    assert connection.call("shop.none") is None


@pytest.mark.parametrize("name", ["shop.recurse", "shop.recurse_async"])
def test_runaway_recursion_is_a_failure(connection: Connection, name: str) -> None:
    assert failure_of(connection, name)["type"] == "RecursionError"
    assert connection.call("shop.none") is None


def test_a_binary_result_that_holds_no_bytes_is_a_failure(connection: Connection) -> None:
    assert failure_of(connection, "shop.not_bytes")["type"] == "TypeError"
    assert connection.call("shop.none") is None


@pytest.mark.parametrize("size", [20_000, 2_000_000])
def test_a_long_message_does_not_make_a_reply_that_cannot_be_sent(
    connection: Connection, size: int
) -> None:
    failure = failure_of(connection, "shop.long_message", {"size": size})
    assert failure["type"] == "ValueError"
    assert failure["message"].startswith("xxx")
    assert len(json.dumps(failure)) < 1_000_000


def test_an_adapter_says_what_an_exception_of_its_framework_means(connection: Connection) -> None:
    failure = failure_of(connection, "shop.framework", {"how": "rate limit"})
    assert (failure["type"], failure["message"]) == ("OfTheFrameworkError", "rate limit")
    assert (failure["code"], failure["category"], failure["retryable"]) == (
        "UNAVAILABLE",
        "provider",
        True,
    )
    assert (failure["retry_after_ms"], failure["details"]) == (500, {"how": "rate limit"})


def test_where_an_adapter_cannot_say_more_its_table_counts(
    connection: Connection, serve: Served
) -> None:
    serve.expected_errors = ("an exception cannot be explained",)
    failure = failure_of(connection, "shop.framework", {"how": "broken"})
    assert (failure["type"], failure["code"]) == ("OfTheFrameworkError", "UNAVAILABLE")


@pytest.mark.parametrize(
    ("error", "seen_as"),
    [
        (NotFound("x"), "KeyError"),
        (FailedPrecondition("x"), "RuntimeError"),
        (Conflict("x"), "RuntimeError"),
        (ResourceExhausted("x"), "RuntimeError"),
        (DeadlineExceeded("x"), "TimeoutError"),
        (PermissionDenied("x"), "PermissionError"),
        (Unimplemented("x"), "NotImplementedError"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_our_own_errors_keep_their_code(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, error: WorkerError, seen_as: str
) -> None:
    monkeypatch.setitem(ERRORS, "ours", error)
    failure = failure_of(connection, "shop.fail", {"how": "ours"})
    assert (failure["type"], failure["code"], failure["category"], failure["retryable"]) == (
        seen_as,
        error.code,
        error.category,
        error.retryable,
    )


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
@pytest.mark.parametrize("how", ["ValueError", "ours"])
def test_what_a_program_logs_makes_no_difference_to_its_worker(
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    level: str,
    how: str,
) -> None:
    """The lines of an embedded worker go through the standard library's logging."""
    monkeypatch.setitem(ERRORS, "ours", Conflict("taken"))
    caplog.set_level(level)
    for name in ("shop.fail", "shop.fail_async"):
        assert failure_of(connection, name, {"how": how})["message"] in {"plain text", "taken"}
    assert failure_of(connection, "no.such.tool")["code"] == "NOT_FOUND"


def test_calls_are_counted_and_timed(connection: Connection) -> None:
    before = connection.call("worker.stats")["calls"]
    assert (before["in_flight"], before["failed"]) == (1, 0)
    failure_of(connection, "shop.fail", {"how": "ValueError"})
    failure_of(connection, "no.such.tool")
    response = connection.stub.ExecuteTool(connection.request("shop.none"), timeout=20)
    assert response.execution_time_ms >= 0
    after = connection.call("worker.stats")["calls"]
    assert after["failed"] - before["failed"] == 2
    assert after["served"] - before["served"] == 4


@pytest.mark.conforms("D52")
def test_a_failure_says_how_long_it_took(connection: Connection) -> None:
    request = connection.request("shop.fail_late", {"seconds": 0.02})
    response = connection.stub.ExecuteTool(request, timeout=20)
    assert not response.success
    assert response.execution_time_ms >= 20


def test_a_request_with_nothing_in_it_is_a_failure(connection: Connection) -> None:
    response = connection.stub.ExecuteTool(pb.ExecuteToolRequest(), timeout=20)
    assert json.loads(response.error_message)["code"] == "NOT_FOUND"


def test_bytes_that_are_no_message_do_no_harm(connection: Connection) -> None:
    call: Any = connection.channel.unary_unary("/snakepit.bridge.BridgeService/ExecuteTool")
    with pytest.raises(grpc.RpcError):
        call(b"\xff\xff\xff", timeout=20)
    assert connection.call("shop.none") is None


def test_unknown_parameter_labels_and_metadata_do_no_harm(connection: Connection) -> None:
    request = connection.request("shop.order", {"article": "tea"})
    request.stream = True
    request.metadata.update({"python_runtime_hash": "00", "binary_format:nothing": "pickle"})
    request.parameters["note"].CopyFrom(to_any("x"))
    assert decode_response(connection.stub.ExecuteTool(request, timeout=20))[4] == "x"
