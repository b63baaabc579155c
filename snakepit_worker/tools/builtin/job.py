"""``job.*``: calls that go on after their RPC has been answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Protocol

import msgspec

from snakepit_worker.errors import Violation
from snakepit_worker.tools.api import Adapter, Rebuilt, tool
from snakepit_worker.tools.context import CallContext
from snakepit_worker.tools.inner_calls import build_request, refusal
from snakepit_worker.tools.jobs import JOB, Job

if TYPE_CHECKING:
    from snakepit_worker.sessions import Recipe
    from snakepit_worker.wire.generated.snakepit_bridge_pb2 import ExecuteToolRequest

__all__ = ["JobTools", "StartJob"]

_START: Final = "job.start"
_EVENTS_AT_ONCE: Final = 100
_Cursor = Annotated[int, msgspec.Meta(ge=0, description="of the last event that is known")]
_Wait = Annotated[int, msgspec.Meta(ge=0, le=1_000, description="milliseconds")]
_Binary = Annotated[
    dict[str, str], msgspec.Meta(description="binary parameters by name, as base64")
]


class StartJob(Protocol):
    """Begins a job."""

    def __call__(
        self,
        ctx: CallContext,
        request: ExecuteToolRequest,
        *,
        name: str | None,
        timeout: float | None,
        stream: bool,
    ) -> Job:
        """The job, which runs from now on."""


class JobTools(Adapter):
    """Tools over the jobs of the caller's session.

    Args:
        start: Begins a job.
    """

    name: ClassVar[str] = "job"

    def __init__(self, start: StartJob) -> None:
        self._start = start

    @tool
    async def start(  # noqa: PLR0913, PLR0917 - arguments come by name
        self,
        ctx: CallContext,
        tool: str,
        arguments: dict[str, Any] | None = None,
        binary: _Binary | None = None,
        name: str | None = None,
        timeout_ms: Annotated[int, msgspec.Meta(ge=1)] | None = None,
        stream: bool = False,  # noqa: FBT001, FBT002 - as above
    ) -> dict[str, Any]:
        """Call a tool as a job, which goes on when this call is over; answers its handle.

        With `stream` the items of what the tool returns become partial results; those of a tool
        that is known to stream do so anyway.
        """
        request, violations = build_request(ctx, tool, arguments or {}, binary or {})
        if tool.partition(".")[0] == self.name:
            violations.append(Violation("tool", "a job cannot begin or follow another"))
        wrong = refusal(_START, violations)
        if wrong is not None:
            raise wrong
        timeout = None if timeout_ms is None else timeout_ms / 1000
        job = self._start(ctx, request, name=name, timeout=timeout, stream=stream)
        return job.describe()

    def rebuild(self, kind: str, recipe: Recipe) -> Rebuilt:
        """A job of another worker.

        Args:
            kind: Of the resource; there is only one.
            recipe: What the job gave.
        """
        del kind
        job = Job.rebuild(recipe)
        return Rebuilt(job, recipe=job.recipe)

    @tool
    async def status(self, ctx: CallContext, handle: str) -> dict[str, Any]:
        """Where a job stands, by handle or by name."""
        return _job(ctx, handle).describe()

    @tool(name="list")
    async def jobs(self, ctx: CallContext) -> list[dict[str, Any]]:
        """Where each job of the session stands, oldest first."""
        return [resource.value.describe() for resource in ctx.session.resources(JOB)]

    @tool
    async def poll(
        self,
        ctx: CallContext,
        handle: str,
        after: _Cursor = 0,
        wait_ms: _Wait = 0,
        limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = _EVENTS_AT_ONCE,
    ) -> dict[str, Any]:
        """The events that follow a cursor; where there is none yet, waits for one."""
        job = _job(ctx, handle)
        if wait_ms:
            await job.changed(after, wait_ms / 1000)
        return job.read(after, limit)

    @tool
    async def events(
        self, ctx: CallContext, handle: str, after: _Cursor = 0
    ) -> AsyncIterator[dict[str, Any]]:
        """The events that follow a cursor, until the job has ended."""
        job = _job(ctx, handle)
        done = False
        while not done:
            await job.changed(after, None)
            read = job.read(after, _EVENTS_AT_ONCE)
            if read["missed"]:
                yield {"kind": "missed", "count": read["missed"]}
            for event in read["events"]:
                yield event
            after, done = read["cursor"], read["done"]

    @tool
    async def result(
        self,
        ctx: CallContext,
        handle: str,
        wait_ms: Annotated[int, msgspec.Meta(ge=0, le=60_000, description="milliseconds")] = 0,
    ) -> dict[str, Any]:
        """The state of a job, and its result or its failure once it has ended."""
        job = _job(ctx, handle)
        if wait_ms:
            await job.ended(wait_ms / 1000)
        return job.result()

    @tool
    async def cancel(self, ctx: CallContext, handle: str) -> dict[str, Any]:
        """Ask a job to stop; one that has ended stays as it is."""
        job = _job(ctx, handle)
        job.cancel()
        return job.describe()


def _job(ctx: CallContext, handle: str) -> Job:
    job: Job = ctx.session.get(handle, JOB).value
    return job
