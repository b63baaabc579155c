"""Tools that start processes and forget them."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
from typing import ClassVar

from snakepit_worker import Adapter, tool
from tests.process.adapters import gate

_CHILD = """
import os, signal, time
from tests.process.adapters import gate
{before}
gate.announce("child", os.getpid())
time.sleep(3600)
"""
PLAIN = _CHILD.format(before="")
DEAF = _CHILD.format(before="signal.signal(signal.SIGTERM, signal.SIG_IGN)")
GRANDCHILD = _CHILD.format(before="os.fork() and os._exit(0)")
BACKTALKING = _CHILD.format(
    before="""
def answer(*_):
    for _ in range(3):
        os.kill(os.getppid(), signal.SIGTERM)
    gate.wait("answered")
    os._exit(0)
signal.signal(signal.SIGTERM, answer)
"""
)


def start(code: str) -> int:
    return subprocess.Popen([sys.executable, "-c", code]).pid


class Children(Adapter):
    name: ClassVar[str] = "children"

    @tool
    def plain(self) -> int:
        return start(PLAIN)

    @tool
    def deaf(self) -> int:
        return start(DEAF)

    @tool
    def grandchild(self) -> int:
        return start(GRANDCHILD)

    @tool
    def backtalking(self) -> int:
        return start(BACKTALKING)

    @tool
    def wait_for_a_child(self) -> int:
        return subprocess.run([sys.executable, "-c", PLAIN], check=False).returncode

    @tool
    def terminate_a_fork(self) -> int | None:
        """What multiprocessing does with the members of a pool."""
        forked = multiprocessing.get_context("fork").Process(target=gate.wait, args=("fork",))
        forked.start()
        gate.wait("forked")
        forked.terminate()
        forked.join()
        return forked.exitcode

    @tool
    def keep_a_fork(self) -> None:
        multiprocessing.get_context("fork").Process(target=gate.wait, args=("fork",)).start()

    @tool
    def print_in_a_fork(self, text: str) -> int | None:
        forked = multiprocessing.get_context("fork").Process(target=print, args=(text,))
        forked.start()
        forked.join()
        return forked.exitcode

    @tool
    def fork_often(self, times: int) -> list[int | None]:
        """Fork, with a thread in each child; how the children ended."""
        codes = []
        for _ in range(times):
            forked = multiprocessing.get_context("fork").Process(target=_start_a_thread)
            forked.start()
            forked.join()
            codes.append(forked.exitcode)
        return codes


def _start_a_thread() -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
