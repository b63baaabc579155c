"""Agents: DSPy's, which here tell what they think and do while they do it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import dspy

from snakepit_adapters.dspy.agent_tools import emit

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ReAct", "ReActV2", "Silent"]

_ENDS: Final = ("finish", "submit")
"""Tools with which an agent says that it is done; what follows is its answer."""


class _Thinking(dspy.Predict):  # type: ignore[misc]  # DSPy has no types
    """The predictor that chooses an agent's next step.

    It goes by the name, and has the state, of the one whose place it takes.
    """

    async def aforward(self, **inputs: Any) -> Any:  # noqa: ANN401 - DSPy has no types
        """Choose, and tell the stream of the call."""
        prediction = await super().aforward(**inputs)
        thought = prediction.get("next_thought")
        if thought is not None:
            await emit({"type": "thought", "text": _text(thought)})
        for tool, arguments in _actions(prediction):
            if tool not in _ENDS:
                await emit({"type": "action", "tool": tool, "arguments": arguments})
        return prediction


class _Telling(dspy.Module):  # type: ignore[misc]  # DSPy has no types
    """What an agent of either kind adds to DSPy's: the stream of the call is told of each step.

    Args:
        signature: What it takes and gives.
        tools: What it may call.
        max_iters: Steps at most.
    """

    def __init__(self, signature: Any, tools: Any, max_iters: int = 20) -> None:  # noqa: ANN401
        super().__init__(signature, tools=tools, max_iters=max_iters)
        self.react: Any = _Thinking(self.react.signature)

    async def aforward(self, **inputs: Any) -> Any:  # noqa: ANN401 - DSPy has no types
        """Go step by step, and tell the stream of the call the answer."""
        prediction = await super().aforward(**inputs)
        await _answer(self, prediction)
        return prediction


class ReAct(_Telling, dspy.ReAct):  # type: ignore[misc]  # DSPy has no types
    """An agent that answers from what its tools have told it, in text that any model writes.

    Arguments are those of ``_Telling``.
    """


class ReActV2(_Telling, dspy.ReActV2):  # type: ignore[misc]  # DSPy has no types
    """An agent whose model calls tools by the provider's own means, several at once if it likes.

    Arguments are those of ``_Telling``.
    """


class Silent(dspy.streaming.StatusMessageProvider):  # type: ignore[misc]  # DSPy has no types
    """Says nothing of tools: DSPy would block the event loop until its words are read."""

    def tool_start_status_message(self, instance: Any, inputs: Mapping[str, Any]) -> None:  # noqa: ANN401, D102 - as the base class
        pass

    def tool_end_status_message(self, outputs: Any) -> None:  # noqa: ANN401, D102 - as the base class
        pass


async def _answer(module: Any, prediction: Any) -> None:  # noqa: ANN401 - DSPy has no types
    outputs = {name: prediction.get(name) for name in module.signature.output_fields}
    await emit({"type": "answer", "outputs": outputs})


def _actions(prediction: Any) -> list[tuple[str, Any]]:  # noqa: ANN401 - DSPy has no types
    calls = prediction.get("tool_calls")
    if calls is not None:
        return [(call.name, call.args) for call in calls.tool_calls]
    tool = prediction.get("next_tool_name")
    return [] if tool is None else [(tool, prediction.get("next_tool_args"))]


def _text(thought: Any) -> str:  # noqa: ANN401 - a text, or DSPy's wrapper of one
    return str(getattr(thought, "content", thought))
