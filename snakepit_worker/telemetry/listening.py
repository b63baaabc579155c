"""Log lines for whoever follows a call, whatever the log level of the process is.

While somebody listens, the lines of the standard library's loggers from level info up reach the
listener of the code that writes them.  In a program that embeds a worker only those do which the
program's own levels let through.
"""

from __future__ import annotations

import logging
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    Listener = Callable[[str, str, str], object]

__all__ = ["begin_listening", "end_listening", "listener", "tell"]

listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
"""Told of level, logger and text of each line that is written in this context; on any thread."""


def tell(level: int, name: str, text: str) -> None:
    """Tell the listener of this context, if there is one, of a line.

    Args:
        level: As the standard library numbers it.
        name: Of the logger.
        text: The line.
    """
    listen = listener.get()
    if listen is not None and level >= logging.INFO:
        listen(logging.getLevelName(level).lower(), name, text)


class _Handler(logging.Handler):
    """On the root logger while anybody listens."""

    def emit(self, record: logging.LogRecord) -> None:
        if self._is_alone(record.name):
            last_resort = logging.lastResort
            if last_resort is not None and record.levelno >= last_resort.level:
                last_resort.handle(record)
        if listener.get() is None:
            return
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - a bad format string is still a line
            text = str(record.msg)
        tell(record.levelno, record.name, text)

    def _is_alone(self, name: str) -> bool:
        """Whether Python would have used its handler of last resort, were it not for this one."""
        source: logging.Logger | None = logging.getLogger(name)
        while source is not None:
            if any(handler is not self for handler in source.handlers):
                return False
            source = source.parent if source.propagate else None
        return True


class _Attention:
    """The root logger's handler and level, for as long as anybody listens."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handler = _Handler()
        self._listeners = 0
        self._level: int | None = None
        """Of the root logger before, where it was lowered."""

    def begin(self) -> None:
        with self._lock:
            self._listeners += 1
            if self._listeners > 1:
                return
            root = logging.getLogger()
            # Where each handler has a level of its own nobody else is told more than before.
            if root.level > logging.INFO and all(handler.level for handler in root.handlers):
                self._level = root.level
                root.setLevel(logging.INFO)
            root.addHandler(self._handler)

    def end(self) -> None:
        with self._lock:
            self._listeners -= 1
            if self._listeners:
                return
            root = logging.getLogger()
            root.removeHandler(self._handler)
            if self._level is not None:
                root.setLevel(self._level)
                self._level = None


_attention: Final = _Attention()
"""One for all workers of the process, as there is one root logger."""
begin_listening: Final = _attention.begin
end_listening: Final = _attention.end
