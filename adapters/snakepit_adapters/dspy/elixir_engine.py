"""A language model on the Elixir side: each request becomes a call of an Elixir tool."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections import deque
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from dspy import lm15
from dspy.clients.lm15_boundary import history_messages

from snakepit_adapters.dspy.metered import present_account
from snakepit_worker.errors import DeadlineExceeded, FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from snakepit_worker.tools.context import CallContext

__all__ = ["AsyncElixirEngine", "ElixirEngine", "Turns"]

_OPTIONS = (
    "temperature",
    "max_tokens",
    "top_p",
    "top_k",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "response_format",
)


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: str
    usage: _Usage = _Usage()
    model: str | None = None
    finish_reason: Literal["stop", "length", "content_filter"] = "stop"


class _Turn(concurrent.futures.Future[None]):
    """Somebody in line; done when it is granted."""

    granted = False


class Turns:
    """How many may call at once, threads and coroutines together; the rest wait in line.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._lock = threading.Lock()
        self._waiting: deque[_Turn] = deque()

    @contextmanager
    def turn(self, seconds: float | None) -> Iterator[None]:
        """A turn, for a thread.

        Args:
            seconds: How long to wait for it, without an end if ``None``.

        Raises:
            TimeoutError: When it takes longer.
        """
        turn = self._begin()
        try:
            turn.result(seconds)
            yield
        finally:
            self._end(turn)

    @asynccontextmanager
    async def awaited_turn(self, seconds: float | None) -> AsyncIterator[None]:
        """A turn, for a coroutine on any event loop.

        Args:
            seconds: As for ``turn``.

        Raises:
            TimeoutError: As ``turn``.
        """
        turn = self._begin()
        try:
            if not turn.done():
                await asyncio.wait_for(asyncio.wrap_future(turn), seconds)
            yield
        finally:
            self._end(turn)

    def _begin(self) -> _Turn:
        turn = _Turn()
        with self._lock:
            if self._free:
                self._free -= 1
                turn.granted = True
                turn.set_result(None)
            else:
                self._waiting.append(turn)
        return turn

    def _end(self, turn: _Turn) -> None:
        """Pass a turn on, or leave the line."""
        with self._lock:
            if not turn.granted:
                self._waiting.remove(turn)
                return
            if not self._waiting:
                self._free += 1
                return
            heir = self._waiting.popleft()
            heir.granted = True
        with suppress(concurrent.futures.InvalidStateError):  # it has given up, and passes it on
            heir.set_result(None)


class ElixirEngine:
    """Answers by calling an Elixir tool, within the call that is served.

    Args:
        tool: Its name.
        turns: Who may call.
    """

    def __init__(self, tool: str, turns: Turns) -> None:
        self._tool = tool
        self._turns = turns

    def complete(self, request: lm15.Request) -> lm15.Response:
        """Ask the tool, from a thread.

        Args:
            request: DSPy's request.

        Raises:
            WorkerError: When the tool cannot be reached or fails.
        """
        call = _present_call()
        arguments = _arguments(request)
        try:
            with self._turns.turn(call.deadline.remaining()):
                call.checkpoint()
                answer = call.elixir.call_blocking(self._tool, arguments)
        except TimeoutError:
            raise _too_late(self._tool) from None
        return _response(self._tool, request, answer)

    def stream(self, request: lm15.Request) -> Iterator[lm15.StreamEvent]:
        """The events of the answer: one piece of text, since the tool answers at once.

        Args:
            request: DSPy's request.
        """
        yield from lm15.response_to_events(self.complete(request))


class AsyncElixirEngine:
    """The same for coroutines.

    Args:
        tool: Its name.
        turns: Who may call.
    """

    def __init__(self, tool: str, turns: Turns) -> None:
        self._tool = tool
        self._turns = turns

    async def complete(self, request: lm15.Request) -> lm15.Response:
        """Ask the tool, on the event loop.

        Args:
            request: DSPy's request.

        Raises:
            WorkerError: When the tool cannot be reached or fails.
        """
        call = _present_call()
        arguments = _arguments(request)
        try:
            async with self._turns.awaited_turn(call.deadline.remaining()):
                call.checkpoint()
                answer = await call.elixir.call(self._tool, arguments)
        except TimeoutError:
            raise _too_late(self._tool) from None
        return _response(self._tool, request, answer)

    async def stream(self, request: lm15.Request) -> AsyncIterator[lm15.StreamEvent]:
        """The events of the answer.

        Args:
            request: DSPy's request.
        """
        for event in lm15.response_to_events(await self.complete(request)):
            yield event


def _present_call() -> CallContext:
    account = present_account()
    if account is None:
        msg = "a language model on the Elixir side answers only within a call"
        raise FailedPrecondition(msg)
    return account.call


def _arguments(request: lm15.Request) -> dict[str, object]:
    config = request.config
    options = {name: value for name in _OPTIONS if (value := getattr(config, name)) is not None}
    if config.stop:
        options["stop"] = list(config.stop)
    if config.reasoning is not None:
        effort = config.reasoning.effort
        options["reasoning_effort"] = "none" if effort == "off" else effort
    return {
        "messages": history_messages(request),
        "model": request.model,
        "options": options,
    }


def _response(tool: str, request: lm15.Request, answer: Any) -> lm15.Response:  # noqa: ANN401
    if isinstance(answer, str):
        answer = {"text": answer}
    try:
        given = msgspec.convert(answer, _Answer)
    except msgspec.ValidationError as error:
        msg = f"Elixir tool {tool}: expected a text or a map with text and usage: {error}"
        raise lm15.ProviderError(msg) from None
    usage = lm15.Usage(
        input_tokens=given.usage.prompt_tokens, output_tokens=given.usage.completion_tokens
    )
    return lm15.Response(
        id=None,
        model=given.model or request.model,
        message=lm15.Message.assistant([lm15.TextPart(given.text)]),
        finish_reason=given.finish_reason,
        usage=usage,
    )


def _too_late(tool: str) -> DeadlineExceeded:
    msg = f"Elixir tool {tool}: the time of the call is over before its turn has come"
    return DeadlineExceeded(msg, details={"tool": tool})
