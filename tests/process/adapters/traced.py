"""Tools whose calls are looked at as spans."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from opentelemetry import trace

from snakepit_worker import Adapter, CallContext, tool


class Traced(Adapter):
    """Calls into Elixir, fails, and makes spans of its own."""

    name = "traced"

    @tool
    async def ask(self, value: Any, ctx: CallContext) -> Any:
        """What an Elixir tool answers."""
        return await ctx.elixir.call("echo", {"value": value})

    @tool
    def ask_in_thread(self, value: Any, ctx: CallContext) -> Any:
        """The same from a thread."""
        return ctx.elixir.call_blocking("echo", {"value": value})

    @tool
    def inner(self) -> str:
        """A span inside a thread, as frameworks make them."""
        with trace.get_tracer("framework").start_as_current_span("inside"):
            return format(trace.get_current_span().get_span_context().trace_id, "032x")

    @tool
    def in_batch(self) -> None:
        """Called from another call."""

    @tool
    async def around(self, ctx: CallContext) -> Any:
        """What another tool of this worker answers."""
        return await ctx.call("traced.inner")

    @tool
    def around_in_thread(self, ctx: CallContext) -> Any:
        """The same from a thread."""
        return ctx.call_blocking("traced.inner")

    @tool
    def fail(self) -> None:
        """Fails with a secret."""
        msg = "no luck with Bearer abcdefghijklmnop"
        raise ValueError(msg)

    @tool
    async def count(self, n: int) -> AsyncIterator[int]:
        """A stream."""
        for number in range(n):
            yield number
