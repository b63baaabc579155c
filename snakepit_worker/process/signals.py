"""Signals, read by a thread of their own.

Python runs signal handlers on the main thread, between two bytecodes: never while that thread sits
in a C call, such as the import of a large extension or a tool that needs the main thread.  So the
interpreter writes each signal's number to a pipe (``set_wakeup_fd``), and a thread reads it.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Signals"]

# Bound now: a tool may replace them in the module.
_set_handler, _set_wakeup_fd = signal.signal, signal.set_wakeup_fd
_HANDLED: Final = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Calls a function, on a thread of its own, for each SIGTERM and SIGINT.

    To be used on the main thread.

    Args:
        received: Called with the signal's number.
    """

    def __init__(self, received: Callable[[int], None]) -> None:
        self._received = received
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self.install()
        os.register_at_fork(after_in_child=_forget)
        threading.Thread(target=self._read, name="signals", daemon=True).start()

    def install(self) -> None:
        """Set the handlers and the pipe, also after a library has set its own."""
        for number in _HANDLED:
            _set_handler(number, _noted)
        _set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def _read(self) -> None:
        while data := os.read(self._reader, 64):
            for number in data:
                if number in _HANDLED:
                    self._received(number)


def _forget() -> None:
    """A forked child takes signals for itself, and must not write them into our pipe."""
    _set_wakeup_fd(-1)
    for number in _HANDLED:
        _set_handler(number, signal.SIG_DFL)


def _noted(_number: int, _frame: object) -> None:
    """The interpreter has written the number to the pipe already."""
