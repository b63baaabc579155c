"""100 MiB a message in either direction, and a clear status beyond (interop 2.4)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc
import psutil
import pytest

from snakepit_worker import Adapter, tool
from snakepit_worker.errors import StartError
from snakepit_worker.runtime import Worker
from snakepit_worker.settings import Settings
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from tests.bridge.conftest import LIMIT

if TYPE_CHECKING:
    from snakepit_worker.testing import Connection
    from tests.bridge.conftest import Served

MAX = 104_857_600


class Large(Adapter):
    name = "large"

    @tool
    def size(self, data: bytes) -> int:
        return len(data)

    @tool
    def text_size(self, text: str) -> int:
        return len(text)

    @tool
    def make(self, size: int) -> bytes:
        return bytes(size)

    @tool
    def make_text(self, size: int) -> str:
        return "x" * size

    @tool
    def stream(self, size: int) -> Iterator[bytes]:
        yield b"first"
        yield bytes(size)


@pytest.fixture
def connection(serve: Served) -> Connection:
    return serve(Large())


def fitting_request(connection: Connection, over: int) -> pb.ExecuteToolRequest:
    """A request that is by ``over`` bytes larger than the limit."""
    request = connection.request("large.size", binary={"data": bytes(MAX - 1000)})
    request.binary_parameters["data"] += bytes(MAX + over - request.ByteSize())
    assert request.ByteSize() == MAX + over
    return request


def code_of(error: BaseException | None) -> grpc.StatusCode:
    assert isinstance(error, grpc.Call)
    code: grpc.StatusCode = error.code()
    return code


@pytest.mark.conforms(26)
def test_the_largest_request_arrives(connection: Connection) -> None:
    response = connection.stub.ExecuteTool(fitting_request(connection, 0), timeout=50)
    assert response.success


@pytest.mark.conforms(26)
def test_a_larger_request_is_refused_and_the_next_one_served(serve: Served) -> None:
    connection = serve(Large())
    options = (("grpc.max_send_message_length", -1), ("grpc.enable_http_proxy", 0))
    with grpc.insecure_channel(serve.worker.address, options=options) as channel:
        call: Any = channel.unary_unary(
            "/snakepit.bridge.BridgeService/ExecuteTool",
            request_serializer=pb.ExecuteToolRequest.SerializeToString,
        )
        with pytest.raises(grpc.RpcError) as caught:
            call(fitting_request(connection, 1), timeout=50)
    assert code_of(caught.value) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert connection.call("large.size", binary={"data": b"x"}) == 1


@pytest.mark.conforms(26)
@pytest.mark.parametrize("name", ["make", "make_text"])
def test_large_results_arrive_and_larger_ones_are_refused(
    connection: Connection, name: str
) -> None:
    assert len(connection.call(f"large.{name}", {"size": MAX - 100}, timeout=50)) == MAX - 100
    with pytest.raises(grpc.RpcError) as caught:
        connection.call(f"large.{name}", {"size": MAX + 1}, timeout=50)
    assert code_of(caught.value) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert connection.call("large.make", {"size": 1}) == b"\x00"


@pytest.mark.conforms(26)
def test_the_same_for_chunks(connection: Connection) -> None:
    first, second, last = connection.stream("large.stream", {"size": MAX - 100}, timeout=50)
    assert (first["raw_data"], len(second["raw_data"]), last) == (
        b"first",
        MAX - 100,
        {"is_final": True},
    )
    del second
    chunks = connection.stream("large.stream", {"size": MAX + 1}, timeout=50)
    assert next(chunks)["raw_data"] == b"first"
    with pytest.raises(grpc.RpcError) as caught:
        next(chunks)
    assert code_of(caught.value) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert connection.call("large.make", {"size": 1}) == b"\x00"


@pytest.mark.conforms(25, "D7")
def test_it_listens_on_loopback_only(connection: Connection, serve: Served) -> None:
    port = int(serve.worker.address.rpartition(":")[2])
    listening = {
        found.laddr.ip.removeprefix("::ffff:")
        for found in psutil.Process().net_connections("tcp")
        if found.status == psutil.CONN_LISTEN and found.laddr.port == port
    }
    assert listening == {"127.0.0.1"}
    assert connection.call("large.make", {"size": 1}) == b"\x00"


@pytest.mark.conforms(25, "D7")
def test_other_addresses_of_the_machine_refuse(connection: Connection, serve: Served) -> None:
    del connection
    port = int(serve.worker.address.rpartition(":")[2])
    addresses = {"127.0.0.2"} | {
        address.address
        for interface in psutil.net_if_addrs().values()
        for address in interface
        if address.family == socket.AF_INET
    }
    for address in addresses - {"127.0.0.1"}:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, port), timeout=LIMIT)
    socket.create_connection(("127.0.0.1", port), timeout=LIMIT).close()


def test_a_port_is_taken_by_one_worker(connection: Connection, serve: Served) -> None:
    port = int(serve.worker.address.rpartition(":")[2])
    with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port}"):
        Worker(Settings(port=port)).start()
    assert connection.call("large.make", {"size": 1}) == b"\x00"
