"""What happened in a job, for pollers: events with growing numbers, as many as fit."""

from __future__ import annotations

import base64
import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["History", "item_fields"]

_OVERHEAD: Final = 100
"""Bytes of an event beside its own fields, in JSON."""


class History:
    """The last events of a job.

    Args:
        max_events: Events kept; beyond it the oldest go.
        max_bytes: Bytes kept.
        clock: Unix seconds.

    Attributes:
        last: Number of the newest event; the first is 1.
        size: Bytes kept, about.
    """

    def __init__(
        self,
        max_events: int = 1_000,
        max_bytes: int = 1024 * 1024,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._clock = clock
        self._events: deque[tuple[dict[str, Any], int]] = deque()
        self.last = 0
        self.size = 0

    def add(self, kind: str, fields: Mapping[str, Any], size: int) -> None:
        """Add an event; one that is larger than a quarter of the room only says how large it was.

        Args:
            kind: What happened: ``progress``, ``log``, ``partial`` or ``state``.
            fields: What else there is to say; JSON values.
            size: Bytes of it, about.
        """
        if size > self._max_bytes // 4:
            fields, size = {"omitted_bytes": size}, 0
        self.last += 1
        size += _OVERHEAD
        event = {"cursor": self.last, "at": self._clock(), "kind": kind, **fields}
        self._events.append((event, size))
        self.size += size
        while len(self._events) > self._max_events or self.size > self._max_bytes:
            self.size -= self._events.popleft()[1]

    def after(self, cursor: int, limit: int) -> tuple[list[dict[str, Any]], int]:
        """The events that follow a number, and how many of them are gone already.

        Args:
            cursor: Number of the last event that the reader knows, 0 for none.
            limit: Events at most.
        """
        gone = self.last - len(self._events)
        begin = max(0, cursor - gone)
        events = [event for event, _ in islice(self._events, begin, begin + limit)]
        return events, max(0, gone - cursor)


def item_fields(data: bytes) -> dict[str, Any]:
    """The payload of a chunk as a field of an event: JSON as it is, other bytes as base64.

    Args:
        data: The payload; none stands for null.
    """
    if not data:
        return {"value": None}
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return {"binary": base64.b64encode(data).decode()}
    return {"value": orjson.Fragment(data)}
