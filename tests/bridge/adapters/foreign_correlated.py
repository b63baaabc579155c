"""An adapter that asks Snakepit's telemetry helper which call it is in."""

from __future__ import annotations

import importlib
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def here() -> list[str | None]:
    """The correlation id according to the helper, and the thread."""
    helper = importlib.import_module("snakepit_bridge.telemetry")
    return [helper.get_correlation_id(), threading.current_thread().name]


class Correlated:
    def execute_tool(self, tool_name: str, arguments: dict[str, Any], context: Any) -> Any:
        del arguments, context
        return getattr(self, tool_name)()

    def plain(self) -> Any:
        return here()

    async def coroutine(self) -> Any:
        return here()

    def generator(self) -> Iterator[Any]:
        yield here()
