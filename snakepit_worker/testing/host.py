"""The host's BridgeService, as far as a worker needs it to live."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import grpc

from snakepit_worker import launch
from snakepit_worker.testing.connection import Connection
from snakepit_worker.wire.convention import SERVER_OPTIONS
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from snakepit_worker.wire.generated.snakepit_bridge_pb2_grpc import (
    BridgeServiceServicer,
    add_BridgeServiceServicer_to_server,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snakepit_worker.launch import WorkerProcess

__all__ = ["StandInHost"]


class StandInHost(BridgeServiceServicer):
    """A host on loopback, in threads of its own.

    Use it so::

        with StandInHost() as host, host.worker(adapters=["dspy"]) as (worker, connection):
            connection.call("worker.info")

    Attributes:
        sessions: Metadata by session id.
        received: How often each RPC came in.
    """

    def __init__(self) -> None:
        self.sessions: dict[str, dict[str, str]] = {}
        self.received: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(16, thread_name_prefix="host")
        self._server = grpc.server(self._pool, options=SERVER_OPTIONS)
        add_BridgeServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        self._server.start()

    @contextmanager
    def worker(self, **options: Any) -> Iterator[tuple[WorkerProcess, Connection]]:  # noqa: ANN401
        """Start a worker for this host and greet it, as the pool does.

        Args:
            **options: As for `launch.start`.

        Yields:
            The process, and a connection to it; both end with the block.

        Raises:
            StartError: When it does not get ready.
        """
        with (
            launch.start(host=self.address, **options) as worker,
            Connection(worker.address) as connection,
        ):
            connection.greet()
            yield worker, connection

    def wait_for(self, rpc: str, count: int = 1, timeout: float = 20.0) -> None:
        """Wait until an RPC has come in so often.

        Args:
            rpc: Its name.
            count: How often.
            timeout: Seconds.

        Raises:
            TimeoutError: When it did not.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.received[rpc] >= count, timeout):
                msg = f"{rpc} came {self.received[rpc]} times, expected {count}"
                raise TimeoutError(msg)

    def close(self) -> None:
        """Stop answering at once, as a host that dies does."""
        self._server.stop(0).wait()
        self._pool.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def Ping(self, request: pb.PingRequest, context: grpc.ServicerContext) -> pb.PingResponse:
        """Answer."""
        self._note("Ping")
        response = pb.PingResponse(message=f"pong: {request.message}")
        response.server_time.seconds = int(time.time())
        return response

    def InitializeSession(
        self, request: pb.InitializeSessionRequest, context: grpc.ServicerContext
    ) -> pb.InitializeSessionResponse:
        """Create the session, or find it."""
        self._note("InitializeSession")
        if not request.session_id:
            context.abort(grpc.StatusCode.INTERNAL, "invalid_id")
        self.sessions.setdefault(request.session_id, dict(request.metadata))
        return pb.InitializeSessionResponse(success=True)

    def CleanupSession(
        self, request: pb.CleanupSessionRequest, context: grpc.ServicerContext
    ) -> pb.CleanupSessionResponse:
        """Delete the session; an unknown one is a success too."""
        self._note("CleanupSession")
        self.sessions.pop(request.session_id, None)
        return pb.CleanupSessionResponse(success=True, resources_cleaned=1)

    def GetSession(
        self, request: pb.GetSessionRequest, context: grpc.ServicerContext
    ) -> pb.GetSessionResponse:
        """Describe the session."""
        self._note("GetSession")
        metadata = self.sessions.get(request.session_id)
        if metadata is None:
            text = f"Session not found: {request.session_id}"
            context.abort(grpc.StatusCode.NOT_FOUND, text)
        return pb.GetSessionResponse(session_id=request.session_id, metadata=metadata)

    def Heartbeat(
        self, request: pb.HeartbeatRequest, context: grpc.ServicerContext
    ) -> pb.HeartbeatResponse:
        """Say whether the session is known."""
        self._note("Heartbeat")
        response = pb.HeartbeatResponse(session_valid=request.session_id in self.sessions)
        response.server_time.seconds = int(time.time())
        return response

    def _note(self, rpc: str) -> None:
        with self._changed:
            self.received[rpc] += 1
            self._changed.notify_all()
