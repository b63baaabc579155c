"""Tools that hold the interpreter."""

from __future__ import annotations

from typing import ClassVar

from snakepit_worker import Adapter, CallContext, tool


class Computing(Adapter):
    name: ClassVar[str] = "computing"

    @tool
    def until_cancelled(self, ctx: CallContext) -> int:
        """Compute in Python until nobody waits any more."""
        rounds = 0
        while not ctx.cancelled:
            for _ in range(1_000):
                rounds += 1
        return rounds
