"""Failures as they leave the worker: objects on unary calls, statuses with details on streams."""

from __future__ import annotations

import json
import logging
import sysconfig
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import pytest
from google.rpc import error_details_pb2 as rpc
from google.rpc.status_pb2 import Status as RpcStatus

from snakepit_worker import Adapter, CallContext, tool
from snakepit_worker.errors import InvalidArgument, NotFound, Violation
from snakepit_worker.testing import StandInHost, ToolFailure
from snakepit_worker.testing.host_tools import Throws
from snakepit_worker.wire.convention import MAX_MESSAGE_BYTES
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from snakepit_worker.wire.status import DETAILS_TRAILER
from tests.bridge.conftest import LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable

    from snakepit_worker.testing import Connection
    from tests.bridge.conftest import Gate, Served

HOST_KEYS = {"type", "message", "stacktrace", "traceback", "context"}
OUR_KEYS = {"code", "category", "retryable", "error_id", "correlation_id"}


class Faults(Adapter):
    """Tools that fail; the same failures as streams after one item."""

    name = "faults"

    @tool
    def unforeseen(self) -> NoReturn:
        raise_(ZeroDivisionError("nobody knew"))

    @tool
    def noted(self) -> NoReturn:
        error = ValueError("no")
        error.add_note("a first note")
        error.add_note("and a second")
        raise error

    @tool
    def chained(self, links: int) -> NoReturn:
        chain(links)

    @tool
    async def elixir(self, ctx: CallContext, name: str, value: int = 1) -> Any:
        return await ctx.elixir.call(name, {"value": value})

    @tool
    def elixir_handled(self, ctx: CallContext, name: str) -> Any:
        try:
            return ctx.elixir.call_blocking(name, {})
        except Exception as error:
            raise ValueError("the step failed") from error

    @tool
    def large(self, size: int) -> bytes:
        return bytes(size)

    @tool
    def stream(self, how: str) -> Iterator[int]:
        yield 1
        raise STREAMS[how]


STREAMS: dict[str, Exception] = {
    "missing": NotFound("no such model", details={"handle": "model-1"}, retry_after=1.5),
    "arguments": InvalidArgument("no", violations=[Violation("a[0].b", "expected int")]),
    "unforeseen": ZeroDivisionError("nobody knew"),
    "long": InvalidArgument("é" * 20_000, violations=[Violation("f", "ü" * 20_000)] * 50),
}


def raise_(error: BaseException) -> NoReturn:
    raise error


def chain(links: int) -> NoReturn:
    if not links:
        raise KeyError("first")
    try:
        chain(links - 1)
    except Exception as error:
        raise RuntimeError(f"link {links}") from error


def failure_of(connection: Connection, name: str, /, **arguments: Any) -> dict[str, Any]:
    """The object of a call that fails, as it was sent."""
    request = connection.request(name, arguments)
    response = connection.execute(request)
    assert not response.success
    assert not response.HasField("result")
    failure: dict[str, Any] = json.loads(response.error_message)
    assert set(failure) >= HOST_KEYS | OUR_KEYS
    facts = failure["context"]["error"]
    assert facts == {key: value for key, value in failure.items() if key not in HOST_KEYS}
    assert failure["correlation_id"] == request.metadata["correlation_id"]
    return failure


def end_of(connection: Connection, how: str) -> tuple[grpc.StatusCode, Any, RpcStatus]:
    """How a stream ends: its code, the object, and the details."""
    request = connection.request("faults.stream", {"how": how})
    call = connection.stub.ExecuteStreamingTool(request, timeout=LIMIT)
    assert next(call).data == b"1"
    with pytest.raises(grpc.RpcError):
        next(call)
    trailers = dict(call.trailing_metadata())
    return call.code(), json.loads(call.details()), RpcStatus.FromString(trailers[DETAILS_TRAILER])


def parts_of(status: RpcStatus) -> dict[str, Any]:
    return {
        kind: getattr(rpc, kind).FromString(detail.value)
        for detail in status.details
        for kind in [detail.type_url.rpartition(".")[2]]
    }


@pytest.fixture
def connection(serve: Served) -> Connection:
    return serve(Faults())


# --- The object -----------------------------------------------------------------------------------


def test_notes_travel(connection: Connection) -> None:
    assert failure_of(connection, "faults.noted")["notes"] == ["a first note", "and a second"]


def test_the_chain_of_causes_travels_and_is_bounded(connection: Connection) -> None:
    failure = failure_of(connection, "faults.chained", links=2)
    assert failure["message"] == "link 2"
    assert failure["cause"] == [
        {"type": "RuntimeError", "message": "link 1"},
        {"type": "KeyError", "message": "'first'"},
    ]
    failure = failure_of(connection, "faults.chained", links=50)
    assert [cause["message"] for cause in failure["cause"]] == [
        f"link {n}" for n in range(49, 44, -1)
    ]
    assert "link 41" in failure["traceback"]
    assert "link 40" not in failure["traceback"]


@pytest.mark.parametrize("form", ["full", "own", "none"])
def test_tracebacks_are_let_out_as_set(serve: Served, form: str) -> None:
    connection = serve(Faults(), tracebacks=form)
    failure = failure_of(connection, "faults.unforeseen")
    assert failure["traceback"] == "".join(failure["stacktrace"])
    frames = [line for line in failure["stacktrace"] if line.startswith("  File ")]
    assert any(f'"{__file__}"' in frame and "in raise_" in frame for frame in frames) == (
        form != "none"
    )
    assert any("/snakepit_worker/" in frame for frame in frames) == (form == "full")
    assert (failure["stacktrace"] == []) == (form == "none")
    # Nor does a stream say more.
    _, message, status = end_of(connection, "unforeseen")
    assert bool(message.get("stacktrace")) == (form != "none")
    assert ("DebugInfo" in parts_of(status)) == (form != "none")
    assert ("/snakepit_worker/" in f"{message}{parts_of(status)}") == (form == "full")


def test_the_standard_library_is_not_own_code(serve: Served) -> None:
    class Parsing(Adapter):
        name = "parsing"

        @tool
        def parse(self, text: str) -> Any:
            return json.loads(text)

    connection = serve(Parsing(), tracebacks="own")
    failure = failure_of(connection, "parsing.parse", text="{")
    assert failure["type"] == "JSONDecodeError"
    assert sysconfig.get_path("stdlib") not in failure["traceback"]
    assert "return json.loads(text)" in failure["traceback"]


@pytest.mark.parametrize("form", ["own", "none"])
def test_the_log_has_the_whole_traceback_under_the_id_of_the_reply(
    serve: Served, caplog: pytest.LogCaptureFixture, form: str
) -> None:
    connection = serve(Faults(), tracebacks=form)
    failure = failure_of(connection, "faults.unforeseen")
    (record,) = [found for found in caplog.records if found.getMessage() == "call failed"]
    assert record.levelno == logging.ERROR
    said = vars(record)
    assert (said["error_id"], said["type"]) == (failure["error_id"], "ZeroDivisionError")
    assert "/snakepit_worker/" in said["exception"]
    assert "in raise_" in said["exception"]


def test_what_is_foreseen_is_logged_without_a_traceback(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    failure = failure_of(connection, "faults.unknown")
    (record,) = [found for found in caplog.records if found.getMessage() == "call failed"]
    assert record.levelno == logging.INFO
    assert vars(record)["error_id"] == failure["error_id"]
    assert not hasattr(record, "exception")


# --- Failures of Elixir tools ---------------------------------------------------------------------


@pytest.fixture
def with_host(serve: Served) -> Iterator[Connection]:
    with StandInHost() as host:

        def fail(value: int = 0) -> None:
            raise ValueError(f"sold out: {value}")

        def throw(value: int = 0) -> None:
            raise Throws(value)

        host.expose("fail", fail)
        host.expose("throw", throw)
        connection = serve(Faults(), elixir_address=host.address, heartbeat_enabled=False)
        connection.greet()
        yield connection
        serve.stack.close()


@pytest.mark.parametrize(
    ("name", "type_", "code", "reason"),
    [
        ("fail", "RuntimeError", "ABORTED", "Tool execution failed: sold out: 7"),
        ("unheard", "KeyError", "NOT_FOUND", "Tool unheard not found for session {session}"),
        ("throw", "RuntimeError", "ABORTED", "UNKNOWN: "),
    ],
)
def test_what_an_elixir_tool_fails_with_travels_back(
    with_host: Connection, name: str, type_: str, code: str, reason: str
) -> None:
    failure = failure_of(with_host, "faults.elixir", name=name, value=7)
    reason = reason.format(session=with_host.session_id)
    assert (failure["type"], failure["code"], failure["category"]) == (type_, code, "callback")
    assert failure["message"].startswith(f"Elixir tool {name}: {reason}")
    assert failure["details"]["tool"] == name
    assert failure["details"]["reason"].startswith(reason)
    (cause,) = failure["cause"]
    assert (cause["type"], cause["tool"]) == ("Elixir", name)
    assert cause["message"] == failure["details"]["reason"]


def test_the_cause_of_another_exception_says_as_much(with_host: Connection) -> None:
    failure = failure_of(with_host, "faults.elixir_handled", name="fail")
    assert (failure["type"], failure["code"]) == ("ValueError", "INTERNAL")
    assert failure["cause"] == [
        {
            "type": "ElixirToolFailed",
            "message": "Elixir tool fail: Tool execution failed: sold out: 0",
            "code": "ABORTED",
            "category": "callback",
            "tool": "fail",
            "reason": "Tool execution failed: sold out: 0",
        }
    ]


# --- Refusals are objects, and bare statuses gRPC's -----------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "type_", "code"),
    [
        ("faults.unheard", {}, "KeyError", "NOT_FOUND"),
        ("", {}, "KeyError", "NOT_FOUND"),
        ("faults.chained", {"links": "two"}, "ValueError", "INVALID_ARGUMENT"),
        ("faults.chained", {}, "ValueError", "INVALID_ARGUMENT"),
        ("faults.chained", {"links": 1, "session_id": 5}, "ValueError", "INVALID_ARGUMENT"),
        ("faults.stream", {"how": "missing"}, "RuntimeError", "FAILED_PRECONDITION"),
        ("session.release", {"handle": "nobody-1"}, "KeyError", "NOT_FOUND"),
        ("session.release", {"handle": "x-1", "session_id": "gone"}, "KeyError", "NOT_FOUND"),
    ],
)
def test_a_refusal_is_an_object(
    connection: Connection, name: str, arguments: dict[str, Any], type_: str, code: str
) -> None:
    failure = failure_of(connection, name, **arguments)
    assert (failure["type"], failure["code"]) == (type_, code)


def test_parameters_that_cannot_be_read_are_refused_with_an_object(connection: Connection) -> None:
    request = connection.request("faults.chained", {"links": 1})
    request.parameters["links"].value = b"{"
    response = connection.execute(request)
    assert json.loads(response.error_message)["code"] == "INVALID_ARGUMENT"


class Waiting(Adapter):
    name = "waiting"

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    @tool
    async def here(self) -> None:
        await self.gate.wait_async()


def test_a_full_queue_refuses_with_an_object(serve: Served, gate: Gate) -> None:
    connection = serve(Waiting(gate), max_calls=1, max_waiting=0)
    first = connection.stub.ExecuteTool.future(connection.request("waiting.here"), timeout=LIMIT)
    gate.reached()
    failure = failure_of(connection, "waiting.here")
    assert (failure["code"], failure["retryable"]) == ("RESOURCE_EXHAUSTED", True)
    assert failure["retry_after_ms"] > 0
    gate.open()
    assert first.result().success


def test_a_worker_that_shuts_down_refuses_with_an_object(serve: Served, gate: Gate) -> None:
    connection = serve(Waiting(gate), grace_ms=int(LIMIT * 1000))
    first = connection.stub.ExecuteTool.future(connection.request("waiting.here"), timeout=LIMIT)
    gate.reached()
    serve.worker.request_stop()
    while not serve.worker._dispatcher.draining:
        pass
    failure = failure_of(connection, "waiting.here")
    assert (failure["code"], failure["retryable"]) == ("UNAVAILABLE", True)
    assert failure["retry_after_ms"] == 1_000
    gate.open()
    assert first.result().success


def test_bare_statuses_are_grpcs(serve: Served, gate: Gate) -> None:
    """For what nobody could have answered any more: the deadline, the size, an unknown RPC."""
    connection = serve(Faults(), Waiting(gate))
    unheard: Any = connection.channel.unary_unary("/snakepit.bridge.BridgeService/Unheard")
    calls: dict[str, Callable[[], object]] = {
        "DEADLINE_EXCEEDED": lambda: connection.call("waiting.here", timeout=0.5),
        "RESOURCE_EXHAUSTED": lambda: connection.call(
            "faults.large", {"size": MAX_MESSAGE_BYTES + 1}
        ),
        "UNIMPLEMENTED": lambda: unheard(pb.PingRequest().SerializeToString(), timeout=LIMIT),
    }
    for code, call in calls.items():
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() is grpc.StatusCode[code]
    with pytest.raises(ToolFailure):
        connection.call("faults.unforeseen")


# --- Streams --------------------------------------------------------------------------------------


def test_other_clients_read_the_facts_in_the_trailer(connection: Connection) -> None:
    code, message, status = end_of(connection, "missing")
    assert code is grpc.StatusCode.NOT_FOUND
    assert (status.code, status.message) == (code.value[0], "no such model")
    parts = parts_of(status)
    assert list(parts) == ["ErrorInfo", "RetryInfo", "ResourceInfo", "DebugInfo"]
    info = parts["ErrorInfo"]
    assert (info.reason, info.domain) == ("KEY_ERROR", "snakepit-worker")
    assert info.metadata["error_id"] == message["error_id"]
    assert info.metadata["correlation_id"] == message["correlation_id"]
    assert parts["RetryInfo"].retry_delay.ToMilliseconds() == 1_500
    resource = parts["ResourceInfo"]
    assert (resource.resource_type, resource.resource_name) == ("handle", "model-1")
    assert parts["DebugInfo"].stack_entries[-1].endswith("NotFound: no such model")


def test_wrong_arguments_are_a_bad_request(connection: Connection) -> None:
    code, message, status = end_of(connection, "arguments")
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    (violation,) = parts_of(status)["BadRequest"].field_violations
    assert message["violations"] == [
        {"field": violation.field, "description": violation.description}
    ]


def test_what_is_too_long_arrives_cut(connection: Connection) -> None:
    """gRPC's C library would put RESOURCE_EXHAUSTED in the place of a status beyond 8 KiB."""
    code, message, status = end_of(connection, "long")
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message["message"].endswith("é…")
    assert list(parts_of(status)) == ["ErrorInfo"]


@pytest.mark.parametrize("how", sorted(STREAMS))
def test_compatible_streams_end_with_internal(serve: Served, how: str) -> None:
    connection = serve(Faults(), values="compatible")
    code, message, status = end_of(connection, how)
    assert code is grpc.StatusCode.INTERNAL
    assert status.code == code.value[0]
    assert message["code"] == getattr(STREAMS[how], "code", "INTERNAL")
