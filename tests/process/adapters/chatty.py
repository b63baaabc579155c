"""Tools that print and log what they are asked for, and fail with it."""

from __future__ import annotations

import ast
import logging
import os
import warnings
from typing import TYPE_CHECKING, ClassVar, Final

from snakepit_worker import Adapter, tool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log: Final = logging.getLogger("some.framework")


def log_exception() -> None:
    try:
        raise ValueError("broken \udcff")
    except ValueError:
        log.exception("with a traceback")


ODDITIES: Final[Mapping[str, Callable[[], None]]] = {
    "level": lambda: log.log(35, "of a level in between"),
    "format": lambda: log.warning("not a format: %d", "text"),
    "characters": lambda: log.warning("a file name: \udcff"),
    "lines": lambda: log.warning("two\nlines"),
    "number": lambda: log.warning("%s", 1 << 70),
    "secret": lambda: log.warning('secret="abc-0123456789" and the like'),
    "field": lambda: log.warning('{"token": "abc-0123456789"}'),
    "traceback": log_exception,
    "warning": lambda: warnings.warn("as a warning", stacklevel=1),
}


class Chatty(Adapter):
    name: ClassVar[str] = "chatty"

    @tool
    def log(self, text: str) -> None:
        log.warning(text)

    @tool
    async def log_async(self, text: str) -> None:
        log.warning(text)

    @tool
    def log_oddly(self, oddity: str) -> None:
        """What frameworks do to the standard library's logging."""
        ODDITIES[oddity]()

    @tool
    def fail(self, text: str) -> None:
        raise ValueError(text)

    @tool
    def fail_oddly(self, literal: str) -> None:
        """Fail with a text that does not travel as it is."""
        raise ValueError(ast.literal_eval(literal))

    @tool
    def print_much(self, lines: int) -> int:
        for number in range(lines):
            print(f"{number} {'x' * 1000}")  # noqa: T201 - printing is the point
        return lines

    @tool
    def log_much(self, lines: int) -> int:
        for number in range(lines):
            log.warning("%d %s", number, "x" * 1000)
        return lines

    @tool
    def write_much(self, size: int) -> int:
        """Write past Python, which has to wait for the reader."""
        data = b"x" * size
        while data:
            data = data[os.write(1, data) :]
        return size
