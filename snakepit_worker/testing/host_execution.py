"""How the host runs a tool for somebody: find it, read the parameters, run it or pass it on.

What goes wrong is an answer, in the host's words (interop 5.5).  Only streams are refused with a
status; of those the recording shows one, for a tool that does not stream, and the codes of the
others are chosen by its example.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import grpc

from snakepit_worker.testing.host_forwarding import ForwardingFailed
from snakepit_worker.testing.host_tools import ElixirFunction, RemoteTool, ToolFailed
from snakepit_worker.testing.host_values import InvalidParameter, decode_parameters, encode_result
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from google.protobuf.any_pb2 import Any as AnyMessage

    from snakepit_worker.testing.host_forwarding import Workers
    from snakepit_worker.testing.host_sessions import SessionTable
    from snakepit_worker.testing.host_tools import ToolTable

__all__ = ["StreamRefused", "ToolCalls"]


class _Refused(Exception):  # noqa: N818 - an answer, not a defect
    """A call that fails; the text is the host's."""


class StreamRefused(Exception):  # noqa: N818 - an answer, not a defect
    """A stream that does not begin.

    Attributes:
        code: Its status.
    """

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class ToolCalls:
    """Runs tools.

    Args:
        sessions: The sessions, which calls keep alive.
        tools: The tools.
        workers: Those that can be reached.
    """

    def __init__(self, sessions: SessionTable, tools: ToolTable, workers: Workers) -> None:
        self._sessions = sessions
        self._tools = tools
        self._workers = workers

    def elixir_tool(self, request: pb.ExecuteElixirToolRequest) -> pb.ExecuteElixirToolResponse:
        """Run an Elixir tool for a worker.

        Args:
            request: The request.

        Raises:
            Throws: When the tool throws or exits.
        """
        begun = time.monotonic()
        try:
            tool = self._find(request.session_id, request.tool_name)
            if isinstance(tool, RemoteTool):
                raise _Refused(f"Tool {tool.name} is not an Elixir tool")
            result, binary = _run(tool, request.parameters, {})
        except _Refused as error:
            return pb.ExecuteElixirToolResponse(
                error_message=str(error), execution_time_ms=_milliseconds(begun)
            )
        elapsed = _milliseconds(begun)
        return pb.ExecuteElixirToolResponse(
            success=True,
            result=result,
            binary_result=binary,
            metadata={"execution_time": str(elapsed)},
            execution_time_ms=elapsed,
        )

    def tool(self, request: pb.ExecuteToolRequest, correlation_id: str) -> pb.ExecuteToolResponse:
        """Run a tool for any client: one of the host's own, or one that a worker registered.

        Args:
            request: The request.
            correlation_id: Of the call, goes on to the worker.

        Raises:
            Throws: When a tool of the host throws or exits.
        """
        begun = time.monotonic()
        try:
            tool = self._find(request.session_id, request.tool_name)
            if isinstance(tool, RemoteTool):
                result, binary = self._forward(tool, request, correlation_id)
            else:
                result, binary = _run(tool, request.parameters, request.binary_parameters)
        except _Refused as error:
            return pb.ExecuteToolResponse(
                error_message=str(error), execution_time_ms=_milliseconds(begun)
            )
        elapsed = _milliseconds(begun)
        kind = "remote" if isinstance(tool, RemoteTool) else "local"
        return pb.ExecuteToolResponse(
            success=True,
            result=result,
            binary_result=binary,
            metadata={"execution_time": str(elapsed), "tool_type": kind},
            execution_time_ms=elapsed,
        )

    def stream(self, request: pb.ExecuteToolRequest, correlation_id: str) -> Iterator[pb.ToolChunk]:
        """Run a streaming tool of a worker for any client.

        Args:
            request: The request.
            correlation_id: Of the call, goes on to the worker.

        Raises:
            StreamRefused: When there is no such tool that streams.
            grpc.RpcError: When the worker's stream fails.
        """
        if self._sessions.access(request.session_id) is None:
            text = f"Session not found: {request.session_id}"
            raise StreamRefused(grpc.StatusCode.NOT_FOUND, text)
        tool = self._tools.find(request.session_id, request.tool_name)
        if tool is None:
            text = _missing(request.session_id, request.tool_name)
            raise StreamRefused(grpc.StatusCode.NOT_FOUND, text)
        if isinstance(tool, ElixirFunction) or not tool.streams:
            text = (
                f"Streaming execution is not enabled for tool {tool.name}. Enable streaming "
                "support on the adapter (supports_streaming: true) or use ExecuteTool instead."
            )
            raise StreamRefused(grpc.StatusCode.UNIMPLEMENTED, text)
        try:
            yield from self._workers.stream(tool, request, correlation_id)
        except InvalidParameter as error:
            raise StreamRefused(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from None
        except ForwardingFailed as error:
            raise StreamRefused(grpc.StatusCode.INTERNAL, _forwarding(error)) from None

    def _find(self, session_id: str, name: str) -> ElixirFunction | RemoteTool:
        if self._sessions.access(session_id) is None:
            raise _Refused("not_found")
        tool = self._tools.find(session_id, name)
        if tool is None:
            raise _Refused(_missing(session_id, name))
        return tool

    def _forward(
        self, tool: RemoteTool, request: pb.ExecuteToolRequest, correlation_id: str
    ) -> tuple[AnyMessage, bytes]:
        try:
            return self._workers.call(tool, request, correlation_id)
        except InvalidParameter as error:
            raise _Refused(str(error)) from None
        except ForwardingFailed as error:
            raise _Refused(_forwarding(error)) from None


def _run(
    tool: ElixirFunction, parameters: Mapping[str, AnyMessage], binary: Mapping[str, bytes]
) -> tuple[AnyMessage, bytes]:
    try:
        return encode_result(tool.run(decode_parameters(parameters, binary)))
    except InvalidParameter as error:
        raise _Refused(str(error)) from None
    except ToolFailed as error:
        raise _Refused(f"Tool execution failed: {error}") from None


def _missing(session_id: str, name: str) -> str:
    return f"Tool {name} not found for session {session_id}"


def _forwarding(error: ForwardingFailed) -> str:
    return f"Remote tool execution failed: {error}"


def _milliseconds(begun: float) -> int:
    return int((time.monotonic() - begun) * 1000)
