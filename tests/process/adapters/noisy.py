"""An adapter that writes to stdout by every way there is, at every moment of its life."""

from __future__ import annotations

import atexit
import ctypes
import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from snakepit_worker import Adapter, tool

if TYPE_CHECKING:
    from collections.abc import Iterator


def shout(moment: str) -> None:
    print(f"{moment}: print")  # noqa: T201 - printing is the point
    sys.stderr.write(f"{moment}: stderr\n")
    os.write(1, f"{moment}: descriptor\n".encode())
    subprocess.run(["/bin/echo", f"{moment}: child"], check=True)
    ctypes.CDLL(None).puts(f"{moment}: library".encode())
    ctypes.CDLL(None).fflush(None)


shout("import")
atexit.register(shout, "exit")


class Noisy(Adapter):
    name: ClassVar[str] = "noisy"

    @contextmanager
    def lifespan(self) -> Iterator[None]:
        shout("start")
        yield
        shout("stop")

    @tool
    def shout(self) -> None:
        shout("tool")

    @tool
    async def shout_async(self) -> None:
        shout("coroutine")
