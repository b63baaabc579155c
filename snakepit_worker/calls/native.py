"""Serving one request with a tool of an `Adapter`."""

from __future__ import annotations

import inspect
from collections import abc
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from snakepit_worker.calls import executors, streams

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from snakepit_worker.calls.encoding import EncodedChunk, EncodedResult, Encoder
    from snakepit_worker.calls.threads import Runner
    from snakepit_worker.tools.registry import Tool

__all__ = ["NativeCall"]


class NativeCall:
    """One request.

    Args:
        tool: The tool.
        arguments: Its validated arguments.
        runner: Where a synchronous tool runs.
    """

    def __init__(self, tool: Tool, arguments: dict[str, Any], runner: Runner) -> None:
        self._tool = tool
        self._function: Callable[[], Any] = partial(tool.function, **arguments)
        self._runner = runner

    async def result(self, encoder: Encoder) -> EncodedResult:
        """Serve a unary call.

        Args:
            encoder: Applied to what the tool returns, where it was made.
        """
        if self._tool.is_async:
            return await encoder.result_on_loop(await self._function())

        def run() -> EncodedResult | Awaitable[Any]:
            value = self._function()
            return value if inspect.isawaitable(value) else encoder.result(value)

        outcome = await executors.run(self._runner, run)
        if isinstance(outcome, tuple):
            return outcome
        return await encoder.result_on_loop(await outcome)

    def stream(self, encoder: Encoder) -> AsyncGenerator[EncodedChunk, None]:
        """Serve a streaming call: the items of what the tool yields or returns.

        Args:
            encoder: Applied to each item, where it was made.
        """
        if not self._tool.streams:
            return self._spread(encoder)
        if self._tool.is_async:
            return _from_async(self._function(), encoder)
        return streams.from_thread(self._function(), self._runner, encoder.chunk)

    async def _spread(self, encoder: Encoder) -> AsyncGenerator[EncodedChunk, None]:
        """The items of what a tool returns that does not stream by itself."""
        if self._tool.is_async:
            value = await self._function()
        else:
            value = await executors.run(self._runner, self._function)
            if inspect.isawaitable(value):
                value = await value
        if isinstance(value, abc.AsyncIterable):
            items = _from_async(value, encoder)
        elif isinstance(value, abc.Iterable) and not streams.is_one_item(value):
            items = streams.from_thread(value, self._runner, encoder.chunk)
        else:
            items = streams.from_thread((value,), self._runner, encoder.chunk)
        async with aclosing(items):
            async for item in items:
                yield item


async def _from_async(
    items: abc.AsyncIterable[Any], encoder: Encoder
) -> AsyncGenerator[EncodedChunk, None]:
    try:
        async for item in items:
            yield await encoder.chunk_on_loop(item)
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()
