"""Elixir tools as engines, without an Elixir side; how many may call one at once."""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import dspy
import pytest

from snakepit_adapters.dspy.arguments import LMSettings
from snakepit_adapters.dspy.elixir_engine import Turns
from snakepit_adapters.dspy.language_models import LanguageModel
from snakepit_adapters.dspy.usage import attributed, ledger_of
from snakepit_worker.deadline import NEVER, Deadline
from snakepit_worker.errors import Cancelled, DeadlineExceeded
from snakepit_worker.sessions import Session
from snakepit_worker.tools.context import CallContext, current_call

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT = 20.0
QUESTION = "What is the capital of France?"
SECONDS_WITHOUT_A_TURN = 0.01


@dataclass(eq=False)
class Call:
    """As much of a call as an engine looks at."""

    session: Session = field(default_factory=lambda: Session("ann"))
    deadline: Deadline = NEVER
    tool: str = "dspy.call"
    correlation_id: str = "one"
    cancelled: bool = False
    asked: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)

    @property
    def elixir(self) -> Call:
        return self

    def checkpoint(self) -> None:
        if self.cancelled:
            raise Cancelled("nobody waits")

    def call_blocking(self, tool: str, arguments: Mapping[str, Any]) -> Any:
        self.asked.append((tool, arguments))
        return {"text": "Paris.", "usage": {"prompt_tokens": 7, "completion_tokens": 2}}

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> Any:
        return self.call_blocking(tool, arguments)

    def settings(self) -> dict[str, object]:
        token = current_call.set(cast("CallContext", self))
        try:
            return attributed()
        finally:
            current_call.reset(token)


def a_model(**settings: Any) -> LanguageModel:
    return LanguageModel.configure(
        LMSettings(model="elixir/llm", engine="elixir", tool="llm", **settings)
    )


@pytest.mark.usefixtures("framework")
def test_a_request_becomes_a_call_of_the_tool() -> None:
    call = Call()
    model = a_model(top_k=5, stop=["END"], reasoning_effort="none", seed=7)
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    content = [{"type": "text", "text": QUESTION}, picture]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
    with dspy.context(**call.settings()), pytest.warns(DeprecationWarning, match="messages"):
        assert model.lm(messages=messages) == ["Paris."]
    ((tool, arguments),) = call.asked
    assert tool == "llm"
    assert arguments == {
        "model": "elixir/llm",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": QUESTION},
                    {"type": "image", "media_type": "image/png", "data": "aGk="},
                ],
            },
        ],
        "options": {"top_k": 5, "stop": ["END"], "reasoning_effort": "none", "seed": 7},
    }


@pytest.mark.usefixtures("framework")
def test_threads_of_dspy_call_on_behalf_of_the_call_that_began_them() -> None:
    first, second = Call(), Call()
    model = a_model(max_concurrency=2)
    program = dspy.Predict("question -> answer")
    examples = [dspy.Example(question=QUESTION).with_inputs("question") for _ in range(6)]
    for call in (first, second):
        with dspy.context(
            lm=model.lm, adapter=dspy.JSONAdapter(), disable_history=True, **call.settings()
        ):
            program.batch(
                examples,
                num_threads=3,
                max_errors=100,
                return_failed_examples=True,
                disable_progress_bar=True,
            )
    for call in (first, second):
        total = cast("Any", ledger_of(call.session).describe()["total"])
        assert total["calls"] == len(call.asked) >= 6
        assert total["total_tokens"] == 9 * total["calls"]


@pytest.mark.usefixtures("framework")
def test_nothing_is_asked_once_nobody_waits() -> None:
    call = Call(cancelled=True)
    with dspy.context(**call.settings()), pytest.raises(dspy.LMUnexpectedError) as raised:
        a_model().lm(QUESTION)
    assert isinstance(raised.value.__cause__, Cancelled)
    assert call.asked == []


@pytest.mark.usefixtures("framework")
@pytest.mark.parametrize("blocking", [True, False])
def test_waiting_for_a_turn_ends_with_the_call(*, blocking: bool) -> None:
    call = Call(deadline=Deadline.after(SECONDS_WITHOUT_A_TURN))
    model = a_model(max_concurrency=1)
    turns = model.lm.engine._turns

    async def wait() -> None:
        await model.lm.acall(QUESTION)

    with dspy.context(**call.settings()), turns.turn(0):
        with pytest.raises(dspy.LMUnexpectedError) as raised:
            model.lm(QUESTION) if blocking else asyncio.run(wait())
        assert isinstance(raised.value.__cause__, DeadlineExceeded)
    assert call.asked == []


def test_threads_and_coroutines_share_the_turns() -> None:
    turns = Turns(2)
    lock = threading.Lock()
    inside, most = 0, 0

    def count(change: int) -> None:
        nonlocal inside, most
        with lock:
            inside += change
            most = max(most, inside)

    def thread() -> None:
        for _ in range(50):
            with turns.turn(LIMIT):
                count(1)
                count(-1)

    async def task() -> None:
        for _ in range(50):
            async with turns.awaited_turn(LIMIT):
                count(1)
                await asyncio.sleep(0)
                count(-1)

    async def tasks() -> None:
        await asyncio.gather(*(task() for _ in range(5)))

    threads = [threading.Thread(target=thread) for _ in range(5)]
    for each in threads:
        each.start()
    asyncio.run(tasks())
    for each in threads:
        each.join(LIMIT)
    assert (inside, most) == (0, 2)


def test_whoever_gives_up_leaves_the_line() -> None:
    turns = Turns(1)

    async def give_up() -> None:
        async with turns.awaited_turn(0.01):
            pytest.fail("it had a turn")

    with turns.turn(LIMIT):
        with pytest.raises(TimeoutError), turns.turn(0.01):
            pytest.fail("it had a turn")
        with pytest.raises(TimeoutError):
            asyncio.run(give_up())
    with turns.turn(0):
        pass


def test_who_is_cancelled_with_a_turn_in_hand_passes_it_on() -> None:
    """The turn comes in the very moment in which the coroutine is cancelled."""
    turns = Turns(1)

    async def wait() -> None:
        async with turns.awaited_turn(None):
            pytest.fail("it had a turn")

    async def main() -> None:
        first = ExitStack()
        first.enter_context(turns.turn(0))
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        first.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with turns.awaited_turn(0):
            pass

    asyncio.run(main())
