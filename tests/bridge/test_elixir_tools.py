"""Calls from Python to Elixir, by adapters of both kinds."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from snakepit_worker.testing import StandInHost, ToolFailure
from snakepit_worker.testing.connection import decode_response
from snakepit_worker.testing.elixir_terms import Inspect
from snakepit_worker.testing.host_tools import Throws
from snakepit_worker.wire.convention import CORRELATION_HEADER
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from tests.bridge.conftest import LIMIT
from tests.conftest import name_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc

    from snakepit_worker.testing import Connection
    from tests.bridge.conftest import Served

FOREIGN = "tests.bridge.adapters.foreign_elixir.Foreign"
NATIVE = "tests.bridge.adapters.foreign_elixir.Native"
ROUNDING = 1.0
"""Seconds that gRPC adds where it writes a timeout of several seconds on the wire, at each hop."""
BINARY = bytes(range(256))
LARGE = "x" * (8 << 20)
"""Twice as much as gRPC takes by itself."""
VALUES = ["text", "", "ä\U0001f600", True, False, 7, -1, 2**60, 1.5, 7.0, None]
VALUES += [[], [1, [None, "x"]], {}, {"a": {"b": [1.5, True, None]}}]


class Host(StandInHost):
    """Notes what each call of an Elixir tool came with."""

    def __init__(self) -> None:
        super().__init__()
        self.headers: list[tuple[tuple[str, str | bytes], ...]] = []
        self.seconds: list[float] = []
        self.parameters: list[Any] = []
        self.sessions_asked: list[str] = []

    def ExecuteElixirTool(
        self, request: pb.ExecuteElixirToolRequest, context: grpc.ServicerContext
    ) -> pb.ExecuteElixirToolResponse:
        self.note(context)
        self.sessions_asked.append(request.session_id)
        if request.tool_name == "refusing":
            return pb.ExecuteElixirToolResponse(error_message="Invalid parameter value: why not")
        return super().ExecuteElixirTool(request, context)

    def GetExposedElixirTools(
        self, request: pb.GetExposedElixirToolsRequest, context: grpc.ServicerContext
    ) -> pb.GetExposedElixirToolsResponse:
        self.note(context)
        return super().GetExposedElixirTools(request, context)

    def note(self, context: grpc.ServicerContext) -> None:
        self.headers.append(tuple(context.invocation_metadata()))
        self.seconds.append(context.time_remaining())

    def correlation_ids(self) -> list[object]:
        """What the last call came with."""
        return [value for name, value in self.headers[-1] if name == CORRELATION_HEADER]


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Host() as host:

        def echo(value: Any) -> Any:
            host.parameters.append(value)
            return value

        def fail() -> None:
            raise ValueError("it broke")

        def throw() -> None:
            raise Throws

        host.expose(
            "echo",
            echo,
            description="Gives back",
            parameters=[{"name": "value", "type": "any", "required": True}],
        )
        host.expose("fail", fail)
        host.expose("throw", throw)
        host.expose("refusing", fail)
        host.expose("bytes", lambda: BINARY)
        host.expose("large", lambda: LARGE)
        host.expose("bytes_with", lambda: (BINARY, {"kind": "png"}))
        host.expose("term", lambda: Inspect("{:ok, 1}"))
        host.expose("nothing", lambda: None)
        yield host


@pytest.fixture(scope="module")
def connection(host: Host) -> Iterator[Connection]:
    with host.worker(adapters=[NATIVE, FOREIGN]) as (_, connection):
        yield connection


def call(connection: Connection, kind: str, name: str, **arguments: Any) -> Any:
    if kind == "call":
        return connection.call("call", {"name": name, **arguments})
    return connection.call(kind, {"name": name, "arguments": arguments})


every_kind = pytest.mark.parametrize("kind", ["call", "native.call", "native.call_blocking"])
every_native = pytest.mark.parametrize("kind", ["native.caught", "native.caught_blocking"])


@pytest.mark.conforms(77, "D28")
@every_kind
@pytest.mark.parametrize("value", VALUES, ids=name_of)
def test_values_go_there_and_back(
    connection: Connection, host: Host, kind: str, value: object
) -> None:
    back = call(connection, kind, "echo", value=value)
    assert (back, type(back)) == (value, type(value))
    arrived = host.parameters[-1]
    assert (arrived, type(arrived)) == (value, type(value))


@pytest.mark.conforms(78, "D29")
@every_kind
def test_binaries_are_bytes(connection: Connection, kind: str) -> None:
    assert call(connection, kind, "bytes") == BINARY
    assert call(connection, kind, "bytes_with") == (BINARY, {"kind": "png"})


@pytest.mark.conforms(78, "D29")
@every_kind
def test_what_is_no_json_is_text(connection: Connection, kind: str) -> None:
    assert call(connection, kind, "term") == "{:ok, 1}"
    assert call(connection, kind, "nothing") is None


# --- Adapters written for Snakepit's own worker ---------------------------------------------------


def test_an_unknown_tool_is_a_value_error(connection: Connection) -> None:
    kind, text = connection.call("caught", {"name": "unheard"})
    assert kind == "ValueError"
    assert "unheard" in text


@pytest.mark.conforms("D29")
@pytest.mark.parametrize(
    ("name", "reason"), [("fail", "it broke"), ("throw", ""), ("refusing", "Invalid parameter")]
)
def test_any_other_failure_is_a_runtime_error(
    connection: Connection, name: str, reason: str
) -> None:
    kind, text = connection.call("caught", {"name": name})
    assert kind == "RuntimeError"
    assert name in text
    assert reason in text


def test_a_coroutine_of_theirs_may_wait_for_elixir(connection: Connection) -> None:
    assert connection.call("in_coroutine", {"name": "echo", "value": 7}) == 7


@pytest.mark.conforms(33, 80, "D4")
@pytest.mark.parametrize("tool", ["through_stub", "through_stub_in_thread"])
def test_the_stub_adds_correlation_and_deadline(
    connection: Connection, host: Host, tool: str
) -> None:
    arguments = {"name": "echo", "value": [1]}
    metadata = {"correlation_id": f"for-{tool}"}
    assert connection.call(tool, arguments, metadata=metadata, timeout=LIMIT) == [1]
    assert host.correlation_ids() == [f"for-{tool}"]
    assert 0 < host.seconds[-1] <= LIMIT + ROUNDING


@pytest.mark.conforms(33, 80, "D4")
@pytest.mark.parametrize("kind", ["call", "native.call", "native.call_blocking"])
def test_no_call_outlives_its_own(connection: Connection, host: Host, kind: str) -> None:
    arguments: dict[str, Any] = {"value": 1} if kind == "call" else {"arguments": {"value": 1}}
    metadata = {"correlation_id": "joined"}
    request = {"name": "echo", **arguments}
    assert connection.call(kind, request, metadata=metadata, timeout=LIMIT) == 1
    assert host.correlation_ids() == ["joined"]
    assert 0 < host.seconds[-1] <= LIMIT + ROUNDING


@pytest.mark.conforms("D4")
@every_kind
def test_a_call_without_a_deadline_gives_one_to_elixir(
    connection: Connection, host: Host, kind: str
) -> None:
    arguments: dict[str, Any] = {"value": 1} if kind == "call" else {"arguments": {"value": 1}}
    assert connection.call(kind, {"name": "echo", **arguments}, timeout=None) == 1
    assert 0 < host.seconds[-1] <= 300 + ROUNDING


@pytest.mark.conforms(33, 80, "D4")
@pytest.mark.parametrize("tool", ["listed", "native.listed"])
def test_neither_does_the_question_which_tools_there_are(
    connection: Connection, host: Host, tool: str
) -> None:
    del host.headers[:], host.seconds[:]
    assert connection.call(tool, metadata={"correlation_id": "asked"}, timeout=LIMIT)
    assert host.correlation_ids() == ["asked"]
    assert 0 < host.seconds[-1] <= LIMIT + ROUNDING


@pytest.mark.conforms("D47")
def test_a_correlation_id_that_is_there_already_is_not_doubled(
    connection: Connection, host: Host
) -> None:
    """Snakepit's helper gives adapters one to send."""
    arguments = {"name": "echo", "value": 1, "headers": [[CORRELATION_HEADER, "of-the-helper"]]}
    assert connection.call("through_stub", arguments, metadata={"correlation_id": "ours"}) == 1
    assert host.correlation_ids() == ["of-the-helper"]


@pytest.mark.parametrize("odd", ["ž", "two\nlines", "\0", "x" * 20_000], ids=name_of)
@pytest.mark.parametrize("tool", ["through_stub", "native.call"])
def test_a_correlation_id_that_no_header_can_carry_hinders_no_call(
    connection: Connection, host: Host, tool: str, odd: str
) -> None:
    arguments: dict[str, Any] = {"value": 1}
    arguments = {"arguments": arguments} if tool == "native.call" else arguments
    request = connection.request(tool, {"name": "echo", **arguments})
    request.metadata["correlation_id"] = odd
    assert decode_response(connection.stub.ExecuteTool(request, timeout=LIMIT)) == 1
    assert host.correlation_ids() == []


@pytest.mark.conforms("D29")
@every_kind
def test_a_call_asks_for_nothing_else(connection: Connection, host: Host, kind: str) -> None:
    before = host.received["GetExposedElixirTools"], host.received["ExecuteElixirTool"]
    assert call(connection, kind, "echo", value=1) == 1
    after = host.received["GetExposedElixirTools"], host.received["ExecuteElixirTool"]
    assert after == (before[0], before[1] + 1)


@pytest.mark.conforms(27, "D32")
@every_kind
def test_large_results_arrive(connection: Connection, kind: str) -> None:
    assert call(connection, kind, "large") == LARGE


@pytest.mark.conforms("D30")
def test_tools_are_listed(connection: Connection) -> None:
    listed = connection.call("listed")
    assert listed["echo"] == {
        "name": "echo",
        "description": "Gives back",
        "parameters": {"value": "any"},
    }
    session_id, description, parameters = connection.call("native.listed")["echo"]
    assert (session_id, description) == (connection.session_id, "Gives back")
    assert parameters[0]["name"] == "value"
    assert parameters[0]["required"] is True


@pytest.mark.conforms(81, "D31")
def test_the_context_never_ends_the_workers_session(connection: Connection, host: Host) -> None:
    assert connection.call("clean_up") is True
    assert connection.session_id in host.sessions
    assert host.received["CleanupSession"] == 0


# --- Adapters written for this worker -------------------------------------------------------------


@pytest.mark.conforms("D29")
@every_native
def test_each_failure_has_its_exception(connection: Connection, kind: str) -> None:
    session = connection.session_id
    missing = f"Tool unheard not found for session {session}"
    assert call(connection, kind, "unheard") == ["ElixirToolNotFound", "unheard", missing]
    refused = "Invalid parameter value: why not"
    assert call(connection, kind, "refusing") == ["ElixirToolRefused", "refusing", refused]
    failed = "Tool execution failed: it broke"
    assert call(connection, kind, "fail") == ["ElixirToolFailed", "fail", failed]
    assert call(connection, kind, "throw")[:2] == ["ElixirToolError", "throw"]


def test_the_event_loop_must_not_wait(connection: Connection) -> None:
    said = connection.call("native.on_loop")
    assert len(said) == 2
    assert all("await" in text for text in said)


@pytest.mark.conforms(79)
@pytest.mark.parametrize("tool", ["native.call", "native.call_blocking", "call_in_session"])
def test_the_callers_session_is_asked_before_the_workers(
    connection: Connection, host: Host, tool: str
) -> None:
    caller, name = f"caller-{tool}", f"which-{tool}"
    host.sessions.initialize(caller, {})
    host.expose(name, lambda: "the caller's", description="the caller's", session=caller)
    host.expose(name, lambda: "the worker's", session=connection.session_id)
    del host.sessions_asked[:]
    native: dict[str, Any] = {} if tool == "call_in_session" else {"arguments": {}}
    request = {"name": name, **native}
    assert connection.call(tool, {**request, "session_id": caller}) == "the caller's"
    assert connection.call(tool, {**request, "session_id": "unheard"}) == "the worker's"
    assert connection.call(tool, request) == "the worker's"
    worker = connection.session_id
    assert host.sessions_asked == [caller, "unheard", worker, worker]
    for session, description in ((caller, "the caller's"), ("unheard", "")):
        listed = connection.call("listed", {"session_id": session})
        assert listed[name]["description"] == description
        listed = connection.call("native.listed", {"session_id": session})
        assert listed[name][1] == description


# --- A worker that stops --------------------------------------------------------------------------


@pytest.mark.conforms(18, "D37")
def test_what_runs_while_the_worker_stops_still_reaches_the_host(serve: Served) -> None:
    """The stub has a connection of its own, which is opened only then."""
    entered, go_on = threading.Event(), threading.Event()

    def held() -> bool:
        entered.set()
        return go_on.wait(LIMIT)

    with Host() as host:
        host.expose("held", held)
        host.expose("echo", lambda value: value)
        connection = serve(adapters=(FOREIGN,), elixir_address=host.address, grace_ms=20_000)
        connection.greet()
        arguments = {"first": "held", "name": "echo", "value": "late"}
        pending = connection.stub.ExecuteTool.future(
            connection.request("call_twice", arguments), timeout=LIMIT
        )
        assert entered.wait(LIMIT)
        serve.worker.request_stop()
        while not serve.worker._dispatcher.draining:
            pass
        go_on.set()
        assert decode_response(pending.result()) == [True, "late"]


# --- Without a host -------------------------------------------------------------------------------


def test_standalone_there_is_nobody_to_ask(serve: Served) -> None:
    connection = serve(adapters=(NATIVE, FOREIGN))
    for kind in ("native.caught", "native.caught_blocking"):
        assert call(connection, kind, "echo", value=1)[0] == "HostUnavailable"
    kind, text = connection.call("caught", {"name": "echo"})
    assert kind == "RuntimeError"
    assert "no host" in text
    assert connection.call("listed") == {}
    assert connection.call("stub_fails", {"name": "echo", "value": 1}) == "HostUnavailable"
    assert connection.call("clean_up") is True


@pytest.mark.conforms(82)
def test_a_host_that_is_gone_is_said_to_be(serve: Served) -> None:
    with Host() as host:
        connection = serve(
            adapters=(NATIVE, FOREIGN), elixir_address=host.address, heartbeat_enabled=False
        )
        connection.greet()
        host.close()
        for kind in ("native.caught", "native.caught_blocking"):
            assert call(connection, kind, "echo", value=1)[0] == "HostUnavailable"
        assert connection.call("caught", {"name": "echo"})[0] == "RuntimeError"
        assert connection.call("listed") == {}
        heartbeat = pb.HeartbeatRequest(session_id=connection.session_id)
        assert connection.stub.Heartbeat(heartbeat, timeout=LIMIT).session_valid


@pytest.mark.conforms(80, "D4")
def test_a_call_to_elixir_ends_with_the_deadline(serve: Served) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        entered.set()
        go_on.wait(LIMIT)

    with Host() as host:
        host.expose("slow", slow)
        connection = serve(adapters=(NATIVE,), elixir_address=host.address, heartbeat_enabled=False)
        connection.greet()
        arguments = {"name": "slow", "arguments": {}}
        request = connection.request("native.call_blocking", arguments)
        pending = connection.stub.ExecuteTool.future(request, timeout=2.0)
        try:
            assert entered.wait(LIMIT)
            assert pending.exception(LIMIT) is not None or not pending.result().success
            while connection.call("worker.stats")["threads"]["busy"]:
                pass
        finally:
            go_on.set()


def test_elixir_is_not_called_while_a_resource_is_held_alone(connection: Connection) -> None:
    """What Elixir calls back could wait for that very resource."""
    assert connection.call("native.call_while_holding", {"exclusive": False}) == 1
    with pytest.raises(ToolFailure, match="no call to Elixir while 'thing-") as caught:
        connection.call("native.call_while_holding", {"exclusive": True})
    assert caught.value.failure["code"] == "FAILED_PRECONDITION"
