"""The stand-in host beyond what was recorded: its sessions and its tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from snakepit_worker.testing import StandInHost
from snakepit_worker.testing.connection import Connection
from snakepit_worker.testing.elixir_terms import Inspect
from snakepit_worker.testing.host_sessions import SessionRefused, SessionTable
from snakepit_worker.testing.host_tools import Throws, ToolRefused
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from snakepit_worker.wire.values import to_any
from tests.conftest import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator

TTL = 3600.0


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def sessions(clock: Clock) -> SessionTable:
    return SessionTable(TTL, quota=3, clock=clock)


@pytest.fixture
def host(sessions: SessionTable) -> Iterator[StandInHost]:
    with StandInHost(sessions) as running:
        yield running


@pytest.fixture
def stub(host: StandInHost) -> Iterator[Any]:
    host.sessions.initialize("s", {})
    with Connection(host.address) as connection:
        yield connection.stub


# --- Sessions -------------------------------------------------------------------------------------


def test_a_session_ends_an_hour_after_its_last_access(sessions: SessionTable, clock: Clock) -> None:
    sessions.initialize("s", {"k": "v"})
    clock.now += TTL - 1
    assert sessions.access("s") is not None
    clock.now += TTL
    assert sessions["s"] == {"k": "v"}
    clock.now += 60
    assert "s" not in sessions
    assert sessions.access("s") is None


def test_it_ends_when_the_host_looks_and_not_before(sessions: SessionTable, clock: Clock) -> None:
    clock.now += 30
    sessions.initialize("s", {})
    clock.now += TTL + 29
    assert "s" in sessions
    clock.now += 1
    assert "s" not in sessions


def test_looking_is_no_access_and_neither_is_initializing(
    sessions: SessionTable, clock: Clock
) -> None:
    sessions.initialize("s", {"k": "v"})
    clock.now += TTL
    sessions.initialize("s", {"k": "other"})
    assert sessions["s"] == {"k": "v"}
    clock.now += 60
    assert list(sessions) == []


def test_at_the_quota_even_what_exists_is_not_initialized(sessions: SessionTable) -> None:
    for name in "abc":
        sessions.initialize(name, {})
    for name in "ad":
        with pytest.raises(SessionRefused, match=r"^session_quota_exceeded$"):
            sessions.initialize(name, {})
    sessions.delete("a")
    sessions.delete("a")
    sessions.initialize("d", {})
    assert set(sessions) == set("bcd")


def test_created_at_is_the_monotonic_clock_of_a_beam(sessions: SessionTable, clock: Clock) -> None:
    clock.now += 2.5
    sessions.initialize("s", {})
    session = sessions.access("s")
    assert session is not None
    assert session.created_at == -576460750


@pytest.mark.parametrize(
    ("rpc", "request_type"),
    [
        ("Heartbeat", pb.HeartbeatRequest),
        ("GetSession", pb.GetSessionRequest),
        ("RegisterTools", pb.RegisterToolsRequest),
        ("ExecuteTool", pb.ExecuteToolRequest),
        ("ExecuteStreamingTool", pb.ExecuteToolRequest),
        ("ExecuteElixirTool", pb.ExecuteElixirToolRequest),
    ],
)
def test_calls_that_refresh_a_session(
    stub: Any, sessions: SessionTable, clock: Clock, rpc: str, request_type: Any
) -> None:
    clock.now += TTL
    answer = getattr(stub, rpc)(request_type(session_id="s"), timeout=20)
    if rpc == "ExecuteStreamingTool":
        with pytest.raises(grpc.RpcError):
            next(answer)
    clock.now += TTL
    assert "s" in sessions


@pytest.mark.parametrize(
    ("rpc", "request_type"),
    [
        ("InitializeSession", pb.InitializeSessionRequest),
        ("GetExposedElixirTools", pb.GetExposedElixirToolsRequest),
    ],
)
def test_calls_that_do_not(
    stub: Any, sessions: SessionTable, clock: Clock, rpc: str, request_type: Any
) -> None:
    clock.now += TTL
    getattr(stub, rpc)(request_type(session_id="s"), timeout=20)
    clock.now += 60
    assert "s" not in sessions


# --- Tools ----------------------------------------------------------------------------------------


def register(stub: Any, *tools: pb.ToolRegistration, session: str = "s") -> str:
    """The error text, empty for success."""
    request = pb.RegisterToolsRequest(session_id=session, tools=tools, worker_id="w")
    answer = stub.RegisterTools(request, timeout=20)
    assert answer.success is (answer.error_message == "")
    assert set(answer.tool_ids) == (
        {tool.name.strip() for tool in tools} if answer.success else set()
    )
    text: str = answer.error_message
    return text


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", ":empty"),
        ("  ", ":empty"),
        ("-a", ":invalid_format"),
        ("a b", ":invalid_format"),
        ("ä", ":invalid_format"),
        ("x" * 65, ":too_long"),
        ("ä" * 33, ":too_long"),
    ],
)
def test_names_that_are_refused(stub: Any, name: str, reason: str) -> None:
    assert register(stub, pb.ToolRegistration(name=name)) == f"{{:invalid_tool_name, {reason}}}"


@pytest.mark.parametrize("name", ["a", "9", "A_b-c.d", "x" * 64, " trimmed "])
def test_names_that_are_taken(stub: Any, name: str) -> None:
    assert register(stub, pb.ToolRegistration(name=name)) == ""


def test_a_batch_is_taken_whole_or_not_at_all(stub: Any) -> None:
    good, bad = pb.ToolRegistration(name="good"), pb.ToolRegistration(name="_")
    assert register(stub, good, bad).startswith("{:invalid_tool_name")
    assert register(stub, good, good) == '{:duplicate_tool, "good"}'
    assert register(stub, good) == ""
    assert register(stub, pb.ToolRegistration(name="new"), good) == '{:duplicate_tool, "good"}'
    assert register(stub, pb.ToolRegistration(name="new")) == ""


def test_metadata_has_its_limits(stub: Any) -> None:
    def tool(name: str, **metadata: str) -> pb.ToolRegistration:
        return pb.ToolRegistration(name=name, metadata=metadata)

    # 6 for the term, 10 + 18 + 5 for supports_streaming and its "false", 11 for k.
    fits = 4096 - 6 - 33 - 11
    assert register(stub, tool("a", k="x" * fits)) == ""
    assert register(stub, tool("b", k="x" * (fits + 1))) == "{:invalid_metadata, :too_large}"
    assert register(stub, tool("c", **{f"k{n}": "" for n in range(31)})) == ""
    too_many = tool("d", **{f"k{n}": "" for n in range(32)})
    assert register(stub, too_many) == "{:invalid_metadata, :too_many_entries}"


def test_tools_outlive_their_session(host: StandInHost, stub: Any) -> None:
    host.expose("stays", lambda: 1, session="s")
    host.sessions.delete("s")
    tools = stub.GetExposedElixirTools(pb.GetExposedElixirToolsRequest(session_id="s")).tools
    assert [tool.name for tool in tools] == ["stays"]
    assert execute(stub, "stays").error_message == "not_found"
    host.sessions.initialize("s", {})
    assert execute(stub, "stays").result.value == b"1"


def test_without_a_session_a_tool_is_exposed_to_all_that_exist(
    host: StandInHost, stub: Any
) -> None:
    host.expose("everywhere", lambda: 1)
    host.sessions.initialize("other", {})
    for session, names in (("s", ["everywhere"]), ("other", ["everywhere"]), ("nobody", [])):
        request = pb.GetExposedElixirToolsRequest(session_id=session)
        assert [tool.name for tool in stub.GetExposedElixirTools(request).tools] == names
    with pytest.raises(ToolRefused, match=r'^{:duplicate_tool, "everywhere"}$'):
        host.expose("everywhere", lambda: 2)
    host.expose("everywhere", lambda: 2, session="s")
    assert execute(stub, "everywhere").result.value == b"2"


def test_a_workers_tool_is_no_elixir_tool(stub: Any) -> None:
    assert register(stub, pb.ToolRegistration(name="remote")) == ""
    assert execute(stub, "remote").error_message == "Tool remote is not an Elixir tool"


def execute(stub: Any, tool: str, **parameters: Any) -> pb.ExecuteElixirToolResponse:
    request = pb.ExecuteElixirToolRequest(
        session_id="s",
        tool_name=tool,
        parameters={name: to_any(value) for name, value in parameters.items()},
    )
    response: pb.ExecuteElixirToolResponse = stub.ExecuteElixirTool(request, timeout=20)
    return response


@pytest.mark.parametrize(
    ("result", "text", "binary"),
    [
        (None, "null", b""),
        ({"b": 1, "a": [1.0, 1e22, True]}, '{"a":[1.0,1.0e22,true],"b":1}', b""),
        ('é"\n/\x01', '"é\\"\\n/\\u0001"', b""),
        (2**70, "1180591620717411303424", b""),
        (b"\xff", "{}", b"\xff"),
        ((b"\xff", {"k": [1]}), '{"k":[1]}', b"\xff"),
        ((b"\xff", 1), "{<<255>>, 1}", b""),
        (("ok", None), '{"ok", nil}', b""),
        (Inspect("#PID<0.1.0>"), "#PID<0.1.0>", b""),
        ([1, (2,)], "[1, {2}]", b""),
        ({"k": b"\xff"}, '%{"k" => <<255>>}', b""),
    ],
)
def test_results_are_json_or_what_inspect_says(
    host: StandInHost, stub: Any, result: Any, text: str, binary: bytes
) -> None:
    host.expose("give", lambda: result)
    answer = execute(stub, "give")
    assert answer.success
    assert (answer.result.value.decode(), answer.binary_result) == (text, binary)


def test_functions_get_their_parameters_by_name(host: StandInHost, stub: Any) -> None:
    host.expose("add", lambda a, b=2: a + b)
    assert execute(stub, "add", a=1).result.value == b"3"
    assert execute(stub, "add", a=1, b=1.5).result.value == b"2.5"
    assert execute(stub, "add", c=1).error_message.startswith("Tool execution failed: ")


def test_exceptions_may_be_raised_too(host: StandInHost, stub: Any) -> None:
    host.expose("raises", lambda: 1 // 0)

    def throw() -> None:
        raise Throws

    host.expose("throws", throw)
    message = execute(stub, "raises").error_message
    assert message == "Tool execution failed: integer division or modulo by zero"
    with pytest.raises(grpc.RpcError) as caught:
        execute(stub, "throws")
    assert caught.value.code() is grpc.StatusCode.UNKNOWN


def test_a_label_of_its_own_is_named_with_what_is_wrong(host: StandInHost, stub: Any) -> None:
    host.expose("echo", lambda **parameters: parameters)
    request = pb.ExecuteElixirToolRequest(session_id="s", tool_name="echo")
    request.parameters["x"].type_url = "own/label"
    answer = stub.ExecuteElixirTool(request, timeout=20)
    assert answer.error_message == (
        "Invalid parameter x (own/label): unexpected end of input at position 0"
    )
