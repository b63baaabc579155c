"""A smaller slice of the interpreter for each, while several threads want it.

The event loop's thread competes for the interpreter with every tool that computes in Python.  It
waits for one switch interval (5 ms by default) for every thread that is given its turn before, at
each of the few times that it has to ask during an RPC: with twenty such tools a heartbeat took
0.6 s in the middle and 1.6 s at worst.  With a tenth of the interval it takes 0.07 and 0.2 s.
"""

from __future__ import annotations

import sys
import threading
from typing import Final

__all__ = ["InterpreterShare"]

_INTERVAL: Final = 0.000_5
"""Seconds.  A switch costs a few microseconds, so that this is about a hundredth of the work."""
_SEVERAL: Final = 2


class InterpreterShare:
    """Counts the threads that run tools, and sets the interpreter's switch interval by it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._usual = 0.0

    def begin(self) -> None:
        """One thread more runs a tool."""
        with self._lock:
            self._running += 1
            if self._running == _SEVERAL:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(min(self._usual, _INTERVAL))

    def end(self) -> None:
        """One thread less."""
        with self._lock:
            self._running -= 1
            if self._running == _SEVERAL - 1:
                sys.setswitchinterval(self._usual)
