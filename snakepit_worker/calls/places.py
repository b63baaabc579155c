"""What calls run on: the event loop, threads, or the main thread, each with its lane."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from snakepit_worker.calls.admission import Lane, WaitingRules

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from snakepit_worker.calls.threads import MainThread, Runner, ThreadPool
    from snakepit_worker.wire.generated.snakepit_bridge_pb2 import ExecuteToolRequest

__all__ = ["Place", "Places"]


_TRUTHY: Final = frozenset(("1", "true", "t", "yes", "y", "on"))
_MODULE_KEYS: Final = ("module_path", "python_module", "library")


class Place(NamedTuple):
    """Where plain functions run, and who may.

    Attributes:
        runner: Runs them.
        lane: Counts them.
    """

    runner: Runner
    lane: Lane


class Places:
    """All that calls can run on.  Lives on the event loop.

    Args:
        threads: The threads.
        main: The main thread.
        size: Threads that there are.
        coroutines: Calls of coroutine functions that run at once.
        rules: Bounds of each lane beside its places.
        thread_sensitive: Modules, or ``module.function``, whose calls run on the main thread.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what there is, and its bounds
        self,
        threads: ThreadPool,
        main: MainThread,
        size: int,
        coroutines: int,
        rules: WaitingRules,
        thread_sensitive: Collection[str] = (),
    ) -> None:
        self._event_loop = asyncio.get_running_loop()
        self._threads = threads
        self._main = main
        self._thread_sensitive = thread_sensitive
        self.loop = Lane("event loop", coroutines, rules)
        lane = Lane("threads", size, rules, flag="--max-workers", stuck=lambda: threads.abandoned)
        self.threads = Place(threads, lane)
        self.main = Place(main, Lane("main thread", 1, rules, stuck=lambda: int(main.busy)))
        threads.capacity_changed = lambda places: self._resize(self.threads.lane, places)
        main.capacity_changed = lambda places: self._resize(self.main.lane, places)

    def of(self, request: ExecuteToolRequest, arguments: Mapping[str, Any]) -> Place:
        """Where a plain function runs whose tool does not insist on a place.

        Args:
            request: The call; its metadata may ask for the main thread (interop 4.4).
            arguments: Its decoded arguments; they may name a module that needs it.
        """
        flag = request.metadata.get("thread_sensitive")
        if flag is not None and flag.lower() in _TRUTHY:
            return self.main
        if self._thread_sensitive and self._is_thread_sensitive(arguments):
            return self.main
        return self.threads

    def describe(self) -> dict[str, dict[str, int]]:
        """How busy each is, and how many calls wait for it."""
        return {
            "coroutines": {
                "size": self.loop.size,
                "running": self.loop.running,
                "waiting": self.loop.waiting,
            },
            "threads": {
                "size": self.threads.lane.size,
                "busy": self._threads.busy,
                "waiting": self.threads.lane.waiting,
                "abandoned": self._threads.abandoned,
            },
            "main_thread": {"busy": int(self._main.busy), "waiting": self.main.lane.waiting},
        }

    def _is_thread_sensitive(self, arguments: Mapping[str, Any]) -> bool:
        module = next((arguments[key] for key in _MODULE_KEYS if arguments.get(key)), None)
        function = arguments.get("function") or arguments.get("method")
        entries = self._thread_sensitive
        return module in entries or f"{module}.{function}" in entries

    def _resize(self, lane: Lane, places: int) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is admitted any more
            self._event_loop.call_soon_threadsafe(lane.resize, places)
