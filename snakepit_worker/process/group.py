"""The process group: leading one, and ending what is left in it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

__all__ = ["ProcessGroup"]

_TERM_WAIT: Final = 0.2
"""Seconds that members get between SIGTERM and SIGKILL."""


class ProcessGroup:
    """The group that this process leads, if it does."""

    def __init__(self) -> None:
        self._leads = False

    def lead(self) -> None:
        """Make a session and a group of our own, so that a signal to the group reaches children."""
        with contextlib.suppress(PermissionError):  # we lead a group already
            os.setsid()
        self._leads = os.getpgrp() == os.getpid()

    def end_members(self) -> None:
        """End every other process of the group: SIGTERM, a moment, SIGKILL.

        Does nothing where the group is not ours, but that of whoever started us.
        """
        if not self._leads:
            return
        left = _members(os.getpgrp())
        _signal(left, signal.SIGTERM)
        end = time.monotonic() + _TERM_WAIT
        while left and time.monotonic() < end:
            time.sleep(0.01)
            left = _members(os.getpgrp())
        _signal(left, signal.SIGKILL)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _members(group: int) -> list[int]:
    """Process ids of a group without this process; zombies do not count."""
    me = os.getpid()
    return [
        pid for pid, pgid, state in _processes() if pgid == group and pid != me and state != "Z"
    ]


def _processes() -> list[tuple[int, int, str]]:
    """All processes as (pid, process group, state)."""
    if sys.platform != "linux":
        text = subprocess.run(
            ["/bin/ps", "-axo", "pid=,pgid=,state="], capture_output=True, text=True, check=False
        ).stdout
        rows = [line.split() for line in text.splitlines()]
        return [(int(pid), int(pgid), state[0]) for pid, pgid, state in rows]
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:  # it ended meanwhile
            continue
        state, _parent, pgid = stat.rpartition(")")[2].split()[:3]  # the name may hold anything
        found.append((int(entry.name), int(pgid), state))
    return found
