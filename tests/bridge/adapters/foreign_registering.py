"""Adapters that have something to register with the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

from snakepit_worker import Adapter, tool
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb


class Foreign:
    """Registers by itself, as Snakepit's base class does."""

    names = ("ping", "count", "_hidden", "has space", "x" * 65, "")

    def set_session_context(self, session_context: Any) -> None:
        self.session_context = session_context

    def register_with_session(self, session_id: str, stub: Any) -> list[str]:
        tools = [
            pb.ToolRegistration(name=name, supports_streaming=name == "count")
            for name in self.names
        ]
        request = pb.RegisterToolsRequest(
            session_id=session_id, tools=tools, worker_id=f"python-{id(self)}"
        )
        response = stub.RegisterTools(request)
        return list(response.tool_ids) if response.success else []

    def execute_tool(self, tool_name: str, arguments: dict[str, Any], context: Any) -> Any:
        if tool_name == "count":
            return iter(range(3))
        return [tool_name, arguments, context.session_id]


class Broken(Foreign):
    """Cannot say which tools it has."""

    def register_with_session(self, session_id: str, stub: Any) -> NoReturn:
        del session_id, stub
        raise TypeError("a default that is not JSON")


class Native(Adapter):
    """Registered by the worker."""

    name = "native"

    @tool
    def double(self, n: int, by: float = 2.0, note: str | None = None) -> float:
        """Twice as much."""
        del note
        return n * by

    @tool
    def count(self, to: int) -> Iterator[int]:
        yield from range(to)
