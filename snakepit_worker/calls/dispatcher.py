"""A call, front to back: admit, decode, session, bind, run, reply.

Everything that goes wrong on the way ends in one place and becomes a failure that the caller can
read.  Only a cancelled call (deadline passed, caller gone) ends without a reply.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from snakepit_worker import deadline
from snakepit_worker.calls.arguments import decode_arguments
from snakepit_worker.calls.call import Call, logical_session
from snakepit_worker.calls.encoding import IS_A_STREAM, Encoder
from snakepit_worker.calls.failures import FailureReports
from snakepit_worker.calls.inner import InnerCalls
from snakepit_worker.calls.native import NativeCall
from snakepit_worker.calls.reports import CallReports
from snakepit_worker.errors import DeadlineExceeded, FailedPrecondition, Unavailable
from snakepit_worker.host.elixir_tools import ElixirTools
from snakepit_worker.telemetry.logging import call_fields
from snakepit_worker.tools.api import RESERVED_NAMES
from snakepit_worker.tools.context import CallContext, current_call
from snakepit_worker.tools.registry import AdapterState
from snakepit_worker.wire.generated.snakepit_bridge_pb2 import ExecuteToolResponse, ToolChunk

if TYPE_CHECKING:
    from collections import abc
    from collections.abc import AsyncIterator, Awaitable, Callable

    from snakepit_worker.calls.admission import Lane
    from snakepit_worker.calls.archiving import Archiving
    from snakepit_worker.calls.foreign import ForeignCall, ForeignServer
    from snakepit_worker.calls.places import Places
    from snakepit_worker.calls.readiness import Readiness
    from snakepit_worker.deadline import Deadline
    from snakepit_worker.errors import WorkerError
    from snakepit_worker.host.client import HostClient
    from snakepit_worker.sessions import Session, SessionStore
    from snakepit_worker.telemetry.events import Events
    from snakepit_worker.telemetry.spans import Spans
    from snakepit_worker.tools.registry import Registry
    from snakepit_worker.wire.failures import Failure
    from snakepit_worker.wire.generated.snakepit_bridge_pb2 import ExecuteToolRequest
    from snakepit_worker.wire.tracebacks import Frames
    from snakepit_worker.wire.values import Values

    EncodedChunk = tuple[bytes, bool, abc.Mapping[str, object]]

__all__ = ["Dispatcher"]

_ONE: Final = {"count": 1}


class Dispatcher:
    """Serves calls.  Lives on the event loop.

    Args:
        registry: The tools.
        store: The sessions.
        values: Encoder of results.
        places: What tools run on.
        events: Told of the begin and the end of every call.
        host: Where Elixir tools are called, if there is a host.
        foreign: Serves tools that the registry does not have, if there is such an adapter.
        session_seen: Told of the session id of each request.
        spans: Makes a span of every call, where a tracer is configured.
        tracebacks: Which frames callers see.
        readiness: Waits for adapters that have not started.
        archiving: Takes sessions over and saves them, where there is an archive.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the parts that a call passes through, in that order
        self,
        registry: Registry,
        store: SessionStore,
        values: Values,
        places: Places,
        events: Events,
        host: HostClient | None,
        foreign: ForeignServer | None,
        session_seen: Callable[[str], None],
        spans: Spans | None,
        tracebacks: Frames,
        readiness: Readiness,
        archiving: Archiving | None,
    ) -> None:
        self._registry = registry
        self._store = store
        self._encoder = Encoder(values)
        self._places = places
        self._events = events
        self._elixir = partial(ElixirTools, host, spans=spans)
        self._foreign = foreign
        self._session_seen = session_seen
        self._spans = spans
        self._readiness = readiness
        self._archiving = archiving
        self._loop = asyncio.get_running_loop()
        self._inner = InnerCalls(self.call_within, self._loop, spans)
        self._running: set[Call] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False
        """Whether new calls are refused."""
        self._served = 0
        self._failures = FailureReports(tracebacks)

    def counters(self) -> dict[str, int]:
        """Calls served, failed and in flight."""
        return {
            "served": self._served,
            "failed": self._failures.count,
            "in_flight": len(self._running),
        }

    async def call(self, call: Call) -> ExecuteToolResponse:
        """Serve a unary call.

        Args:
            call: The call.

        Raises:
            asyncio.CancelledError: When the caller has gone; nobody reads a reply.
        """
        try:
            work = await self._open(call, streaming=False)
            result, binary = await work.result(self._encoder)
            await self._save(call)
        except BaseException as error:  # noqa: BLE001 - every failure becomes a reply
            failure = self._failures.report(call, await self._after_failure(call, error))
            response = ExecuteToolResponse(success=False, error_message=failure.to_json())
        else:
            response = ExecuteToolResponse(success=True, result=result, binary_result=binary)
        finally:
            self._finish(call)
        response.execution_time_ms = call.elapsed_ns() // 1_000_000
        return response

    async def call_within(self, call: Call) -> ExecuteToolResponse:
        """The same for a call of the worker's own, whose deadline no RPC enforces.

        Args:
            call: The call.
        """
        try:
            async with asyncio.timeout(call.deadline.remaining()):
                return await self.call(call)
        except TimeoutError:
            return self.late(call)

    def late(self, call: Call, *, stopped: bool = True) -> ExecuteToolResponse:
        """The reply to a call of the worker's own whose time is over.

        Args:
            call: The call.
            stopped: Whether its tool has ended.
        """
        msg = f"the time of the call to {call.request.tool_name} is over"
        if stopped:
            return self.refuse(call, DeadlineExceeded(msg))
        msg += "; the tool has not stopped yet and goes on"
        return self.refuse(call, DeadlineExceeded(msg, details={"stopped": False}))

    def refuse(self, call: Call, error: WorkerError) -> ExecuteToolResponse:
        """The reply to a call of the worker's own that is not served, or not any more.

        Args:
            call: The call.
            error: Why not.
        """
        call_fields.set(call.fields)
        failure = self._failures.report(call, error)
        return ExecuteToolResponse(
            success=False,
            error_message=failure.to_json(),
            execution_time_ms=call.elapsed_ns() // 1_000_000,
        )

    async def stream(
        self, call: Call, write: Callable[[ToolChunk], Awaitable[None]]
    ) -> Failure | None:
        """Serve a streaming call.

        Args:
            call: The call.
            write: Sends one chunk; returns when the connection takes the next.

        Returns:
            What ended the stream early, or ``None``.

        Raises:
            asyncio.CancelledError: When the caller has gone.
        """
        try:
            await self._send(call, await self._open(call, streaming=True), write)
        except BaseException as error:  # noqa: BLE001 - every failure becomes the stream's status
            return self._failures.report(call, await self._after_failure(call, error))
        finally:
            self._finish(call)
        return None

    def check(self, request: ExecuteToolRequest) -> bool:
        """Whether a call can be served, as far as that shows before it is; whether it streams.

        Args:
            request: The request.

        Raises:
            WorkerError: What is wrong with it.
        """
        tool = self._registry.find(request.tool_name)
        if tool is None:
            self._check_foreign(request.tool_name)
        arguments = decode_arguments(request)
        logical_session(request, arguments)
        if tool is None:
            return False  # only the call will tell
        tool.signature.bind(arguments)
        return tool.streams

    @asynccontextmanager
    async def session(self, session_id: str, deadline: Deadline) -> AsyncIterator[Session]:
        """A session for the length of a block, at whose end it is saved.

        Args:
            session_id: The session.
            deadline: Of the call that needs it.
        """
        if self._archiving is not None:
            await self._archiving.enter(session_id, deadline)
        session = self._store.enter(session_id)
        try:
            version = session.version
            yield session
            if self._archiving is not None:
                await self._archiving.commit(session, version, deadline)
        finally:
            self._store.leave(session)

    def save_soon(self, session: Session, handle: str) -> None:
        """Save a resource that has changed after its call was over, where there is an archive.

        Args:
            session: Who holds it.
            handle: Which it is.
        """
        if self._archiving is not None and session.id:
            self._archiving.save_soon(session, handle)

    async def idle(self) -> None:
        """Wait until no call is being served."""
        await self._idle.wait()

    def cancel_all(self) -> int:
        """Mark every running call as cancelled; how many there were."""
        for call in self._running:
            if call.context is not None:
                call.context.cancel()
        return len(self._running)

    async def _open(self, call: Call, *, streaming: bool) -> NativeCall | ForeignCall:
        """From the request to something that only has to be run.

        Raises:
            WorkerError: What is wrong with the call.
        """
        call_fields.set(call.fields)
        if self._spans is not None:
            name = f"{'stream' if streaming else 'call'} {call.request.tool_name}"
            call.span = self._spans.begin(name, call.fields, call.headers)
        if self.draining:
            msg = "this worker is shutting down"
            raise Unavailable(msg, retry_after=1.0)
        self._running.add(call)
        self._idle.clear()
        request = call.request
        tool = call.tool = self._registry.find(request.tool_name)
        if tool is None:
            return await self._open_foreign(call)
        if tool.streams and not streaming:
            raise FailedPrecondition(IS_A_STREAM)
        arguments = call.arguments = decode_arguments(request)
        if tool.owner.state is not AdapterState.READY:
            await self._readiness.wait(tool.owner, call.deadline)
        bound = tool.signature.bind(arguments)
        context = await self._enter(call)
        if tool.signature.context_parameter is not None:
            bound[tool.signature.context_parameter] = context
        main = self._places.main
        place = main if tool.main_thread else self._places.of(request, arguments, call.depth)
        if not tool.is_async:
            context.on_main_thread = place is main
            await self._admit(call, place.lane)
        elif tool.owner.name not in RESERVED_NAMES:  # those answer also when nobody else can
            await self._admit(call, self._places.at(call.depth).loop)
        return NativeCall(tool, bound, place.runner)

    async def _open_foreign(self, call: Call) -> ForeignCall:
        """The same for a tool that only an adapter written for Snakepit's own worker can have.

        Raises:
            NotFound: When there is no such adapter, or the name is one of the worker's own.
        """
        request = call.request
        foreign = self._check_foreign(request.tool_name)
        arguments = call.arguments = decode_arguments(request)
        context = await self._enter(call)
        place = self._places.of(request, arguments, call.depth)
        loop = self._places.at(call.depth).loop
        await self._admit(call, loop if foreign.is_async else place.lane)
        return foreign.open(request.tool_name, arguments, context, place.runner)

    def _check_foreign(self, tool: str) -> ForeignServer:
        """The adapter that answers to any tool name but the worker's own.

        Raises:
            NotFound: When there is none, or the name is the worker's own.
        """
        if self._foreign is None or tool.partition(".")[0] in RESERVED_NAMES:
            raise self._registry.unknown(tool)
        return self._foreign

    async def _admit(self, call: Call, lane: Lane) -> None:
        """Take a place, or wait for one within the call's time.

        Raises:
            ResourceExhausted: When too many wait already.
        """
        await lane.enter(call.fields["session_id"])
        call.lane, call.placed = lane, time.monotonic()

    async def _enter(self, call: Call) -> CallContext:
        """From here on the call counts as running, in its session."""
        request = call.request
        session_id = call.fields["session_id"] = logical_session(request, call.arguments)
        if self._archiving is not None:
            await self._archiving.enter(session_id, call.deadline)
        call.session = self._store.enter(session_id)
        call.session_version = call.session.version
        context = call.context = CallContext(
            request.tool_name,
            call.session,
            request.session_id,
            call.correlation_id,
            call.deadline,
            request.metadata,
            self._places.at(call.depth).run_sync,
            self._elixir,
            partial(CallReports, call, self._events, self._encoder, self._loop),
            self._inner,
            call.depth,
        )
        self._session_seen(request.session_id)
        self._events.emit("tool.execution.start", _ONE, call.event_metadata(), call.correlation_id)
        current_call.set(context)
        deadline.current.set(call.deadline)
        return context

    async def _send(
        self,
        call: Call,
        work: NativeCall | ForeignCall,
        write: Callable[[ToolChunk], Awaitable[None]],
    ) -> None:
        name = call.request.tool_name
        count = 0
        final = False
        async with aclosing(work.stream(self._encoder)) as items:
            async for data, is_final, metadata in items:
                count += 1
                message = ToolChunk(chunk_id=f"{name}-{count}", data=data, is_final=is_final)
                for key, text in metadata.items():
                    message.metadata[str(key)] = str(text)
                final = final or is_final
                await write(message)
        await self._save(call)
        if not final:
            await write(ToolChunk(chunk_id=f"{name}-{count + 1}", is_final=True))

    async def _save(self, call: Call) -> None:
        """Save what the call has changed in its session, before it is answered."""
        if self._archiving is not None and call.session is not None:
            await self._archiving.commit(call.session, call.session_version, call.deadline)

    async def _after_failure(self, call: Call, error: BaseException) -> BaseException:
        """The same for a call that has failed; what to say of that."""
        if self._archiving is None or call.session is None:
            return error
        return await self._archiving.after_failure(call.session, call.session_version, error)

    def _finish(self, call: Call) -> None:
        self._served += 1
        if call.lane is not None:
            call.lane.leave(call.fields["session_id"], time.monotonic() - call.placed)
        self._running.discard(call)
        if not self._running:
            self._idle.set()
        if call.context is not None:
            call.context.finish()
            self._events.emit(
                f"tool.execution.{'exception' if call.failure else 'stop'}",
                {"duration": call.elapsed_ns(), "count": 1},
                call.event_metadata(),
                call.correlation_id,
            )
        if call.span is not None and self._spans is not None:
            gone = call.context is not None and call.context.cancelled
            self._spans.end(call.span, call.failure, cancelled=gone)
        if call.session is not None:
            self._store.leave(call.session)
