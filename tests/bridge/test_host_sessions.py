"""With a host, the host is the authority on sessions; calls and heartbeats do without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from snakepit_worker import Adapter, CallContext, tool
from snakepit_worker.testing import StandInHost
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from tests.bridge.conftest import LIMIT

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


def code_of(error: BaseException) -> grpc.StatusCode:
    assert isinstance(error, grpc.Call)
    code: grpc.StatusCode = error.code()
    return code


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
