"""The tools that every worker has, whatever its adapters: of jobs, sessions and the worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from snakepit_worker.tools.builtin.job import JobTools
from snakepit_worker.tools.builtin.session import SessionTools
from snakepit_worker.tools.builtin.worker import WorkerTools

if TYPE_CHECKING:
    from collections.abc import Callable

    from snakepit_worker.sessions import SessionStore
    from snakepit_worker.tools.api import Adapter
    from snakepit_worker.tools.builtin.batch import Serve
    from snakepit_worker.tools.builtin.job import StartJob

__all__ = ["builtin_adapters"]


def builtin_adapters(  # noqa: PLR0913, PLR0917 - what the tools are made of
    store: SessionStore,
    info: Callable[[], dict[str, Any]],
    stats: Callable[[], dict[str, Any]],
    tools: Callable[[], list[dict[str, Any]]],
    serve: Serve,
    start_job: StartJob,
) -> list[Adapter]:
    """The worker's own adapters.

    Args:
        store: All sessions of the worker.
        info: Gives the facts that do not change.
        stats: Gives the counters.
        tools: Gives the descriptions of all tools.
        serve: Serves one call of a batch.
        start_job: Begins a job.
    """
    return [WorkerTools(info, stats, tools, serve), SessionTools(store), JobTools(start_job)]
