from __future__ import annotations

from snakepit_bridge.base_adapter import BaseAdapter, tool


class TemplateAdapter(BaseAdapter):
    """Only decorated methods, as the generator makes them."""

    @tool(description="Adds")
    def add(self, a: int, b: int = 1) -> int:
        return a + b

    @tool(description="Fails")
    def fail(self) -> None:
        raise LookupError("nothing there")
