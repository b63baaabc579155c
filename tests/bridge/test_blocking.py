"""Nothing blocks the event loop's thread while calls are served.

Blockbuster makes the usual blocking functions raise in a thread whose event loop is running.  The
test's own threads have none, so they are not affected.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import (
    AsyncIterator,
    Iterator,
)
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from snakepit_worker import Adapter, CallContext, launch, tool
from snakepit_worker.telemetry.logging import logger
from snakepit_worker.testing import Connection, ToolFailure
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from tests.bridge.conftest import LIMIT

if TYPE_CHECKING:
    from tests.bridge.conftest import Served

ROOT = Path(__file__).resolve().parents[2]


class Everything(Adapter):
    name = "every"

    @tool
    def sync(self, value: Any = None) -> Any:
        time.sleep(0)  # may block: it has a thread
        return value

    @tool
    async def on_loop(self, ctx: CallContext, value: Any = None) -> Any:
        return await ctx.run_sync(self.sync, value)

    @tool(main_thread=True)
    def on_main_thread(self) -> int:
        time.sleep(0)
        return 1

    @tool
    def stream(self, count: int) -> Iterator[int]:
        yield from range(count)

    @tool
    async def stream_async(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number

    @tool
    def fail(self) -> NoReturn:
        raise ValueError("no")

    @tool
    async def fail_async(self) -> NoReturn:
        raise ValueError("no")

    @tool
    def keep(self, ctx: CallContext) -> str:
        return ctx.session.put("every.thing", 1, close=lambda: time.sleep(0)).handle

    @tool
    async def careless(self) -> None:
        time.sleep(0)  # noqa: ASYNC251 - the counter-proof


@pytest.fixture
def blockbuster() -> Iterator[BlockBuster]:
    with blockbuster_ctx() as blockbuster:
        yield blockbuster


@pytest.fixture
def connection(serve: Served, blockbuster: BlockBuster) -> Connection:
    """To a worker that was started under the watch, and stops under it."""
    del blockbuster
    logger()  # what it imports is another test's business
    return serve(Everything())


def test_a_tool_that_blocks_the_loop_is_caught(connection: Connection) -> None:
    """The counter-proof: the watch reaches the thread of the bridge."""
    with pytest.raises(ToolFailure) as caught:
        connection.call("every.careless")
    assert caught.value.failure["type"] == "BlockingError"


@pytest.mark.parametrize("name", ["sync", "on_loop"])
@pytest.mark.parametrize("value", [None, 7, 2**70, "text", {"a": [1.5]}], ids=repr)
def test_calls(connection: Connection, name: str, value: object) -> None:
    assert connection.call(f"every.{name}", {"value": value}) == value


def test_binary_values_and_the_main_thread(connection: Connection) -> None:
    assert connection.call("every.sync", binary={"value": b"\xff"}) == b"\xff"
    assert connection.call("every.on_main_thread") == 1


@pytest.mark.parametrize("name", ["stream", "stream_async"])
def test_streams(connection: Connection, name: str) -> None:
    assert len(list(connection.stream(f"every.{name}", {"count": 300}))) == 301
    chunks = connection.stream(f"every.{name}", {"count": 100_000})
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    while connection.call("worker.stats")["calls"]["in_flight"] > 1:
        pass


@pytest.mark.parametrize("name", ["fail", "fail_async"])
def test_failures(connection: Connection, name: str) -> None:
    with pytest.raises(ToolFailure) as caught:
        connection.call(f"every.{name}")
    assert caught.value.failure["type"] == "ValueError"
    assert "test_blocking.py" in caught.value.failure["traceback"]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("every.unheard", {}), ("every.stream", {"count": 1}), ("every.sync", {"wrong": 1})],
)
def test_calls_that_are_refused(
    connection: Connection, name: str, arguments: dict[str, object]
) -> None:
    with pytest.raises(ToolFailure) as caught:
        connection.call(name, arguments)
    assert caught.value.failure["type"] != "BlockingError"


@pytest.mark.parametrize("name", ["worker.info", "worker.stats", "worker.tools", "session.info"])
def test_built_in_tools(connection: Connection, name: str) -> None:
    assert connection.call(name)


def test_sessions(connection: Connection) -> None:
    stub, session_id = connection.stub, connection.session_id
    assert stub.InitializeSession(
        pb.InitializeSessionRequest(session_id=session_id), timeout=LIMIT
    ).success
    connection.call("session.release", {"handle": connection.call("every.keep")})
    connection.call("every.keep")
    assert stub.GetSession(pb.GetSessionRequest(session_id=session_id), timeout=LIMIT).session_id
    assert stub.Heartbeat(pb.HeartbeatRequest(session_id=session_id), timeout=LIMIT).session_valid
    assert connection.call("session.close")["released"] == 1


def test_closers_of_a_session_that_the_host_ends(connection: Connection) -> None:
    connection.call("every.keep")
    request = pb.CleanupSessionRequest(session_id=connection.session_id)
    assert connection.stub.CleanupSession(request, timeout=LIMIT).resources_cleaned == 1


def test_standard_services(connection: Connection) -> None:
    connection.stub.Ping(pb.PingRequest(), timeout=LIMIT)
    health: Any = health_pb2_grpc.HealthStub(connection.channel)
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=LIMIT).status
    assert list(ProtoReflectionDescriptorDatabase(connection.channel).get_services())
    with pytest.raises(grpc.RpcError):
        connection.stub.RegisterTools(pb.RegisterToolsRequest(), timeout=LIMIT)


def test_telemetry(connection: Connection) -> None:
    call = connection.stub.StreamTelemetry(
        iter([pb.TelemetryControl(toggle=pb.TelemetryToggle(enabled=True))]), timeout=LIMIT
    )
    call.initial_metadata()
    connection.call("every.sync")
    assert [list(next(call).event_parts)[-1] for _ in range(2)] == ["start", "stop"]
    call.cancel()


def use(connection: Connection) -> list[str]:
    """Something of everything; what the loop's thread imported meanwhile."""
    connection.greet()
    connection.call("importing.watch")
    connection.call("importing.give")
    for name in ("worker.info", "worker.tools", "session.info"):
        connection.call(name)
    for name, arguments in (
        ("importing.fail", {}),
        ("importing.fail_async", {}),
        ("importing.unheard", {}),
        ("importing.give", {"wrong": 1}),
    ):
        with pytest.raises(ToolFailure):
            connection.call(name, arguments)
    with pytest.raises(grpc.RpcError):
        list(connection.stream("importing.stream"))
    assert list(ProtoReflectionDescriptorDatabase(connection.channel).get_services())
    connection.stub.Heartbeat(pb.HeartbeatRequest(session_id="x"), timeout=LIMIT)
    imported: list[str] = connection.call("importing.imported")
    return imported


ADAPTER = "tests.bridge.adapters.importing.Importing"


def test_the_loop_imports_nothing_once_it_serves() -> None:
    """An import takes a lock that some other thread may hold for seconds, and reads files."""
    with (
        launch.start(adapters=[ADAPTER]) as worker,
        Connection(worker.address) as connection,
    ):
        assert use(connection) == []


EMBEDDED = f"""
from snakepit_worker.runtime import Worker
from snakepit_worker.settings import Settings
from snakepit_worker.testing import Connection
from tests.bridge.test_blocking import use
with Worker(Settings(adapters=("{ADAPTER}",))) as worker, Connection(worker.address) as connection:
    imported = use(connection)
assert imported == [], imported[:5]
"""


def test_neither_does_it_in_a_program_that_embeds_a_worker() -> None:
    """In a program of its own: here all may have been imported by other tests."""
    done = subprocess.run(
        [sys.executable, "-c", EMBEDDED],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
