"""Serving one request with an adapter that was written for Snakepit's own worker.

The life of such an instance (constructor, ``initialize``, the tool, ``cleanup``) runs on one
thread in one hop.  Where a step gives an awaitable, it is awaited on an event loop apart from the
bridge's, because such code may block in a coroutine; the life goes on when it is done.
``cleanup`` runs once, and only after the tool has really stopped.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from collections import abc
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from snakepit_worker.calls import executors
from snakepit_worker.calls.loop import LoopThread
from snakepit_worker.calls.streams import HandOff, is_one_item
from snakepit_worker.deadline import Deadline
from snakepit_worker.errors import Cancelled
from snakepit_worker.host.blocking_stub import BlockingHost, BlockingStub
from snakepit_worker.host.elixir_tools import ElixirTools
from snakepit_worker.telemetry.logging import logger
from snakepit_worker.tools.foreign_context import ForeignContext
from snakepit_worker.tools.registering import foreign_registrations

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping

    from snakepit_worker.calls.encoding import EncodedChunk, EncodedResult, Encoder
    from snakepit_worker.calls.threads import Job, Runner
    from snakepit_worker.tools.context import CallContext
    from snakepit_worker.tools.foreign import ForeignAdapter
    from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb

    Steps = Generator[Awaitable[Any], Any, Any]
    Outcome = tuple[Any, BaseException | None]

__all__ = ["ForeignCall", "ForeignServer"]

_REGISTRATION_TIME: Final = 30.0
"""Seconds that an adapter may take to say which tools it has."""

_lives: Final[set[asyncio.Task[Any]]] = set()
"""Lives that go on, also after their caller has left: each ends with its cleanup."""


class ForeignCall:
    """One request.

    Args:
        adapter: The adapter.
        tool: Name that the caller used.
        arguments: Decoded, as they came.
        context: The session context.
        runner: Where synchronous steps run.
        loop: Where coroutines run.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what a request consists of
        self,
        adapter: ForeignAdapter,
        tool: str,
        arguments: Mapping[str, Any],
        context: object,
        runner: Runner,
        loop: LoopThread,
    ) -> None:
        self._adapter = adapter
        self._tool = tool
        self._arguments = arguments
        self._context = context
        self._runner = runner
        self._loop = loop
        self._awaited: _Elsewhere | None = None
        self._job: Job | None = None
        self._left = False
        self._cleaning = False

    async def result(self, encoder: Encoder) -> EncodedResult:
        """Serve a unary call.

        Args:
            encoder: Applied to what the tool returns, before its instance is cleaned up.
        """

        def use(result: Any) -> Steps:  # noqa: ANN401 - whatever the tool returned
            return encoder.result(result)
            yield

        living = self._start(self._life(use))
        try:
            encoded: EncodedResult = _value(await asyncio.shield(living))
            return encoded
        finally:
            self._leave()

    async def stream(self, encoder: Encoder) -> AsyncGenerator[EncodedChunk, None]:
        """Serve a streaming call: the items of what the tool returns.

        Args:
            encoder: Applied to each item, where it was made.
        """
        hand_off = HandOff(asyncio.get_running_loop())

        def send(result: Any) -> Steps:  # noqa: ANN401 - whatever the tool returned
            if isinstance(result, abc.AsyncIterable):
                yield hand_off.drain(result, encoder.chunk)
            elif isinstance(result, abc.Iterable) and not is_one_item(result):
                hand_off.pull(result, encoder.chunk)
            else:
                hand_off.put(encoder.chunk(result))

        def life() -> Steps:
            try:
                yield from self._life(send)
            finally:
                hand_off.end()

        living = self._start(life())
        try:
            while items := await hand_off.batch():
                for item in items:
                    yield item
            _value(await living)
        finally:
            hand_off.abandon()
            self._leave()

    def _start(self, life: Steps) -> asyncio.Task[Outcome]:
        """Begin a life, which goes on to its cleanup also when the caller leaves before."""
        task = asyncio.ensure_future(self._drive(life))
        _lives.add(task)
        task.add_done_callback(_lives.discard)
        return task

    def _leave(self) -> None:
        """Nobody waits any more: no further coroutine but the cleanup starts or goes on."""
        self._left = True
        if self._awaited is not None and not self._cleaning:
            self._awaited.cancel()
        if self._job is not None:
            self._runner.abandon(self._job)

    async def _drive(self, life: Steps) -> Outcome:
        """Run a life to its end.  Never raises, since a task must not let a SystemExit out."""
        step: Callable[[], Any] = partial(next, life)
        while True:
            try:
                awaitable, value = await executors.run(
                    self._runner, partial(_advance, step), self._submitted
                )
            except BaseException as raised:  # noqa: BLE001 - see above
                return None, raised
            if awaitable is None:
                return value, None
            value, error = await self._await(awaitable)
            step = partial(life.send, value) if error is None else partial(life.throw, error)

    def _submitted(self, job: Job) -> None:
        self._job = job

    def _check(self) -> None:
        """Raise `Cancelled` when nobody waits any more."""
        if self._left:
            raise Cancelled("the caller has left")

    async def _await(self, awaitable: Awaitable[Any]) -> Outcome:
        if self._left and not self._cleaning:
            _close(awaitable)
            return None, Cancelled("the caller has left")
        self._awaited = _Elsewhere(self._loop, awaitable)
        try:
            return await asyncio.wrap_future(self._awaited.outcome)
        finally:
            self._awaited = None

    def _life(self, use: Callable[[Any], Steps]) -> Steps:
        """All steps; yields what has to be awaited, and returns what ``use`` makes of the result.

        Args:
            use: Steps over what the tool returned, before the instance is cleaned up.
        """
        self._check()  # it may have waited for a thread for longer than the caller waits
        instance = self._adapter.build(self._context)
        try:
            initialize = getattr(instance, "initialize", None)
            if initialize is not None:
                yield from _settled(initialize())
            self._check()
            result = yield from _settled(
                self._adapter.execute(instance, self._tool, self._arguments, self._context)
            )
            return (yield from use(result))
        finally:
            self._cleaning = True
            cleanup = getattr(instance, "cleanup", None)
            if cleanup is not None:
                try:
                    yield from _settled(cleanup())
                except GeneratorExit:
                    raise
                except BaseException:  # noqa: BLE001 - the reply is not the cleanup's to spoil
                    logger().exception("cleanup failed", adapter=self._adapter.path)


def _settled(value: object) -> Steps:
    """The value, awaited first where it is an awaitable."""
    if inspect.isawaitable(value):
        return (yield value)
    return value


def _advance(step: Callable[[], Any]) -> tuple[Awaitable[Any] | None, Any]:
    """Run a life until it has to wait or is over."""
    try:
        return step(), None
    except StopIteration as over:
        return None, over.value


def _value(outcome: Outcome) -> Any:  # noqa: ANN401 - as ForeignCall.result
    value, error = outcome
    if error is not None:
        raise error
    return value


class _Elsewhere:
    """An awaitable on another event loop, which is over only when it has really stopped.

    The futures of the standard library are over as soon as they are cancelled.

    Args:
        loop: Where it runs.
        awaitable: What to await there.

    Attributes:
        outcome: Done when it has stopped, by itself or cancelled.
    """

    def __init__(self, loop: LoopThread, awaitable: Awaitable[Any]) -> None:
        self._loop = loop
        self._awaitable = awaitable
        self._task: asyncio.Task[Outcome] | None = None
        self.outcome: concurrent.futures.Future[Outcome] = concurrent.futures.Future()
        loop.call_soon(self._start)

    def cancel(self) -> None:
        """Ask it to stop."""
        self._loop.call_soon(self._cancel)

    def _start(self) -> None:
        self._task = asyncio.ensure_future(self._run())
        self._task.add_done_callback(self._stopped)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> Outcome:
        try:
            return await self._awaitable, None
        except BaseException as error:  # noqa: BLE001 - a SystemExit must not end the loop
            return None, error

    def _stopped(self, task: asyncio.Task[Outcome]) -> None:
        if task.cancelled():  # before its first step
            _close(self._awaitable)
            self.outcome.set_result((None, asyncio.CancelledError()))
        else:
            self.outcome.set_result(task.result())


def _close(value: object) -> None:
    close = getattr(value, "close", None)
    if close is not None:
        close()


class ForeignServer:
    """Serves every request whose tool no native adapter has.

    Args:
        adapter: The adapter.
        address: ``host:port`` of the host, or ``None``.
        set_correlation_id: Tells Snakepit's helper which call it is in.
    """

    def __init__(
        self,
        adapter: ForeignAdapter,
        address: str | None,
        set_correlation_id: Callable[[str], object],
    ) -> None:
        self._adapter = adapter
        self._host = BlockingHost(address)
        self._set_correlation_id = set_correlation_id
        self._loop = LoopThread("adapter")
        self._loop.start()
        self.is_async = adapter.is_async
        """Whether its tools are coroutines."""

    def open(
        self, tool: str, arguments: Mapping[str, Any], context: CallContext, runner: Runner
    ) -> ForeignCall:
        """One request, to be served as a value or as a stream.

        Args:
            tool: Name that the caller used.
            arguments: Decoded, as they came.
            context: The call.
            runner: Where synchronous steps run.
        """
        self._set_correlation_id(context.correlation_id)
        stub = BlockingStub(self._host, context.deadline, context.correlation_id)
        session_context = ForeignContext(
            context.worker_session_id, context.metadata, context.elixir, stub
        )
        return ForeignCall(self._adapter, tool, arguments, session_context, runner, self._loop)

    def registrations(self, session_id: str) -> list[pb.ToolRegistration]:
        """What the adapter would register with the host, if it does.

        Args:
            session_id: Session to register for.
        """
        deadline = Deadline.after(_REGISTRATION_TIME)
        stub = BlockingStub(self._host, deadline, "")
        context = ForeignContext(session_id, {}, ElixirTools(None, (), deadline, ""), stub)
        return foreign_registrations(self._adapter, context, session_id)

    def close(self, timeout: float) -> None:
        """End the loop and the connection.

        Args:
            timeout: Seconds to wait for a coroutine that blocks.
        """
        self._loop.close(timeout)
        self._host.close()
