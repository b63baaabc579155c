"""Tools of workers, called through the host by other clients (interop 4.8).

The host makes a request of its own from the one that came: of its metadata only the correlation id
and the time limit go on.  What it does with success is recorded nowhere; the words for failures of
the worker are built by the rules of interop 4.7.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final

import grpc

from snakepit_worker.testing.elixir_terms import inspect
from snakepit_worker.testing.host_values import decode_parameters, encode_any, encode_result
from snakepit_worker.testing.replies import ToolFailure, decode_response
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from google.protobuf.any_pb2 import Any as AnyMessage

    from snakepit_worker.testing.connection import Connection
    from snakepit_worker.testing.host_tools import RemoteTool

__all__ = ["OWN_STRUCTS", "ForwardingFailed", "Workers"]

_CALL_TIMEOUT: Final = 298.8
_STREAM_TIMEOUT: Final = 900.0
_ATOMS: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: ":invalid_argument",
    grpc.StatusCode.DEADLINE_EXCEEDED: ":timeout",
    grpc.StatusCode.NOT_FOUND: ":not_found",
    grpc.StatusCode.INTERNAL: ":internal",
    grpc.StatusCode.UNAVAILABLE: ":unavailable",
}
OWN_STRUCTS: Final = frozenset(
    [
        "ValueError",
        "KeyError",
        "IndexError",
        "TypeError",
        "AttributeError",
        "ImportError",
        "RuntimeError",
        "NotImplementedError",
        "FileNotFoundError",
        "PermissionError",
        "ZeroDivisionError",
    ]
)
"""Exceptions of Python that are structs of their own in Elixir (interop 4.7)."""


class ForwardingFailed(Exception):  # noqa: N818 - an answer, not a defect
    """A tool of a worker that could not be called, or failed; the text is the reason."""


class Workers:
    """The workers that this host can reach, by the ids under which they register their tools."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connections: dict[str, Connection] = {}

    def attach(self, worker_id: str, connection: Connection) -> None:
        """Make a worker reachable.

        Args:
            worker_id: Its id.
            connection: How it is reached.
        """
        with self._lock:
            self._connections[worker_id] = connection

    def detach(self, worker_id: str) -> None:
        """Forget a worker, if it is known.

        Args:
            worker_id: Its id.
        """
        with self._lock:
            self._connections.pop(worker_id, None)

    def call(
        self, tool: RemoteTool, request: pb.ExecuteToolRequest, correlation_id: str
    ) -> tuple[AnyMessage, bytes]:
        """Call a tool of a worker.

        Args:
            tool: The tool.
            request: As it came.
            correlation_id: Of the call.

        Returns:
            The result as ``(result, binary_result)``.

        Raises:
            InvalidParameter: For a parameter that is not JSON.
            ForwardingFailed: When the worker is unknown, does not answer, or says that it failed.
        """
        forwarded = _forwarded(request)
        connection = self._reach(tool)
        forwarded.metadata.update(connection.call_metadata(correlation_id))
        try:
            timeout = _seconds(request.metadata, _CALL_TIMEOUT)
            return encode_result(decode_response(connection.execute(forwarded, timeout)))
        except ToolFailure as error:
            raise ForwardingFailed(_struct(error.failure)) from None
        except grpc.RpcError as error:
            raise ForwardingFailed(_status(error)) from None

    def stream(
        self, tool: RemoteTool, request: pb.ExecuteToolRequest, correlation_id: str
    ) -> Iterator[pb.ToolChunk]:
        """Call a streaming tool of a worker.

        The last chunk says how it went; where the worker sends none that is final, one is added.

        Args:
            tool: The tool.
            request: As it came.
            correlation_id: Of the call.

        Raises:
            InvalidParameter: For a parameter that is not JSON.
            ForwardingFailed: When the worker is unknown.
            grpc.RpcError: When the stream fails.
        """
        begun = time.monotonic()
        forwarded = _forwarded(request)
        connection = self._reach(tool)
        forwarded.metadata.update(connection.call_metadata(correlation_id))
        forwarded.stream = True
        sent = 0
        final = False
        timeout = _seconds(request.metadata, _STREAM_TIMEOUT)
        for chunk in connection.chunks(forwarded, timeout):
            sent += 1
            if chunk.is_final:
                final = True
                _describe(chunk, tool, begun)
            yield chunk
        if not final:
            chunk = pb.ToolChunk(chunk_id=f"{tool.name}-{sent + 1}", is_final=True)
            chunk.metadata.update({"synthetic_final": "true", "chunks_sent": str(sent)})
            _describe(chunk, tool, begun)
            yield chunk

    def _reach(self, tool: RemoteTool) -> Connection:
        with self._lock:
            connection = self._connections.get(tool.worker_id)
        if connection is None:
            raise ForwardingFailed(f"Worker not found: {tool.worker_id}")
        return connection


def _forwarded(request: pb.ExecuteToolRequest) -> pb.ExecuteToolRequest:
    decoded = decode_parameters(request.parameters)
    return pb.ExecuteToolRequest(
        session_id=request.session_id,
        tool_name=request.tool_name,
        parameters={name: encode_any(value) for name, value in decoded.items()},
        binary_parameters=request.binary_parameters,
    )


def _seconds(metadata: Mapping[str, str], default: float) -> float:
    text = metadata.get("timeout_ms", "")
    return int(text) / 1000 if text.isdecimal() and int(text) > 0 else default


def _describe(chunk: pb.ToolChunk, tool: RemoteTool, begun: float) -> None:
    chunk.metadata.update(
        {
            "execution_time_ms": str(int((time.monotonic() - begun) * 1000)),
            "tool_type": "remote",
            "worker_id": tool.worker_id,
        }
    )


def _struct(failure: Mapping[str, Any]) -> str:
    """A failure as the struct that the host makes of it, or its text where it is no object."""
    if "type" not in failure:
        return str(failure["message"])
    kind = str(failure["type"])
    name = kind if kind in OWN_STRUCTS else "PythonException"
    fields = {
        "message": failure["message"],
        "context": failure.get("context", {}),
        "stacktrace": failure.get("stacktrace", []),
        "python_type": kind,
        "python_traceback": failure.get("traceback"),
    }
    shown = ", ".join(f"{field}: {inspect(value)}" for field, value in fields.items())
    return f"%Snakepit.Error.{name}{{{shown}}}"


def _status(error: grpc.RpcError) -> str:
    code = error.code()
    if code in _ATOMS:
        return _ATOMS[code]
    return f"%GRPC.RPCError{{status: {code.value[0]}, message: {inspect(error.details() or '')}}}"
