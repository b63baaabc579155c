"""Threads for synchronous tools: a bounded pool, and the process's main thread.

The standard library's pool would do but for three things that tools need: its threads keep the
process alive, a single caller's calls wander from thread to thread (libraries such as DSPy bind
settings to one), and nothing tells how many threads are stuck in abandoned calls.
"""

from __future__ import annotations

import heapq
import queue
import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

from snakepit_worker.telemetry.logging import logger

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Job", "MainThread", "Runner", "ThreadPool"]


class Job(NamedTuple):
    """Work for a thread.

    Attributes:
        work: What to run; must not raise.
        finished: Called on the same thread once that is free for the next job.  Whoever is told
            that the work is done and hands over more finds the same thread again.
    """

    work: Callable[[], None]
    finished: Callable[[], None]


class Runner(Protocol):
    """Something that runs jobs elsewhere."""

    def submit(self, job: Job) -> None:
        """Run ``job`` soon."""


class ThreadPool:
    """Daemon threads, started when needed, the one longest known used first.

    Args:
        size: Threads at most; further jobs wait in order.
        name: Prefix of the threads' names.
    """

    def __init__(self, size: int, name: str = "tool") -> None:
        self._size = size
        self._name = name
        self._lock = threading.Lock()
        self._inboxes: list[queue.SimpleQueue[Job | None]] = []
        self._idle: list[int] = []
        """Indices of idle threads, as a heap: calls that come one at a time stay on thread 0."""
        self._waiting: deque[Job] = deque()
        self._closed = False

    @property
    def busy(self) -> int:
        """Threads that run a job now."""
        with self._lock:
            return len(self._inboxes) - len(self._idle)

    @property
    def waiting(self) -> int:
        """Jobs that wait for a thread."""
        with self._lock:
            return len(self._waiting)

    def submit(self, job: Job) -> None:
        """Run a job on an idle thread, or queue it.

        Raises:
            RuntimeError: After ``close``.
        """
        with self._lock:
            if self._closed:
                msg = "the thread pool is closed"
                raise RuntimeError(msg)
            if self._idle:
                self._inboxes[heapq.heappop(self._idle)].put(job)
            elif len(self._inboxes) < self._size:
                index = len(self._inboxes)
                inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
                inbox.put(job)
                self._inboxes.append(inbox)
                threading.Thread(
                    target=self._run, args=(index,), name=f"{self._name}-{index}", daemon=True
                ).start()
            else:
                self._waiting.append(job)

    def close(self) -> None:
        """End the threads that are idle, and the others after their job.  Does not wait."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            for inbox in self._inboxes:
                inbox.put(None)

    def _run(self, index: int) -> None:
        inbox = self._inboxes[index]
        while (job := inbox.get()) is not None:
            following: Job | None = job
            while following is not None:
                job = following
                job.work()
                following = self._next(index)
                job.finished()
            del job  # it holds arguments and results; an idle thread must not

    def _next(self, index: int) -> Job | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            heapq.heappush(self._idle, index)
            return None


class MainThread:
    """Jobs for the process's main thread, or for a thread that stands in for it.

    Args:
        after_each: Called after each job, to put back what a library may have changed (signal
            handlers, for one).
    """

    def __init__(self, after_each: Callable[[], None] = lambda: None) -> None:
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._after_each = after_each
        self.busy = False

    def submit(self, job: Job) -> None:
        """Run a job after those submitted before it."""
        self._inbox.put(job)

    def run(self) -> None:
        """Run jobs on the calling thread until ``close``."""
        while (job := self._inbox.get()) is not None:
            self.busy = True
            try:
                job.work()
            finally:
                self.busy = False
                self._put_back()
            job.finished()
            del job

    def _put_back(self) -> None:
        try:
            self._after_each()
        except Exception:  # noqa: BLE001 - a tool may have broken what is put back
            logger().exception("the main thread could not be put in order after a tool")

    def close(self) -> None:
        """Let ``run`` return after the jobs submitted so far."""
        self._inbox.put(None)
