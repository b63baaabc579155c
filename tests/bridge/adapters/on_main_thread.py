"""Tools for the main thread, for a worker in a process of its own."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

from snakepit_worker import Adapter, CallContext, tool

_released = threading.Event()


class OnMainThread(Adapter):
    name = "main"

    @tool(main_thread=True)
    def marked(self) -> dict[str, Any]:
        return _here()

    @tool
    def plain(
        self,
        library: str = "",
        python_module: str = "",
        module_path: str = "",
        function: str = "",
        method: str = "",
    ) -> dict[str, Any]:
        del library, python_module, module_path, function, method
        return _here()

    @tool
    async def coroutine(self) -> dict[str, Any]:
        return _here()

    @tool(main_thread=True)
    def stream_marked(self) -> Iterator[dict[str, Any]]:
        yield _here()
        yield _here()

    @tool
    def stream_plain(self) -> Iterator[dict[str, Any]]:
        yield _here()

    @tool(main_thread=True)
    def wait(self, ctx: CallContext) -> str:
        """Hold the main thread until `release`, or until nobody waits any more."""
        while not _released.wait(0.01):
            if ctx.cancelled:
                return "left"
        return "released"

    @tool
    def release(self) -> None:
        _released.set()

    @tool(main_thread=True)
    def change_signals(self) -> str:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.set_wakeup_fd(-1)
        return "changed"

    @tool(main_thread=True)
    def leave(self, how: str) -> NoReturn:
        raise {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}[how](3)


class Leaving(Adapter):
    """Tools that try to end the process."""

    name = "leaving"

    @tool
    def plain(self, how: str) -> NoReturn:
        raise _error(how)

    @tool
    async def coroutine(self, how: str) -> NoReturn:
        raise _error(how)

    @tool
    def generator(self, how: str) -> Iterator[int]:
        yield 1
        raise _error(how)

    @tool
    async def generator_async(self, how: str) -> Any:
        yield 1
        raise _error(how)

    @tool
    def to_dict(self, how: str) -> Any:
        return _Leaving(how)

    @tool
    def text(self, how: str) -> NoReturn:
        raise _LeavingTextError(how)

    @tool
    def closer(self, how: str, ctx: CallContext) -> None:
        def close() -> NoReturn:
            raise _error(how)

        ctx.session.put("leaving.thing", None, close=close)

    @tool
    def surrogates(self) -> NoReturn:
        raise ValueError("\ud800")

    @tool
    def pid(self) -> int:
        return os.getpid()


class _Leaving:
    def __init__(self, how: str) -> None:
        self.how = how

    def to_dict(self) -> NoReturn:
        raise _error(self.how)


class _LeavingTextError(Exception):
    def __str__(self) -> str:
        raise _error(self.args[0])


def _error(how: str) -> BaseException:
    errors: dict[str, type[BaseException]] = {
        "SystemExit": SystemExit,
        "KeyboardInterrupt": KeyboardInterrupt,
    }
    return errors[how](3)


def _here() -> dict[str, Any]:
    return {
        "main": threading.current_thread() is threading.main_thread(),
        "thread": threading.current_thread().name,
        "pid": os.getpid(),
    }
