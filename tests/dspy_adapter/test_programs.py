from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import dspy
import pytest

from snakepit_adapters.dspy.arguments import Generation
from snakepit_adapters.dspy.programs import Program
from snakepit_adapters.dspy.signatures import read_signature
from snakepit_worker.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

ANSWER = "[[ ## answer ## ]]\n42\n\n[[ ## completed ## ]]"


def program(text: str, kind: Any = "Predict", **more: Any) -> Program:
    return Program(kind, read_signature(text), **more)


def test_outputs_keep_their_types(model: Callable[..., Any]) -> None:
    async def main() -> Any:
        lm, _ = model('{"n": 42, "parts": ["a", "b"], "of": {"x": 1.5}, "sure": true}')
        called = program("question -> n: int, parts: list[str], of: dict[str, float], sure: bool")
        request = called.request({"question": "?"}, lm, response_format="json")
        return await request.run(asyncio.to_thread)

    answer = asyncio.run(main())
    assert answer["outputs"] == {"n": 42, "parts": ["a", "b"], "of": {"x": 1.5}, "sure": True}
    assert answer["usage"]["fake/model"]["total_tokens"] == 15


def test_a_chain_of_thought_has_an_output_more(model: Callable[..., Any]) -> None:
    async def main() -> Any:
        lm, _ = model(f"[[ ## reasoning ## ]]\nbecause\n\n{ANSWER}")
        called = program("question -> answer", "ChainOfThought")
        assert [field.name for field in called.signature.outputs] == ["reasoning", "answer"]
        return await called.request({"question": "?"}, lm).run(asyncio.to_thread)

    assert asyncio.run(main())["outputs"] == {"reasoning": "because", "answer": "42"}


@pytest.mark.parametrize("text", ["reasoning -> answer", "question -> reasoning"])
def test_a_field_that_the_chain_of_thought_adds_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="'reasoning'"):
        program(text, "ChainOfThought")
    program(text)


def test_inputs_are_checked_before_the_model_is_called(model: Callable[..., Any]) -> None:
    async def main() -> InvalidArgument:
        lm, engine = model(ANSWER)
        called = program("question, tags: list[str], size: float, limit: int | None -> answer")
        with pytest.raises(InvalidArgument) as raised:
            called.request({"question": 1, "tags": ["a", None], "sizes": 1}, lm)
        assert engine.requests == []
        return raised.value

    error = asyncio.run(main())
    assert {v.field: v.description for v in error.violations} == {
        "inputs.question": "expected str, got int",
        "inputs.tags": "expected list[str], got list (at 1)",
        "inputs.sizes": "unknown field; did you mean size?",
        "inputs.size": "expected float, got nothing",
    }


@pytest.mark.parametrize("value", [True, "3", 3.0, None])
def test_nothing_is_converted_to_a_whole_number(model: Callable[..., Any], value: object) -> None:
    async def main() -> None:
        lm, _ = model(ANSWER)
        with pytest.raises(InvalidArgument, match=r"inputs\.n: expected int"):
            program("n: int -> answer").request({"n": value}, lm)

    asyncio.run(main())


def test_an_input_that_may_be_none_may_be_left_out(model: Callable[..., Any]) -> None:
    async def main() -> None:
        lm, engine = model(ANSWER)
        await (
            program("question, n: int | None -> answer")
            .request({"question": "?"}, lm)
            .run(asyncio.to_thread)
        )
        assert len(engine.requests) == 1

    asyncio.run(main())


def test_demos_are_shown_to_the_model(model: Callable[..., Any]) -> None:
    async def main() -> str:
        lm, engine = model(ANSWER)
        demos = [{"question": "the first demo", "answer": "its answer"}]
        called = program("question -> answer", demos=demos)
        assert called.describe()["predictors"]["self"]["demos"] == demos  # type: ignore[index]
        await called.request({"question": "?"}, lm).run(asyncio.to_thread)
        return " ".join(str(message.text) for message in engine.requests[0].messages)

    shown = asyncio.run(main())
    assert "the first demo" in shown
    assert "its answer" in shown


@pytest.mark.parametrize(
    ("demo", "violation"),
    [
        ({"question": "?"}, "demos[1]: expected at least one output field"),
        ({"answer": "!"}, "demos[1]: expected at least one input field"),
        ({"question": 1, "answer": "!"}, "demos[1].question: expected str, got int"),
        ({"question": "?", "answers": "!"}, "demos[1].answers: unknown field; did you mean answer"),
    ],
)
def test_a_demo_has_to_fit_the_signature(demo: dict[str, Any], violation: str) -> None:
    good = {"question": "?", "answer": "!"}
    with pytest.raises(InvalidArgument) as raised:
        program("question -> answer", demos=[good, demo])
    assert violation in str(raised.value)


def test_options_reach_the_model(model: Callable[..., Any]) -> None:
    async def main() -> Any:
        lm, engine = model(ANSWER)
        options = Generation(temperature=0.5, max_tokens=7)
        request = program("question -> answer").request({"question": "?"}, lm, options)
        await request.run(asyncio.to_thread)
        return engine.requests[0].config

    config = asyncio.run(main())
    assert (config.temperature, config.max_tokens) == (0.5, 7)


def test_the_schema_describes_the_outputs(model: Callable[..., Any]) -> None:
    async def main() -> Any:
        text = json.dumps({"answer": "!", "n": None, "kind": "a", "of": {}})
        lm, engine = model(text, response_format="json_schema")
        called = program("q -> answer, n: int | None, kind: Literal['a', 'b'], of: dict[str, int]")
        await called.request({"q": "?"}, lm).run(asyncio.to_thread)
        return engine.requests[0].config.response_format

    asked = asyncio.run(main())
    assert asked["schema"] == {
        "type": "object",
        "properties": {
            "answer": {"type": "string"},
            "n": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "kind": {"enum": ["a", "b"], "type": "string"},
            "of": {"type": "object", "additionalProperties": {"type": "integer"}},
        },
        "required": ["answer", "n", "kind", "of"],
        "additionalProperties": False,
    }


def test_a_call_says_how_its_answer_is_laid_out(model: Callable[..., Any]) -> None:
    async def main() -> list[str]:
        lm, _ = model("", response_format="json")
        called = program("q -> answer")
        return [
            called.request({"q": "?"}, lm).response_format,
            called.request({"q": "?"}, lm, response_format="text").response_format,
        ]

    assert asyncio.run(main()) == ["json", "text"]


def test_calls_at_the_same_time_keep_their_models_apart(model: Callable[..., Any]) -> None:
    async def main() -> list[Any]:
        called = program("question -> answer")
        requests = [
            called.request({"question": "?"}, model(ANSWER.replace("42", str(n)))[0])
            for n in range(20)
        ]
        return await asyncio.gather(*(request.run(asyncio.to_thread) for request in requests))

    answers = asyncio.run(main())
    assert [answer["outputs"]["answer"] for answer in answers] == [str(n) for n in range(20)]


def test_nothing_of_a_call_stays_behind(model: Callable[..., Any]) -> None:
    from dspy.clients.base_lm import GLOBAL_HISTORY

    async def main() -> None:
        lm, _ = model(ANSWER)
        called = program("question -> answer")
        await called.request({"question": "?"}, lm).run(asyncio.to_thread)
        assert lm.lm.history == []
        assert called.module.history == []

    asyncio.run(main())
    assert GLOBAL_HISTORY == []
    assert dspy.settings.trace == []
    assert dspy.settings.lm is None


class Blocking(dspy.Module):  # type: ignore[misc]  # DSPy has no types
    """A module of the kind that cannot be awaited."""

    def forward(self, question: str, config: dict[str, Any]) -> Any:
        assert config == {}
        return dspy.Prediction(answer=f"{question} asked {dspy.settings.lm.model}")


def test_a_module_that_blocks_runs_in_a_thread_with_the_same_settings(
    model: Callable[..., Any],
) -> None:
    async def main() -> Any:
        lm, _ = model("")
        called = program("question -> answer")
        called.module = Blocking()
        return await called.request({"question": "who"}, lm).run(asyncio.to_thread)

    assert asyncio.run(main()) == {"outputs": {"answer": "who asked fake/model"}, "usage": {}}


# --- Recipes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Predict", "ChainOfThought"])
def test_a_recipe_keeps_what_was_declared_and_what_was_learned(kind: str) -> None:
    first = program(
        "question, n: int | None -> answer: list[str]",
        kind,
        demos=[{"question": "a", "answer": ["b"]}],
        lm="mine",
    )
    for predictor in first.module.predictors():
        predictor.signature = predictor.signature.with_instructions("Be brief.")
        predictor.demos.append(dspy.Example(question="c", n=1, answer=["d"]))
    again = Program.rebuild(json.loads(json.dumps(first.recipe())))
    assert again.recipe() == first.recipe()
    assert (again.kind, again.lm, again.describe()) == (kind, "mine", first.describe())
    for old, new in zip(first.module.predictors(), again.module.predictors(), strict=True):
        assert new.signature.instructions == "Be brief."
        assert [dict(demo) for demo in new.demos] == [dict(demo) for demo in old.demos]
        assert new.lm is None


def test_only_what_belongs_to_a_state_is_taken_over() -> None:
    called = program("question -> answer")
    state = called.dump_state()
    state["self"] |= {"forward": "oops", "lm": {"model": "openai/other"}}
    called.load_state(state)
    (predictor,) = called.module.predictors()
    assert callable(predictor.forward)
    assert predictor.lm is None


@pytest.mark.parametrize(
    "state", [{}, {"predict": {}}, {"self": {"demos": 7}}, {"self": {"signature": None}}]
)
def test_what_is_no_state_of_the_program_is_refused(state: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="expected the"):
        program("question -> answer").load_state(state)
