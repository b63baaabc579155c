"""Tools that hold locks which others want."""

from __future__ import annotations

import _imp
import logging
import threading
from typing import ClassVar

from snakepit_worker import Adapter, tool
from tests.process.adapters import gate


class Locking(Adapter):
    name: ClassVar[str] = "locking"

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @tool
    def hold(self, label: str) -> None:
        """Hold a lock of our own, that of `logging`, and the one for all imports."""
        with self._lock, logging._lock:  # type: ignore[attr-defined]
            _imp.acquire_lock()
            try:
                gate.wait(label)
            finally:
                _imp.release_lock()

    @tool
    def want(self, label: str) -> None:
        gate.announce(label)
        with self._lock:
            pass
