"""What a tool sees of the call that it serves."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

from snakepit_worker.errors import Cancelled, DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from snakepit_worker.deadline import Deadline
    from snakepit_worker.host.elixir_tools import ElixirTools
    from snakepit_worker.sessions import Session

__all__ = ["CallContext", "RunSync", "current_call"]

P = ParamSpec("P")
T = TypeVar("T")


class RunSync(Protocol):
    """Runs a function in the worker's thread pool."""

    def __call__(self, call: Callable[[], T]) -> Awaitable[T]:
        """The function's result, awaitable on the event loop."""


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
    ) -> None:
        self.tool = tool
        self.session = session
        self.worker_session_id = worker_session_id
        self.correlation_id = correlation_id
        self.deadline = deadline
        self.metadata = metadata
        self._run_sync = run_sync
        self._elixir = elixir
        self._cancelled = False

    @property
    def elixir(self) -> ElixirTools:
        """The Elixir tools that this call can reach."""
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
