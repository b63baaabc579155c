"""How the C library treats memory that has been freed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from typing import Final

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT_BYTES: Final = 64 << 20
_LARGEST_FROM_HEAP: Final = 32 << 20


def keep_freed_memory() -> None:
    """Let glibc keep the buffers of large messages for the next ones.

    By default it gives them back to the kernel after each call, whose next buffer then costs a
    page fault for every 4 KiB: an 8 MiB parameter takes nearly four times the CPU.  Does nothing
    with another C library, or where the operator has set ``MALLOC_*`` variables.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_FROM_HEAP)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
