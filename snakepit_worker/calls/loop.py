"""An event loop in a thread of its own.

The bridge has one, so that the main thread stays free for tools that insist on it, and a tool that
blocks there does not keep the bridge from answering.  Coroutines of adapters that were written for
Snakepit's own worker have another one, because they may block in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

from snakepit_worker.telemetry.logging import logger

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Coroutine

__all__ = ["LoopThread"]

T = TypeVar("T")

_DEFAULT_THREADS: Final = 32
"""Threads for ``asyncio.to_thread``, which frameworks use inside their asynchronous calls; a full
pool would hang every one of them, so tools do not run there."""


class LoopThread:
    """A running event loop that other threads hand coroutines to.

    Args:
        name: The thread's name.
    """

    def __init__(self, name: str) -> None:
        self._loop = _new_event_loop()
        self._loop.set_exception_handler(_log_exception)
        self._executor = ThreadPoolExecutor(_DEFAULT_THREADS, thread_name_prefix=f"{name}-default")
        self._loop.set_default_executor(self._executor)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the loop."""
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for its result.

        Args:
            coroutine: What to run; it brings its own limit.
        """
        return self.submit(coroutine).result()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run a coroutine on the loop, without waiting.

        Args:
            coroutine: What to run; cancelling the future cancels it.
        """
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Run a callback on the loop, soon; from any thread.  Does nothing after ``close``."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback)

    def close(self, timeout: float) -> None:
        """Stop the loop, cancel what still runs on it, and wait for its thread.

        Args:
            timeout: Seconds to wait; a loop that a tool blocks stays behind.
        """
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout)

    def _run_until_stopped(self) -> None:
        """Run the loop, also past a SystemExit that a task of some framework lets out of it."""
        while True:
            try:
                self._loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:
                logger().error("a task tried to end the process", exc_info=error)
            else:
                return

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._run_until_stopped()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._loop.close()


def _new_event_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop  # noqa: PLC0415 - not on every platform

    return uvloop.new_event_loop()


def _log_exception(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    logger().error(
        context.get("message", "unhandled error in the event loop"),
        exc_info=context.get("exception"),
    )
