"""Ending blocking runs whose caller has gone.

A thread cannot be stopped from outside.  What a callback of DSPy raises stops the run at its next
call of a language model, if it is no ``Exception``, which many of DSPy's modules swallow.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import dspy
from dspy.utils.callback import BaseCallback

from snakepit_worker.errors import Cancelled, DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from snakepit_worker.tools.context import CallContext

__all__ = ["Guard", "awaitable", "guarded"]

_BLOCKING: Final = (dspy.CodeAct, dspy.RLM)
"""Modules that run code while they are awaited, which holds up the event loop, or that cannot even
do that, though they have the method."""


class _Stopped(BaseException):
    """Raised inside of a run to end it."""


class Guard(BaseCallback):  # type: ignore[misc]  # DSPy has no types
    """Lets no call of a language model begin once nobody waits for the answer.

    Args:
        call: The call that is served; ``None`` guards nothing.
    """

    def __init__(self, call: CallContext | None) -> None:
        self._call = call

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:  # noqa: ANN401, D102 - as the base class
        del call_id, instance, inputs
        if self._call is not None and not _on_event_loop():  # where the task itself is cancelled
            try:
                self._call.checkpoint()
            except (Cancelled, DeadlineExceeded) as error:
                raise _Stopped from error


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def guarded(function: Callable[..., Any], **arguments: Any) -> Any:  # noqa: ANN401 - any function
    """Call a blocking function that a `Guard`, among DSPy's callbacks, can stop.

    There is no stream in it: DSPy can send to one only from threads of its own.

    Args:
        function: The function.
        **arguments: Its arguments.

    Raises:
        WorkerError: When nobody waits any more.
    """
    try:
        with dspy.context(send_stream=None):
            return function(**arguments)
    except _Stopped as stopped:
        raise stopped.__cause__ or stopped from None


def awaitable(kind: type[Any]) -> bool:
    """Whether modules of a class can be awaited; others only block.

    Args:
        kind: The class.
    """
    return hasattr(kind, "aforward") and not issubclass(kind, _BLOCKING)
