"""Deadlines: points in time that are passed down, instead of durations that add up."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["NEVER", "Deadline", "current"]


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point on the monotonic clock, or none.

    Attributes:
        at: Seconds on ``time.monotonic()``, or ``None`` for no limit.
    """

    at: float | None = None

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """The deadline that is this many seconds away, ``None`` for no limit."""
        return NEVER if seconds is None else cls(time.monotonic() + seconds)

    def remaining(self) -> float | None:
        """Seconds left, never below zero, or ``None`` without a limit."""
        return None if self.at is None else max(0.0, self.at - time.monotonic())

    def bound(self, seconds: float) -> float:
        """The shorter of ``seconds`` and what is left."""
        return seconds if self.at is None else max(0.0, min(seconds, self.at - time.monotonic()))

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self.at is not None and time.monotonic() >= self.at


NEVER = Deadline()

current: ContextVar[Deadline] = ContextVar("deadline", default=NEVER)
"""When the caller of the running code stops waiting; what waits on its behalf looks here."""
