"""Jobs: calls that outlive the RPC that began them, and belong to a session.

A job's call passes through the dispatcher like any other.  While it runs its session is in use and
does not expire; a session that ends cancels its jobs.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn

from snakepit_worker.calls.call import Call
from snakepit_worker.deadline import Deadline
from snakepit_worker.errors import (
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
)
from snakepit_worker.telemetry.listening import begin_listening, end_listening, listener
from snakepit_worker.tools.jobs import JOB, Job, JobState
from snakepit_worker.wire.convention import CORRELATION_HEADER
from snakepit_worker.wire.failures import CallSite
from snakepit_worker.wire.generated.snakepit_bridge_pb2 import ExecuteToolResponse
from snakepit_worker.wire.values import to_any

if TYPE_CHECKING:
    from snakepit_worker.calls.dispatcher import Dispatcher
    from snakepit_worker.sessions import Session, SessionStore
    from snakepit_worker.tools.context import CallContext
    from snakepit_worker.wire.generated.snakepit_bridge_pb2 import ExecuteToolRequest, ToolChunk

__all__ = ["JobLimits", "Jobs"]

_STOP_TIME: Final = 5.0
"""Seconds that a tool has to stop once its job was cancelled, or its time is over; then the job is
given up."""


@dataclass(frozen=True, slots=True)
class JobLimits:
    """How many jobs are held, running ones and those that have ended.

    Attributes:
        worker: Jobs of the worker.
        session: Jobs of one session.
        size: Bytes of events and results of those that have ended.
    """

    worker: int = 1_000
    session: int = 250
    size: int = 256 * 1024 * 1024


class _Run:
    """What is known of a job while its worker holds it."""

    __slots__ = ("call", "expiry", "late", "released", "session", "size", "stopping", "task")

    def __init__(self, session: Session, call: Call | None) -> None:
        self.session = session
        self.call = call
        self.task: asyncio.Task[ExecuteToolResponse] | None = None
        """While it runs."""
        self.expiry: asyncio.TimerHandle | None = None
        """When its time is over."""
        self.stopping: asyncio.TimerHandle | None = None
        """When it is given up."""
        self.late = False
        self.released = False
        self.size = 0


class Jobs:
    """All jobs of a worker.  Lives on the event loop.

    Args:
        dispatcher: Serves their calls.
        store: Keeps their sessions.
        limits: Bounds.
        stop_time: Seconds for a tool to stop when it has to.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        store: SessionStore,
        limits: JobLimits,
        stop_time: float = _STOP_TIME,
    ) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._limits = limits
        self._stop_time = stop_time
        self._loop = asyncio.get_running_loop()
        self._runs: dict[Job, _Run] = {}
        self._running = 0
        self._ended: dict[Job, None] = {}
        """In order of their ends."""
        self._size = 0
        """Bytes of those."""
        self._of_session: dict[str, int] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def counters(self) -> dict[str, int]:
        """Jobs that run, jobs that have ended, and the bytes that these hold."""
        return {"running": self._running, "ended": len(self._ended), "bytes": self._size}

    def start(
        self,
        ctx: CallContext,
        request: ExecuteToolRequest,
        *,
        name: str | None,
        timeout: float | None,
        stream: bool,
    ) -> Job:
        """Begin a job.

        Args:
            ctx: The call that asks for it; the job belongs to its session.
            request: What the job calls.
            name: The caller's own name for it, unique in the session.
            timeout: Seconds that it may take, ``None`` for as long as it takes.
            stream: Whether to take the items of what the tool returns for partial results; a tool
                that is known to stream needs no telling.

        Raises:
            WorkerError: When it cannot be begun, or its call could only fail.
        """
        if not ctx.session.id:
            msg = "a job belongs to a session, and this call has none"
            raise FailedPrecondition(msg, help="name one with session_id")
        streams = self._dispatcher.check(request) or stream
        surplus = self._surplus(ctx.session.id)
        site = CallSite(request.tool_name, ctx.session.id, ctx.correlation_id)
        job = Job(site, name, self._stop)
        session = self._store.enter(ctx.session.id)
        try:
            self._put(session, job)
        except BaseException:
            self._store.leave(session)
            raise
        if surplus is not None:
            self._release(surplus)
        headers = {CORRELATION_HEADER: ctx.correlation_id}
        call = Call(request, Deadline.after(timeout), headers, job)
        run = self._hold(job, session, call)
        self._running += 1
        self._idle.clear()
        begin_listening()
        run.task = self._loop.create_task(self._serve(job, run, call, streams=streams))
        run.task.add_done_callback(partial(self._done, job, run))
        if timeout is not None:
            run.expiry = self._loop.call_later(timeout, self._expire, job, run)
        return job

    def released(self, job: Job) -> None:
        """Its session does not hold the job any more: stop it.  May be called on any thread.

        Args:
            job: The job.
        """
        with suppress(RuntimeError):  # the loop is closed, and with it all jobs have ended
            self._loop.call_soon_threadsafe(self._let_go, job)

    def cancel_all(self) -> int:
        """Cancel every job that runs; how many there were."""
        running = [job for job, run in self._runs.items() if run.task is not None]
        for job in running:
            job.cancel()
        return len(running)

    def give_up(self) -> None:
        """Wait no longer for the tools of jobs that are being cancelled."""
        for job, run in list(self._runs.items()):
            if job.state is JobState.CANCELLING:
                self._give_up(job, run)

    async def idle(self) -> None:
        """Wait until no job runs."""
        await self._idle.wait()

    async def _serve(
        self, job: Job, run: _Run, call: Call, *, streams: bool
    ) -> ExecuteToolResponse:
        listener.set(job.log)
        if streams:
            return await self._stream(job, run, call)
        return await self._dispatcher.call(call)

    async def _stream(self, job: Job, run: _Run, call: Call) -> ExecuteToolResponse:
        count = 0

        async def write(chunk: ToolChunk) -> None:
            nonlocal count
            if job.state is JobState.CANCELLING:
                raise Cancelled("the job was cancelled")
            if run.late:
                raise DeadlineExceeded("the time of the job is over")
            if chunk.data or not chunk.is_final:
                count += 1
                job.partial(chunk.data, chunk.metadata)
            await asyncio.sleep(0)  # nobody reads who would slow the tool down, so others run

        failure = await self._dispatcher.stream(call, write)
        response = ExecuteToolResponse(
            success=failure is None, execution_time_ms=call.elapsed_ns() // 1_000_000
        )
        if failure is None:
            response.result.CopyFrom(to_any(count))
        else:
            response.error_message = failure.to_json()
        return response

    def _stop(self, job: Job) -> None:
        """Stop a job's call, within some time; a function that runs in a thread is only asked."""
        run = self._runs[job]
        call, task = run.call, run.task
        if task is None or call is None:
            return
        if call.lane is None or call.context is None or call.tool is None or call.tool.is_async:
            task.cancel()
        elif not run.late:  # a deadline that has passed is seen anyway
            call.context.cancel()
        if run.stopping is None:
            run.stopping = self._loop.call_later(self._stop_time, self._give_up, job, run)

    def _expire(self, job: Job, run: _Run) -> None:
        run.late = True
        if job.state is JobState.RUNNING:
            self._stop(job)

    def _give_up(self, job: Job, run: _Run) -> None:
        """Wait for a job's call no longer, which goes on unheard and keeps its place."""
        call, task = run.call, run.task
        if call is None or task is None:
            return
        task.cancel()  # which leaves a thread to itself
        if job.state is JobState.CANCELLING:
            job.cut_off = True
            self._end(job, run, call, JobState.CANCELLED, None)
        else:
            response = self._dispatcher.late(call, stopped=False)
            self._end(job, run, call, JobState.FAILED, response)

    def _done(self, job: Job, run: _Run, task: asyncio.Task[ExecuteToolResponse]) -> None:
        response = None if task.cancelled() else task.result()
        if run.call is None:  # it was given up
            return
        if response is None and run.late and job.state is JobState.RUNNING:
            response = self._dispatcher.late(run.call)
        state = JobState.CANCELLED
        if response is not None and response.success:
            state = JobState.SUCCEEDED
        elif response is not None and job.state is not JobState.CANCELLING:
            state = JobState.FAILED
        self._end(job, run, run.call, state, response)

    def _end(
        self, job: Job, run: _Run, call: Call, state: JobState, response: ExecuteToolResponse | None
    ) -> None:
        end_listening()
        for timer in (run.expiry, run.stopping):
            if timer is not None:
                timer.cancel()
        run.task = run.expiry = run.stopping = run.call = None
        job.end(state, response, call.elapsed_ns() // 1_000_000)
        self._dispatcher.save_soon(run.session, job.handle)
        self._store.leave(run.session)
        self._running -= 1
        if not self._running:
            self._idle.set()
        if run.released:
            self._forget(job)
        else:
            self._keep(job)

    def _put(self, session: Session, job: Job) -> None:
        """Put a job into its session.

        Raises:
            WorkerError: When the session does not take it.
        """
        resource = session.put(
            JOB,
            job,
            name=job.name,
            metadata={"tool": job.site.tool},
            close=partial(self.released, job),
            recipe=job.recipe,
        )
        job.handle = resource.handle

    def _hold(self, job: Job, session: Session, call: Call | None) -> _Run:
        run = self._runs[job] = _Run(session, call)
        self._of_session[session.id] = self._of_session.get(session.id, 0) + 1
        return run

    def _keep(self, job: Job) -> None:
        """Keep a job that has ended, at the cost of those that ended before it."""
        self._ended[job] = None
        size = self._runs[job].size = job.size
        self._size += size
        while self._size > self._limits.size and len(self._ended) > 1:
            self._release(next(iter(self._ended)))

    def _let_go(self, job: Job) -> None:
        run = self._runs.get(job)
        if run is None:
            return
        run.released = True
        if run.task is None:
            self._forget(job)
        else:
            job.cancel()

    def _release(self, job: Job) -> None:
        """Take a job out of its session, and forget it."""
        session = self._runs[job].session
        self._forget(job)
        with suppress(NotFound):  # released by somebody else meanwhile
            session.release(job.handle)

    def _forget(self, job: Job) -> None:
        run = self._runs.pop(job)
        if job in self._ended:
            del self._ended[job]
            self._size -= run.size
        left = self._of_session[run.session.id] - 1
        if left:
            self._of_session[run.session.id] = left
        else:
            del self._of_session[run.session.id]

    def _surplus(self, session_id: str) -> Job | None:
        """The job that has to go when one more begins: of those that have ended the first.

        Raises:
            ResourceExhausted: When there are as many as there may be, and all of them run.
        """
        if self._of_session.get(session_id, 0) >= self._limits.session:
            own = (job for job in self._ended if self._runs[job].session.id == session_id)
            return next(own, None) or self._full(
                "session", "max_session_jobs", self._limits.session
            )
        if len(self._runs) >= self._limits.worker:
            return next(iter(self._ended), None) or self._full(
                "worker", "max_jobs", self._limits.worker
            )
        return None

    def _full(self, whose: str, limit: str, value: int) -> NoReturn:
        msg = f"this {whose} runs {value} jobs, the limit (--{limit.replace('_', '-')})"
        details = {"limit": limit, "value": value, "running": self._running}
        raise ResourceExhausted(msg, details=details, retry_after=1.0)
