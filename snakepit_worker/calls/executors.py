"""Running a function elsewhere and awaiting it here."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, TypeVar

from snakepit_worker.calls.threads import Job

if TYPE_CHECKING:
    from collections.abc import Callable

    from snakepit_worker.calls.threads import Runner

__all__ = ["run"]

T = TypeVar("T")


async def run(
    runner: Runner,
    function: Callable[[], T],
    submitted: Callable[[Job], None] = lambda _: None,
) -> T:
    """The result of a blocking function that runs on one of the runner's threads.

    Context variables are carried over.  Whatever the function raises is raised here, also what
    should not reach an event loop (``SystemExit``); ``StopIteration``, which no coroutine can
    raise, comes as the cause of a ``RuntimeError``.

    When the awaiting task is cancelled, a function that has not begun never does; one that has
    begun runs on and its result is dropped; the runner counts such threads.

    Args:
        runner: Where to run.
        function: What to run.
        submitted: Told of the job, for a caller that may leave it without being cancelled.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    context = contextvars.copy_context()
    outcome: list[tuple[T | None, BaseException | None]] = []

    def work() -> None:
        if done.cancelled():  # while it waited for a thread
            return
        try:
            outcome.append((context.run(function), None))
        except BaseException as error:  # noqa: BLE001 - handed to the awaiting call
            outcome.append((None, error))

    def finished() -> None:
        try:
            loop.call_soon_threadsafe(_finish, done)
        except RuntimeError:  # the loop is closed: the worker has stopped, nobody waits
            outcome.clear()

    job = Job(work, finished)
    runner.submit(job)
    submitted(job)
    try:
        await done
    except asyncio.CancelledError:
        runner.abandon(job)
        raise
    value, error = outcome.pop()
    if error is not None:
        try:
            raise error
        finally:
            del error  # the traceback would hold this frame, and the frame the error
    return value  # type: ignore[return-value]  # None only where T allows it


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
