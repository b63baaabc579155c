from __future__ import annotations

import asyncio
import contextvars
import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_adapters.dspy.programs import Program
from snakepit_adapters.dspy.signatures import read_signature
from snakepit_adapters.dspy.streaming import JsonFields, pumped, stream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

MARKED = ["[[ ## answer", " ## ]]\n", "one", " two", " three", "\n\n[[ ## completed ## ]]"]
JSON = ['{"answer"', ': "one', " two", ' three"', ', "n": 4}']


def texts(pieces: list[str], fields: list[str]) -> dict[str, list[str]]:
    reader = JsonFields(fields)
    found: dict[str, list[str]] = {field: [] for field in fields}
    for piece in pieces:
        for field, text in reader.feed(piece):
            found[field].append(text)
    return found


@given(
    st.dictionaries(st.sampled_from("abc"), st.text(max_size=12), min_size=1),
    st.booleans(),
    st.lists(st.integers(1, 6), min_size=1),
)
def test_the_pieces_of_a_field_are_its_text(
    values: dict[str, str],
    escaped: bool,  # noqa: FBT001
    lengths: list[int],
) -> None:
    rest = "Sure: " + json.dumps(values, ensure_ascii=escaped)
    pieces: list[str] = []
    while rest:
        length = lengths[len(pieces) % len(lengths)]
        pieces.append(rest[:length])
        rest = rest[length:]
    found = texts(pieces, list(values))
    assert {field: "".join(parts) for field, parts in found.items()} == values


def test_pieces_come_as_they_arrive() -> None:
    assert texts(JSON, ["answer"]) == {"answer": ["one", " two", " three"]}


@pytest.mark.parametrize("text", ["no object", '{"n": 4}', '{"answer": 4}', '{"answer": "a"} {'])
def test_what_is_not_a_text_of_the_field_is_no_piece(text: str) -> None:
    assert "".join(texts([text], ["answer"])["answer"]) in ("", "a")


@pytest.mark.parametrize(("layout", "pieces"), [("text", MARKED), ("json", JSON)])
def test_a_stream_ends_with_the_prediction(
    model: Callable[..., Any], layout: Any, pieces: list[str]
) -> None:
    async def main() -> list[Any]:
        lm, _ = model(pieces)
        program = Program("Predict", read_signature(f"question -> answer{_more(layout)}"))
        request = program.request({"question": "?"}, lm, response_format=layout)
        return [event async for event in stream(request)]

    *tokens, last = asyncio.run(main())
    assert {token["type"] for token in tokens} == {"token"}
    assert [token["text"] for token in tokens if token["text"]] == ["one", " two", " three"]
    assert last["type"] == "prediction"
    assert last["outputs"]["answer"] == "one two three"
    assert last["usage"]["fake/model"]["total_tokens"] == 15


def _more(layout: str) -> str:
    return ", n: int" if layout == "json" else ""


def test_an_error_of_the_model_ends_the_stream(model: Callable[..., Any]) -> None:
    async def main() -> None:
        lm, _ = model(dspy.lm15.RateLimitError("slow down"))
        program = Program("Predict", read_signature("question -> answer"))
        async for _ in stream(program.request({"question": "?"}, lm)):
            pass

    with pytest.raises(dspy.LMRateLimitError, match="slow down"):
        asyncio.run(main())


def test_leaving_early_closes_the_models_stream_and_disturbs_nothing(
    model: Callable[..., Any],
) -> None:
    async def main() -> None:
        lm, engine = model([*MARKED[:2], *(f" {n}" for n in range(500))])
        program = Program("Predict", read_signature("question -> answer"))
        request = program.request({"question": "?"}, lm)
        async with aclosing(stream(request)) as events:
            async for _ in events:
                break
        assert engine.closed == 1
        assert dspy.settings.lm is None
        for _ in range(100):  # DSPy's own streams cancel their reader about here
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_cancelled_reader_takes_the_pump_along(model: Callable[..., Any]) -> None:
    async def main() -> None:
        lm, engine = model([*MARKED[:2], *(f" {n}" for n in range(500))])
        program = Program("Predict", read_signature("question -> answer"))
        begun = asyncio.Event()

        async def read() -> None:
            async with aclosing(stream(program.request({"question": "?"}, lm))) as events:
                async for _ in events:
                    begun.set()
                    await asyncio.Event().wait()

        reader = asyncio.create_task(read())
        await begun.wait()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert engine.closed == 1
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_the_source_waits_for_a_slow_reader() -> None:
    made: list[int] = []

    async def source() -> AsyncGenerator[int, None]:
        for number in range(1000):
            made.append(number)
            yield number

    async def main() -> None:
        async with aclosing(pumped(source())) as numbers:
            assert await anext(numbers) == 0
            for _ in range(200):
                await asyncio.sleep(0)
            assert len(made) < 40
            assert [number async for number in numbers] == list(range(1, 1000))

    asyncio.run(main())


def test_the_context_of_the_source_stays_with_it() -> None:
    variable = contextvars.ContextVar("variable", default="outside")

    async def source() -> AsyncGenerator[str, None]:
        variable.set("inside")
        yield variable.get()

    async def main() -> list[str]:
        seen = [item async for item in pumped(source())]
        return [*seen, variable.get()]

    assert asyncio.run(main()) == ["inside", "outside"]
