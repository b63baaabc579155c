"""Threads for synchronous tools: a bounded pool, and the process's main thread.

The standard library's pool would do but for four things that tools need: its threads keep the
process alive, a single caller's calls wander from thread to thread (libraries such as DSPy bind
settings to one), nothing tells how many threads are stuck in calls that nobody waits for, and
such threads are not replaced.
"""

from __future__ import annotations

import heapq
import queue
import threading
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from snakepit_worker.calls.interpreter_share import InterpreterShare
from snakepit_worker.telemetry.logging import logger

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Job", "MainThread", "Runner", "ThreadPool"]

_share: Final = InterpreterShare()
"""One for all pools, as there is one interpreter."""


class Job:
    """Work for a thread.

    Args:
        work: What to run; must not raise.
        finished: Called on the same thread once that is free for the next job.  Whoever is told
            that the work is done and hands over more finds the same thread again.
    """

    __slots__ = ("abandoned", "begun", "ended", "finished", "work")

    def __init__(self, work: Callable[[], None], finished: Callable[[], None]) -> None:
        self.work = work
        self.finished = finished
        self.begun = False
        self.ended = False
        self.abandoned = False


class Runner(Protocol):
    """Something that runs jobs elsewhere."""

    def submit(self, job: Job) -> None:
        """Run ``job`` soon."""

    def abandon(self, job: Job) -> None:
        """Say that nobody waits for ``job`` any more."""


class ThreadPool:
    """Daemon threads, started when needed, the one longest known used first.

    A thread whose job is abandoned cannot be stopped.  It is replaced, so that others do not wait
    for it, as often as there are threads; beyond that such threads take places away.

    Args:
        size: Threads at most, those that are stuck aside; further jobs wait in order.
        name: Prefix of the threads' names.

    Attributes:
        capacity_changed: Told how many jobs can run at once, whenever that changes; called on any
            thread.
    """

    def __init__(self, size: int, name: str = "tool") -> None:
        self._size = size
        self._name = name
        self.capacity_changed: Callable[[int], None] = lambda _: None
        self._lock = threading.Lock()
        self._inboxes: dict[int, queue.SimpleQueue[Job | None]] = {}
        self._idle: list[int] = []
        """Indices of idle threads, as a heap: calls that come one at a time stay on thread 0."""
        self._waiting: deque[Job] = deque()
        self._closed = False
        self.abandoned = 0
        """Threads that are stuck in a job that nobody waits for."""

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
            elif len(self._inboxes) < self._limit():
                self._start_thread(job)
            else:
                self._waiting.append(job)

    def abandon(self, job: Job) -> None:
        """Say that nobody waits for a job any more.

        It stays where it is: one that runs does so to its end, and its thread counts as stuck.

        Args:
            job: What was submitted.
        """
        with self._lock:
            if not job.begun or job.ended or job.abandoned:
                return
            job.abandoned = True
            self.abandoned += 1
            if self._waiting and len(self._inboxes) < self._limit():
                self._start_thread(self._waiting.popleft())
            capacity = self._capacity()
        self.capacity_changed(capacity)

    def close(self) -> None:
        """End the threads that are idle, and the others after their job.  Does not wait."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            for inbox in self._inboxes.values():
                inbox.put(None)

    def _limit(self) -> int:
        """Threads at most, those included that are stuck."""
        return self._size + min(self.abandoned, self._size)

    def _capacity(self) -> int:
        return self._limit() - self.abandoned

    def _start_thread(self, job: Job) -> None:
        index = next(i for i in range(len(self._inboxes) + 1) if i not in self._inboxes)
        inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        inbox.put(job)
        self._inboxes[index] = inbox
        threading.Thread(
            target=self._run, args=(index, inbox), name=f"{self._name}-{index}", daemon=True
        ).start()

    def _run(self, index: int, inbox: queue.SimpleQueue[Job | None]) -> None:
        while (job := inbox.get()) is not None:
            following: Job | None = job
            while following is not None:
                job = following
                job.begun = True
                _share.begin()
                try:
                    job.work()
                finally:
                    _share.end()
                following, retired = self._next(index, job)
                job.finished()
                if retired:
                    return
            del job  # it holds arguments and results; an idle thread must not

    def _next(self, index: int, job: Job) -> tuple[Job | None, bool]:
        """The next job, and whether this thread is one too many now."""
        with self._lock:
            job.ended = True
            if job.abandoned:
                self.abandoned -= 1
            retired = len(self._inboxes) > self._limit()
            following = None
            if retired:
                del self._inboxes[index]
            elif self._waiting:
                following = self._waiting.popleft()
            else:
                heapq.heappush(self._idle, index)
            capacity = self._capacity()
        if job.abandoned:
            self.capacity_changed(capacity)
        return following, retired


class MainThread:
    """Jobs for the process's main thread, or for a thread that stands in for it.

    Args:
        after_each: Called after each job, to put back what a library may have changed (signal
            handlers, for one).

    Attributes:
        capacity_changed: As for `ThreadPool`: 0 while it is stuck in a job that nobody waits for.
    """

    def __init__(self, after_each: Callable[[], None] = lambda: None) -> None:
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._after_each = after_each
        self._lock = threading.Lock()
        self._current: Job | None = None
        self.capacity_changed: Callable[[int], None] = lambda _: None

    @property
    def busy(self) -> bool:
        """Whether it runs a job now."""
        return self._current is not None

    def submit(self, job: Job) -> None:
        """Run a job after those submitted before it."""
        self._inbox.put(job)

    def abandon(self, job: Job) -> None:
        """Say that nobody waits for a job any more; one that runs does so to its end."""
        with self._lock:
            if job is not self._current or job.abandoned:
                return
            job.abandoned = True
        self.capacity_changed(0)

    def run(self) -> None:
        """Run jobs on the calling thread until ``close``."""
        while (job := self._inbox.get()) is not None:
            with self._lock:
                self._current = job
            _share.begin()
            try:
                job.work()
            finally:
                _share.end()
                with self._lock:
                    self._current = None
                self._put_back()
            if job.abandoned:
                self.capacity_changed(1)
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
