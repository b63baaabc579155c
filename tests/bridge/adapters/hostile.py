"""Tools that do everything wrong, for this worker and for Snakepit's own."""

from __future__ import annotations

import itertools
import sys
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Final

from snakepit_worker import Adapter, tool
from tests.bridge.adapters import oddities

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def print_much() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.write("x" * 2 * oddities.MEBIBYTE)
        stream.write("\n" * 10_000)


OTHERS: Final[Mapping[str, Callable[[], Any]]] = {
    "nothing odd": lambda: None,
    "101 MiB": lambda: bytes(101 * oddities.MEBIBYTE),
    "prints": print_much,
}

_ALL: Final[Mapping[str, Callable[[], Any]]] = {
    **oddities.RAISED,
    **{f"not JSON: {name}": make for name, make in oddities.NOT_JSON.items()},
    **{f"abrupt: {name}": make for name, make in oddities.ABRUPT.items()},
    **{f"JSON: {name}": make for name, (make, _) in oddities.JSON.items()},
    **{f"item: {name}": make for name, make in oddities.ITEMS.items()},
    **OTHERS,
}


class _Tools:
    """The same for both kinds of adapters."""

    @tool
    def unary(self, how: str) -> Any:
        return _ALL[how]()

    @tool
    async def unary_async(self, how: str) -> Any:
        return _ALL[how]()

    @tool
    def stream(self, how: str) -> Iterator[Any]:
        yield _ALL[how]()

    @tool
    async def stream_async(self, how: str) -> AsyncIterator[Any]:
        yield _ALL[how]()

    @tool
    def after_the_end(self, how: str) -> Iterator[Any]:
        del how
        yield oddities.Item(1, is_final=True)
        yield 2

    @tool
    async def after_the_end_async(self, how: str) -> AsyncIterator[Any]:
        for item in self.after_the_end(how):
            yield item

    @tool
    def defiant(self, how: str) -> Iterator[Any]:
        """Go on after the reader has left, once."""
        del how
        try:
            yield from itertools.count()
        except GeneratorExit:
            yield "still here"

    @tool
    async def defiant_async(self, how: str) -> AsyncIterator[Any]:
        del how
        try:
            for number in itertools.count():
                yield number
        except GeneratorExit:
            yield "still here"


class Hostile(_Tools, Adapter):
    """For this worker."""

    name = "hostile"


class Foreign(_Tools):
    """For Snakepit's own worker."""

    def execute_tool(self, tool_name: str, arguments: Mapping[str, Any], context: object) -> Any:
        del context
        method: Callable[[str], Any] = getattr(self, tool_name)
        return method(arguments["how"])
