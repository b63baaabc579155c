"""First calls, made before anyone waits for them.

DSPy imports parts of itself at the first call and the first stream, which would stop the event loop
for a tenth of a second, and wait there for the import locks of other threads.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import dspy
from dspy import lm15
from dspy.clients.engines.lm15_engine import LM15Engine
from dspy.clients.model_metadata import model_info

from snakepit_adapters.dspy.arguments import LMSettings, ResponseFormat
from snakepit_adapters.dspy.language_models import LanguageModel
from snakepit_adapters.dspy.programs import Program
from snakepit_adapters.dspy.signatures import read_signature
from snakepit_adapters.dspy.streaming import stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["warm_up"]

_ANSWERS: Final[dict[ResponseFormat, str]] = {
    "text": "[[ ## answer ## ]]\nyes\n\n[[ ## completed ## ]]",
    "json_schema": '{"answer": "yes"}',
}


class _Engine:
    """The smallest model: one answer, from memory."""

    def __init__(self, text: str) -> None:
        self._text = text

    def complete(self, request: lm15.Request) -> lm15.Response:
        """Answer at once."""
        return lm15.Response(
            id=None,
            model=request.model,
            message=lm15.Message.assistant([lm15.TextPart(self._text)]),
            finish_reason="stop",
            usage=lm15.Usage(input_tokens=1, output_tokens=1, total_tokens=2),
        )


class _AsyncEngine:
    """The same for asynchronous callers, and in one piece for those that want a stream."""

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine

    async def complete(self, request: lm15.Request) -> lm15.Response:
        """Answer at once."""
        return self._engine.complete(request)

    async def stream(self, request: lm15.Request) -> AsyncIterator[lm15.StreamEvent]:
        """The events of the answer."""
        for event in lm15.response_to_events(self._engine.complete(request)):
            yield event


def warm_up() -> None:
    """Call and stream once in each layout, without a network."""
    asyncio.run(_call_everything())
    # What only models of a provider need: the way to its API, and the table of prices.
    request = lm15.Request(model="openai/warm-up", messages=(lm15.Message.user("?"),))
    LM15Engine(lm15.RouterConfig(env={})).plan(request)
    model_info("openai", "warm-up")


async def _call_everything() -> None:
    program = Program("Predict", read_signature("question -> answer"))
    for layout, text in _ANSWERS.items():
        engine = _Engine(text)
        lm = dspy.LM("warm/up", engine=engine, async_engine=_AsyncEngine(engine), cache=False)
        model = LanguageModel(LMSettings(model="warm/up"), lm)
        request = program.request({"question": "?"}, model, response_format=layout)
        await request.run(asyncio.to_thread)
        async for _ in stream(request):
            pass
