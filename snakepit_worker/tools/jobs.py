"""A job as its session holds it: a call that outlives its RPC, with its state and its events."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import msgspec
import orjson

from snakepit_worker.errors import Cancelled, Unavailable, WorkerError
from snakepit_worker.tools.inner_calls import outcome
from snakepit_worker.tools.job_history import History, item_fields
from snakepit_worker.wire.failures import CallSite, describe
from snakepit_worker.wire.generated.snakepit_bridge_pb2 import ExecuteToolResponse
from snakepit_worker.wire.json_text import valid_text
from snakepit_worker.wire.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from snakepit_worker.sessions import Recipe

__all__ = ["JOB", "Job", "JobState"]

JOB: Final = "job"
"""Kind of the resource."""
_LINE_LIMIT: Final = 2_000
"""Characters of a log line."""
_NAME_LIMIT: Final = 200
_RESULT_LIMIT: Final = 1024 * 1024
"""Bytes of a result that outlives its worker; a job with a larger one is lost with it."""


class JobState(Enum):
    """Where a job stands.  It ends in exactly one of the last four."""

    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"


_GOES_ON: Final = (JobState.RUNNING, JobState.CANCELLING)


class Job:
    """One job.

    What happens in it may be told on any thread; its life and its readers are the event loop's.

    Args:
        site: The tool, the session and the correlation id of its call.
        name: The caller's own name for it.
        stop: Called once when somebody wants it to stop.
        history: Keeps its events.
        clock: Unix seconds.

    Attributes:
        handle: What its session knows it by, once it does.
        state: Where it stands.
        cut_off: Whether it was given up while its tool went on.
    """

    def __init__(
        self,
        site: CallSite,
        name: str | None,
        stop: Callable[[Job], None],
        history: History | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.site = site
        self.name = name
        self.handle = ""
        self.state = JobState.RUNNING
        self.cut_off = False
        self._stop = stop
        self._history = history or History()
        self._clock = clock
        self._created_at = clock()
        self._ended_at: float | None = None
        self._progress: dict[str, Any] | None = None
        self._outcome: dict[str, Any] | None = None
        self._size = 0
        self._lock = threading.Lock()
        self._readers: set[asyncio.Future[None]] = set()
        self._waiters: set[asyncio.Future[None]] = set()

    @classmethod
    def rebuild(cls, recipe: Recipe) -> Job:
        """A job of another worker, as it ended there; one that did not end was lost.

        Args:
            recipe: What ``recipe`` gave.
        """
        job = cls(CallSite(*recipe["site"]), recipe["name"], lambda _: None)
        job.handle = recipe["handle"]
        job._created_at = recipe["created_at"]
        job._progress = recipe["progress"]
        if recipe["outcome"] is None:
            job.end(JobState.LOST)
        else:
            job.state = JobState(recipe["state"])
            job._outcome = recipe["outcome"]
        job._ended_at = recipe["ended_at"]
        return job

    def recipe(self) -> Recipe:
        """What another worker can know of it: where it stands, and what became of it."""
        kept = self._outcome is not None and self._size <= _RESULT_LIMIT
        return {
            "handle": self.handle,
            "site": [self.site.tool, self.site.session_id, self.site.correlation_id],
            "name": self.name,
            "created_at": self._created_at,
            "ended_at": self._ended_at,
            "state": self.state.value,
            "progress": self._progress,
            "outcome": msgspec.json.decode(orjson.dumps(self._outcome)) if kept else None,
        }

    @property
    def goes_on(self) -> bool:
        """Whether it has not ended yet."""
        return self.state in _GOES_ON

    @property
    def size(self) -> int:
        """Bytes of its events and its result, about."""
        return self._history.size + self._size

    def progress(self, fraction: float | None, text: str) -> None:
        """Take note of how far it is.

        Args:
            fraction: From 0 to 1, where that is known.
            text: What it does.
        """
        progress = {"fraction": fraction, "text": text}
        self._add("progress", progress, len(text.encode()), progress)

    def log(self, level: str, name: str, text: str) -> None:
        """Take note of a log line.

        Args:
            level: Its level.
            name: Of the logger.
            text: The line.
        """
        text = redact(valid_text(text), _LINE_LIMIT)
        fields = {"level": level, "logger": valid_text(name)[:_NAME_LIMIT], "text": text}
        self._add("log", fields, len(text.encode()))

    def partial(self, data: bytes, metadata: Mapping[str, object]) -> None:
        """Take note of a partial result.

        Args:
            data: The payload of a chunk.
            metadata: What its maker says of it.
        """
        fields = item_fields(data)
        size = len(data)
        if metadata:
            texts = {str(key): str(value) for key, value in metadata.items()}
            fields["metadata"] = texts
            size += sum(len(key) + len(text) for key, text in texts.items())
        self._add("partial", fields, size)

    def cancel(self) -> None:
        """Ask it to stop; where it is being stopped, or has ended, that changes nothing."""
        if self.state is JobState.RUNNING:
            self._change(JobState.CANCELLING)
            self._stop(self)

    def end(
        self, state: JobState, response: ExecuteToolResponse | None = None, milliseconds: int = 0
    ) -> None:
        """It has ended; a second end changes nothing.

        Args:
            state: How.
            response: The reply of its call, where it came to one.
            milliseconds: How long it ran, where there is no reply.
        """
        if not self.goes_on:
            return
        response = self._no_reply(state, milliseconds) if response is None else response
        self._outcome = outcome(response)
        self._size = response.ByteSize()
        self._ended_at = self._clock()
        self._change(state)
        for waiter in self._waiters:
            _finish(waiter)

    def describe(self) -> dict[str, Any]:
        """The job as JSON values."""
        return {
            "handle": self.handle,
            "name": self.name,
            "tool": self.site.tool,
            "state": self.state.value,
            "created_at": self._created_at,
            "ended_at": self._ended_at,
            "progress": self._progress,
            "cursor": self._history.last,
        }

    def result(self) -> dict[str, Any]:
        """What became of it, as JSON values: its state, and its outcome once it has ended."""
        answer = {"handle": self.handle, "state": self.state.value}
        return answer if self._outcome is None else answer | self._outcome

    def read(self, after: int, limit: int) -> dict[str, Any]:
        """Events, as JSON values.

        Args:
            after: Number of the last event that the reader knows.
            limit: Events at most.
        """
        with self._lock:
            events, missed = self._history.after(after, limit)
            cursor = events[-1]["cursor"] if events else max(after, 0)
            done = not self.goes_on and cursor >= self._history.last
            return {
                "handle": self.handle,
                "state": self.state.value,
                "progress": self._progress,
                "events": events,
                "cursor": cursor,
                "missed": missed,
                "done": done,
            }

    async def changed(self, after: int, seconds: float | None) -> None:
        """Wait for an event.

        Args:
            after: Number of the last event that the reader knows.
            seconds: How long at most.
        """
        with self._lock:
            if self._history.last > after or not self.goes_on:
                return
            reader = asyncio.get_running_loop().create_future()
            self._readers.add(reader)
        try:
            await _within(reader, seconds)
        finally:
            with self._lock:
                self._readers.discard(reader)

    async def ended(self, seconds: float | None) -> None:
        """Wait for its end.

        Args:
            seconds: How long at most.
        """
        if not self.goes_on:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await _within(waiter, seconds)
        finally:
            self._waiters.discard(waiter)

    def _change(self, state: JobState) -> None:
        self._add("state", {"state": state.value}, 0, state=state)

    def _add(
        self,
        kind: str,
        fields: Mapping[str, Any],
        size: int,
        progress: dict[str, Any] | None = None,
        *,
        state: JobState | None = None,
    ) -> None:
        with self._lock:
            if not self.goes_on:  # a thread that was given up may still talk
                return
            self.state = state or self.state
            self._progress = progress or self._progress
            self._history.add(kind, fields, size)
            readers, self._readers = self._readers, set()
        for reader in readers:
            with suppress(RuntimeError):  # the loop is closed: nobody reads
                reader.get_loop().call_soon_threadsafe(_finish, reader)

    def _no_reply(self, state: JobState, milliseconds: int) -> ExecuteToolResponse:
        error: WorkerError
        if state is JobState.LOST:
            msg = "the worker that ran the job has ended, before the job did or with a large result"
            error = Unavailable(msg, retryable=False)
        elif self.cut_off:
            msg = "the job was cancelled; its tool has not stopped yet and goes on"
            error = Cancelled(msg, details={"stopped": False})
        else:
            error = Cancelled("the job was cancelled")
        failure = describe(error, self.site)
        return ExecuteToolResponse(
            success=False, error_message=failure.to_json(), execution_time_ms=milliseconds
        )


async def _within(future: asyncio.Future[None], seconds: float | None) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await future


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
