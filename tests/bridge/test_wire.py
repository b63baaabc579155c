"""What goes over the connection itself, read without gRPC."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Final

import grpc
import h2.config
import h2.connection
import h2.events
import psutil
import pytest

from snakepit_worker import Adapter, tool
from snakepit_worker.wire.generated.snakepit_bridge_pb2_grpc import BridgeServiceStub
from tests.bridge.conftest import LIMIT

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from tests.bridge.conftest import Served

SERVICE: Final = "/snakepit.bridge.BridgeService/"
LARGE: Final = 1_000_000
CHUNKS: Final = int(os.environ.get("STREAM_CHUNKS", "20000"))
"""`make chaos` sends a million."""


class Talkative(Adapter):
    """Replies that would compress well."""

    name = "talkative"

    @tool
    async def repeat(self, text: str, times: int) -> str:
        return text * times

    @tool
    async def stream(self, text: str, times: int) -> AsyncIterator[str]:
        for _ in range(times):
            yield text


class Counting(Adapter):
    """Streams of small items, which know how far they have come."""

    name = "counting"

    def __init__(self) -> None:
        self.made = 0

    @tool
    def in_thread(self, n: int) -> Iterator[int]:
        for self.made in range(n):
            yield self.made

    @tool
    async def on_loop(self, n: int) -> AsyncIterator[int]:
        for self.made in range(n):
            yield self.made


def exchange(
    address: str, rpc: str, request: Message
) -> tuple[list[tuple[str, str]], list[tuple[int, bytes]]]:
    """One RPC by a client that could read compressed replies; its headers and raw messages."""
    host, _, port = address.partition(":")
    headers: list[tuple[str, str]] = []
    received = b""
    payload = request.SerializeToString()
    with socket.create_connection((host, int(port)), LIMIT) as connection:
        client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="ascii"))
        client.initiate_connection()
        client.increment_flow_control_window(2**30)
        stream = client.get_next_available_stream_id()
        client.send_headers(
            stream,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", SERVICE + rpc),
                (":authority", address),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                ("grpc-accept-encoding", "gzip, deflate, identity"),
                ("accept-encoding", "gzip"),
            ],
        )
        client.increment_flow_control_window(2**30, stream)
        client.send_data(stream, struct.pack(">BI", 0, len(payload)) + payload, end_stream=True)
        connection.sendall(client.data_to_send())
        ended = False
        while not ended:
            for event in client.receive_data(connection.recv(65536)):
                if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    headers += [(str(name), str(value)) for name, value in event.headers]
                elif isinstance(event, h2.events.DataReceived):
                    received += event.data
                    client.acknowledge_received_data(event.flow_controlled_length, stream)
                ended = ended or isinstance(event, h2.events.StreamEnded)
            connection.sendall(client.data_to_send())
    messages = []
    while received:
        compressed, length = struct.unpack(">BI", received[:5])
        messages.append((compressed, received[5 : 5 + length]))
        received = received[5 + length :]
    return headers, messages


@pytest.mark.conforms(28)
@pytest.mark.parametrize(
    ("rpc", "times", "count"),
    [
        ("ExecuteTool", 1, 1),
        ("ExecuteTool", LARGE, 1),
        ("ExecuteStreamingTool", 50, 51),
    ],
)
def test_replies_are_never_compressed(serve: Served, rpc: str, times: int, count: int) -> None:
    connection = serve(Talkative())
    name = "talkative.repeat" if rpc == "ExecuteTool" else "talkative.stream"
    request = connection.request(name, {"text": "ha", "times": times})
    headers, messages = exchange(serve.worker.address, rpc, request)
    assert ("grpc-status", "0") in headers
    assert [value for name, value in headers if name == "grpc-encoding"] in ([], ["identity"])
    assert [compressed for compressed, _ in messages] == [0] * count
    assert sum(len(message) for _, message in messages) >= 2 * times


@pytest.mark.conforms(28)
def test_a_failure_is_not_compressed_either(serve: Served) -> None:
    connection = serve(Talkative())
    request = connection.request("talkative.stream", {"text": "x" * 5_000, "times": "many"})
    headers, messages = exchange(serve.worker.address, "ExecuteStreamingTool", request)
    assert messages == []
    assert dict(headers)["grpc-status"] == "3"
    assert "grpc-encoding" not in dict(headers) or dict(headers)["grpc-encoding"] == "identity"


@pytest.mark.conforms(65)
@pytest.mark.timeout(60 + CHUNKS // 1_000)
@pytest.mark.parametrize("form", ["in_thread", "on_loop"])
def test_a_slow_reader_of_many_chunks_misses_none(serve: Served, form: str) -> None:
    counting = Counting()
    connection = serve(counting)
    request = connection.request(f"counting.{form}", {"n": CHUNKS})
    before = psutil.Process().memory_info().rss
    furthest = 0
    # A window that does not grow, so that the connection itself holds little.
    narrow = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_536)]
    with grpc.insecure_channel(serve.worker.address, narrow) as channel:
        stub = BridgeServiceStub(channel)
        number = -1
        for number, chunk in enumerate(stub.ExecuteStreamingTool(request, timeout=3_600)):
            assert chunk.data == (b"%d" % number if number < CHUNKS else b"")
            if number % 500 == 0:  # time for a producer to run away, if nothing held it
                threading.Event().wait(0.001)
                furthest = max(furthest, counting.made - number)
    assert number == CHUNKS
    assert furthest < 10_000
    assert psutil.Process().memory_info().rss - before < 100 * 2**20
