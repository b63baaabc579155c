"""Counting and ending the calls of language models in a run, from inside of DSPy.

A run cannot be stopped from outside.  DSPy's callbacks see every call, on every thread and in every
task, and what they raise stops the run if it is no ``Exception``.
"""

from __future__ import annotations

import contextvars
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from dspy.utils.callback import BaseCallback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from snakepit_adapters.dspy.swallowed import Errors

__all__ = ["Limits", "Meter", "Reason", "Stopped"]

Reason = Literal["cancelled", "max_calls", "max_seconds", "all_calls_failed"]

_HOPELESS: Final = 20
"""Calls that fail, before any succeeds, after which no further one is tried."""


class Stopped(BaseException):
    """Raised inside of a run to end it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may use.

    Attributes:
        calls: Requests to language models.
        seconds: Time from the start.
    """

    calls: int | None = None
    seconds: float | None = None


class Meter(BaseCallback):  # type: ignore[misc]  # DSPy has no types
    """Counts the calls of language models, and lets none begin once the run is to end.

    Args:
        errors: Where errors are noted.
        limits: What the run may use.

    Attributes:
        errors: Where errors are noted.
        stopped: Why the run was ended, if it was.
        calls: Calls of language models so far.
        answers: What they asked for: some calls ask for several answers, each with a request.
        answered_calls: Calls that were answered.
        failed_calls: Calls that failed.
    """

    def __init__(self, errors: Errors, limits: Limits) -> None:
        self.errors = errors
        self.stopped: Reason | None = None
        self.calls = 0
        self.answers = 0
        self.answered_calls = 0
        self.failed_calls = 0
        self._limits = limits
        self._started = time.monotonic()
        self._context = contextvars.copy_context()
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    def stop(self, reason: Reason) -> None:
        """End the run: from now on no call of a language model begins.

        Args:
            reason: Why; the first one counts.
        """
        with self._lock:
            self.stopped = self.stopped or reason

    def checkpoint(self) -> None:
        """End here if the run is to end.

        Raises:
            Stopped: If so.
        """
        if self._limits.seconds is not None and self.seconds >= self._limits.seconds:
            self.stop("max_seconds")
        if self.stopped is not None:
            raise Stopped(self.stopped)

    def adopt(self) -> None:
        """Give this thread, if DSPy has started it, the context of the call."""
        here = contextvars.copy_context()
        for variable, value in self._context.items():
            if variable not in here:
                variable.set(value)

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:  # noqa: ANN401, D102 - as the base class
        del call_id
        self.adopt()
        self.errors.conceal(*getattr(instance, "secrets", ()))
        self.checkpoint()
        wanted = _answers(instance, inputs)
        with self._lock:
            limit = self._limits.calls
            if limit is None or self.answers + wanted <= limit:
                self.calls += 1
                self.answers += wanted
                return
        self.stop("max_calls")
        self.checkpoint()

    def on_lm_end(  # noqa: D102 - as the base class
        self, call_id: str, outputs: object, exception: BaseException | None = None
    ) -> None:
        del call_id, outputs
        if exception is None:
            with self._lock:
                self.answered_calls += 1
        elif isinstance(exception, Exception):
            self.errors.add(exception, "model")
            with self._lock:
                self.failed_calls += 1
            if self.failed_calls >= _HOPELESS and not self.answered_calls:
                self.stop("all_calls_failed")


def _answers(lm: Any, inputs: Mapping[str, Any]) -> int:  # noqa: ANN401 - DSPy has no types
    """How many answers a call asks for; DSPy sends a request for each."""
    options = inputs.get("kwargs") or {}
    return int(options.get("n") or lm.kwargs.get("n") or 1)
