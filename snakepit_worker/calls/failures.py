"""What became of a call that failed: told to its caller, and to the log."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from snakepit_worker.telemetry.logging import logger
from snakepit_worker.tools.meanings import unexplained
from snakepit_worker.wire.failures import CallSite, Failure, describe
from snakepit_worker.wire.tracebacks import Frames, traceback_lines

if TYPE_CHECKING:
    from snakepit_worker.calls.call import Call
    from snakepit_worker.errors import WorkerError
    from snakepit_worker.tools.registry import LoadedAdapter

__all__ = ["FailureReports"]

_ENDS_OF_ITERATION: Final = (StopIteration, StopAsyncIteration)


class FailureReports:
    """Turns what calls raise into failures, and counts them.

    Args:
        tracebacks: Which frames callers see.
    """

    def __init__(self, tracebacks: Frames) -> None:
        self._tracebacks = tracebacks
        self.count = 0

    def report(self, call: Call, error: BaseException) -> Failure:
        """What the caller is told.

        Args:
            call: The call.
            error: What was raised on its way.

        Raises:
            asyncio.CancelledError: When it is this call that was cancelled.
        """
        if issubclass(type(error), asyncio.CancelledError):  # isinstance would ask the error
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                if call.context is not None:
                    call.context.cancel()
                raise error
        self.count += 1
        if type(error) is RuntimeError and isinstance(error.__cause__, _ENDS_OF_ITERATION):
            error = error.__cause__  # Python does not let these out of a coroutine as they are
        request = call.request
        site = CallSite(request.tool_name, request.session_id, call.correlation_id, call.arguments)
        owner = call.tool.owner if call.tool is not None else None
        failure = call.failure = describe(
            error,
            site,
            _classification(owner, error),
            self._tracebacks,
            owner.folder if owner is not None else None,
        )
        facts = {
            "reason": failure.message,
            "type": failure.type,
            "code": failure.code,
            "error_id": failure.error_id,
        }
        if failure.classified:
            logger().info("call failed", **facts)
        else:  # nobody foresaw it, so it is worth a look
            logger().error("call failed", **facts, exception="".join(traceback_lines(error)))
        return failure


def _classification(owner: LoadedAdapter | None, error: BaseException) -> WorkerError | None:
    if owner is None or owner.meanings is None:
        return None
    try:
        return owner.meanings.of(error)
    except BaseException as problem:  # noqa: BLE001 - the original failure matters more
        unexplained(owner.name, problem)
        return None
