"""Classes as they are written for Snakepit's own worker, and a log of what is done to them."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import threading
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

LIMIT: Final = 20.0


class Log:
    """What was done, in order: instance, step, thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._entries: list[tuple[int, str, str]] = []

    def note(self, instance: int, step: str) -> None:
        with self._changed:
            self._entries.append((instance, step, threading.current_thread().name))
            self._changed.notify_all()

    def wait_for(self, step: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: step in self.steps(), LIMIT), self._entries

    def steps(self) -> list[str]:
        return [step for _, step, _ in self._entries]

    def instances(self) -> set[int]:
        return {instance for instance, _, _ in self._entries}

    def threads(self) -> set[str]:
        return {thread for _, _, thread in self._entries}


class State:
    """What outlives a request: only modules do.  Tests put a fresh one here."""

    def __init__(self) -> None:
        self.log = Log()
        self.go_on = threading.Event()
        self.blocked_in = ""

    def wait(self) -> None:
        if not self.go_on.wait(LIMIT):
            raise TimeoutError


state = State()
_numbers = itertools.count()


class Plain:
    """Inherits from nothing."""

    def __init__(self) -> None:
        self.number = next(_numbers)
        self.context: Any = None
        self._step("build")

    def set_session_context(self, whatever_it_is_called: Any) -> None:
        self.context = whatever_it_is_called
        self._step("context")

    def initialize(self) -> Any:
        self._step("initialize")

    def execute_tool(self, tool_name: str, arguments: dict[str, Any], context: Any) -> Any:
        self._step(tool_name)
        self.given = context
        run: Callable[[Mapping[str, Any]], Any] = getattr(self, tool_name)
        return run(arguments)

    def cleanup(self) -> Any:
        self._step("cleanup")

    def _step(self, name: str) -> None:
        state.log.note(self.number, name)
        if state.blocked_in == name:
            state.log.note(self.number, "blocked")
            state.wait()

    def number_of(self, _: Mapping[str, Any]) -> int:
        return self.number

    def seen(self, arguments: Mapping[str, Any]) -> Any:
        return {
            "arguments": dict(arguments),
            "session": self.given.session_id,
            "same": self.context is self.given or self.context is None,
            "metadata": self.given.request_metadata,
        }

    async def awaited(self, _: Mapping[str, Any]) -> int:
        await asyncio.sleep(0)
        return self.number

    def fail(self, _: Mapping[str, Any]) -> NoReturn:
        raise ValueError("no")

    def stop(self, _: Mapping[str, Any]) -> NoReturn:
        raise StopIteration("out of it")

    def leave(self, _: Mapping[str, Any]) -> NoReturn:
        raise SystemExit(3)

    async def leave_async(self, _: Mapping[str, Any]) -> NoReturn:
        raise SystemExit(3)

    def wait(self, _: Mapping[str, Any]) -> str:
        self._step("waiting")
        state.wait()
        self._step("waited")
        return "late"

    async def wait_async(self, _: Mapping[str, Any]) -> None:
        self._step("waiting")
        try:
            await asyncio.Event().wait()
        finally:
            self._step("cancelled")

    async def block(self, _: Mapping[str, Any]) -> str:
        self._step("waiting")
        state.wait()
        return "blocked"

    def count(self, arguments: Mapping[str, Any]) -> Iterator[int]:
        try:
            for number in range(arguments["to"]):
                self._step("item")
                yield number
        finally:
            self._step("closed")

    async def count_async(self, arguments: Mapping[str, Any]) -> AsyncIterator[int]:
        try:
            for number in range(arguments["to"]):
                await asyncio.sleep(0)
                yield number
        finally:
            self._step("closed")

    def count_and_fail(self, _: Mapping[str, Any]) -> Iterator[int]:
        yield 0
        raise ValueError("no")

    def endless(self, _: Mapping[str, Any]) -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            self._step("closed")

    async def endless_async(self, _: Mapping[str, Any]) -> AsyncIterator[int]:
        try:
            for number in itertools.count():
                await asyncio.sleep(0)
                yield number
        finally:
            self._step("closed")

    def a_list(self, _: Mapping[str, Any]) -> list[int]:
        return [1, 2]

    def one_value(self, _: Mapping[str, Any]) -> dict[str, int]:
        return {"n": 1}


class Async(Plain):
    """Every step that may be a coroutine is one."""

    async def initialize(self) -> None:
        await asyncio.sleep(0)
        self._step("initialize")

    async def execute_tool(self, tool_name: str, arguments: dict[str, Any], context: Any) -> Any:
        result = super().execute_tool(tool_name, arguments, context)
        return await result if inspect.isawaitable(result) else result

    async def cleanup(self) -> None:
        await asyncio.sleep(0)
        self._step("cleanup")


class Safe(Plain):
    """Says that it may be called at the same time."""

    __thread_safe__ = True


class Keywords(Plain):
    """Can only be called by keyword."""

    def execute_tool(self, *, context: Any, tool_name: str, arguments: dict[str, Any]) -> Any:  # type: ignore[override]  # the order is the point
        return super().execute_tool(tool_name, arguments, context)


class BadCleanup(Plain):
    """Its cleanup raises."""

    def cleanup(self) -> NoReturn:
        self._step("cleanup")
        raise ValueError("not cleaned up")


class BadInitialize(Plain):
    """Its initialize raises."""

    def initialize(self) -> NoReturn:
        self._step("initialize")
        raise ValueError("not ready")


class Bare:
    """Nothing but what has to be there."""

    def execute_tool(self, tool_name: str, arguments: dict[str, Any], context: Any) -> Any:
        return [tool_name, arguments, context.session_id]


def _decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    function._tool_metadata = {"description": ""}  # type: ignore[attr-defined]
    return function


class Decorated:
    """Has only methods with the decorator of Snakepit's base class."""

    def set_session_context(self, session_context: Any) -> None:
        self.session_context = session_context

    @_decorated
    def add(self, a: int, b: int = 1) -> int:
        return a + b

    @_decorated
    async def add_async(self, a: int, b: int) -> int:
        return a + b

    def other(self) -> str:
        return "not a tool"


class Calling(Decorated):
    """The same with ``call_tool``."""

    def call_tool(self, name: str, **arguments: Any) -> Any:
        return [name, arguments]
