"""A connection to a worker, used as the host uses it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import platform
import secrets
import sys
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self

import grpc

from snakepit_worker.testing.deadlines import truncated
from snakepit_worker.testing.replies import ToolFailure, decode_chunk, decode_response
from snakepit_worker.testing.supervision import HeartbeatMonitor, Supervision, TelemetryStream
from snakepit_worker.wire.convention import CHANNEL_OPTIONS, CORRELATION_HEADER
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from snakepit_worker.wire.generated.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_worker.wire.values import to_any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

__all__ = [
    "Connection",
    "ToolFailure",
    "decode_chunk",
    "decode_response",
    "python_identity",
]

_TIMEOUT: Final = 30.0
"""Seconds; the host has more patience, but nobody who runs tests has."""
_sessions = itertools.count(1)


class Connection:
    """What the host does with a worker that is ready: greet it, look after it, call its tools.

    Args:
        address: ``host:port`` of the worker.
        session_id: Session of all requests; a fresh one when omitted.
        identity: What every request says of the interpreter that the worker runs on, see
            `python_identity`; the host sends that when it knows.
        cancels: Whether leaving a stream early ends it.  With the host it does not: what nobody
            reads any more goes on until its end or its deadline.

    Attributes:
        heartbeats: The monitor, once `supervise` has been called.
        telemetry: The stream of events, once `supervise` has been called.
    """

    def __init__(
        self,
        address: str,
        session_id: str | None = None,
        *,
        identity: Mapping[str, str] | None = None,
        cancels: bool = True,
    ) -> None:
        self.session_id = session_id or f"session_{next(_sessions)}_{time.time_ns() // 1000}"
        self.channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        self.stub = BridgeServiceStub(self.channel)
        self.heartbeats: HeartbeatMonitor | None = None
        self.telemetry: TelemetryStream | None = None
        self._identity = dict(identity or {})
        self._cancels = cancels

    def greet(self) -> None:
        """The host's first steps after readiness: ping, and the worker's session.

        Raises:
            grpc.RpcError: When the worker does not answer.
        """
        self.stub.Ping(
            pb.PingRequest(message="connection_test"), timeout=_TIMEOUT, wait_for_ready=True
        )
        now = datetime.now(UTC).replace(tzinfo=None)
        self.stub.InitializeSession(
            pb.InitializeSessionRequest(
                session_id=self.session_id,
                metadata={
                    "elixir_node": "nonode@nohost",
                    "initialized_at": f"{now.isoformat(timespec='microseconds')}Z",
                },
                config=pb.SessionConfig(enable_caching=True, cache_ttl_seconds=60),
            ),
            timeout=_TIMEOUT,
        )

    def supervise(
        self, supervision: Supervision | None = None, failed: Callable[[], object] | None = None
    ) -> None:
        """The host's next steps: the telemetry stream, and heartbeats until the end.

        Args:
            supervision: How; as the host does when omitted.
            failed: Called at the first bad heartbeat where the worker depends on them.
        """
        supervision = supervision or Supervision()
        self.telemetry = TelemetryStream(self.stub, supervision)
        self.heartbeats = HeartbeatMonitor(
            self.stub, self.session_id, supervision, failed if supervision.dependent else None
        )

    def call(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        binary: Mapping[str, bytes] | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout: float | None = _TIMEOUT,
    ) -> Any:  # noqa: ANN401 - whatever the tool answers
        """Call a tool and decode its result as the host does.

        Args:
            tool: Full name.
            arguments: JSON values.
            binary: Raw bytes by name.
            metadata: What the host sends beside the arguments.
            timeout: Seconds, which are sent as `truncated` gives them.

        Returns:
            The decoded JSON, bytes, or a pair of bytes and metadata.

        Raises:
            ToolFailure: When the tool failed.
            grpc.RpcError: When the call did, by its deadline for one.
        """
        request = self.request(tool, arguments, binary=binary, metadata=metadata)
        return decode_response(self.execute(request, timeout))

    def stream(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        binary: Mapping[str, bytes] | None = None,
        timeout: float | None = _TIMEOUT,
    ) -> Iterator[dict[str, Any]]:
        """Call a streaming tool; each chunk as the map that an Elixir callback receives.

        Args:
            tool: Full name.
            arguments: JSON values.
            binary: Raw bytes by name.
            timeout: Seconds.

        Raises:
            grpc.RpcError: When the stream fails; the failure object is its message.
        """
        request = self.request(tool, arguments, binary=binary)
        request.stream = True
        with contextlib.closing(self.chunks(request, timeout)) as chunks:
            for chunk in chunks:
                yield decode_chunk(chunk)

    def execute(
        self, request: pb.ExecuteToolRequest, timeout: float | None = _TIMEOUT
    ) -> pb.ExecuteToolResponse:
        """Send a request as it is, with its correlation id as a header.

        Args:
            request: The request.
            timeout: As for `call`.

        Raises:
            grpc.RpcError: When the call fails.
        """
        return self.stub.ExecuteTool(
            request, timeout=truncated(timeout), metadata=_headers(request), wait_for_ready=True
        )

    def chunks(
        self, request: pb.ExecuteToolRequest, timeout: float | None = _TIMEOUT
    ) -> Generator[pb.ToolChunk, None, None]:
        """The same for a streaming tool.

        Args:
            request: The request.
            timeout: As for `call`.

        Raises:
            grpc.RpcError: When the stream fails.
        """
        call = self.stub.ExecuteStreamingTool(
            request, timeout=truncated(timeout), metadata=_headers(request), wait_for_ready=True
        )
        try:
            yield from call
        except GeneratorExit:
            if self._cancels:
                call.cancel()
            else:
                threading.Thread(target=_discard, args=(call,), daemon=True).start()
            raise

    def request(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        binary: Mapping[str, bytes] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> pb.ExecuteToolRequest:
        """The message that the host sends for a call.

        Args:
            tool: Full name.
            arguments: JSON values.
            binary: Raw bytes by name.
            metadata: What the host sends beside the arguments.

        Raises:
            TypeError: For bytes among the JSON values.
        """
        for name, value in (arguments or {}).items():
            if _holds_bytes(value):
                msg = f"{name}: bytes are no JSON; give them as binary={{…}}, by themselves"
                raise TypeError(msg)
        return pb.ExecuteToolRequest(
            session_id=self.session_id,
            tool_name=tool,
            parameters={name: to_any(value) for name, value in (arguments or {}).items()},
            binary_parameters=binary or {},
            metadata={**self.call_metadata(), **(metadata or {})},
        )

    def call_metadata(self, correlation_id: str = "") -> dict[str, str]:
        """What the host puts into the metadata of every call.

        Args:
            correlation_id: Of the call; a fresh one when omitted.
        """
        correlation_id = correlation_id or f"sp-{secrets.token_hex(12)}"
        return {"correlation_id": correlation_id, **self._identity}

    def close(self) -> None:
        """Close the connection, with everything that runs over it."""
        if self.heartbeats is not None:
            self.heartbeats.stop()
        self.channel.close()
        if self.heartbeats is not None:
            self.heartbeats.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _holds_bytes(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_bytes, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_bytes, value))
    return isinstance(value, bytes | bytearray | memoryview)


def python_identity() -> dict[str, str]:
    """What the host says of an interpreter like this one, in every request (interop 2.6)."""
    runtime = f"{sys.executable} {sys.version}"
    return {
        "python_version": platform.python_version(),
        "python_platform": f"{platform.machine()}-pc-{platform.system().lower()}-gnu",
        "python_runtime_hash": hashlib.sha256(runtime.encode()).hexdigest(),
    }


def _discard(chunks: Iterator[pb.ToolChunk]) -> None:
    with contextlib.suppress(grpc.RpcError):
        for _ in chunks:
            pass


def _headers(request: pb.ExecuteToolRequest) -> tuple[tuple[str, str | bytes], ...]:
    correlation_id = request.metadata.get("correlation_id")
    return ((CORRELATION_HEADER, correlation_id),) if correlation_id else ()
