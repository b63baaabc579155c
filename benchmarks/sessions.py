"""Sessions in great numbers: what one of them costs to create, to use and to end.

A process of its own, told over stdin how many sessions to have at once; its memory is that of the
sessions and little else::

    python -m benchmarks.sessions
"""

from __future__ import annotations

import ctypes
import gc
import random
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import psutil

from snakepit_worker.process.memory import keep_freed_memory
from snakepit_worker.sessions import Limits, SessionStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from snakepit_worker.sessions import Recipe

__all__ = ["SIZES", "measure"]

SIZES: Final = (100, 300, 1000, 3000, 10_000)
"""Numbers of sessions, from few to as many as a worker has by default."""

_RESOURCES: Final = 10
"""Small values that each session holds."""
_BYTES: Final = 24
"""Size of such a value, as JSON."""
_AT_LEAST: Final = 2000
"""Sessions that are measured at a time; a hundred alone would be over too soon."""


def measure(sessions: int, at_least: int = _AT_LEAST) -> dict[str, float]:
    """Create sessions, touch each, and let all expire; twice, the second time the hard way.

    To touch one is to enter it, to lease one of its resources, and to leave it.  First they are
    used, and so expire, in the order of creation, while garbage collection pauses: what it costs to
    walk through all objects of a process is not the store's doing.  The hard way is with garbage
    collection, and in an order that has nothing to do with where they lie in memory.

    Args:
        sessions: How many there are at once.
        at_least: All is repeated until so many have lived in each order.

    Returns:
        ``create``, ``touch``, ``expire``: processor time for one session in microseconds, and with
        ``_hard`` at the end the same the hard way.  ``alive``, ``left``, ``trimmed``: resident MiB
        with all of them, without any, and then without what only the allocators keep.
        ``sessions``, as given.
    """
    ids = [f"session_{number}_1795334162543942" for number in range(sessions)]
    mixed = random.Random(sessions).sample(ids, sessions)  # noqa: S311 - the same in every round
    repeats = -(-at_least // sessions)
    cpu: Counter[str] = Counter()
    for _ in range(repeats):
        gc.disable()
        _live(cpu, ids, ids, "")
        gc.enable()
        alive = _live(cpu, ids, mixed, "_hard")
    costs = {name: spent / repeats / sessions / 1e3 for name, spent in cpu.items()}
    left = _resident()
    return costs | {"sessions": sessions, "alive": alive, "left": left, "trimmed": _trimmed()}


def _live(cpu: Counter[str], ids: Sequence[str], order: Sequence[str], suffix: str) -> float:
    """The life of all sessions, touched in some order; resident MiB with all of them."""
    # Without a TTL whatever is idle expires, though not before it is asked to.
    store = SessionStore(Limits(ttl=0.0))
    with _timed(cpu, f"create{suffix}"):
        _create(store, ids)
    with _timed(cpu, f"touch{suffix}"):
        _touch(store, order)
    alive = _resident()
    with _timed(cpu, f"expire{suffix}"):
        ended = store.expire()
    released = sum(session.released.total() for session in ended)
    if released != len(ids) * _RESOURCES:
        raise RuntimeError(f"{released} resources released instead of {len(ids) * _RESOURCES}")
    return alive


def _create(store: SessionStore, ids: Sequence[str]) -> None:
    names = [f"value-{number}" for number in range(_RESOURCES)]
    for session_id in ids:
        session = store.enter(session_id)
        for number, name in enumerate(names):
            value = {"text": name, "n": number}
            recipe = partial(_recipe, value)
            session.put("session.value", value, name=name, recipe=recipe, size=_BYTES)
        store.leave(session)


def _recipe(value: object) -> Recipe:
    return {"value": value}


def _touch(store: SessionStore, ids: Sequence[str]) -> None:
    for session_id in ids:
        session = store.enter(session_id)
        with session.lease("value-3"):
            pass
        store.leave(session)


@contextmanager
def _timed(cpu: Counter[str], name: str) -> Iterator[None]:
    begun = time.thread_time_ns()
    yield
    cpu[name] += time.thread_time_ns() - begun


def _resident() -> float:
    return psutil.Process().memory_info().rss / 2**20


def _trimmed() -> float:
    """Resident MiB without what is free, but kept for later.

    A full collection empties the interpreter's free lists, single objects of which hold on to whole
    MiB; and the C library gives its free pages back.
    """
    gc.collect()
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
    return _resident()


def _take_orders() -> None:
    keep_freed_memory()  # as the worker does
    # The first ones leave the allocators' blocks in another order, and fuller or emptier, for good.
    start = measure(SIZES[-1])["trimmed"]
    for line in sys.stdin:
        sample = measure(int(line)) | {"start": start}
        sys.stdout.buffer.write(msgspec.json.encode(sample) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _take_orders()
