"""Closing resources: apart from calls, in order, each within a time."""

from __future__ import annotations

import concurrent.futures
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from snakepit_worker.telemetry.logging import logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from snakepit_worker.sessions.resources import Resource

__all__ = ["Closers", "Closing", "Dispose", "close_here"]

_THREADS: Final = 4
CLOSE_LIMIT: Final = 10.0
"""Seconds that the closer of one resource may take."""

Closing = concurrent.futures.Future[None]
"""Done when all closers of a group have run, or their time is over."""


class Dispose(Protocol):
    """What becomes of resources that nobody can reach any more."""

    def __call__(self, resources: Sequence[Resource], /) -> Closing:
        """Close them, in the order given."""


def close_here(resources: Sequence[Resource]) -> Closing:
    """Close resources in this thread, where awaitables are not awaited."""
    for resource in resources:
        _guarded(resource, resource.close)
    return _done()


class Closers:
    """Closes resources in threads of its own, and what can be awaited on the event loop.

    A closer whose time is over is left alone: a thread cannot be stopped.

    Args:
        on_loop: Runs a coroutine on the event loop.
        limit: Seconds that one closer may take.
    """

    def __init__(
        self,
        on_loop: Callable[[Coroutine[Any, Any, None]], concurrent.futures.Future[None]],
        limit: float = CLOSE_LIMIT,
    ) -> None:
        self._on_loop = on_loop
        self._limit = limit
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="closer")

    def __call__(self, resources: Sequence[Resource], /) -> Closing:
        """Close resources one after the other, in the order given.

        Args:
            resources: Some of them may have no closer.
        """
        with_closers = [resource for resource in resources if resource.close is not None]
        if not with_closers:
            return _done()
        try:
            return self._threads.submit(self._close, with_closers)
        except RuntimeError:  # shut down; the process ends
            return _done()

    def shut_down(self) -> None:
        """Begin no more closers."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _close(self, resources: Sequence[Resource]) -> None:
        for resource in resources:
            _guarded(resource, partial(self._within_limit, resource))

    def _within_limit(self, resource: Resource) -> None:
        outcome: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def run() -> None:
            outcome.set_running_or_notify_cancel()  # from now on it cannot be cancelled
            try:
                result = resource.close() if resource.close is not None else None
            except BaseException as error:  # noqa: BLE001 - raised below, where it is logged
                outcome.set_exception(error)
            else:
                outcome.set_result(result)

        threading.Thread(target=run, name=f"closer of {resource.handle}", daemon=True).start()
        if self._in_time(resource, outcome) and inspect.isawaitable(result := outcome.result()):
            awaited = self._on_loop(_awaited(result))
            if self._in_time(resource, awaited):
                awaited.result()

    def _in_time(self, resource: Resource, outcome: concurrent.futures.Future[Any]) -> bool:
        if concurrent.futures.wait([outcome], self._limit).done:
            return True
        outcome.cancel()
        logger().error(
            "a closer takes too long",
            handle=resource.handle,
            kind=resource.kind,
            limit_s=self._limit,
        )
        return False


async def _awaited(result: Awaitable[object]) -> None:
    await result


def _guarded(resource: Resource, close: Callable[[], object] | None) -> None:
    """Run a closer.  What it raises is logged: nobody waits for it who could handle it."""
    if close is None:
        return
    try:
        close()
    except BaseException:  # noqa: BLE001 - see above
        logger().exception("closing a resource failed", handle=resource.handle, kind=resource.kind)


def _done() -> Closing:
    done: Closing = concurrent.futures.Future()
    done.set_result(None)
    return done
