"""A call, front to back: admit, decode, session, bind, run, reply.

Everything that goes wrong on the way ends in one place and becomes a failure that the caller can
read.  Only a cancelled call (deadline passed, caller gone) ends without a reply.
"""

from __future__ import annotations

import asyncio
import inspect
import time
import uuid
from collections import abc
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from snakepit_worker.calls import executors, streams
from snakepit_worker.calls.arguments import decode_arguments
from snakepit_worker.calls.foreign import ForeignCall
from snakepit_worker.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    Unavailable,
    Violation,
)
from snakepit_worker.host.elixir_tools import ElixirTools
from snakepit_worker.telemetry.logging import call_fields, logger
from snakepit_worker.tools.api import RESERVED_NAMES
from snakepit_worker.tools.context import CallContext, current_call
from snakepit_worker.tools.registry import AdapterState
from snakepit_worker.wire.failures import CallSite, Failure, describe
from snakepit_worker.wire.generated.snakepit_bridge_pb2 import ExecuteToolResponse, ToolChunk
from snakepit_worker.wire.results import as_chunk

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Collection

    from google.protobuf.any_pb2 import Any as AnyMessage

    from snakepit_worker.calls.foreign import ForeignServer
    from snakepit_worker.calls.threads import Runner
    from snakepit_worker.deadline import Deadline
    from snakepit_worker.host.client import HostClient
    from snakepit_worker.sessions import Session, SessionStore
    from snakepit_worker.telemetry.events import Events
    from snakepit_worker.tools.registry import LoadedAdapter, Registry, Tool
    from snakepit_worker.wire.generated.snakepit_bridge_pb2 import ExecuteToolRequest
    from snakepit_worker.wire.values import Values

    EncodedChunk = tuple[bytes, bool, abc.Mapping[str, object]]

__all__ = ["Dispatcher", "Rules"]

_TRUTHY: Final = frozenset(("1", "true", "t", "yes", "y", "on"))
_ENDS_OF_ITERATION: Final = (StopIteration, StopAsyncIteration)
_PLAIN: Final = frozenset((dict, list, str, bytes, int, float, bool, type(None)))
_NOTHING: Final[abc.Mapping[str, object]] = {}
_IS_A_STREAM: Final = "the tool returns a stream; call it as a streaming tool"
_ONE: Final = {"count": 1}


@dataclass(frozen=True, slots=True)
class Rules:
    """How calls are treated.

    Attributes:
        adapter_timeout: Seconds that a call without a deadline waits for its adapter.
        thread_sensitive: Modules, or ``module.function``, whose calls run on the main thread.
    """

    adapter_timeout: float = 300.0
    thread_sensitive: Collection[str] = ()


class Dispatcher:
    """Serves calls.

    Args:
        registry: The tools.
        store: The sessions.
        values: Encoder of results.
        threads: Where synchronous tools run.
        main: Where tools run that need the main thread.
        events: Told of the begin and the end of every call.
        host: Where Elixir tools are called, if there is a host.
        foreign: Serves tools that the registry does not have, if there is such an adapter.
        session_seen: Told of the session id of each request.
        rules: How calls are treated.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the parts that a call passes through, in that order
        self,
        registry: Registry,
        store: SessionStore,
        values: Values,
        threads: Runner,
        main: Runner,
        events: Events,
        host: HostClient | None,
        foreign: ForeignServer | None,
        session_seen: Callable[[str], None],
        rules: Rules,
    ) -> None:
        self._registry = registry
        self._store = store
        self._values = values
        self._threads = threads
        self._main = main
        self._events = events
        self._elixir = partial(ElixirTools, host)
        self._foreign = foreign
        self._session_seen = session_seen
        self._rules = rules
        self._run_sync = partial(executors.run, threads)
        self._running: set[_Call] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False
        """Whether new calls are refused."""
        self._served = 0
        self._failures = 0

    def counters(self) -> dict[str, int]:
        """Calls served, failed and in flight."""
        return {
            "served": self._served,
            "failed": self._failures,
            "in_flight": len(self._running),
        }

    async def call(
        self, request: ExecuteToolRequest, deadline: Deadline, correlation_id: str
    ) -> ExecuteToolResponse:
        """Serve a unary call.

        Args:
            request: The request.
            deadline: When the caller stops waiting.
            correlation_id: The id of the call's header, empty when it has none.

        Raises:
            asyncio.CancelledError: When the caller has gone; nobody reads a reply.
        """
        call = _Call(request, deadline, correlation_id)
        try:
            result, binary = await self._value(await self._open(call, streaming=False))
        except BaseException as error:  # noqa: BLE001 - every failure becomes a reply
            failure = self._failed(call, error)
            response = ExecuteToolResponse(success=False, error_message=failure.to_json())
        else:
            response = ExecuteToolResponse(success=True, result=result, binary_result=binary)
        finally:
            self._finish(call)
        response.execution_time_ms = call.elapsed_ns() // 1_000_000
        return response

    async def stream(
        self,
        request: ExecuteToolRequest,
        deadline: Deadline,
        correlation_id: str,
        write: Callable[[ToolChunk], Awaitable[None]],
    ) -> Failure | None:
        """Serve a streaming call.

        Args:
            request: The request.
            deadline: When the caller stops waiting.
            correlation_id: The id of the call's header, empty when it has none.
            write: Sends one chunk; returns when the connection takes the next.

        Returns:
            What ended the stream early, or ``None``.

        Raises:
            asyncio.CancelledError: When the caller has gone.
        """
        call = _Call(request, deadline, correlation_id)
        try:
            await self._send(call, await self._open(call, streaming=True), write)
        except BaseException as error:  # noqa: BLE001 - every failure becomes the stream's status
            return self._failed(call, error)
        finally:
            self._finish(call)
        return None

    async def idle(self) -> None:
        """Wait until no call is being served."""
        await self._idle.wait()

    def cancel_all(self) -> int:
        """Mark every running call as cancelled; how many there were."""
        for call in self._running:
            if call.context is not None:
                call.context.cancel()
        return len(self._running)

    async def _open(self, call: _Call, *, streaming: bool) -> _Work | ForeignCall:
        """From the request to something that only has to be run.

        Raises:
            WorkerError: What is wrong with the call.
        """
        call_fields.set(call.fields)
        if self.draining:
            msg = "this worker is shutting down"
            raise Unavailable(msg, retry_after=1.0)
        self._running.add(call)
        self._idle.clear()
        request = call.request
        tool = call.tool = self._registry.find(request.tool_name)
        if tool is None:
            return self._open_foreign(call)
        if tool.streams and not streaming:
            raise FailedPrecondition(_IS_A_STREAM)
        arguments = call.arguments = decode_arguments(request)
        if tool.owner.state is not AdapterState.READY:
            await self._adapter_ready(tool.owner, call.deadline)
        bound = tool.signature.bind(arguments)
        context = self._enter(call)
        if tool.signature.context_parameter is not None:
            bound[tool.signature.context_parameter] = context
        runner = self._main if tool.main_thread else self._runner(request, arguments)
        return _Work(tool, bound, runner)

    def _open_foreign(self, call: _Call) -> ForeignCall:
        """The same for a tool that only an adapter written for Snakepit's own worker can have.

        Raises:
            NotFound: When there is no such adapter, or the name is one of the worker's own.
        """
        request = call.request
        if self._foreign is None or request.tool_name.partition(".")[0] in RESERVED_NAMES:
            raise self._registry.unknown(request.tool_name)
        arguments = call.arguments = decode_arguments(request)
        context = self._enter(call)
        runner = self._runner(request, arguments)
        return self._foreign.open(request.tool_name, arguments, context, runner)

    async def _value(self, work: _Work | ForeignCall) -> tuple[AnyMessage | None, bytes]:
        """Run for a value, encoded where it was made: that may take as long as making it."""
        if isinstance(work, ForeignCall):
            return await work.result(self._encode)
        if work.tool.is_async:
            value = await work.function()
        else:

            def run() -> tuple[AnyMessage | None, bytes] | Awaitable[Any]:
                value = work.function()
                return value if inspect.isawaitable(value) else self._encode(value)

            outcome = await executors.run(work.runner, run)
            if isinstance(outcome, tuple):
                return outcome
            value = await outcome
        encoded = self._values.plain_result(value)
        # What is not JSON has methods called that may take their time.
        return encoded if encoded is not None else await asyncio.to_thread(self._encode, value)

    def _items(self, work: _Work | ForeignCall) -> AsyncGenerator[EncodedChunk, None]:
        """Run for a stream of items, each encoded where it was made."""
        if isinstance(work, ForeignCall):
            return work.stream(self._chunk)
        if not work.tool.streams:
            return self._spread(work)
        if work.tool.is_async:
            return self._from_async(work.function())
        return streams.from_thread(work.function(), work.runner, self._chunk)

    async def _spread(self, work: _Work) -> AsyncGenerator[EncodedChunk, None]:
        """The items of what a tool returns that does not stream by itself."""
        if work.tool.is_async:
            value = await work.function()
        else:
            value = await executors.run(work.runner, work.function)
            if inspect.isawaitable(value):
                value = await value
        if isinstance(value, abc.AsyncIterable):
            items = self._from_async(value)
        elif isinstance(value, abc.Iterable) and not streams.is_one_item(value):
            items = streams.from_thread(value, work.runner, self._chunk)
        else:
            items = streams.from_thread((value,), work.runner, self._chunk)
        async with aclosing(items):
            async for item in items:
                yield item

    async def _from_async(
        self, items: abc.AsyncIterable[Any]
    ) -> AsyncGenerator[EncodedChunk, None]:
        try:
            async for item in items:
                data = self._values.plain_chunk(item)
                if data is not None:
                    yield data, False, _NOTHING
                else:
                    yield await asyncio.to_thread(self._chunk, item)
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()

    def _encode(self, value: object) -> tuple[AnyMessage | None, bytes]:
        if type(value) not in _PLAIN and isinstance(value, abc.Iterator | abc.AsyncIterator):
            close = getattr(value, "close", None)
            if close is not None:
                close()
            raise FailedPrecondition(_IS_A_STREAM)
        return self._values.result(value)

    def _chunk(self, item: object) -> EncodedChunk:
        if type(item) in _PLAIN:  # most are; the rest may be more than its data
            return self._values.chunk(item), False, _NOTHING
        chunk = as_chunk(item)
        return self._values.chunk(chunk.data), chunk.is_final, chunk.metadata

    def _enter(self, call: _Call) -> CallContext:
        """From here on the call counts as running, in its session."""
        request = call.request
        session_id = call.fields["session_id"] = _session_id(request, call.arguments)
        call.session = self._store.enter(session_id)
        context = call.context = CallContext(
            request.tool_name,
            call.session,
            request.session_id,
            call.correlation_id,
            call.deadline,
            request.metadata,
            self._run_sync,
            self._elixir,
        )
        self._session_seen(request.session_id)
        self._events.emit("tool.execution.start", _ONE, call.event_metadata(), call.correlation_id)
        current_call.set(context)
        return context

    async def _send(
        self,
        call: _Call,
        work: _Work | ForeignCall,
        write: Callable[[ToolChunk], Awaitable[None]],
    ) -> None:
        name = call.request.tool_name
        count = 0
        final = False
        async with aclosing(self._items(work)) as items:
            async for data, is_final, metadata in items:
                count += 1
                message = ToolChunk(chunk_id=f"{name}-{count}", data=data, is_final=is_final)
                for key, text in metadata.items():
                    message.metadata[str(key)] = str(text)
                final = final or is_final
                await write(message)
        if not final:
            await write(ToolChunk(chunk_id=f"{name}-{count + 1}", is_final=True))

    def _runner(self, request: ExecuteToolRequest, arguments: abc.Mapping[str, Any]) -> Runner:
        flag = request.metadata.get("thread_sensitive")
        if flag is not None and flag.lower() in _TRUTHY:
            return self._main
        if self._rules.thread_sensitive and self._is_thread_sensitive(arguments):
            return self._main
        return self._threads

    def _is_thread_sensitive(self, arguments: abc.Mapping[str, Any]) -> bool:
        module = next(
            (arguments[k] for k in ("module_path", "python_module", "library") if arguments.get(k)),
            None,
        )
        function = arguments.get("function") or arguments.get("method")
        entries = self._rules.thread_sensitive
        return module in entries or f"{module}.{function}" in entries

    async def _adapter_ready(self, adapter: LoadedAdapter, deadline: Deadline) -> None:
        """Wait until an adapter has started.

        Raises:
            Unavailable: When it failed to start, or is stopping.
            DeadlineExceeded: When it takes longer than a call may wait.
        """
        if adapter.state is AdapterState.STARTING and adapter.started is not None:
            seconds = deadline.bound(self._rules.adapter_timeout)
            await asyncio.wait([adapter.started], timeout=seconds)
        if adapter.state is AdapterState.READY:
            return
        if adapter.state is AdapterState.STARTING:
            msg = f"adapter {adapter.name} is still starting"
            raise DeadlineExceeded(msg, details={"adapter": adapter.name})
        cause = adapter.failure
        reason = f"failed to start: {type(cause).__name__}: {cause}" if cause else "has stopped"
        msg = f"adapter {adapter.name} {reason}"
        raise Unavailable(
            msg, retryable=False, details={"adapter": adapter.name}
        ) from adapter.failure

    def _failed(self, call: _Call, error: BaseException) -> Failure:
        """What the caller is told.

        Raises:
            asyncio.CancelledError: When it is this call that was cancelled.
        """
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                if call.context is not None:
                    call.context.cancel()
                raise error
        self._failures += 1
        if isinstance(error, RuntimeError) and isinstance(error.__cause__, _ENDS_OF_ITERATION):
            error = error.__cause__  # Python does not let these out of a coroutine as they are
        request = call.request
        site = CallSite(request.tool_name, request.session_id, call.correlation_id, call.arguments)
        classification = None
        if call.tool is not None:
            try:
                classification = call.tool.owner.adapter.classify(error)
            except Exception:  # noqa: BLE001 - the original failure matters more
                logger().exception("classify failed", adapter=call.tool.owner.name)
        failure = call.failure = describe(error, site, classification)
        facts = {
            "reason": failure.message,
            "type": failure.type,
            "code": failure.code,
            "error_id": failure.error_id,
        }
        if failure.classified:
            logger().info("call failed", **facts)
        else:  # nobody foresaw it, so it is worth a look
            logger().warning("call failed", **facts, exception="".join(failure.stacktrace))
        return failure

    def _finish(self, call: _Call) -> None:
        self._served += 1
        self._running.discard(call)
        if not self._running:
            self._idle.set()
        if call.context is not None:
            self._events.emit(
                f"tool.execution.{'exception' if call.failure else 'stop'}",
                {"duration": call.elapsed_ns(), "count": 1},
                call.event_metadata(),
                call.correlation_id,
            )
        if call.session is not None:
            self._store.leave(call.session)


class _Work:
    """A native tool with everything that it needs to run."""

    __slots__ = ("function", "runner", "tool")

    def __init__(self, tool: Tool, arguments: dict[str, Any], runner: Runner) -> None:
        self.tool = tool
        self.function: Callable[[], Any] = partial(tool.function, **arguments)
        self.runner = runner


class _Call:
    """What is known so far about a call that is being served."""

    __slots__ = (
        "arguments",
        "begun",
        "context",
        "correlation_id",
        "deadline",
        "failure",
        "fields",
        "request",
        "session",
        "tool",
    )

    def __init__(
        self, request: ExecuteToolRequest, deadline: Deadline, correlation_id: str
    ) -> None:
        self.begun = time.perf_counter_ns()
        self.request = request
        self.deadline = deadline
        self.correlation_id = (
            correlation_id or request.metadata.get("correlation_id") or uuid.uuid4().hex
        )
        self.fields = {
            "tool": request.tool_name,
            "session_id": request.session_id,
            "correlation_id": self.correlation_id,
        }
        """What each log line of the call carries."""
        self.arguments: dict[str, Any] = {}
        self.tool: Tool | None = None
        self.session: Session | None = None
        self.context: CallContext | None = None
        self.failure: Failure | None = None

    def elapsed_ns(self) -> int:
        """Nanoseconds since the call came in."""
        return time.perf_counter_ns() - self.begun

    def event_metadata(self) -> dict[str, object]:
        """What the call's events say beside their numbers."""
        metadata: dict[str, object] = {
            "tool": self.request.tool_name,
            "session_id": self.request.session_id,
        }
        if self.failure is not None:
            metadata["error_type"] = self.failure.type
            metadata["error_message"] = self.failure.message
        return metadata


def _session_id(request: ExecuteToolRequest, arguments: abc.Mapping[str, Any]) -> str:
    """The caller's session (interop 4.1): the argument if there is one, else the request's.

    Raises:
        InvalidArgument: When the argument is not text.
    """
    named = arguments.get("session_id")
    if named is not None and not isinstance(named, str):
        text = f"expected text, got {type(named).__name__}"
        msg = f"session_id: {text}"
        raise InvalidArgument(msg, violations=[Violation("session_id", text)])
    return named or request.session_id
