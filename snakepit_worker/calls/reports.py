"""What a call says of itself while it runs: to the host's telemetry, and to its job."""

from __future__ import annotations

import math
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from snakepit_worker.wire.json_text import valid_text
from snakepit_worker.wire.redaction import redact

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from snakepit_worker.calls.call import Call
    from snakepit_worker.calls.encoding import Encoder
    from snakepit_worker.telemetry.events import Events

__all__ = ["PAUSE", "CallReports", "Throttle"]

PAUSE: Final = 0.2
"""Seconds between two reports of progress that are passed on."""
_EVENT: Final = "tool.result_size"
"""The event of a tool's that the host accepts (interop 7.6) and that does not begin or end one."""
_TEXT_LIMIT: Final = 1_000


class Throttle:
    """Passes on the newest of what it is given, at most once in a while.  Any thread may give.

    Args:
        pause: Seconds between two.
        pass_on: Takes what is passed on.
        later: Calls a function after some seconds.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        pause: float,
        pass_on: Callable[[float | None, str], None],
        later: Callable[[float, Callable[[], None]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pause = pause
        self._pass_on = pass_on
        self._later = later
        self._clock = clock
        self._lock = threading.Lock()
        self._newest: tuple[float | None, str] | None = None
        self._next = -math.inf
        self._closed = False

    def give(self, fraction: float | None, text: str) -> None:
        """Pass this on, now or when it is time, unless something newer comes."""
        with self._lock:
            if self._closed:
                return
            waits = self._newest is not None
            self._newest = fraction, text
            now = self._clock()
            if now >= self._next:
                self._let_out(now)
            elif not waits:
                self._later(self._next - now, self._due)

    def close(self) -> None:
        """Pass on what waits; take nothing more."""
        with self._lock:
            self._closed = True
            self._let_out(self._clock())

    def _due(self) -> None:
        with self._lock:
            self._let_out(self._clock())

    def _let_out(self, now: float) -> None:
        newest, self._newest = self._newest, None
        if newest is not None:
            self._next = now + self._pause
            self._pass_on(*newest)


class CallReports:
    """The reports of one call.

    Args:
        call: The call.
        events: What the host's telemetry stream carries.
        encoder: Applied to partial results, where they are made.
        loop: Where what has to wait does.
    """

    def __init__(
        self, call: Call, events: Events, encoder: Encoder, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._call = call
        self._events = events
        self._encoder = encoder
        self._loop = loop
        self._number = 0
        self._throttle = Throttle(PAUSE, self._tell, self._later)

    def progress(self, fraction: float | None, text: str) -> None:
        """How far the call is.

        Args:
            fraction: From 0 to 1; what is beyond is taken for the nearer end.
            text: What is being done.
        """
        self._throttle.give(_fraction(fraction), valid_text(text))

    def partial(self, value: object) -> None:
        """A part of the result.

        Args:
            value: As a tool may return it.

        Raises:
            SerializationError: When it cannot be encoded.
        """
        if self._call.job is not None:
            data, _, metadata = self._encoder.chunk(value)
            self._call.job.partial(data, metadata)

    def close(self) -> None:
        """The call is over."""
        self._throttle.close()

    def _later(self, seconds: float, function: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is told
            self._loop.call_soon_threadsafe(self._loop.call_later, seconds, function)

    def _tell(self, fraction: float | None, said: str) -> None:
        text = redact(said, _TEXT_LIMIT)
        self._number += 1
        measurements = {"sequence_number": self._number, "message_size": len(text.encode())}
        metadata = {**self._call.event_metadata(), "operation": "progress", "text": text}
        if fraction is not None:
            metadata["fraction"] = round(fraction, 4)  # as text without an exponent
        if self._call.job is not None:
            metadata["job"] = self._call.job.handle
            self._call.job.progress(fraction, text)
        self._events.emit(_EVENT, measurements, metadata, self._call.correlation_id)


def _fraction(given: float | None) -> float | None:
    if given is None or math.isnan(given):
        return None
    return min(max(float(given), 0.0), 1.0)
