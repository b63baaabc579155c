"""What calls run on: the event loop, threads, or the main thread, each with its lane."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from snakepit_worker.calls import executors
from snakepit_worker.calls.admission import Lane, WaitingRules
from snakepit_worker.calls.threads import ThreadPool

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from snakepit_worker.calls.threads import MainThread, Runner
    from snakepit_worker.tools.context import RunSync
    from snakepit_worker.wire.generated.snakepit_bridge_pb2 import ExecuteToolRequest

__all__ = ["Level", "Place", "Places"]


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


class Level(NamedTuple):
    """What calls of one depth run on, beside the main thread.

    A call may wait for another that it has made, which is one deeper.  With places of their own at
    each depth nobody ever waits for a place that is held by whoever waits for him.

    Attributes:
        loop: Counts the calls of coroutine functions.
        threads: Runs the others.
        pool: The threads themselves.
        run_sync: Runs on them what such a coroutine function hands over.
    """

    loop: Lane
    threads: Place
    pool: ThreadPool
    run_sync: RunSync


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
        self._main = main
        self._size = size
        self._coroutines = coroutines
        self._rules = rules
        self._thread_sensitive = thread_sensitive
        self._levels = [self._level(threads)]
        self.main = Place(main, Lane("main thread", 1, rules, stuck=lambda: int(main.busy)))
        main.capacity_changed = lambda places: self._resize(self.main.lane, places)

    def at(self, depth: int) -> Level:
        """What calls run on that are inside of so many others.

        Args:
            depth: How many.
        """
        while len(self._levels) <= depth:
            self._levels.append(self._level(ThreadPool(self._size, f"tool-{len(self._levels)}")))
        return self._levels[depth]

    def of(self, request: ExecuteToolRequest, arguments: Mapping[str, Any], depth: int) -> Place:
        """Where a plain function runs whose tool does not insist on a place.

        Args:
            request: The call; its metadata may ask for the main thread (interop 4.4).
            arguments: Its decoded arguments; they may name a module that needs it.
            depth: How many other calls it is inside of.
        """
        flag = request.metadata.get("thread_sensitive")
        if flag is not None and flag.lower() in _TRUTHY:
            return self.main
        if self._thread_sensitive and self._is_thread_sensitive(arguments):
            return self.main
        return self.at(depth).threads

    def close(self) -> None:
        """End the threads, each after its job.  Does not wait."""
        for level in self._levels:
            level.pool.close()

    def describe(self) -> dict[str, dict[str, int]]:
        """How busy each is, and how many calls wait for it."""
        first = self._levels[0]
        return {
            "coroutines": {
                "size": first.loop.size,
                "running": first.loop.running,
                "waiting": first.loop.waiting,
            },
            "threads": {
                "size": first.threads.lane.size,
                "busy": first.pool.busy,
                "waiting": first.threads.lane.waiting,
                "abandoned": sum(level.pool.abandoned for level in self._levels),
            },
            "main_thread": {"busy": int(self._main.busy), "waiting": self.main.lane.waiting},
        }

    def _level(self, pool: ThreadPool) -> Level:
        flag = "--max-workers"
        lane = Lane("threads", self._size, self._rules, flag=flag, stuck=lambda: pool.abandoned)
        pool.capacity_changed = lambda places: self._resize(lane, places)
        loop = Lane("event loop", self._coroutines, self._rules)
        return Level(loop, Place(pool, lane), pool, partial(executors.run, pool))

    def _is_thread_sensitive(self, arguments: Mapping[str, Any]) -> bool:
        module = next((arguments[key] for key in _MODULE_KEYS if arguments.get(key)), None)
        function = arguments.get("function") or arguments.get("method")
        entries = self._thread_sensitive
        return module in entries or f"{module}.{function}" in entries

    def _resize(self, lane: Lane, places: int) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is admitted any more
            self._event_loop.call_soon_threadsafe(lane.resize, places)
