"""A call that is being served: what is known of it so far."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

from snakepit_worker.errors import InvalidArgument, Violation
from snakepit_worker.wire.convention import CORRELATION_HEADER

if TYPE_CHECKING:
    from collections import abc

    from opentelemetry.trace import Span

    from snakepit_worker.calls.admission import Lane
    from snakepit_worker.deadline import Deadline
    from snakepit_worker.sessions import Session
    from snakepit_worker.tools.context import CallContext
    from snakepit_worker.tools.jobs import Job
    from snakepit_worker.tools.registry import Tool
    from snakepit_worker.wire.failures import Failure
    from snakepit_worker.wire.generated.snakepit_bridge_pb2 import ExecuteToolRequest

__all__ = ["Call", "logical_session"]


class Call:
    """What is known so far about a call that is being served.

    Args:
        request: The request.
        deadline: When the caller stops waiting.
        headers: What came beside the request.
        job: Follows the call, where it runs as a job.
        depth: How many other calls it is inside of.
    """

    __slots__ = (
        "arguments",
        "begun",
        "context",
        "correlation_id",
        "deadline",
        "depth",
        "failure",
        "fields",
        "headers",
        "job",
        "lane",
        "placed",
        "request",
        "session",
        "session_version",
        "span",
        "tool",
    )

    def __init__(
        self,
        request: ExecuteToolRequest,
        deadline: Deadline,
        headers: abc.Mapping[str, str],
        job: Job | None = None,
        depth: int = 0,
    ) -> None:
        self.begun = time.perf_counter_ns()
        self.request = request
        self.deadline = deadline
        self.headers = headers
        self.job = job
        self.depth = depth
        self.correlation_id = (
            headers.get(CORRELATION_HEADER)
            or request.metadata.get("correlation_id")
            or uuid.uuid4().hex
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
        self.session_version = 0
        """How often the session had changed before this call."""
        self.context: CallContext | None = None
        self.failure: Failure | None = None
        self.span: Span | None = None
        self.lane: Lane | None = None
        """Where it has a place, and since when."""
        self.placed = 0.0

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


def logical_session(request: ExecuteToolRequest, arguments: abc.Mapping[str, Any]) -> str:
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
