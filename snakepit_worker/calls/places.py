"""What calls run on: the event loop, threads, or the main thread, each with its lane."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from snakepit_worker.calls.admission import Lane, WaitingRules

if TYPE_CHECKING:
    from snakepit_worker.calls.threads import MainThread, Runner, ThreadPool

__all__ = ["Place", "Places"]


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
    """

    def __init__(
        self,
        threads: ThreadPool,
        main: MainThread,
        size: int,
        coroutines: int,
        rules: WaitingRules,
    ) -> None:
        self._event_loop = asyncio.get_running_loop()
        self._threads = threads
        self._main = main
        self.rules = rules
        self.loop = Lane("event loop", coroutines, rules)
        self.threads = Place(threads, Lane("threads", size, rules))
        self.main = Place(main, Lane("main thread", 1, rules))
        threads.capacity_changed = lambda places: self._resize(self.threads.lane, places)
        main.capacity_changed = lambda places: self._resize(self.main.lane, places)

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

    def _resize(self, lane: Lane, places: int) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is admitted any more
            self._event_loop.call_soon_threadsafe(lane.resize, places)
