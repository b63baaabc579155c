from __future__ import annotations

from typing import TYPE_CHECKING, Any

from snakepit_bridge.adapters.showcase.tool import StreamChunk
from snakepit_bridge.base_adapter import BaseAdapter, tool

if TYPE_CHECKING:
    from collections.abc import Iterator


class ShowcaseAdapter(BaseAdapter):
    """Dispatches by name, and keeps its context under one name only."""

    def set_session_context(self, session_context: Any) -> None:
        self.session_context = session_context

    def execute_tool(self, tool_name: str, arguments: dict[str, Any], context: Any) -> Any:
        self.context = context
        return getattr(self, tool_name)(**arguments)

    @tool("Says that it is there")
    def ping(self) -> str:
        return "pong"

    @tool("Answers with everything")
    def echo(self, **arguments: Any) -> dict[str, Any]:
        return {"echoed": arguments, "session": self.session_id}

    @tool(supports_streaming=True)
    def stream_progress(self, steps: int = 3) -> Iterator[StreamChunk]:
        """Counts."""
        for step in range(1, steps + 1):
            yield StreamChunk({"step": step, "total": steps}, is_final=step == steps)
