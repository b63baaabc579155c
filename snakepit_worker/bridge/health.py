"""Health of the worker and of each adapter, in the standard protocol (grpc.health.v1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio

if TYPE_CHECKING:
    import grpc.aio

__all__ = ["Health"]

SERVICES: Final = ("", "snakepit.bridge.BridgeService")


_messages: Any = health_pb2
"""The published types of this module do not know all of its messages yet."""


class _Servicer(aio.HealthServicer):
    """The packaged servicer with its one RPC that is missing there."""

    def __init__(self) -> None:
        super().__init__()
        self._statuses: dict[str, Any] = {}

    async def set(self, service: str, status: Any) -> None:  # noqa: ANN401 - an enum of protobuf's
        self._statuses[service] = status
        await super().set(service, status)

    async def enter_graceful_shutdown(self) -> None:
        await super().enter_graceful_shutdown()
        not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
        self._statuses = dict.fromkeys(self._statuses, not_serving)

    async def List(self, request: object, context: object) -> Any:  # noqa: ANN401, ARG002, N802
        return _messages.HealthListResponse(
            statuses={
                name: health_pb2.HealthCheckResponse(status=status)
                for name, status in self._statuses.items()
            }
        )


class Health:
    """Statuses by service name: the process as ``""``, an adapter as ``adapter.<name>``."""

    def __init__(self) -> None:
        self._servicer = _Servicer()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve the health protocol on a server."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def serving(self) -> None:
        """The process answers calls."""
        for name in SERVICES:
            await self._servicer.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def adapter(self, name: str, *, ready: bool) -> None:
        """Whether an adapter can serve.

        Args:
            name: The adapter's name.
            ready: Its state.
        """
        status = health_pb2.HealthCheckResponse
        await self._servicer.set(f"adapter.{name}", status.SERVING if ready else status.NOT_SERVING)

    async def draining(self) -> None:
        """Everything is NOT_SERVING from now on, for good."""
        await self._servicer.enter_graceful_shutdown()
