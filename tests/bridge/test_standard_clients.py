"""Clients that know nothing of us: health, reflection, and the RPCs that only the host serves."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from snakepit_worker import Adapter, tool
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from tests.bridge.conftest import LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snakepit_worker.testing import Connection
    from tests.bridge.conftest import Gate, Served

SERVICE = "snakepit.bridge.BridgeService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Plain(Adapter):
    name = "plain"

    @tool
    def answer(self) -> int:
        return 42


class Starting(Adapter):
    """Starts when the gate opens."""

    name = "starting"

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    @contextmanager
    def lifespan(self) -> Iterator[None]:
        self.gate.wait()
        yield

    @tool
    def answer(self) -> int:
        return 43


class Broken(Adapter):
    name = "broken"

    @contextmanager
    def lifespan(self) -> Iterator[None]:
        raise ImportError("no such framework")
        yield

    @tool
    def answer(self) -> None: ...


@pytest.fixture
def connection(serve: Served) -> Connection:
    return serve(Plain())


def health(connection: Connection) -> Any:
    return health_pb2_grpc.HealthStub(connection.channel)


def unary(connection: Connection, path: str) -> Any:
    """A method by its path, in bytes."""
    return connection.channel.unary_unary(path)


def status_of(connection: Connection, service: str = "") -> Any:
    request = health_pb2.HealthCheckRequest(service=service)
    return health(connection).Check(request, timeout=LIMIT).status


# --- Only the host's ------------------------------------------------------------------------------


@pytest.mark.conforms(31)
@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("RegisterTools", pb.RegisterToolsRequest(session_id="s")),
        ("GetExposedElixirTools", pb.GetExposedElixirToolsRequest(session_id="s")),
        ("ExecuteElixirTool", pb.ExecuteElixirToolRequest(session_id="s", tool_name="t")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_only_the_host_serves_is_unimplemented(
    connection: Connection, name: str, request_: object
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        getattr(connection.stub, name)(request_, timeout=LIMIT)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert caught.value.details() == f"{name} is served by the host, not by a worker"


def test_an_unknown_method_is_unimplemented(connection: Connection) -> None:
    for path in (f"/{SERVICE}/Unheard", "/some.Other/Method"):
        with pytest.raises(grpc.RpcError) as caught:
            unary(connection, path)(b"", timeout=LIMIT)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("message", ["", "connection_test", "health_check_#PID<0.1.0>", "ž" * 1000])
def test_ping_answers_locally(connection: Connection, message: str) -> None:
    response = connection.stub.Ping(pb.PingRequest(message=message), timeout=LIMIT)
    assert response.message == f"Pong from Python: {message}"
    assert response.server_time.seconds > 1_700_000_000


# --- Health ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["", SERVICE, "adapter.plain", "adapter.session"])
def test_what_serves_says_so(connection: Connection, service: str) -> None:
    assert connection.call("plain.answer") == 42
    assert status_of(connection, service) == SERVING


def test_a_service_that_nobody_knows(connection: Connection) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        status_of(connection, "adapter.unheard")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_all_services_can_be_listed(connection: Connection) -> None:
    connection.call("plain.answer")
    request = health_pb2.HealthListRequest()  # type: ignore[attr-defined]  # newer than its stubs
    listed = health(connection).List(request, timeout=LIMIT)
    assert {name: entry.status for name, entry in listed.statuses.items()} == {
        "": SERVING,
        SERVICE: SERVING,
        "adapter.plain": SERVING,
        "adapter.job": SERVING,
        "adapter.session": SERVING,
        "adapter.worker": SERVING,
    }


def test_an_adapter_that_starts_is_not_serving_until_it_does(serve: Served, gate: Gate) -> None:
    connection = serve(Starting(gate), Plain())
    gate.reached()
    statuses = health(connection).Watch(
        health_pb2.HealthCheckRequest(service="adapter.starting"), timeout=LIMIT
    )
    assert next(statuses).status == NOT_SERVING
    assert status_of(connection) == SERVING, "the worker itself serves"
    assert connection.call("plain.answer") == 42
    assert status_of(connection, "adapter.plain") == SERVING
    gate.open()
    assert next(statuses).status == SERVING
    assert connection.call("starting.answer") == 43
    statuses.cancel()


def test_an_adapter_that_failed_is_unhealthy_and_the_others_are_not(serve: Served) -> None:
    serve.expected_errors = ("adapter failed to start",)
    connection = serve(Broken(), Plain())
    assert connection.call("plain.answer") == 42
    assert status_of(connection, "adapter.broken") == NOT_SERVING
    assert status_of(connection, "adapter.plain") == SERVING
    assert status_of(connection) == SERVING


def test_a_watcher_hears_of_a_service_before_it_is_known(connection: Connection) -> None:
    statuses = health(connection).Watch(
        health_pb2.HealthCheckRequest(service="adapter.unheard"), timeout=LIMIT
    )
    assert next(statuses).status == UNKNOWN
    statuses.cancel()


def test_a_worker_that_drains_says_so_to_those_who_watch(serve: Served, gate: Gate) -> None:
    class Waiting(Adapter):
        name = "waiting"

        @tool
        def wait(self) -> str:
            gate.wait()
            return "done"

    connection = serve(Waiting(), grace_ms=20_000)
    call = connection.stub.ExecuteTool.future(connection.request("waiting.wait"), timeout=LIMIT)
    gate.reached()
    watchers = [
        health(connection).Watch(health_pb2.HealthCheckRequest(service=service), timeout=LIMIT)
        for service in ("", SERVICE, "adapter.waiting")
    ]
    assert [next(watcher).status for watcher in watchers] == [SERVING] * 3
    serve.worker.request_stop()
    assert [next(watcher).status for watcher in watchers] == [NOT_SERVING] * 3
    gate.open()
    assert call.result().success
    for watcher in watchers:
        watcher.cancel()


# --- Reflection -----------------------------------------------------------------------------------


def test_reflection_names_the_services(connection: Connection) -> None:
    database = ProtoReflectionDescriptorDatabase(connection.channel)
    assert set(database.get_services()) == {
        SERVICE,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_a_client_without_the_proto_file_can_call_a_tool(connection: Connection) -> None:
    """As grpcurl does: descriptors by reflection, messages made from them."""
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(connection.channel))
    method = pool.FindServiceByName(SERVICE).FindMethodByName("ExecuteTool")
    request = GetMessageClass(method.input_type)()
    assert type(request) is not pb.ExecuteToolRequest
    request.tool_name = "plain.answer"  # type: ignore[attr-defined]
    call = unary(connection, f"/{SERVICE}/ExecuteTool")
    answer = call(request.SerializeToString(), timeout=LIMIT)
    response: Any = GetMessageClass(method.output_type).FromString(answer)
    assert (response.success, response.result.value) == (True, b"42")


@pytest.mark.conforms(24)
def test_the_reflected_service_is_whole(connection: Connection) -> None:
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(connection.channel))
    reflected = pool.FindServiceByName(SERVICE)
    own = pb.DESCRIPTOR.services_by_name["BridgeService"]
    assert [method.name for method in reflected.methods] == [method.name for method in own.methods]
    assert reflected.file.serialized_pb == pb.DESCRIPTOR.serialized_pb
    chunk = pool.FindMessageTypeByName("snakepit.bridge.ToolChunk")
    assert [field.name for field in chunk.fields] == ["chunk_id", "data", "is_final", "metadata"]


def test_what_reflection_does_not_know(connection: Connection) -> None:
    database = ProtoReflectionDescriptorDatabase(connection.channel)
    with pytest.raises(KeyError):
        database.FindFileContainingSymbol("some.Other")
    assert connection.call("plain.answer") == 42


def test_many_clients_may_reflect_at_once(connection: Connection, serve: Served) -> None:
    found: list[int] = []

    def reflect() -> None:
        database = ProtoReflectionDescriptorDatabase(serve.connect().channel)
        found.append(len(list(database.get_services())))

    threads = [threading.Thread(target=reflect) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert found == [3] * 4
    assert connection.call("plain.answer") == 42
