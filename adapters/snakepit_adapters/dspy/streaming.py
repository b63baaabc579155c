"""Streams: the text of a program's outputs as the model writes it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, TypeVar

import dspy
from pydantic_core import from_json

from snakepit_adapters.dspy.programs import Request, answer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

__all__ = ["JsonFields", "pumped", "stream"]

T = TypeVar("T")

_AHEAD: Final = 32
"""Events that a program may be ahead of its reader."""

_TEXT_TYPES: Final = ("str", "str | None")


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
    fields = [f.name for f in request.program.signature.outputs if f.type.text in _TEXT_TYPES]
    tokens = _MarkedFields(fields) if request.response_format == "text" else JsonFields(fields)
    with request.settings():
        run = dspy.streamify(
            request.program.module,
            stream_listeners=tokens.listeners,
            is_async_program=request.program.asynchronous,
        )
        async with aclosing(run(**request.arguments)) as values:
            async for value in values:
                if isinstance(value, dspy.Prediction):
                    yield {"type": "prediction", **answer(value)}
                    continue
                for field, text in tokens.read(value):
                    yield {"type": "token", "field": field, "text": text}


class _MarkedFields:
    """Pieces of the fields of an answer in DSPy's own layout, found by DSPy's listeners."""

    def __init__(self, fields: Sequence[str]) -> None:
        self.listeners = [dspy.streaming.StreamListener(field) for field in fields]

    def read(self, value: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - DSPy has no types
        """The field and the text of what a listener found, if it is that."""
        if isinstance(value, dspy.streaming.StreamResponse) and value.chunk:
            yield value.signature_field_name, value.chunk


class JsonFields:
    """Pieces of the text fields of a JSON object that arrives in pieces.

    DSPy's listeners for JSON leave quotes, escapes and the next key in the text.  Without any, DSPy
    hands over the pieces as they come from the model.

    Args:
        fields: The fields to look at.
    """

    listeners: Final = ()

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
