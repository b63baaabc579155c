"""What a tool sees of the call that it serves."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeVar

from snakepit_worker.errors import Cancelled, DeadlineExceeded, FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from concurrent.futures import Future

    from snakepit_worker.deadline import Deadline
    from snakepit_worker.host.elixir_tools import ElixirTools
    from snakepit_worker.sessions import Session

__all__ = ["CallContext", "InnerCalls", "Reports", "RunSync", "current_call"]

P = ParamSpec("P")
T = TypeVar("T")

_first_report: Final = threading.Lock()
"""So that a call which reports from two threads has one `Reports`."""


class RunSync(Protocol):
    """Runs a function in the worker's thread pool."""

    def __call__(self, call: Callable[[], T]) -> Awaitable[T]:
        """The function's result, awaitable on the event loop."""


class InnerCalls(Protocol):
    """Calls this worker's tools from inside of one of them."""

    async def call(
        self,
        outer: CallContext,
        tool: str,
        arguments: Mapping[str, object],
        binary: Mapping[str, bytes],
    ) -> Any:  # noqa: ANN401 - whatever the tool answers
        """The tool's result, awaited on the worker's event loop."""

    def call_blocking(
        self,
        outer: CallContext,
        tool: str,
        arguments: Mapping[str, object],
        binary: Mapping[str, bytes],
    ) -> Any:  # noqa: ANN401 - as above
        """The same on any other thread."""


class Reports(Protocol):
    """Takes what a call says of itself while it runs, on any thread."""

    def progress(self, fraction: float | None, text: str) -> None:
        """How far it is."""

    def partial(self, value: object) -> None:
        """A part of the result."""

    def close(self) -> None:
        """The call is over."""


class CallContext:
    """One call, as the tool that serves it sees it.

    A tool receives it through a parameter that is annotated with this class, under any name.

    Attributes:
        tool: Name that the caller used.
        session: The caller's session.
        worker_session_id: Session id of the request, the only one that the host knows for sure.
        correlation_id: Joins the log lines of both sides.
        deadline: When the caller stops waiting.
        metadata: What the caller sent beside the arguments; text only.
        depth: How many calls of this worker's tools it is inside of.
        on_main_thread: Whether it has the main thread for itself.
    """

    __slots__ = (
        "_cancelled",
        "_elixir",
        "_inner",
        "_make_reports",
        "_reports",
        "_run_sync",
        "_waits_for",
        "correlation_id",
        "deadline",
        "depth",
        "metadata",
        "on_main_thread",
        "session",
        "tool",
        "worker_session_id",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - the facts of a call; only the dispatcher builds one
        self,
        tool: str,
        session: Session,
        worker_session_id: str,
        correlation_id: str,
        deadline: Deadline,
        metadata: Mapping[str, str],
        run_sync: RunSync,
        elixir: Callable[[Sequence[str], Deadline, str], ElixirTools],
        make_reports: Callable[[], Reports],
        inner: InnerCalls,
        depth: int,
    ) -> None:
        self.tool = tool
        self.session = session
        self.worker_session_id = worker_session_id
        self.correlation_id = correlation_id
        self.deadline = deadline
        self.metadata = metadata
        self._run_sync = run_sync
        self._elixir = elixir
        self._make_reports: Callable[[], Reports] | None = make_reports
        self._reports: Reports | None = None
        self._inner = inner
        self.depth = depth
        self.on_main_thread = False
        self._cancelled = False
        self._waits_for: set[Future[Any]] = set()

    @property
    def elixir(self) -> ElixirTools:
        """The Elixir tools that this call can reach.

        Raises:
            FailedPrecondition: While the call has a resource for itself: what Elixir calls back
                could wait for that very resource.
        """
        _refuse_while_leased("no call to Elixir")
        sessions = (self.session.id, self.worker_session_id)
        return self._elixir(sessions, self.deadline, self.correlation_id)

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, object] | None = None,
        *,
        binary: Mapping[str, bytes] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the tool answers
        """Call another tool of this worker and wait for its result, on the event loop.

        It runs in this call's session, with its metadata and its correlation id, and ends with it.
        It needs no place that calls of callers could be waiting for.

        Args:
            tool: Full name.
            arguments: JSON values by name; the session cannot be another one.
            binary: Binary parameters by name.

        Returns:
            The decoded result; for a binary one bytes, or `Binary` where metadata came with them.

        Raises:
            InnerCallFailed: When the tool failed; its code is that of the tool's failure.
            InvalidArgument: When the arguments name a session.
            FailedPrecondition: While this call has the main thread or a resource for itself: the
                other could wait for that very thing.
            ResourceExhausted: When this call is inside of too many others.
        """
        return await self._inside().call(self, tool, arguments or {}, binary or {})

    def call_blocking(
        self,
        tool: str,
        arguments: Mapping[str, object] | None = None,
        *,
        binary: Mapping[str, bytes] | None = None,
    ) -> Any:  # noqa: ANN401 - as call()
        """The same as ``call``, for synchronous tools and threads that they start.

        Args:
            tool: As for ``call``.
            arguments: As for ``call``.
            binary: As for ``call``.

        Raises:
            WorkerError: As ``call``.
            Cancelled: When nobody waits for this call any more; the other one is cancelled too.
            RuntimeError: On the event loop, which must not wait.
        """
        return self._inside().call_blocking(self, tool, arguments or {}, binary or {})

    def wait_for(self, future: Future[T]) -> T:
        """The result of a future, which is cancelled where this call is meanwhile.

        Args:
            future: Done by another thread.

        Raises:
            Cancelled: When it was cancelled.
        """
        self._waits_for.add(future)
        if self._cancelled:
            future.cancel()
        try:
            return future.result()
        except CancelledError:
            msg = f"the call to {self.tool} was cancelled"
            raise Cancelled(msg) from None
        finally:
            self._waits_for.discard(future)

    def _inside(self) -> InnerCalls:
        _refuse_while_leased("no call of another tool")
        if self.on_main_thread:
            msg = f"{self.tool} runs on the main thread, where it cannot wait for another tool"
            raise FailedPrecondition(msg)
        return self._inner

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the result any more."""
        return self._cancelled

    def cancel(self) -> None:
        """Mark the call as cancelled; a synchronous tool sees it at its next checkpoint."""
        self._cancelled = True
        for future in tuple(self._waits_for):
            future.cancel()

    def checkpoint(self) -> None:
        """Give up here if nobody waits any more; for long synchronous tools.

        Raises:
            Cancelled: When the caller has gone.
            DeadlineExceeded: When the caller's time is over.
        """
        if self.deadline.passed:
            msg = f"the deadline of the call to {self.tool} has passed"
            raise DeadlineExceeded(msg)
        if self._cancelled:
            msg = f"the call to {self.tool} was cancelled"
            raise Cancelled(msg)

    def progress(self, fraction: float | None, text: str = "") -> None:
        """Say how far the call is, on any of its threads and as often as is convenient.

        The host hears it in its telemetry, pollers of a job among its events; both at most five
        times a second, of what is said in between the last.

        Args:
            fraction: From 0 to 1, or ``None`` where that is not known.
            text: What is being done.
        """
        reports = self._open_reports()
        if reports is not None:
            reports.progress(fraction, text)

    def partial(self, value: object) -> None:
        """Give a part of the result to the pollers of a job; in other calls nobody hears it.

        The items of a streaming tool that runs as a job are such parts by themselves.

        Args:
            value: As a tool may return it.

        Raises:
            SerializationError: When it cannot be encoded.
        """
        reports = self._open_reports()
        if reports is not None:
            reports.partial(value)

    def finish(self) -> None:
        """The call is over; what a thread that was given up reports from now on is dropped."""
        self._make_reports = None
        if self._reports is not None:
            self._reports.close()

    def _open_reports(self) -> Reports | None:
        with _first_report:
            if self._reports is None and self._make_reports is not None:
                self._reports = self._make_reports()
            return self._reports

    async def run_sync(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function in the worker's thread pool, from an asynchronous tool.

        Context variables are carried over.  When the call is cancelled the function runs on, since
        a thread cannot be stopped; it can look at ``cancelled`` or call ``checkpoint``.

        Args:
            function: What to run.
            *args: Its arguments.
            **kwargs: Its keyword arguments.
        """
        return await self._run_sync(lambda: function(*args, **kwargs))


def _refuse_while_leased(what: str) -> None:
    # Here, because what adapter authors import at their top has to be cheap.
    from snakepit_worker.sessions.leases import exclusively_held  # noqa: PLC0415

    handle = exclusively_held()
    if handle is not None:
        msg = f"{what} while {handle!r} is leased exclusively"
        raise FailedPrecondition(msg, details={"handle": handle})


current_call: ContextVar[CallContext | None] = ContextVar("current_call", default=None)
"""The call that the running code serves, on the event loop and in tool threads alike."""
