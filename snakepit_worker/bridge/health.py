"""Health of the worker and of each adapter, in the standard protocol (grpc.health.v1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio

if TYPE_CHECKING:
    import grpc.aio

__all__ = ["Health"]

SERVICES: Final = ("", "snakepit.bridge.BridgeService")


class Health:
    """Statuses by service name: the process as ``""``, an adapter as ``adapter.<name>``."""

    def __init__(self) -> None:
        self._servicer = aio.HealthServicer()

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
