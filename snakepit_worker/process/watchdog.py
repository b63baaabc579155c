"""Noticing that whoever started this process is gone."""

from __future__ import annotations

import os
import select
import stat
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["watch_parent"]

_POLL: Final = 1.0
"""Seconds between looks at the parent's process id."""


def watch_parent(lost: Callable[[str], None]) -> None:
    """Call ``lost`` once when stdin is closed or the parent changes, from a thread of its own.

    The host gives a worker a pipe as stdin and never writes to it: its end means that the BEAM is
    gone.  Any other stdin (a terminal, a file, ``/dev/null``) says nothing and is not read.

    Args:
        lost: Receives the reason.
    """
    stdin = _pipe()
    parent = os.getppid()

    def watch() -> None:
        while True:
            readable, _, _ = select.select([] if stdin is None else [stdin], [], [], _POLL)
            if readable and stdin is not None and not os.read(stdin, 4096):
                lost("stdin was closed")
                return
            if os.getppid() != parent:
                lost("the parent process ended")
                return

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _pipe() -> int | None:
    """Stdin, on a descriptor that children do not inherit, if it is a pipe."""
    try:
        if not stat.S_ISFIFO(os.fstat(0).st_mode):
            return None
    except OSError:  # no stdin at all
        return None
    return os.dup(0)  # close-on-exec, as every descriptor that Python makes
