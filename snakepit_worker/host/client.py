"""Calls to the host's BridgeService, each with a deadline."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import grpc.aio

from snakepit_worker.errors import Unavailable
from snakepit_worker.telemetry.logging import logger
from snakepit_worker.wire.convention import CHANNEL_OPTIONS
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from snakepit_worker.wire.generated.snakepit_bridge_pb2_grpc import BridgeServiceStub

if TYPE_CHECKING:
    from snakepit_worker.wire.convention import Headers
    from snakepit_worker.wire.generated.snakepit_bridge_pb2_grpc import BridgeServiceAsyncStub

__all__ = ["HostClient"]

_PING_TIMEOUT: Final = 1.0
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
_SAY_EVERY: Final = 10
_SAY_FIRST: Final = 2
"""The attempt, of every ten, whose failure is logged: a host may be a moment late."""
_CALL_TIMEOUT: Final = 5.0
"""Seconds for calls that look after sessions; tools bring deadlines of their own."""


class HostClient:
    """The host at one address.  Lives on the event loop of the bridge.

    Args:
        address: ``host:port`` of the host's gRPC server.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.loop = asyncio.get_running_loop()
        """Where the connection lives; other threads hand their calls over to it."""
        self._channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._stub: BridgeServiceAsyncStub = BridgeServiceStub(self._channel)

    async def wait(self, attempts: int) -> None:
        """Wait until the host answers.

        Args:
            attempts: Pings to send, one second each, with pauses from 0.05 s doubling to 2 s.

        Raises:
            Unavailable: When it never answered; the message names the address and the cause.
        """
        pause = _FIRST_PAUSE
        cause = "no attempt"
        for attempt in range(attempts):
            if attempt:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            try:
                await self.ping("connection_test", _PING_TIMEOUT)
            except grpc.aio.AioRpcError as error:
                cause = f"{error.code().name}: {error.details()}"
                if attempt % _SAY_EVERY == _SAY_FIRST:
                    logger().warning(
                        "waiting for the host",
                        address=self.address,
                        attempt=attempt + 1,
                        attempts=attempts,
                        cause=cause,
                    )
            else:
                return
        msg = f"the host at {self.address} did not answer {attempts} pings; the last one: {cause}"
        raise Unavailable(msg)

    async def ping(self, message: str, timeout: float = _CALL_TIMEOUT) -> None:  # noqa: ASYNC109
        """Ask for a sign of life.

        Args:
            message: Free text.
            timeout: Seconds.

        Raises:
            grpc.aio.AioRpcError: When none comes in time.
        """
        await self._stub.Ping(pb.PingRequest(message=message), timeout=timeout)

    async def heartbeat(self, session_id: str, timeout: float) -> bool:  # noqa: ASYNC109
        """Keep a session alive; whether the host still knows it.

        Args:
            session_id: The session.
            timeout: Seconds.

        Raises:
            grpc.aio.AioRpcError: When the host does not answer in time.
        """
        request = pb.HeartbeatRequest(session_id=session_id)
        request.client_time.GetCurrentTime()
        response = await self._stub.Heartbeat(request, timeout=timeout)
        return response.session_valid

    async def initialize_session(
        self, request: pb.InitializeSessionRequest
    ) -> pb.InitializeSessionResponse:
        """Create a session on the host, or find that it exists.

        Raises:
            grpc.aio.AioRpcError: When the host refuses or does not answer.
        """
        return await self._stub.InitializeSession(request, timeout=_CALL_TIMEOUT)

    async def cleanup_session(self, request: pb.CleanupSessionRequest) -> pb.CleanupSessionResponse:
        """Delete a session on the host.

        Raises:
            grpc.aio.AioRpcError: When the host does not answer.
        """
        return await self._stub.CleanupSession(request, timeout=_CALL_TIMEOUT)

    async def get_session(self, request: pb.GetSessionRequest) -> pb.GetSessionResponse:
        """What the host knows of a session.

        Raises:
            grpc.aio.AioRpcError: When the host does not know it or does not answer.
        """
        return await self._stub.GetSession(request, timeout=_CALL_TIMEOUT)

    async def exposed_tools(
        self,
        request: pb.GetExposedElixirToolsRequest,
        *,
        timeout: float,  # noqa: ASYNC109
        headers: Headers = (),
    ) -> pb.GetExposedElixirToolsResponse:
        """The Elixir tools of one session.

        Args:
            request: Names the session.
            timeout: Seconds.
            headers: What to send beside it.

        Raises:
            grpc.aio.AioRpcError: When the host does not answer.
        """
        return await self._stub.GetExposedElixirTools(request, timeout=timeout, metadata=headers)

    async def execute_elixir_tool(
        self,
        request: pb.ExecuteElixirToolRequest,
        *,
        timeout: float,  # noqa: ASYNC109
        headers: Headers = (),
    ) -> pb.ExecuteElixirToolResponse:
        """Run an Elixir tool.

        Args:
            request: Names session, tool and parameters.
            timeout: Seconds.
            headers: What to send beside it.

        Raises:
            grpc.aio.AioRpcError: When the host does not answer, or the tool ends its process.
        """
        return await self._stub.ExecuteElixirTool(request, timeout=timeout, metadata=headers)

    async def register_tools(self, request: pb.RegisterToolsRequest) -> pb.RegisterToolsResponse:
        """Tell the host which tools this worker has.

        Raises:
            grpc.aio.AioRpcError: When the host does not answer.
        """
        return await self._stub.RegisterTools(request, timeout=_CALL_TIMEOUT)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()
