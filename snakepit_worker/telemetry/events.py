"""Events for the host's telemetry: buffered, filtered, sampled, never in the way.

The names and measurement keys are those that the host accepts (interop 7.6).
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import deque
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, NamedTuple

from snakepit_worker.wire.generated.snakepit_bridge_pb2 import TelemetryEvent
from snakepit_worker.wire.json_text import valid_text
from snakepit_worker.wire.redaction import REDACTED, is_secret, redact

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

    from snakepit_worker.wire.generated.snakepit_bridge_pb2 import TelemetryControl

__all__ = ["Events"]

_INT64: Final = 2**63
_BUFFERED: Final = 1024
"""Events kept while nobody reads (interop 7.4); what comes on top is dropped and counted."""


class _Event(NamedTuple):
    name: str
    measurements: Mapping[str, object]
    metadata: Mapping[str, object]
    correlation_id: str
    timestamp_ns: int


class Events:
    """The worker's event buffer and its one reader.

    Args:
        chance: Uniform random numbers in [0, 1), for sampling.
    """

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._lock = threading.Lock()
        self._buffer: deque[_Event] = deque()
        self._enabled = True
        self._rate = 1.0
        self._sampled: Sequence[str] = ()
        self._allow: Sequence[str] = ()
        self._deny: Sequence[str] = ()
        self._reader: object | None = None
        self._wake: Callable[[], None] | None = None
        self._closed = False
        self.dropped = 0

    def emit(
        self,
        name: str,
        measurements: Mapping[str, object],
        metadata: Mapping[str, object] | None = None,
        correlation_id: str = "",
    ) -> None:
        """Add an event.  Never blocks; may be called from any thread.

        Args:
            name: Dotted name, such as ``tool.execution.stop``.
            measurements: Numbers by key; durations in nanoseconds.
            metadata: Context; sent as text.
            correlation_id: The call that it belongs to.
        """
        if not self._wanted(name):
            return
        with self._lock:
            if len(self._buffer) >= _BUFFERED:
                self.dropped += 1
                return
            self._buffer.append(
                _Event(name, measurements, metadata or {}, correlation_id, time.time_ns())
            )
            wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def control(self, message: TelemetryControl) -> None:
        """Apply a control message of the host to the events that follow.

        Args:
            message: Toggle, sampling (to the named patterns, or to all) or filter.
        """
        kind = message.WhichOneof("control")
        if kind == "toggle":
            self._enabled = message.toggle.enabled
        elif kind == "sampling":
            self._rate = min(1.0, max(0.0, message.sampling.sampling_rate))
            self._sampled = tuple(message.sampling.event_patterns)
        elif kind == "filter":
            self._allow = tuple(message.filter.allow)
            self._deny = tuple(message.filter.deny)

    async def read(self) -> AsyncGenerator[TelemetryEvent, None]:
        """The events, beginning with those that were buffered, until the reader leaves.

        There is one reader: a new one takes over from the one before, whose iteration ends.
        """
        loop = asyncio.get_running_loop()
        me = object()
        with self._lock:
            self._reader = me
            former, self._wake = self._wake, None
        if former is not None:
            former()
        while True:
            arrived: asyncio.Future[None] | None = None
            with self._lock:
                if self._reader is not me:
                    return
                event = self._buffer.popleft() if self._buffer else None
                if event is None:
                    if self._closed:
                        return
                    arrived = loop.create_future()
                    self._wake = _waker(loop, arrived)
            if event is not None:
                yield _message(event)
            elif arrived is not None:
                await arrived

    def close(self) -> None:
        """End the reader's iteration, after what is buffered."""
        with self._lock:
            self._closed = True
            wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def _wanted(self, name: str) -> bool:
        if not self._enabled:
            return False
        sampled = self._rate < 1.0 and (not self._sampled or _matches(name, self._sampled))
        if sampled and self._chance() >= self._rate:
            return False
        if self._deny and _matches(name, self._deny):
            return False
        return not self._allow or _matches(name, self._allow)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _waker(loop: asyncio.AbstractEventLoop, arrived: asyncio.Future[None]) -> Callable[[], None]:
    def arrive() -> None:
        if not arrived.done():
            arrived.set_result(None)

    def wake() -> None:
        with suppress(RuntimeError):  # the reader's loop is closed
            loop.call_soon_threadsafe(arrive)

    return wake


def _message(event: _Event) -> TelemetryEvent:
    message = TelemetryEvent(
        event_parts=valid_text(event.name).split("."),
        timestamp_ns=event.timestamp_ns,
        correlation_id=valid_text(event.correlation_id),
    )
    for key, value in event.measurements.items():
        measurement = message.measurements[valid_text(key)]
        if isinstance(value, int) and -_INT64 <= value < _INT64:  # booleans too
            measurement.int_value = int(value)
        elif isinstance(value, float):
            measurement.float_value = value
        else:
            measurement.string_value = redact(valid_text(value))
    for key, value in event.metadata.items():
        name = valid_text(key)
        message.metadata[name] = REDACTED if is_secret(name) else redact(valid_text(value))
    return message
