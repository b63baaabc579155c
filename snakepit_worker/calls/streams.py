"""Items that are produced elsewhere, brought to the event loop in order and in bounded number."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from snakepit_worker.calls.executors import run

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable

    from snakepit_worker.calls.threads import Runner

    Convert = Callable[[Any], Any]

__all__ = ["HandOff", "from_thread", "is_one_item"]

_QUEUE_ITEMS: Final = 100
"""Items between a producer and the reply (the reference's bound, interop 4.3)."""
_QUEUE_BYTES: Final = 16 * 1024 * 1024
"""Bytes between a producer and the reply; one item may be larger, and then waits alone."""
_BATCH_ITEMS: Final = _QUEUE_ITEMS // 2
"""Items that the reader takes at once; the producer fills up the rest meanwhile."""
_ONE_ITEM: Final = (dict, str, bytes, bytearray, memoryview)
_OF_ONE_ITEM: Final = ("__array__", "model_dump", "to_dict", "_asdict")


def _as_it_is(item: Any) -> Any:  # noqa: ANN401 - any item
    return item


def _size(item: Any) -> int:  # noqa: ANN401 - any item
    """Bytes of an encoded chunk; of anything else none are known."""
    return len(item[0]) if type(item) is tuple and type(item[0]) is bytes else 0


class _Gone(BaseException):
    """Raised where items are produced when nobody reads any more."""


class HandOff:
    """A bounded queue from a thread, or from another event loop, to this one.

    Args:
        loop: The reader's event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._items: deque[Any] = deque()
        self._bytes = 0
        """Of the items in the queue and of those of the last batch."""
        self._taken = 0
        """Items of the last batch, which the reader may still be at."""
        self._taken_bytes = 0
        self._arrived: asyncio.Future[None] | None = None
        self._space: concurrent.futures.Future[None] | None = None
        self._ended = False
        self._abandoned = False

    def put(self, item: object) -> None:
        """Hand over one item, from a thread; waits while the queue is full.

        Raises:
            _Gone: When the reader has left.
        """
        while (space := self._offer(item)) is not None:
            space.result()

    def pull(self, items: Iterable[Any], convert: Convert = _as_it_is) -> None:
        """Hand over all items of an iterable, from a thread, and close it.

        Stops at its next item when the reader leaves.

        Args:
            items: A generator, mostly.
            convert: Applied to each item, on this thread.
        """
        iterator = items
        try:
            self._check()
            iterator = iter(items)
            while True:  # not `for`: the reader may have left before the first item is made
                self._check()
                try:
                    item = next(iterator)
                except StopIteration:
                    return
                self.put(convert(item))
        except _Gone:
            pass
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    async def drain(self, items: AsyncIterable[Any], convert: Convert = _as_it_is) -> None:
        """Hand over all items of an asynchronous iterable, from another loop, and close it.

        Args:
            items: An asynchronous generator, mostly.
            convert: Applied to each item, on that loop.
        """
        try:
            async for item in items:
                converted = convert(item)
                while (space := self._offer(converted)) is not None:
                    await asyncio.wrap_future(space)
        except _Gone:
            pass
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()

    def end(self) -> None:
        """Say that no item follows."""
        with self._lock:
            self._ended = True
            self._wake_reader()

    def abandon(self) -> None:
        """Say that nobody reads any more; a waiting producer is released."""
        with self._lock:
            self._abandoned = True
            self._items.clear()
            self._bytes = self._taken_bytes = 0
            self._make_space()

    async def batch(self) -> list[Any]:
        """The next items, at least one; empty at the end."""
        with self._lock:
            self._bytes -= self._taken_bytes
            self._taken = self._taken_bytes = 0
            self._make_space()
            if not self._items and not self._ended:
                self._arrived = self._loop.create_future()
            arrived = self._arrived
        if arrived is not None:
            await arrived
        with self._lock:
            self._taken = min(len(self._items), _BATCH_ITEMS)
            taken = [self._items.popleft() for _ in range(self._taken)]
            self._taken_bytes = sum(map(_size, taken))
            return taken

    def _offer(self, item: object) -> concurrent.futures.Future[None] | None:
        """Take an item, or say what to wait for."""
        with self._lock:
            self._check()
            size = _size(item)
            held = len(self._items) + self._taken
            if held >= _QUEUE_ITEMS or (held and self._bytes + size > _QUEUE_BYTES):
                if self._space is None:
                    self._space = concurrent.futures.Future()
                return self._space
            self._items.append(item)
            self._bytes += size
            self._wake_reader()
            return None

    def _check(self) -> None:
        if self._abandoned:
            raise _Gone

    def _wake_reader(self) -> None:
        arrived, self._arrived = self._arrived, None
        if arrived is not None:
            self._loop.call_soon_threadsafe(_finish, arrived)

    def _make_space(self) -> None:
        space, self._space = self._space, None
        if space is not None:
            space.set_result(None)


async def from_thread(
    items: Iterable[Any], runner: Runner, convert: Convert = _as_it_is
) -> AsyncGenerator[Any, None]:
    """The items of a blocking iterable, which one thread pulls from start to end.

    The thread stays at most `_QUEUE_ITEMS` items ahead.  When the reader leaves, the iterator is
    closed by the thread that runs it, at its next item.

    Args:
        items: A generator, mostly.
        runner: Where it is pulled.
        convert: Applied to each item, on that thread.
    """
    hand_off = HandOff(asyncio.get_running_loop())

    failures: list[BaseException] = []

    def pull() -> None:
        try:
            hand_off.pull(items, convert)
        except BaseException as error:  # noqa: BLE001 - raised to the reader, not in a task
            failures.append(error)
        finally:
            hand_off.end()

    pulling = asyncio.ensure_future(run(runner, pull))
    try:
        while batch := await hand_off.batch():
            for item in batch:
                yield item
        await pulling
        if failures:
            raise failures.pop()
    finally:
        hand_off.abandon()
        pulling.cancel()


def is_one_item(value: object) -> bool:
    """Whether an iterable result is one payload rather than a sequence of items.

    Args:
        value: A result; dictionaries, text, bytes, arrays and records are payloads.
    """
    return isinstance(value, _ONE_ITEM) or any(hasattr(value, name) for name in _OF_ONE_ITEM)


def _finish(arrived: asyncio.Future[None]) -> None:
    if not arrived.done():
        arrived.set_result(None)
