"""Items that a thread produces, brought to the event loop in order and in bounded number."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from snakepit_worker.calls.executors import run

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from snakepit_worker.calls.threads import Runner

__all__ = ["from_thread"]

_QUEUE_ITEMS: Final = 100
"""Items between a producing thread and the reply (the reference's bound, interop 4.3)."""


class _Gone(BaseException):
    """Raised in the producing thread when nobody reads any more."""


class _HandOff:
    """A bounded queue from one thread to the event loop, which hands over in batches."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._changed = threading.Condition()
        self._items: deque[Any] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._ended = False
        self._abandoned = False

    def check(self) -> None:
        """Raise `_Gone` when the reader has left."""
        if self._abandoned:
            raise _Gone

    def put(self, item: object) -> None:
        """Hand over one item; waits while the queue is full.

        Raises:
            _Gone: When the reader has left.
        """
        with self._changed:
            while len(self._items) >= _QUEUE_ITEMS and not self._abandoned:
                self._changed.wait()
            if self._abandoned:
                raise _Gone
            self._items.append(item)
            self._wake()

    def end(self) -> None:
        """Say that no item follows."""
        with self._changed:
            self._ended = True
            self._wake()

    def abandon(self) -> None:
        """Say that nobody reads any more; a waiting producer is released."""
        with self._changed:
            self._abandoned = True
            self._items.clear()
            self._changed.notify_all()

    async def batch(self) -> list[Any]:
        """All items that are there, at least one; empty at the end."""
        with self._changed:
            if not self._items and not self._ended:
                self._reader = self._loop.create_future()
            reader = self._reader
        if reader is not None:
            await reader
        with self._changed:
            items = list(self._items)
            self._items.clear()
            self._changed.notify_all()
        return items

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            self._loop.call_soon_threadsafe(_finish, reader)


async def from_thread(iterator: Iterator[Any], runner: Runner) -> AsyncGenerator[Any, None]:
    """The items of a blocking iterator, which one thread pulls from start to end.

    The thread stays at most `_QUEUE_ITEMS` items ahead.  When the reader leaves, the iterator is
    closed by the thread that runs it, at its next item.

    Args:
        iterator: A generator, mostly.
        runner: Where it is pulled.
    """
    hand_off = _HandOff(asyncio.get_running_loop())

    def pull() -> None:
        try:
            while True:  # not `for`: the reader may have left before the first item is made
                hand_off.check()
                hand_off.put(next(iterator))
        except (_Gone, StopIteration):
            pass
        finally:
            try:
                close = getattr(iterator, "close", None)
                if close is not None:
                    close()
            finally:
                hand_off.end()

    pulling = asyncio.ensure_future(run(runner, pull))
    try:
        while items := await hand_off.batch():
            for item in items:
                yield item
        await pulling  # raises what the iterator raised
    finally:
        hand_off.abandon()
        if not pulling.done():
            pulling.cancel()


def _finish(reader: asyncio.Future[None]) -> None:
    if not reader.done():
        reader.set_result(None)
