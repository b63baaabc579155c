"""``snakepit.bridge.BridgeService``: one short method per RPC, which decides nothing."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, NoReturn

import grpc
import grpc.aio

from snakepit_worker.calls.call import Call
from snakepit_worker.deadline import Deadline
from snakepit_worker.errors import WorkerError
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from snakepit_worker.wire.generated.snakepit_bridge_pb2_grpc import BridgeServiceServicer
from snakepit_worker.wire.status import DETAILS_TRAILER, as_status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from typing import Any, TypeVar

    from snakepit_worker.bridge.sessions import SessionAuthority
    from snakepit_worker.calls.dispatcher import Dispatcher
    from snakepit_worker.telemetry.events import Events

    T = TypeVar("T")
    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["BridgeService"]

_DETAILS_LIMIT: Final = 300
"""Characters of a status message, each sent as up to 12 bytes; gRPC-core peers drop a status beyond
8 KiB."""


class BridgeService(BridgeServiceServicer):
    """The RPCs that a worker serves.

    Args:
        dispatcher: Serves tool calls.
        sessions: Answers the RPCs about sessions.
        events: What the host's telemetry stream carries.
        compatible: Whether failed streams end as those of Snakepit's own program.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        sessions: SessionAuthority,
        events: Events,
        *,
        compatible: bool = False,
    ) -> None:
        self._dispatcher = dispatcher
        self._sessions = sessions
        self._events = events
        self._compatible = compatible

    async def Ping(self, request: pb.PingRequest, context: Context) -> pb.PingResponse:
        response = pb.PingResponse(message=f"Pong from Python: {request.message}")
        response.server_time.GetCurrentTime()
        return response

    async def Heartbeat(
        self, request: pb.HeartbeatRequest, context: Context
    ) -> pb.HeartbeatResponse:
        valid = self._sessions.is_valid(request.session_id)
        response = pb.HeartbeatResponse(session_valid=valid)
        response.server_time.GetCurrentTime()
        return response

    async def InitializeSession(
        self, request: pb.InitializeSessionRequest, context: Context
    ) -> pb.InitializeSessionResponse:
        return await _answer(self._sessions.initialize(request), context)

    async def CleanupSession(
        self, request: pb.CleanupSessionRequest, context: Context
    ) -> pb.CleanupSessionResponse:
        return await _answer(self._sessions.cleanup(request), context)

    async def GetSession(
        self, request: pb.GetSessionRequest, context: Context
    ) -> pb.GetSessionResponse:
        return await _answer(self._sessions.get(request), context)

    async def ExecuteTool(
        self, request: pb.ExecuteToolRequest, context: Context
    ) -> pb.ExecuteToolResponse:
        return await self._dispatcher.call(_call(request, context))

    # The streaming RPCs are coroutines that write: unlike a generator, which grpc.aio would take as
    # well, they end when they are told to and not when they are collected.

    async def ExecuteStreamingTool(  # type: ignore[override]
        self, request: pb.ExecuteToolRequest, context: Context
    ) -> None:
        failure = await self._dispatcher.stream(_call(request, context), context.write)
        if failure is not None:
            status = as_status(failure, compatible=self._compatible)
            trailers = ((DETAILS_TRAILER, status.details),) if status.details else ()
            await context.abort(status.code, status.message, trailers)

    async def StreamTelemetry(  # type: ignore[override]
        self, request_iterator: AsyncIterator[pb.TelemetryControl], context: Context
    ) -> None:
        # The host blocks until it sees the headers, so they go before the first event.
        await context.send_initial_metadata(())
        controls = asyncio.ensure_future(self._control(request_iterator))
        try:
            async with aclosing(self._events.read()) as events:
                async for event in events:
                    await context.write(event)
        finally:
            controls.cancel()
            await asyncio.gather(controls, return_exceptions=True)

    async def RegisterTools(
        self, request: pb.RegisterToolsRequest, context: Context
    ) -> pb.RegisterToolsResponse:
        await _host_only(context, "RegisterTools")

    async def GetExposedElixirTools(
        self, request: pb.GetExposedElixirToolsRequest, context: Context
    ) -> pb.GetExposedElixirToolsResponse:
        await _host_only(context, "GetExposedElixirTools")

    async def ExecuteElixirTool(
        self, request: pb.ExecuteElixirToolRequest, context: Context
    ) -> pb.ExecuteElixirToolResponse:
        await _host_only(context, "ExecuteElixirTool")

    async def _control(self, messages: AsyncIterator[pb.TelemetryControl]) -> None:
        async for message in messages:
            self._events.control(message)


def _call(request: pb.ExecuteToolRequest, context: Context) -> Call:
    headers = {
        key: value if isinstance(value, str) else value.decode("ascii", "replace")
        for key, value in context.invocation_metadata() or ()
    }
    return Call(request, Deadline.after(context.time_remaining()), headers)


async def _answer(answer: Awaitable[T], context: Context) -> T:
    """The answer, or the status that fits what went wrong."""
    try:
        return await answer
    except WorkerError as error:
        await context.abort(grpc.StatusCode[error.code], str(error)[:_DETAILS_LIMIT])
    except grpc.aio.AioRpcError as error:  # the host's own status, as it came
        await context.abort(error.code(), (error.details() or "")[:_DETAILS_LIMIT])


async def _host_only(context: Context, name: str) -> NoReturn:
    message = f"{name} is served by the host, not by a worker"
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, message)
