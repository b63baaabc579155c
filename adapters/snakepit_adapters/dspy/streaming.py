"""Streams: the text of a program's outputs as the model writes it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, TypeVar

import dspy
from pydantic_core import from_json

from snakepit_adapters.dspy.agent_tools import AgentEvent
from snakepit_adapters.dspy.agents import Silent
from snakepit_adapters.dspy.composed import call_module
from snakepit_adapters.dspy.modules import KINDS
from snakepit_adapters.dspy.running import Request, answer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from snakepit_adapters.dspy.programs import Program

__all__ = ["JsonFields", "pumped", "stream"]

T = TypeVar("T")

_AHEAD: Final = 32
"""Events that a program may be ahead of its reader."""

_TEXTS: Final = (str, str | None, dspy.Reasoning)
"""Types of outputs whose pieces are worth something."""


async def stream(request: Request) -> AsyncGenerator[dict[str, object], None]:
    """The events of one call, read at the caller's pace.

    Yields:
        ``{"type": "token", "field": ..., "text": ...}`` for each piece of a text output, and last
        ``{"type": "prediction", "outputs": ..., "usage": ...}``.
    """
    async with aclosing(pumped(_events(request))) as events:
        async for event in events:
            yield event


async def pumped(source: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """The items of a generator that a task of its own runs from start to end.

    DSPy's streams may only be left by the task that entered them: a reader that stops early would
    otherwise find itself cancelled later, and DSPy's settings in its context.

    Args:
        source: What to run; nobody else may have begun to.
    """
    items: asyncio.Queue[tuple[T] | None] = asyncio.Queue()
    room = asyncio.Semaphore(_AHEAD)

    async def pump() -> None:
        try:
            async with aclosing(source):
                async for item in source:
                    await room.acquire()
                    items.put_nowait((item,))
        finally:
            items.put_nowait(None)

    pumping = asyncio.create_task(pump())
    try:
        while (entry := await items.get()) is not None:
            yield entry[0]
            room.release()
        await pumping
    finally:
        pumping.cancel()
        await asyncio.gather(pumping, return_exceptions=True)


async def _events(request: Request) -> AsyncGenerator[dict[str, object], None]:
    program = request.program
    tokens = _Layout(request)
    with request.settings(request.guards()):
        run = dspy.streamify(
            program.module if program.asynchronous else _Threaded(program),
            status_message_provider=Silent(),
            stream_listeners=tokens.listeners,
            is_async_program=True,
        )
        async with aclosing(run(**request.arguments)) as values:
            async for value in values:
                if isinstance(value, dspy.Prediction):
                    yield {"type": "prediction", **answer(value)}
                elif isinstance(value, AgentEvent):
                    yield dict(value.data)
                else:
                    for event in tokens.read(value):
                        yield event


class _Threaded:
    """A module that only blocks, as `streamify` wants one; its tokens are not followed.

    Its answers are those of attempts, of which only the best counts in the end.
    """

    def __init__(self, program: Program) -> None:
        self._module = program.module

    def named_predictors(self) -> list[Any]:
        """None that a listener could be for."""
        return []

    async def acall(self, **arguments: Any) -> Any:  # noqa: ANN401 - DSPy has no types
        """Call the module in a thread."""
        return await call_module(self._module, arguments)


class _Layout:
    """Pieces of the text outputs of all predictors, by the layout of their answers."""

    def __init__(self, request: Request) -> None:
        program = request.program
        predictors = program.module.named_predictors() if program.asynchronous else []
        self._named = not KINDS[program.kind].one_predictor
        self._marked = request.response_format == "text"
        self.listeners: list[Any] = []
        self._fields: dict[int, tuple[str, JsonFields]] = {}
        for name, predictor in predictors:
            fields = [
                field
                for field, info in predictor.signature.output_fields.items()
                if info.annotation in _TEXTS
            ]
            if self._marked:
                self.listeners += [
                    dspy.streaming.StreamListener(field, predictor, name, allow_reuse=True)
                    for field in fields
                ]
            else:
                self._fields[id(predictor)] = (name, JsonFields(fields))

    def read(self, value: Any) -> Iterator[dict[str, object]]:  # noqa: ANN401 - DSPy has no types
        """The events of what a listener found, or of a piece of an answer."""
        if isinstance(value, dspy.streaming.StreamResponse):
            if value.chunk:
                yield self._event(value.predict_name, value.signature_field_name, value.chunk)
            return
        name, fields = self._fields.get(getattr(value, "predict_id", 0), ("", None))
        if fields is not None:
            for field, text in fields.read(value):
                yield self._event(name, field, text)

    def _event(self, predictor: str, field: str, text: str) -> dict[str, object]:
        more = {"predictor": predictor} if self._named else {}
        return {"type": "token", **more, "field": field, "text": text}


class JsonFields:
    """Pieces of the text fields of a JSON object that arrives in pieces.

    DSPy's listeners for JSON leave quotes, escapes and the next key in the text.  Without any, DSPy
    hands over the pieces as they come from the model.

    Args:
        fields: The fields to look at.
    """

    def __init__(self, fields: Sequence[str]) -> None:
        self._seen = dict.fromkeys(fields, "")
        self._text = ""

    def read(self, value: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - DSPy has no types
        """The fields and texts that a piece of the model's answer adds, if it is one."""
        choices = getattr(value, "choices", None)
        if choices:
            yield from self.feed(choices[0].delta.content or "")

    def feed(self, text: str) -> Iterator[tuple[str, str]]:
        """The fields and texts that the next characters of the object add."""
        self._text += text
        start = self._text.find("{")
        if start < 0:
            return
        try:
            values = from_json(self._text[start:], allow_partial="trailing-strings")
        except ValueError:  # not JSON, or the object is over
            return
        for field, seen in self._seen.items():
            value = values.get(field)
            if isinstance(value, str) and len(value) > len(seen) and value.startswith(seen):
                self._seen[field] = value
                yield field, value[len(seen) :]
