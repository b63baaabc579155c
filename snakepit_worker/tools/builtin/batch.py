"""Many calls in one: the host sends a worker one request at a time, and this one holds many."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol

import msgspec

from snakepit_worker.deadline import Deadline
from snakepit_worker.errors import Violation
from snakepit_worker.tools.inner_calls import build_request, outcome, refuse

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        self, request: ExecuteToolRequest, deadline: Deadline, correlation_id: str
    ) -> ExecuteToolResponse:
        """Its reply; a failure where the deadline passes before it is done."""


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
        Annotated[int, msgspec.Meta(ge=1)] | None,
        msgspec.Meta(description="milliseconds, within the time of the batch"),
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

    Raises:
        InvalidArgument: When a call can only be a mistake; then none is run.
    """
    requests = _requests(ctx, calls)
    free = asyncio.Semaphore(concurrency)

    async def run(call: BatchCall, request: ExecuteToolRequest) -> dict[str, Any]:
        async with free:
            deadline = ctx.deadline
            if call.timeout_ms is not None:
                deadline = Deadline.after(deadline.bound(call.timeout_ms / 1000))
            return outcome(await serve(request, deadline, ctx.correlation_id))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(*pair)) for pair in zip(calls, requests, strict=True)]
    return [task.result() for task in tasks]


def _requests(ctx: CallContext, calls: Sequence[BatchCall]) -> list[ExecuteToolRequest]:
    violations: list[Violation] = []
    requests = []
    for number, call in enumerate(calls):
        path = f"calls[{number}]"
        if call.tool == _BATCH:
            violations.append(Violation(f"{path}.tool", "a batch cannot contain a batch"))
        request, wrong = build_request(ctx, call.tool, call.arguments, call.binary)
        violations += [Violation(f"{path}.{one.field}", one.description) for one in wrong]
        requests.append(request)
    refuse(_BATCH, violations)
    return requests
