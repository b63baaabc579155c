"""Waiting for adapters: they start in the background, after the worker has begun to serve."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from snakepit_worker.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from snakepit_worker.tools.registry import AdapterState

if TYPE_CHECKING:
    from snakepit_worker.deadline import Deadline
    from snakepit_worker.tools.registry import LoadedAdapter

__all__ = ["Readiness"]


class Readiness:
    """Lets calls wait until their adapter has started.

    Args:
        patience: Seconds that a call without a deadline waits.
        limit: Calls that may wait for one adapter.
    """

    def __init__(self, patience: float, limit: int) -> None:
        self._patience = patience
        self._limit = limit

    async def wait(self, adapter: LoadedAdapter, deadline: Deadline) -> None:
        """Wait until an adapter has started.

        Args:
            adapter: The adapter.
            deadline: Of the call.

        Raises:
            Unavailable: When it failed to start, or is stopping.
            DeadlineExceeded: When it takes longer than the call may wait.
            ResourceExhausted: When too many calls wait for it.
        """
        if adapter.state is AdapterState.STARTING and adapter.started is not None:
            if adapter.awaited >= self._limit:
                msg = f"{self._limit} calls wait for adapter {adapter.name} to start, the limit"
                msg += " (--max-waiting)"
                raise ResourceExhausted(msg, details={"adapter": adapter.name}, retry_after=1.0)
            adapter.awaited += 1
            try:
                await asyncio.wait([adapter.started], timeout=deadline.bound(self._patience))
            finally:
                adapter.awaited -= 1
        if adapter.state is AdapterState.READY:
            return
        if adapter.state is AdapterState.STARTING:
            msg = f"adapter {adapter.name} is still starting"
            raise DeadlineExceeded(msg, details={"adapter": adapter.name})
        cause = adapter.failure
        reason = f"failed to start: {type(cause).__name__}: {cause}" if cause else "has stopped"
        msg = f"adapter {adapter.name} {reason}"
        raise Unavailable(msg, retryable=False, details={"adapter": adapter.name}) from cause
