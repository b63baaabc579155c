"""Tools of the Elixir side: which there are, and calling them.

A tool belongs to one session of the host.  A call has two that may hold it: the caller's own, which
only the arguments name, and the worker's, which every request carries (interop 4.1, 5.2).  The
caller's own is asked first.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import grpc
import grpc.aio
import msgspec

from snakepit_worker.errors import (
    DeadlineExceeded,
    ElixirToolError,
    ElixirToolFailed,
    ElixirToolNotFound,
    ElixirToolRefused,
    HostUnavailable,
    WorkerError,
)
from snakepit_worker.wire.convention import correlation_headers
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from snakepit_worker.wire.replies import reply_value
from snakepit_worker.wire.values import decode, to_any

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from snakepit_worker.deadline import Deadline
    from snakepit_worker.host.client import HostClient
    from snakepit_worker.telemetry.spans import Spans
    from snakepit_worker.wire.convention import Headers

__all__ = ["ElixirTool", "ElixirTools"]

T = TypeVar("T")

_UNKNOWN_SESSION: Final = "not_found"
_INVALID_PARAMETER: Final = "Invalid parameter "
_FAILED: Final = "Tool execution failed: "
_CALL_TIMEOUT: Final = 300.0
"""Seconds for a tool call without a deadline, the host's own default for a call to a worker."""


@dataclass(frozen=True, slots=True)
class ElixirTool:
    """One tool as the host describes it.

    Attributes:
        name: Its name.
        description: What it does.
        parameters: Its parameters, each with name, type, description, required, default and
            validation.
        metadata: What was registered with it.
        session_id: The session that holds it.
    """

    name: str
    description: str
    parameters: tuple[Mapping[str, Any], ...]
    metadata: Mapping[str, str]
    session_id: str


class ElixirTools:
    """The Elixir tools that one call can reach.

    Args:
        host: The host, or ``None`` where the worker has none.
        session_ids: Sessions to ask, in order.
        deadline: Of the call; no request to the host outlives it.
        correlation_id: Sent along.
        spans: Makes a span of each call, where a tracer is configured.
    """

    def __init__(
        self,
        host: HostClient | None,
        session_ids: Sequence[str],
        deadline: Deadline,
        correlation_id: str,
        *,
        spans: Spans | None = None,
    ) -> None:
        self._host = host
        self._session_ids = tuple(dict.fromkeys(i for i in session_ids if i))
        self._deadline = deadline
        self._headers = correlation_headers(correlation_id)
        self._spans = spans

    async def list(self) -> dict[str, ElixirTool]:
        """The exposed tools by name.

        Raises:
            HostUnavailable: When the host does not answer.
            DeadlineExceeded: When the call's time is over.
        """
        tools: dict[str, ElixirTool] = {}
        for session_id in self._session_ids:
            request = pb.GetExposedElixirToolsRequest(session_id=session_id)
            try:
                response = await self._reachable().exposed_tools(
                    request, timeout=self._timeout(), headers=self._headers
                )
            except grpc.aio.AioRpcError as error:
                raise _failure("GetExposedElixirTools", error) from None
            for spec in response.tools:
                tools.setdefault(spec.name, _tool(spec, session_id))
        return tools

    async def call(self, name: str, arguments: Mapping[str, object]) -> Any:  # noqa: ANN401
        """Call a tool and wait for its result.

        Args:
            name: Its name.
            arguments: JSON values.

        Returns:
            The decoded result; text where the host answered with something that is not JSON; for
            a binary result bytes, or `Binary` when metadata came with them.

        Raises:
            ElixirToolNotFound: When no session of this call has such a tool.
            ElixirToolRefused: When the host could not read a parameter.
            ElixirToolError: When the tool failed.
            HostUnavailable: When the host does not answer.
            DeadlineExceeded: When the call's time is over.
        """
        if self._spans is None:
            return await self._call(name, arguments, self._headers)
        with self._spans.outgoing(f"elixir {name}") as headers:
            return await self._call(name, arguments, self._headers + headers)

    async def _call(self, name: str, arguments: Mapping[str, object], headers: Headers) -> Any:  # noqa: ANN401 - as call()
        parameters = {key: to_any(value) for key, value in arguments.items()}
        reason = "this call belongs to no session"
        for session_id in self._session_ids:
            request = pb.ExecuteElixirToolRequest(
                session_id=session_id, tool_name=name, parameters=parameters
            )
            try:
                response = await self._reachable().execute_elixir_tool(
                    request, timeout=self._timeout(), headers=headers
                )
            except grpc.aio.AioRpcError as error:
                raise _failure(name, error) from None
            if response.success:
                return reply_value(response)
            reason = response.error_message
            if reason != _UNKNOWN_SESSION and not _is_missing(reason, name):
                break
        raise _tool_error(name, reason)

    def list_blocking(self) -> dict[str, ElixirTool]:
        """The same as ``list``, for synchronous tools.

        Raises:
            WorkerError: As ``list``.
            RuntimeError: On the event loop, which must not wait.
        """
        return self._wait(self.list())

    def call_blocking(self, name: str, arguments: Mapping[str, object]) -> Any:  # noqa: ANN401
        """The same as ``call``, for synchronous tools and threads that they start.

        Args:
            name: As for ``call``.
            arguments: As for ``call``.

        Raises:
            WorkerError: As ``call``.
            RuntimeError: On the event loop, which must not wait.
        """
        return self._wait(self.call(name, arguments))

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        try:
            loop = self._reachable().loop
            if _running_loop() is loop:
                msg = "this would block the event loop; await the call instead"
                raise RuntimeError(msg)
        except BaseException:
            call.close()
            raise
        # No time limit here: every request to the host has one.
        return asyncio.run_coroutine_threadsafe(call, loop).result()

    def _reachable(self) -> HostClient:
        if self._host is None:
            msg = "this worker has no host; Elixir tools need --elixir-address"
            raise HostUnavailable(msg, retryable=False)
        return self._host

    def _timeout(self) -> float:
        return self._deadline.bound(_CALL_TIMEOUT)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _tool(spec: pb.ToolSpec, session_id: str) -> ElixirTool:
    parameters = tuple(
        {
            "name": parameter.name,
            "type": parameter.type,
            "description": parameter.description,
            "required": parameter.required,
            "default": decode(parameter.default_value, parameter.name)
            if parameter.HasField("default_value")
            else None,
            "validation": _object(parameter.validation_json),
        }
        for parameter in spec.parameters
    )
    return ElixirTool(spec.name, spec.description, parameters, dict(spec.metadata), session_id)


def _object(text: str) -> Any:  # noqa: ANN401 - JSON of the host's
    try:
        return msgspec.json.decode(text) if text else {}
    except msgspec.DecodeError:
        return {}


def _is_missing(reason: str, name: str) -> bool:
    return reason.startswith(f"Tool {name} not found")


def _tool_error(name: str, reason: str) -> ElixirToolError:
    kind = ElixirToolError
    if reason == _UNKNOWN_SESSION or _is_missing(reason, name):
        kind = ElixirToolNotFound
    elif reason.startswith(_INVALID_PARAMETER):
        kind = ElixirToolRefused
    elif reason.startswith(_FAILED):
        kind = ElixirToolFailed
    return kind(f"Elixir tool {name}: {reason}", tool=name, reason=reason)


def _failure(name: str, error: grpc.aio.AioRpcError) -> WorkerError:
    """A call that got no answer as an exception that says why."""
    status, text = error.code(), error.details() or ""
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        msg = f"Elixir tool {name}: the time of the call is over"
        return DeadlineExceeded(msg, details={"tool": name})
    if status is grpc.StatusCode.UNAVAILABLE:
        return HostUnavailable(f"Elixir tool {name}: the host does not answer: {text}")
    # A handler that throws or exits ends the RPC itself, with a status that says nothing more.
    reason = f"{status.name}: {text}"
    return ElixirToolError(f"Elixir tool {name}: {reason}", tool=name, reason=reason)
