"""With a host, the host is the authority on sessions; calls and heartbeats do without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from snakepit_worker import Adapter, CallContext, tool
from snakepit_worker.testing import StandInHost
from snakepit_worker.testing.host_sessions import SessionTable
from snakepit_worker.wire.convention import CORRELATION_HEADER
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from tests.bridge.conftest import LIMIT
from tests.conftest import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snakepit_worker.testing import Connection
    from tests.bridge.conftest import Served


class Keeper(Adapter):
    name = "keeper"

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1

    @tool
    def keep(self, ctx: CallContext) -> None:
        ctx.session.put("keeper.thing", None, close=self.close)

    @tool
    async def answer(self) -> int:
        return 42


class NotingHost(StandInHost):
    """Notes what it is asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.beaten: set[str] = set()
        self.headers: dict[str, str | bytes] = {}
        self.seconds = 0.0

    def Heartbeat(
        self, request: pb.HeartbeatRequest, context: grpc.ServicerContext
    ) -> pb.HeartbeatResponse:
        self.beaten.add(request.session_id)
        return super().Heartbeat(request, context)

    def InitializeSession(
        self, request: pb.InitializeSessionRequest, context: grpc.ServicerContext
    ) -> pb.InitializeSessionResponse:
        self.headers = dict(context.invocation_metadata())
        self.seconds = context.time_remaining()
        return super().InitializeSession(request, context)


@pytest.fixture
def host() -> Iterator[StandInHost]:
    with StandInHost() as host:
        yield host


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


@pytest.fixture
def connection(serve: Served, host: StandInHost, keeper: Keeper) -> Connection:
    """To a worker that sends no heartbeats of its own, so that RPCs can be counted."""
    return serve(keeper, elixir_address=host.address, heartbeat_enabled=False)


def beating(serve: Served, host: StandInHost, *adapters: Adapter) -> Connection:
    """To a worker whose heartbeats a test can wait for, and whose host outlives it."""
    serve.stack.enter_context(host)
    connection = serve(*adapters, elixir_address=host.address, heartbeat_interval_ms=10)
    connection.greet()
    return connection


def beats(host: StandInHost, count: int) -> None:
    """Wait for so many heartbeats more, of which the first may have begun already."""
    host.wait_for("Heartbeat", host.received["Heartbeat"] + 1 + count)


def code_of(error: BaseException) -> grpc.StatusCode:
    assert isinstance(error, grpc.Call)
    code: grpc.StatusCode = error.code()
    return code


@pytest.mark.conforms(76)
def test_sessions_are_the_hosts(connection: Connection, host: StandInHost) -> None:
    stub = connection.stub
    request = pb.InitializeSessionRequest(session_id="mine", metadata={"a": "1"})
    assert stub.InitializeSession(request, timeout=LIMIT).success
    assert dict(host.sessions["mine"]) == {"a": "1"}
    found = stub.GetSession(pb.GetSessionRequest(session_id="mine"), timeout=LIMIT)
    assert dict(found.metadata) == {"a": "1"}
    assert found.created_at.seconds < 0, "the host's own clock, passed on as it came"
    cleanup = pb.CleanupSessionRequest(session_id="mine")
    assert stub.CleanupSession(cleanup, timeout=LIMIT).success
    assert "mine" not in host.sessions


def test_what_this_worker_holds_for_a_session_goes_with_it(
    connection: Connection, host: StandInHost, keeper: Keeper
) -> None:
    connection.call("keeper.keep")
    connection.call("keeper.keep")
    cleanup = pb.CleanupSessionRequest(session_id=connection.session_id)
    response = connection.stub.CleanupSession(cleanup, timeout=LIMIT)
    assert response.resources_cleaned == 1 + 2  # the host's count, and ours
    assert keeper.closed == 2
    assert host.received["CleanupSession"] == 1


def test_the_hosts_refusals_come_as_they_are(connection: Connection) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        connection.stub.InitializeSession(pb.InitializeSessionRequest(), timeout=LIMIT)
    assert code_of(caught.value) is grpc.StatusCode.INTERNAL
    assert caught.value.details() == "invalid_id"
    with pytest.raises(grpc.RpcError) as caught:
        connection.stub.GetSession(pb.GetSessionRequest(session_id="unheard"), timeout=LIMIT)
    assert code_of(caught.value) is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "Session not found: unheard"


@pytest.mark.conforms(53, 76, "D1", "D3")
def test_no_call_and_no_heartbeat_goes_to_the_host(
    connection: Connection, host: StandInHost
) -> None:
    connection.greet()
    before = host.received.copy()
    for _ in range(10):
        assert connection.call("keeper.answer") == 42
        heartbeat = pb.HeartbeatRequest(session_id=connection.session_id)
        assert connection.stub.Heartbeat(heartbeat, timeout=LIMIT).session_valid
    assert host.received == before


@pytest.mark.conforms(82)
def test_a_host_that_is_gone_is_no_reason_to_answer_late(
    connection: Connection, host: StandInHost, keeper: Keeper
) -> None:
    connection.call("keeper.keep")
    host.close()
    heartbeat = pb.HeartbeatRequest(session_id="any")
    assert connection.stub.Heartbeat(heartbeat, timeout=LIMIT).session_valid
    assert connection.call("keeper.answer") == 42
    request = pb.InitializeSessionRequest(session_id="mine")
    with pytest.raises(grpc.RpcError) as caught:
        connection.stub.InitializeSession(request, timeout=LIMIT)
    assert code_of(caught.value) is grpc.StatusCode.UNAVAILABLE
    cleanup = pb.CleanupSessionRequest(session_id=connection.session_id)
    with pytest.raises(grpc.RpcError) as caught:
        connection.stub.CleanupSession(cleanup, timeout=LIMIT)
    assert code_of(caught.value) is grpc.StatusCode.UNAVAILABLE
    assert keeper.closed == 1, "what is ours is closed all the same"


@pytest.mark.conforms("D4")
def test_what_is_passed_on_has_a_deadline(serve: Served) -> None:
    with NotingHost() as host:
        connection = serve(elixir_address=host.address, heartbeat_enabled=False)
        request = pb.InitializeSessionRequest(session_id="mine")
        connection.stub.InitializeSession(request)
        assert 0 < host.seconds < 10


@pytest.mark.conforms("D47")
def test_the_headers_of_a_request_stay_here(serve: Served) -> None:
    with NotingHost() as host:
        connection = serve(elixir_address=host.address, heartbeat_enabled=False)
        headers = (("x-own", "1"), (CORRELATION_HEADER, "sp-1"))
        request = pb.InitializeSessionRequest(session_id="mine")
        connection.stub.InitializeSession(request, timeout=LIMIT, metadata=headers)
        assert not {"x-own", CORRELATION_HEADER} & host.headers.keys()


# --- Heartbeats of the worker ---------------------------------------------------------------------


@pytest.mark.conforms(86, "D33")
def test_only_the_session_of_the_worker_is_kept_alive(serve: Served, keeper: Keeper) -> None:
    host = NotingHost()
    connection = beating(serve, host, keeper)
    for number in range(20):
        request = pb.InitializeSessionRequest(session_id=f"made-{number}")
        connection.stub.InitializeSession(request, timeout=LIMIT)
        other = serve.connect(f"used-{number}")
        assert other.call("keeper.answer", {"session_id": f"named-{number}"}) == 42
    beats(host, 20)
    assert host.beaten == {connection.session_id}


@pytest.mark.conforms(76, 87)
def test_the_session_of_the_worker_outlives_its_time(serve: Served) -> None:
    clock = Clock(0.0)
    host = StandInHost(SessionTable(clock=clock))
    connection = beating(serve, host)
    host.sessions.initialize("not kept", {})
    for _ in range(3):
        clock.now += 3_000.0
        beats(host, 1)
    assert set(host.sessions) == {connection.session_id}


@pytest.mark.conforms("D34")
def test_a_session_that_the_host_forgot_is_made_again(serve: Served) -> None:
    host = StandInHost()
    connection = beating(serve, host)
    metadata = dict(host.sessions[connection.session_id])
    host.sessions.delete(connection.session_id)
    host.wait_for("InitializeSession", 2)
    beats(host, 1)
    assert dict(host.sessions[connection.session_id]) == metadata
