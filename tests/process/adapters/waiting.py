"""Tools that wait for the test, each in a way of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

from snakepit_worker import Adapter, CallContext, tool
from tests.process.adapters import gate

AN_HOUR = 3600.0


class Waiting(Adapter):
    name: ClassVar[str] = "wait"

    @tool
    async def asynchronous(self, label: str) -> str:
        await gate.wait_async(label)
        return label

    @tool
    def synchronous(self, label: str) -> str:
        gate.wait(label)
        return label

    @tool(main_thread=True)
    def on_main_thread(self, label: str) -> str:
        gate.wait(label)
        return label

    @tool
    async def ask_elixir(self, label: str, ctx: CallContext) -> Any:
        await gate.wait_async(label)
        return await ctx.elixir.call("answer", {"to": label})

    @tool
    def ask_elixir_blocking(self, label: str, ctx: CallContext) -> Any:
        gate.wait(label)
        return ctx.elixir.call_blocking("answer", {"to": label})

    @tool
    async def stream_async(self, label: str) -> AsyncIterator[int]:
        yield 1
        await gate.wait_async(label)
        yield 2

    @tool
    def stream_sync(self, label: str) -> Iterator[int]:
        yield 1
        gate.wait(label)
        yield 2


class Stubborn(Adapter):
    """Tools that do not end, whatever anybody asks for."""

    name: ClassVar[str] = "stubborn"

    @tool
    def sleep(self, label: str) -> None:
        gate.announce(label)
        time.sleep(AN_HOUR)

    @tool
    def spin(self, label: str) -> None:
        gate.announce(label)
        while True:
            pass

    @tool(main_thread=True)
    def sleep_on_main_thread(self, label: str) -> None:
        gate.announce(label)
        time.sleep(AN_HOUR)

    @tool
    async def shrug(self, label: str) -> None:
        gate.announce(label)
        while True:
            try:
                await asyncio.sleep(AN_HOUR)
            except asyncio.CancelledError:
                continue

    @tool
    async def block_the_loop(self, label: str) -> None:
        gate.announce(label)
        time.sleep(AN_HOUR)  # noqa: ASYNC251 - what a careless author would write

    @tool
    async def sleep_in_default_executor(self, label: str) -> None:
        gate.announce(label)
        await asyncio.to_thread(time.sleep, AN_HOUR)

    @tool
    async def leave_a_thread(self, label: str) -> None:
        """Return, and leave a thread behind that the interpreter waits for at its end."""
        threading.Thread(target=time.sleep, args=(AN_HOUR,), daemon=False).start()
        gate.announce(label)

    @tool
    async def keep_what_does_not_close(self, label: str, ctx: CallContext) -> None:
        ctx.session.put("thing", object(), close=lambda: time.sleep(AN_HOUR))
        gate.announce(label)

    @tool
    def until_cancelled(self, label: str, ctx: CallContext) -> None:
        """The only polite one."""
        gate.announce(label)
        while not ctx.cancelled:
            time.sleep(0.005)
        gate.announce(f"{label}-cancelled")
