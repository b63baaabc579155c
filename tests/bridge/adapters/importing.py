"""Notes what the event loop's thread imports."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

from snakepit_worker import Adapter, tool

_imported: list[str] = []


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "import" and threading.current_thread().name == "bridge":
        _imported.append(str(arguments[0]))


class Importing(Adapter):
    name = "importing"

    @tool
    def watch(self) -> None:
        sys.addaudithook(_note)

    @tool
    def imported(self) -> list[str]:
        return list(_imported)

    @tool
    def give(self) -> Any:
        return [2**70, None, 1.5, {1}, b"x"]

    @tool
    def fail(self) -> NoReturn:
        raise ValueError("no")

    @tool
    async def fail_async(self) -> NoReturn:
        raise ValueError("no")

    @tool
    def stream(self) -> Iterator[int]:
        yield 1
        raise ValueError("no")
