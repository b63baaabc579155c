from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import dspy
import pytest

from snakepit_adapters.dspy.arguments import SignatureSpec
from snakepit_adapters.dspy.programs import Program
from snakepit_adapters.dspy.signatures import read_signature
from snakepit_adapters.dspy.streaming import stream
from snakepit_worker.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS = {
    "find": "question, k: int -> facts: list[str], sure: bool",
    "translate": "question, language -> translated",
    "answer": "facts: list[str], text, note: str | None -> answer, score: float",
}
STEPS = [
    {
        "name": "answer",
        "inputs": {"facts": "find.facts", "text": "translate.translated"},
    },
    {"name": "find", "inputs": {"question": "inputs.question", "k": 3}},
    {
        "name": "translate",
        "inputs": {"question": "inputs.question", "language": {"value": "French"}},
    },
]
OUTPUTS = {"answer": "answer.answer", "facts": "find.facts"}
REPLY = {
    "facts": ["a", "b"],
    "sure": True,
    "translated": "oui",
    "answer": "42",
    "score": 0.5,
}


def composed(
    steps: Any = STEPS, outputs: Any = OUTPUTS, parts: Any = PARTS, **programs: Program
) -> Program:
    made = {name: Program("Predict", read_signature(text)) for name, text in parts.items()}
    options = {"steps": steps, "outputs": outputs}
    return Program("Composed", options=options, programs={**made, **programs})


def changed(name: str, **inputs: Any) -> list[dict[str, Any]]:
    return [
        {**step, "inputs": {**step["inputs"], **inputs}} if step["name"] == name else step  # type: ignore[dict-item]
        for step in STEPS
    ]


def test_a_graph_says_what_it_takes_and_gives() -> None:
    assert composed().signature.describe() == {
        "inputs": [{"name": "question", "type": "str"}],
        "outputs": [
            {"name": "answer", "type": "str"},
            {"name": "facts", "type": "list[str]"},
        ],
        "instructions": None,
    }


def test_steps_get_what_is_wired_to_them(model: Callable[..., Any]) -> None:
    async def main() -> Any:
        lm, engine = model(json.dumps(REPLY))
        request = composed().request({"question": "why?"}, lm, None, "json")
        answer = await request.run(asyncio.to_thread, trace=True)
        blocking = composed().module
        with request.settings():
            again = blocking(question="why?")
        assert again.toDict() == answer["outputs"]
        return answer, engine

    answer, engine = asyncio.run(main())
    assert answer["outputs"] == {"answer": "42", "facts": ["a", "b"]}
    assert answer["usage"]["fake/model"]["total_tokens"] == 45
    assert len(engine.requests) == 6
    given = {step["predictor"]: step["inputs"] for step in answer["trace"]}
    assert given == {
        "steps['find']": {"question": "why?", "k": 3},
        "steps['translate']": {"question": "why?", "language": "French"},
        "steps['answer']": {"facts": ["a", "b"], "text": "oui"},
    }


def test_steps_that_do_not_wait_for_each_other_run_at_the_same_time(
    model: Callable[..., Any],
) -> None:
    async def main() -> None:
        lm, _ = model("")
        together = asyncio.Barrier(2)
        calls = 0

        async def acall(*_: Any, **__: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls <= 2:
                async with asyncio.timeout(10):
                    await together.wait()
            return dspy.Prediction(**REPLY)

        called = composed()
        for step in called.module.steps.values():
            step.acall = acall
        request = called.request({"question": "why?"}, lm)
        await request.run(asyncio.to_thread)
        assert calls == 3

    asyncio.run(main())


def test_a_step_that_fails_fails_the_call(model: Callable[..., Any]) -> None:
    async def main() -> None:
        lm, _ = model(dspy.lm15.RateLimitError("slow down"))
        await composed().request({"question": "why?"}, lm).run(asyncio.to_thread)

    with pytest.raises(dspy.LMRateLimitError) as raised:
        asyncio.run(main())
    assert isinstance(raised.value.__cause__, dspy.lm15.RateLimitError)


def test_a_stream_tells_of_the_steps(model: Callable[..., Any]) -> None:
    async def main() -> list[Any]:
        lm, _ = model(json.dumps(REPLY))
        request = composed().request({"question": "why?"}, lm, None, "json")
        return [event async for event in stream(request)]

    *events, last = asyncio.run(main())
    assert last["type"] == "prediction"
    states = [(e["step"], e["state"]) for e in events if e["type"] == "status"]
    assert sorted(states) == sorted((s, t) for s in PARTS for t in ("started", "done"))
    assert states.index(("find", "done")) < states.index(("answer", "started"))
    tokens = {(e["predictor"], e["field"]): e["text"] for e in events if e["type"] == "token"}
    assert tokens == {
        ("steps['translate']", "translated"): "oui",
        ("steps['answer']", "answer"): "42",
    }


def test_the_recipe_holds_what_the_steps_have_learned() -> None:
    first = composed()
    for name, predictor in first.module.named_predictors():
        first.set_instructions(f"Do {name}.", name)
        assert predictor.signature.instructions == f"Do {name}."
    first.set_demos([{"question": "q", "translated": "t"}], "steps['translate']")
    again = Program.rebuild(json.loads(json.dumps(first.recipe())))
    assert again.recipe() == first.recipe()
    again.reset()
    assert again.dump_state() == composed().dump_state()
    assert first.dump_state() != again.dump_state()


def test_programs_of_all_kinds_are_steps(model: Callable[..., Any]) -> None:
    async def main() -> Any:
        lm, _ = model(json.dumps(REPLY))
        best = Program(
            "BestOfN",
            programs={"program": Program("Predict", read_signature("question -> answer"))},
            options={"reward": {"type": "contains"}, "expected": {"answer": "4"}},
        )
        inner = composed()
        steps = [
            {"name": "best", "inputs": {"question": "inputs.question"}},
            {"name": "inner", "inputs": {"question": "best.answer"}},
        ]
        called = composed(steps, {"a": "inner.answer"}, {}, best=best, inner=inner)
        return await called.request({"question": "?"}, lm, None, "json").run(asyncio.to_thread)

    assert asyncio.run(main())["outputs"] == {"a": "42"}


@pytest.mark.parametrize("layout", ["text", "json"])
def test_a_step_that_only_blocks_does_not_disturb_the_stream(
    model: Callable[..., Any], layout: Any
) -> None:
    text = {"text": "[[ ## answer ## ]]\n42\n", "json": '{"answer": "42"}'}[layout]

    async def main() -> list[Any]:
        lm, _ = model(text)
        best = Program(
            "BestOfN",
            programs={"program": Program("Predict", read_signature("question -> answer"))},
            options={"reward": {"type": "contains"}, "expected": {"answer": "4"}},
        )
        ask = Program("Predict", read_signature("question -> answer"))
        steps = [
            {"name": "best", "inputs": {"question": "inputs.question"}},
            {"name": "ask", "inputs": {"question": "best.answer"}},
        ]
        called = composed(steps, {"a": "ask.answer"}, {}, best=best, ask=ask)
        request = called.request({"question": "?"}, lm, None, layout)
        return [event async for event in stream(request)]

    *events, last = asyncio.run(main())
    assert last["outputs"] == {"a": "42"}
    found = {(event["predictor"], event["text"]) for event in events if event["type"] == "token"}
    assert found <= {("steps['ask']", "42")}


def test_objects_and_dates_go_from_step_to_step(model: Callable[..., Any]) -> None:
    import msgspec

    person = {"kind": "object", "name": "Person", "fields": [{"name": "born", "type": "date"}]}
    field = {"name": "who", "type": "Person"}
    makes = {"inputs": [{"name": "text"}], "outputs": [field], "types": [person]}
    takes = {"inputs": [field], "outputs": [{"name": "answer"}], "types": [person]}

    async def main() -> Any:
        lm, _ = model(json.dumps({"who": {"born": "2001-02-03"}, "answer": "42"}))
        programs = {
            name: Program("Predict", read_signature(msgspec.convert(spec, SignatureSpec)))
            for name, spec in (("make", makes), ("take", takes))
        }
        steps = [
            {"name": "make", "inputs": {"text": "inputs.text"}},
            {"name": "take", "inputs": {"who": "make.who"}},
        ]
        outputs = {"answer": "take.answer", "who": "make.who"}
        called = composed(steps, outputs, {}, **programs)
        return await called.request({"text": "?"}, lm, None, "json").run(asyncio.to_thread)

    assert asyncio.run(main())["outputs"] == {"answer": "42", "who": {"born": "2001-02-03"}}


@pytest.mark.parametrize(
    ("steps", "outputs", "field", "text"),
    [
        (changed("find", k="inputs.question"), OUTPUTS, "steps[1].inputs.k", "elsewhere"),
        (changed("find", k="translate.translated"), OUTPUTS, "steps[1].inputs.k", "expected int"),
        (changed("find", k="three"), OUTPUTS, "steps[1].inputs.k", "names no step"),
        (changed("find", k=True), OUTPUTS, "steps[1].inputs.k", "expected int, got bool"),
        (changed("find", k=[1]), OUTPUTS, "steps[1].inputs.k", 'expected "inputs.x"'),
        (changed("find", j=1), OUTPUTS, "steps[1].inputs.j", "known are question, k"),
        (changed("answer", text="find.fact"), OUTPUTS, "steps[0].inputs.text", "it has facts"),
        (changed("find", question="answer.answer"), OUTPUTS, "steps", "wait for each other"),
        (STEPS, {"a": "nobody.answer"}, "outputs.a", "known are inputs, find"),
        (STEPS, {"no name": "find.facts"}, "outputs.no name", "expected a name"),
        ([*STEPS, STEPS[0]], OUTPUTS, "steps[3].name", "is taken"),
        (STEPS[1:], {"facts": "find.facts"}, None, ""),
    ],
)
def test_a_wrong_graph_is_refused_at_its_place(
    steps: Any, outputs: Any, field: str | None, text: str
) -> None:
    parts = {name: PARTS[name] for name in {step["name"] for step in steps}}
    order = {name: parts[name] for name in PARTS if name in parts}
    if field is None:
        assert composed(steps, outputs, order).signature.inputs
        return
    with pytest.raises(InvalidArgument) as raised:
        composed(steps, outputs, order)
    assert field in [v.field for v in raised.value.violations]
    assert text in str(raised.value)
