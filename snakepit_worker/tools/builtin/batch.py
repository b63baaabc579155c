"""Many calls in one: the host sends a worker one request at a time, and this one holds many."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol

import msgspec

from snakepit_worker.deadline import Deadline
from snakepit_worker.errors import Violation
from snakepit_worker.tools.inner_calls import build_request, outcome, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from snakepit_worker.errors import WorkerError
    from snakepit_worker.tools.context import CallContext
    from snakepit_worker.wire.generated.snakepit_bridge_pb2 import (
        ExecuteToolRequest,
        ExecuteToolResponse,
    )

__all__ = ["BatchCall", "Serve", "run_batch"]

_BATCH: Final = "worker.batch"


class Serve(Protocol):
    """Serves one call."""

    async def __call__(
        self,
        request: ExecuteToolRequest,
        deadline: Deadline,
        correlation_id: str,
        wrong: WorkerError | None,
    ) -> ExecuteToolResponse:
        """Its reply: a failure where something is wrong, or the deadline passes before."""


class BatchCall(msgspec.Struct, forbid_unknown_fields=True):
    """One call of a batch."""

    tool: Annotated[str, msgspec.Meta(description="full name")]
    arguments: Annotated[
        dict[str, Any],
        msgspec.Meta(description="by name; session_id among them names a session other than ours"),
    ] = {}
    binary: Annotated[
        dict[str, str], msgspec.Meta(description="binary parameters by name, as base64")
    ] = {}
    timeout_ms: Annotated[
        int | None,
        msgspec.Meta(
            description="milliseconds, within the time of the batch",
            extra_json_schema={"minimum": 1},  # looked at here: one wrong call fails alone
        ),
    ] = None


async def run_batch(
    ctx: CallContext, calls: Sequence[BatchCall], concurrency: int, serve: Serve
) -> list[dict[str, Any]]:
    """Run all calls of a batch; what became of each, in the same order.

    Args:
        ctx: The batch itself; its session, metadata and deadline are those of its calls.
        calls: The calls.
        concurrency: How many of them run at once.
        serve: Serves one call.

    """
    free = asyncio.Semaphore(concurrency)

    async def run(call: BatchCall) -> dict[str, Any]:
        async with free:
            deadline = ctx.deadline
            if call.timeout_ms is not None:
                deadline = Deadline.after(deadline.bound(call.timeout_ms / 1000))
            request, violations = build_request(ctx, call.tool, call.arguments, call.binary)
            wrong = refusal(call.tool, [*_mistakes(call), *violations])
            return outcome(await serve(request, deadline, ctx.correlation_id, wrong))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(call)) for call in calls]
    return [task.result() for task in tasks]


def _mistakes(call: BatchCall) -> Iterator[Violation]:
    if call.tool == _BATCH:
        yield Violation("tool", "a batch cannot contain a batch")
    if call.timeout_ms is not None and call.timeout_ms < 1:
        yield Violation("timeout_ms", f"expected int >= 1, got {call.timeout_ms}")
