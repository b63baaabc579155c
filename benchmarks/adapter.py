"""The tools that are benchmarked: as little work as a tool can do."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from snakepit_worker import Adapter, tool

__all__ = ["Bench", "Foreign"]


class Bench(Adapter):
    """Tools that answer with their arguments."""

    name = "bench"

    @tool
    async def echo_async(self, text: str, n: int) -> dict[str, Any]:
        """Answer with the arguments, on the event loop."""
        return {"text": text, "n": n}

    @tool
    def echo_sync(self, text: str, n: int) -> dict[str, Any]:
        """Answer with the arguments, from a thread."""
        return {"text": text, "n": n}

    @tool
    async def count(self, n: int) -> AsyncIterator[dict[str, Any]]:
        """Stream ``n`` small chunks, from the event loop."""
        for index in range(n):
            yield {"token": "word", "index": index}

    @tool
    def count_sync(self, n: int) -> Iterator[dict[str, Any]]:
        """Stream ``n`` small chunks, from a thread."""
        for index in range(n):
            yield {"token": "word", "index": index}

    @tool
    async def size(self, data: bytes) -> int:
        """Answer with the length of a binary parameter."""
        return len(data)


class Foreign:
    """The echo and the count once more, in a class as they are written for Snakepit's own worker.

    It is built once per call.
    """

    def set_session_context(self, context: object) -> None:
        """Keep the session, as such classes do."""
        self._context = context

    def execute_tool(self, tool_name: str, arguments: dict[str, Any], context: object) -> Any:  # noqa: ANN401 - as their base class has it
        """Answer with the arguments, or stream."""
        del context
        if tool_name == "foreign.count":
            return ({"token": "word", "index": index} for index in range(arguments["n"]))
        return {"text": arguments["text"], "n": arguments["n"]}
