"""The listener: which services answer, where, and within which limits."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import grpc.aio

from snakepit_worker.bridge.reflection import LazyReflection
from snakepit_worker.errors import StartError
from snakepit_worker.wire.convention import LOOPBACK, SERVER_OPTIONS
from snakepit_worker.wire.generated.snakepit_bridge_pb2_grpc import (
    add_BridgeServiceServicer_to_server,
)

if TYPE_CHECKING:
    from snakepit_worker.bridge.health import Health
    from snakepit_worker.bridge.service import BridgeService

__all__ = ["BridgeServer"]


class BridgeServer:
    """A gRPC server on loopback.  Lives on the event loop of the bridge.

    Args:
        service: The bridge.
        health: The health service beside it.
    """

    def __init__(self, service: BridgeService, health: Health) -> None:
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        add_BridgeServiceServicer_to_server(service, self._server)
        health.add_to(self._server)
        self._server.add_generic_rpc_handlers((LazyReflection(),))

    async def start(self, port: int) -> int:
        """Listen and accept connections.

        Args:
            port: The port to take, 0 for any free one.

        Returns:
            The port taken.

        Raises:
            StartError: When it cannot be had.
        """
        try:
            taken = self._server.add_insecure_port(f"{LOOPBACK}:{port}")
        except RuntimeError as error:
            msg = f"cannot listen on {LOOPBACK}:{port}: {_reason(port) or error}"
            raise StartError(msg) from None
        await self._server.start()
        return taken

    async def stop(self, grace: float) -> None:
        """Refuse new connections, wait for running RPCs, then cancel them.

        Args:
            grace: Seconds to wait.
        """
        await self._server.stop(grace)


def _reason(port: int) -> str | None:
    """Why a port cannot be had, which gRPC does not say."""
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            return error.strerror
    return None
