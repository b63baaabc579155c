"""DSPy without a network: language models whose answers are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dspy
import pytest
from dspy import lm15

from snakepit_adapters.dspy.arguments import LMSettings
from snakepit_adapters.dspy.language_models import LanguageModel
from snakepit_adapters.dspy.loading import loaded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence


class Engine:
    """Answers with a text, with the pieces of one, or with an error."""

    def __init__(self, script: str | Sequence[str] | Exception) -> None:
        self.requests: list[lm15.Request] = []
        self.closed = 0
        self._script = script

    def complete(self, request: lm15.Request) -> lm15.Response:
        self.requests.append(request)
        return lm15.Response(
            id=None,
            model=request.model,
            message=lm15.Message.assistant([lm15.TextPart("".join(self._pieces()))]),
            finish_reason="stop",
            usage=lm15.Usage(input_tokens=10, output_tokens=5, total_tokens=15),
        )

    def _pieces(self) -> Sequence[str]:
        if isinstance(self._script, Exception):
            raise self._script
        return [self._script] if isinstance(self._script, str) else self._script


class AsyncEngine:
    """The same for awaiting callers; streams each piece by itself."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def complete(self, request: lm15.Request) -> lm15.Response:
        return self._engine.complete(request)

    async def stream(self, request: lm15.Request) -> AsyncIterator[Any]:
        self._engine.requests.append(request)
        try:
            yield lm15.StreamStartEvent(model=request.model)
            for piece in self._engine._pieces():
                yield lm15.StreamDeltaEvent(delta=lm15.TextDelta(text=piece))
            usage = lm15.Usage(input_tokens=10, output_tokens=5, total_tokens=15)
            yield lm15.StreamEndEvent(finish_reason="stop", usage=usage)
        finally:
            self._engine.closed += 1


@pytest.fixture(scope="session")
def framework() -> Iterator[None]:
    """DSPy as a worker loads it."""
    with loaded():
        yield


@pytest.fixture
def model(framework: None) -> Callable[..., tuple[LanguageModel, Engine]]:  # noqa: ARG001 - loads DSPy
    """Makes a language model, within a running loop, and the engine that answers for it."""

    def make(
        script: str | Sequence[str] | Exception, **settings: Any
    ) -> tuple[LanguageModel, Engine]:
        engine = Engine(script)
        lm = dspy.LM(
            "fake/model",
            engine=engine,
            async_engine=AsyncEngine(engine),
            cache=False,
            num_retries=0,
        )
        described = LMSettings(model="fake/model", **settings)
        return LanguageModel(described, lm), engine

    return make
