"""The host's BridgeService: what a worker, or any other client, gets to see of the Elixir side."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, Self

import grpc

from snakepit_worker import launch
from snakepit_worker.testing.connection import Connection, python_identity
from snakepit_worker.testing.host_execution import StreamRefused, ToolCalls
from snakepit_worker.testing.host_forwarding import Workers
from snakepit_worker.testing.host_sessions import SessionRefused, SessionTable
from snakepit_worker.testing.host_tools import ElixirFunction, Throws, ToolRefused, ToolTable
from snakepit_worker.wire.convention import CORRELATION_HEADER, SERVER_OPTIONS
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from snakepit_worker.wire.generated.snakepit_bridge_pb2_grpc import (
    BridgeServiceServicer,
    add_BridgeServiceServicer_to_server,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from snakepit_worker.launch import WorkerProcess
    from snakepit_worker.testing.supervision import Supervision

__all__ = ["StandInHost"]


class StandInHost(BridgeServiceServicer):
    """A host on loopback, in threads of its own.

    Use it so::

        with StandInHost() as host, host.worker(adapters=["dspy"]) as (worker, connection):
            connection.call("worker.info")

    Args:
        sessions: The sessions; an empty table with the host's limits when omitted.

    Attributes:
        address: ``host:port``.
        sessions: Metadata by session id.
        received: How often each RPC came in.
    """

    def __init__(self, sessions: SessionTable | None = None) -> None:
        self.sessions = SessionTable() if sessions is None else sessions
        self.received: Counter[str] = Counter()
        self._tools = ToolTable()
        self._workers = Workers()
        self._calls = ToolCalls(self.sessions, self._tools, self._workers)
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(16, thread_name_prefix="host")
        self._server = grpc.server(self._pool, options=SERVER_OPTIONS)
        add_BridgeServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        self._server.start()

    def expose(  # noqa: PLR0913 - what a tool has
        self,
        name: str,
        function: Callable[..., Any],
        *,
        description: str = "",
        parameters: Sequence[Mapping[str, Any]] = (),
        metadata: Mapping[str, Any] | None = None,
        session: str | None = None,
    ) -> None:
        """Register a Python function as an Elixir tool that workers may see and call.

        Args:
            name: Its name.
            function: Called with the parameters by name.  What it returns stands for a term: JSON
                values for themselves, bytes and ``(bytes, dict)`` for ``{:binary, ...}``, other
                tuples for tuples, `Inspect` for any term.  What it raises is a failure, `Throws`
                the end of the RPC.
            description: What it does.
            parameters: See `ElixirFunction`.
            metadata: More about it.
            session: The session that gets it; every session that exists when omitted.

        Raises:
            ToolRefused: When name or metadata are not allowed, or it is there already.
        """
        about = {**(metadata or {}), "exposed_to_python": True}
        if description:
            about["description"] = description
        self._tools.expose(ElixirFunction(name, function, parameters, about), session)

    def attach(self, worker_id: str, connection: Connection) -> None:
        """Make a worker reachable for calls of the tools that it registers.

        Args:
            worker_id: The id under which it registers them.
            connection: How it is reached.
        """
        self._workers.attach(worker_id, connection)

    @contextmanager
    def worker(
        self,
        *,
        worker_id: str = "default_worker_1",
        supervision: Supervision | None = None,
        **options: Any,  # noqa: ANN401 - those of launch.start
    ) -> Iterator[tuple[WorkerProcess, Connection]]:
        """Start a worker for this host and greet it, as the pool does.

        Args:
            worker_id: The host's name for it.
            supervision: How the host looks after it; not at all when omitted.  The first bad
                heartbeat of a dependent worker ends it.
            **options: As for `launch.start`.

        Yields:
            The process, and a connection to it; both end with the block.

        Raises:
            StartError: When it does not get ready.
        """
        with (
            launch.start(host=self.address, worker_id=worker_id, **options) as worker,
            Connection(worker.address, identity=python_identity(), cancels=False) as connection,
        ):
            connection.greet()
            if supervision is not None:
                connection.supervise(supervision, worker.terminate)
            self.attach(worker_id, connection)
            try:
                yield worker, connection
            finally:
                self._workers.detach(worker_id)

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
        try:
            self.sessions.initialize(request.session_id, request.metadata)
        except SessionRefused as error:
            context.abort(grpc.StatusCode.INTERNAL, str(error))
        return pb.InitializeSessionResponse(success=True)

    def CleanupSession(
        self, request: pb.CleanupSessionRequest, context: grpc.ServicerContext
    ) -> pb.CleanupSessionResponse:
        """Delete the session; an unknown one is a success too."""
        self._note("CleanupSession")
        self.sessions.delete(request.session_id)
        return pb.CleanupSessionResponse(success=True, resources_cleaned=1)

    def GetSession(
        self, request: pb.GetSessionRequest, context: grpc.ServicerContext
    ) -> pb.GetSessionResponse:
        """Describe the session."""
        self._note("GetSession")
        session = self.sessions.access(request.session_id)
        if session is None:
            text = f"Session not found: {request.session_id}"
            context.abort(grpc.StatusCode.NOT_FOUND, text)
        response = pb.GetSessionResponse(session_id=request.session_id, metadata=session.metadata)
        response.created_at.seconds = session.created_at
        return response

    def Heartbeat(
        self, request: pb.HeartbeatRequest, context: grpc.ServicerContext
    ) -> pb.HeartbeatResponse:
        """Say whether the session is known, and keep it."""
        self._note("Heartbeat")
        known = self.sessions.access(request.session_id) is not None
        response = pb.HeartbeatResponse(session_valid=known)
        response.server_time.seconds = int(time.time())
        return response

    def RegisterTools(
        self, request: pb.RegisterToolsRequest, context: grpc.ServicerContext
    ) -> pb.RegisterToolsResponse:
        """Take the tools of a worker, all or none."""
        self._note("RegisterTools")
        session_id = request.session_id
        if self.sessions.access(session_id) is None:
            return pb.RegisterToolsResponse(error_message="not_found")
        try:
            names = self._tools.register(session_id, request.tools, request.worker_id)
        except ToolRefused as error:
            return pb.RegisterToolsResponse(error_message=str(error))
        ids = {name: f"{session_id}:{name}" for name in names}
        return pb.RegisterToolsResponse(success=True, tool_ids=ids)

    def GetExposedElixirTools(
        self, request: pb.GetExposedElixirToolsRequest, context: grpc.ServicerContext
    ) -> pb.GetExposedElixirToolsResponse:
        """List the Elixir tools of exactly this session."""
        self._note("GetExposedElixirTools")
        known = request.session_id in self.sessions
        tools = self._tools.exposed(request.session_id, known=known)
        return pb.GetExposedElixirToolsResponse(tools=tools)

    def ExecuteElixirTool(
        self, request: pb.ExecuteElixirToolRequest, context: grpc.ServicerContext
    ) -> pb.ExecuteElixirToolResponse:
        """Run an Elixir tool."""
        self._note("ExecuteElixirTool")
        try:
            return self._calls.elixir_tool(request)
        except Throws:
            _end(context)

    def ExecuteTool(
        self, request: pb.ExecuteToolRequest, context: grpc.ServicerContext
    ) -> pb.ExecuteToolResponse:
        """Run an Elixir tool, or pass on what a worker has registered."""
        self._note("ExecuteTool")
        try:
            return self._calls.tool(request, _correlation_id(request, context))
        except Throws:
            _end(context)

    def ExecuteStreamingTool(
        self, request: pb.ExecuteToolRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ToolChunk]:
        """Pass on what a worker has registered."""
        self._note("ExecuteStreamingTool")
        try:
            yield from self._calls.stream(request, _correlation_id(request, context))
        except StreamRefused as error:
            context.abort(error.code, str(error))
        except grpc.RpcError as error:
            context.abort(error.code(), error.details() or "")

    def _note(self, rpc: str) -> None:
        with self._changed:
            self.received[rpc] += 1
            self._changed.notify_all()


def _correlation_id(request: pb.ExecuteToolRequest, context: grpc.ServicerContext) -> str:
    named = request.metadata.get("correlation_id")
    headers = dict(context.invocation_metadata())
    return named or str(headers.get(CORRELATION_HEADER, ""))


def _end(context: grpc.ServicerContext) -> NoReturn:
    """What Elixir's gRPC server says of a handler that is no more."""
    context.abort(grpc.StatusCode.UNKNOWN, "Internal Server Error")
