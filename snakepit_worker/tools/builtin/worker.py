"""``worker.*``: what a caller can ask about this worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import msgspec

from snakepit_worker.errors import NotFound
from snakepit_worker.tools.api import Adapter, tool
from snakepit_worker.tools.builtin.batch import BatchCall, run_batch
from snakepit_worker.tools.context import CallContext

if TYPE_CHECKING:
    from collections.abc import Callable

    from snakepit_worker.tools.builtin.batch import Serve

__all__ = ["WorkerTools"]


class WorkerTools(Adapter):
    """Tools over the worker itself.

    Args:
        info: Gives the facts that do not change.
        stats: Gives the counters.
        tools: Gives the descriptions of all tools, these among them.
        serve: Serves one call of a batch.
    """

    name: ClassVar[str] = "worker"

    def __init__(
        self,
        info: Callable[[], dict[str, Any]],
        stats: Callable[[], dict[str, Any]],
        tools: Callable[[], list[dict[str, Any]]],
        serve: Serve,
    ) -> None:
        self._info = info
        self._stats = stats
        self._tools = tools
        self._serve = serve

    @tool
    async def info(self) -> dict[str, Any]:
        """Versions, process id, adapters and their states."""
        return self._info()

    @tool
    async def stats(self) -> dict[str, Any]:
        """Counters: calls, sessions, resources, threads."""
        return self._stats()

    @tool
    async def batch(
        self,
        ctx: CallContext,
        calls: Annotated[list[BatchCall], msgspec.Meta(max_length=1_000)],
        concurrency: Annotated[int, msgspec.Meta(ge=1, le=100)] = 16,
    ) -> list[dict[str, Any]]:
        """Run many calls at once; the result or the failure of each, in the order of the calls."""
        return await run_batch(ctx, calls, concurrency, self._serve)

    @tool
    def tools(self, adapter: str | None = None) -> list[dict[str, Any]]:
        """The tools of one adapter or of all, with JSON Schemas."""
        tools = self._tools()
        if adapter is None:
            return tools
        found = [tool for tool in tools if tool["name"].startswith(f"{adapter}.")]
        if not found:
            names = sorted({tool["name"].partition(".")[0] for tool in tools})
            msg = f"no adapter {adapter!r} in this worker; there are {', '.join(names)}"
            raise NotFound(msg, details={"adapter": adapter})
        return found
