"""What a tool sees of the call that it serves."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, ParamSpec, Protocol, TypeVar

from snakepit_worker.errors import Cancelled, DeadlineExceeded, FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from snakepit_worker.deadline import Deadline
    from snakepit_worker.host.elixir_tools import ElixirTools
    from snakepit_worker.sessions import Session

__all__ = ["CallContext", "Reports", "RunSync", "current_call"]

P = ParamSpec("P")
T = TypeVar("T")

_first_report: Final = threading.Lock()
"""So that a call which reports from two threads has one `Reports`."""


class RunSync(Protocol):
    """Runs a function in the worker's thread pool."""

    def __call__(self, call: Callable[[], T]) -> Awaitable[T]:
        """The function's result, awaitable on the event loop."""


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
    """

    __slots__ = (
        "_cancelled",
        "_elixir",
        "_make_reports",
        "_reports",
        "_run_sync",
        "correlation_id",
        "deadline",
        "metadata",
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
        self._cancelled = False

    @property
    def elixir(self) -> ElixirTools:
        """The Elixir tools that this call can reach.

        Raises:
            FailedPrecondition: While the call has a resource for itself: what Elixir calls back
                could wait for that very resource.
        """
        # Here, because what adapter authors import at their top has to be cheap.
        from snakepit_worker.sessions.leases import exclusively_held  # noqa: PLC0415

        handle = exclusively_held()
        if handle is not None:
            msg = f"no call to Elixir while {handle!r} is leased exclusively"
            raise FailedPrecondition(msg, details={"handle": handle})
        sessions = (self.session.id, self.worker_session_id)
        return self._elixir(sessions, self.deadline, self.correlation_id)

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the result any more."""
        return self._cancelled

    def cancel(self) -> None:
        """Mark the call as cancelled; a synchronous tool sees it at its next checkpoint."""
        self._cancelled = True

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


current_call: ContextVar[CallContext | None] = ContextVar("current_call", default=None)
"""The call that the running code serves, on the event loop and in tool threads alike."""
