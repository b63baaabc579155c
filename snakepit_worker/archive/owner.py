"""Who holds a session: one process of one machine, and whether it is known to have ended."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

__all__ = ["Owner"]

_PROC: Final = Path("/proc")
_DEAD: Final = "ZX"
"""States of a process that has ended, but that its parent has not asked about yet."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A worker process, as others see it.

    Attributes:
        worker_id: The host's name for the worker.
        host: Name of the machine, or of the container.
        machine: The machine since its last start, and the space in which its process ids count;
            empty where the platform does not tell.
        pid: Process id.
        started: When the process started, in clock ticks since the machine's start.
        address: Where the worker listens, empty where nobody else can reach it.
    """

    worker_id: str
    host: str
    machine: str
    pid: int
    started: int
    address: str = ""

    @classmethod
    def here(cls, worker_id: str, address: str = "") -> Owner:
        """This process.

        Args:
            worker_id: The host's name for the worker.
            address: Where it listens.
        """
        pid = os.getpid()
        _state, started = _look_up(pid) or ("", 0)
        return cls(worker_id, socket.gethostname(), _machine(), pid, started, address)

    def has_ended(self) -> bool:
        """Whether the process is known to have ended; false where that cannot be told from here."""
        if not self.machine or self.machine != _machine():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # somebody else's, which is there
            pass
        found = _look_up(self.pid)
        if found is None:  # hidden, or gone this moment: the lease decides
            return False
        state, started = found
        return state in _DEAD or started != self.started


def _look_up(pid: int) -> tuple[str, int] | None:
    """State and start of a process."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name may hold anything
    return fields[0], int(fields[19])


@cache
def _machine() -> str:
    """Where process ids mean the same as here: containers on one machine count their own."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""
