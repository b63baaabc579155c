"""What waits for the archive's thread, in order and bounded."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from snakepit_worker.errors import ResourceExhausted, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from snakepit_worker.archive.database import Archive
    from snakepit_worker.archive.model import Written
    from snakepit_worker.archive.records import PackedChange

__all__ = ["Question", "Task", "WaitingLine", "Write"]

_MOST_WRITES: Final = 1_000
_MOST_BYTES: Final = 32 << 20
"""What one transaction takes at most, so that the lease can be renewed in between."""
_RETRY_AFTER: Final = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Write:
    """A change that is to be written.

    Attributes:
        future: Learns how it went; ``None`` where nobody waits for that.
    """

    change: PackedChange
    future: Future[Written] | None

    @property
    def bytes(self) -> int:
        """What it counts against the limit."""
        return self.change.bytes


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """Something that is to be asked of the archive."""

    ask: Callable[[Archive], Any]
    future: Future[Any]
    bytes: int = 0


Task: TypeAlias = "Write | Question"


def _is_awaited(task: Task) -> bool:
    return isinstance(task, Question) or task.future is not None


class WaitingLine:
    """A queue whose reader takes all writes that have come, up to the next question.

    Args:
        max_tasks: Tasks that may wait.
        max_bytes: Bytes that may wait.
        linger: Seconds that writes are left to gather, while nobody waits for an answer.
    """

    def __init__(self, max_tasks: int, max_bytes: int, linger: float) -> None:
        self._max_tasks = max_tasks
        self._max_bytes = max_bytes
        self._linger = linger
        self._tasks: deque[Task] = deque()
        self._bytes = 0
        self._awaited = 0
        self._closed_until: float | None = None
        self._changed = threading.Condition()
        self._closing = threading.Event()

    @property
    def closed_until(self) -> float | None:
        """When what is left has to be given up, on the monotonic clock, once it is closed."""
        return self._closed_until

    def put(self, task: Task) -> None:
        """Add a task; never blocks.

        Raises:
            ResourceExhausted: When too much waits.
            Unavailable: When the line is closed.
        """
        with self._changed:
            if self._closed_until is not None:
                raise Unavailable("the archive is closing")
            # A question takes no room, and the first write any.
            too_large = task.bytes and self._bytes and self._bytes + task.bytes > self._max_bytes
            if too_large or len(self._tasks) >= self._max_tasks:
                raise ResourceExhausted(
                    "too much waits to be written to the archive",
                    retry_after=_RETRY_AFTER,
                    details={
                        "waiting": len(self._tasks),
                        "max_waiting": self._max_tasks,
                        "waiting_bytes": self._bytes,
                        "max_waiting_bytes": self._max_bytes,
                    },
                )
            self._tasks.append(task)
            self._bytes += task.bytes
            self._awaited += _is_awaited(task)
            self._changed.notify_all()

    def take(self, until: float) -> list[Write] | Question | None:
        """Wait for the next question, or the writes before it.

        Args:
            until: When to stop waiting, on the monotonic clock.

        Returns:
            ``None`` when nothing came, or the line is closed and empty.
        """
        with self._changed:
            self._wait(lambda: bool(self._tasks), until)
            if self._linger and self._tasks:
                self._wait(self._is_pressing, time.monotonic() + self._linger)
            if not self._tasks:
                return None
            if isinstance(first := self._tasks[0], Question):
                self._pop()
                return first
            writes: list[Write] = []
            taken = 0
            while self._tasks and len(writes) < _MOST_WRITES:
                task = self._tasks[0]
                if isinstance(task, Question) or (writes and taken + task.bytes > _MOST_BYTES):
                    break
                taken += task.bytes
                writes.append(task)
                self._pop()
            return writes

    def take_all(self) -> list[Task]:
        """Everything that waits."""
        with self._changed:
            tasks = list(self._tasks)
            self._tasks.clear()
            self._bytes = self._awaited = 0
            return tasks

    def pause(self, seconds: float) -> None:
        """Wait a while, or until the line is closed."""
        if self._closing.is_set():
            time.sleep(seconds)
        else:
            self._closing.wait(seconds)

    def close(self, until: float) -> None:
        """Take nothing more.

        Args:
            until: When what is left has to be given up, on the monotonic clock.
        """
        with self._changed:
            self._closed_until = until
            self._closing.set()
            self._changed.notify_all()

    def _is_pressing(self) -> bool:
        return self._awaited > 0 or self._bytes > _MOST_BYTES or len(self._tasks) > _MOST_WRITES

    def _pop(self) -> None:
        task = self._tasks.popleft()
        self._bytes -= task.bytes
        self._awaited -= _is_awaited(task)

    def _wait(self, ready: Callable[[], bool], until: float) -> None:
        while not ready() and self._closed_until is None:
            left = until - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)
