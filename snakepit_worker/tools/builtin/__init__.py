"""The tools that every worker has, whatever its adapters: of jobs, sessions and the worker."""

from __future__ import annotations

from dataclasses import dataclass
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
    from snakepit_worker.tools.builtin.session import Enter, Rebuild

__all__ = ["Inside", "builtin_adapters"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """What the worker's own tools need of it.

    Attributes:
        store: All sessions of the worker.
        info: Gives the facts that do not change.
        stats: Gives the counters.
        tools: Gives the descriptions of all tools.
        serve: Serves one call of a batch.
        enter: Enters another session than the caller's.
        rebuild: Builds resources again in a session.
        start_job: Begins a job.
    """

    store: SessionStore
    info: Callable[[], dict[str, Any]]
    stats: Callable[[], dict[str, Any]]
    tools: Callable[[], list[dict[str, Any]]]
    serve: Serve
    enter: Enter
    rebuild: Rebuild
    start_job: StartJob


def builtin_adapters(inside: Inside) -> list[Adapter]:
    """The worker's own adapters.

    Args:
        inside: What they need of it.
    """
    return [
        WorkerTools(inside.info, inside.stats, inside.tools, inside.serve),
        SessionTools(inside.store, inside.enter, inside.rebuild),
        JobTools(inside.start_job),
    ]
