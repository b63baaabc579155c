"""The tools that are benchmarked: as little work as a tool can do."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from snakepit_worker import Adapter, tool

__all__ = ["Bench"]


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
