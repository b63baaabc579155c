"""A connection to a worker, used as the host uses it."""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
from typing import TYPE_CHECKING, Any, Final, Self

import grpc

from snakepit_worker.wire.convention import CHANNEL_OPTIONS, CORRELATION_HEADER
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from snakepit_worker.wire.generated.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_worker.wire.values import to_any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Connection", "ToolFailure"]

_TIMEOUT: Final = 30.0
_sessions = itertools.count(1)


class ToolFailure(Exception):  # noqa: N818 - the word for it on both sides
    """A tool call that failed, with the failure object that Elixir would see.

    Attributes:
        failure: The decoded object.
    """

    def __init__(self, failure: Mapping[str, Any]) -> None:
        super().__init__(f"{failure.get('type')}: {failure.get('message')}")
        self.failure = failure


class Connection:
    """What the host does with a worker that is ready: greet it, call its tools.

    Args:
        address: ``host:port`` of the worker.
        session_id: Session of all requests; a fresh one when omitted.
    """

    def __init__(self, address: str, session_id: str | None = None) -> None:
        self.session_id = session_id or f"session_{next(_sessions)}_{secrets.token_hex(4)}"
        self.channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        self.stub = BridgeServiceStub(self.channel)

    def greet(self) -> None:
        """The host's first steps after readiness: ping, and the worker's session.

        Raises:
            grpc.RpcError: When the worker does not answer.
        """
        self.stub.Ping(
            pb.PingRequest(message="connection_test"), timeout=_TIMEOUT, wait_for_ready=True
        )
        self.stub.InitializeSession(
            pb.InitializeSessionRequest(
                session_id=self.session_id, metadata={"elixir_node": "nonode@nohost"}
            ),
            timeout=_TIMEOUT,
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
            timeout: Seconds.

        Returns:
            The decoded JSON, bytes, or a pair of bytes and metadata.

        Raises:
            ToolFailure: When the tool failed.
            grpc.RpcError: When the call did, by its deadline for one.
        """
        request = self.request(tool, arguments, binary=binary, metadata=metadata)
        response = self.stub.ExecuteTool(
            request, timeout=timeout, metadata=_headers(request), wait_for_ready=True
        )
        return decode_response(response)

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
        call = self.stub.ExecuteStreamingTool(
            request, timeout=timeout, metadata=_headers(request), wait_for_ready=True
        )
        try:
            for chunk in call:
                yield decode_chunk(chunk)
        finally:
            call.cancel()

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
        """
        return pb.ExecuteToolRequest(
            session_id=self.session_id,
            tool_name=tool,
            parameters={name: to_any(value) for name, value in (arguments or {}).items()},
            binary_parameters=binary or {},
            metadata={"correlation_id": f"sp-{secrets.token_hex(12)}", **(metadata or {})},
        )

    def close(self) -> None:
        """Close the connection."""
        self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def decode_response(response: pb.ExecuteToolResponse) -> Any:  # noqa: ANN401 - see Connection.call
    """A unary reply as the host decodes it (interop 3.3, 3.4).

    Raises:
        ToolFailure: When it is a failure.
    """
    if not response.success:
        raise ToolFailure(json.loads(response.error_message))
    value: Any = None
    if response.HasField("result"):
        raw = response.result.value
        try:
            value = json.loads(raw) if raw else ""
        except ValueError:
            value = raw
    if not response.binary_result:
        return value
    return (response.binary_result, value) if value else response.binary_result


def decode_chunk(chunk: pb.ToolChunk) -> dict[str, Any]:
    """A chunk as the map that an Elixir callback receives (interop 4.4)."""
    decoded: dict[str, Any] = {}
    if chunk.data:
        decoded = {"raw_data": chunk.data}
        with contextlib.suppress(ValueError):
            value = json.loads(chunk.data)
            decoded = value if isinstance(value, dict) else {"data": value}
    decoded["is_final"] = chunk.is_final
    if chunk.metadata:
        decoded["_metadata"] = dict(chunk.metadata)
    return decoded


def _headers(request: pb.ExecuteToolRequest) -> tuple[tuple[str, str | bytes], ...]:
    return ((CORRELATION_HEADER, request.metadata["correlation_id"]),)
