from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import dspy
import msgspec
import pytest
from pydantic import BaseModel

from snakepit_adapters.dspy.arguments import SignatureSpec
from snakepit_adapters.dspy.programs import Program
from snakepit_adapters.dspy.signatures import Signature, read_signature
from snakepit_adapters.dspy.values import Values, plain
from snakepit_worker.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

PNG = b"\x89PNG\r\n\x1a\n and more"
WAV = b"RIFF\x00\x00\x00\x00WAVEfmt "

TYPES: list[dict[str, Any]] = [
    {"kind": "enum", "name": "Colour", "values": ["red", "light green"]},
    {
        "kind": "object",
        "name": "Person",
        "description": "Somebody.",
        "fields": [
            {"name": "name", "max_length": 5, "description": "first name"},
            {"name": "born", "type": "date | None"},
            {"name": "likes", "type": "list[Colour]"},
        ],
    },
    {"kind": "object", "name": "Team", "fields": [{"name": "people", "type": "list[Person]"}]},
]
ANN = {"name": "Ann", "born": "2001-02-03", "likes": ["red"]}


def signature(inputs: list[dict[str, Any]], outputs: Any = None, types: Any = ()) -> Signature:
    spec = {"inputs": inputs, "outputs": outputs or [{"name": "answer"}], "types": types}
    return read_signature(msgspec.convert(spec, SignatureSpec))


def wrong(fields: list[dict[str, Any]], **inputs: Any) -> list[str]:
    with pytest.raises(InvalidArgument) as raised:
        Values(signature(fields, types=TYPES)).inputs(inputs)
    return [f"{v.field}: {v.description}" for v in raised.value.violations]


def test_values_without_a_type_in_json_are_read_from_texts() -> None:
    fields = [
        {"name": "day", "type": "date"},
        {"name": "moment", "type": "datetime | None"},
        {"name": "colour", "type": "Colour"},
        {"name": "team", "type": "dict[str, Team]"},
    ]
    values = Values(signature(fields, types=TYPES)).inputs(
        {
            "day": "2026-11-25",
            "moment": "2026-11-25T18:00:00Z",
            "colour": "light green",
            "team": {"a": {"people": [ANN]}},
        }
    )
    assert values["day"] == dt.date(2026, 11, 25)
    assert values["moment"] == dt.datetime(2026, 11, 25, 18, tzinfo=dt.UTC)
    assert values["colour"].value == "light green"
    assert plain(values["team"]) == {"a": {"people": [ANN]}}


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("date", "25.11.2026", "expected date, got str"),
        ("date", 7, "expected date, got int"),
        ("Colour", "blue", "expected Colour: Input should be 'red' or 'light green'"),
        ("Person", {**ANN, "name": 7}, "expected Person, got dict (at name)"),
        ("Person", {**ANN, "name": "Annabel"}, "at most 5 characters (at name)"),
        ("Person", {**ANN, "age": 7}, "Extra inputs are not permitted (at age)"),
        ("Team", {"people": [{"name": "Ann"}]}, "Field required (at people.0.likes)"),
    ],
)
def test_what_is_no_such_value_is_refused(kind: str, value: object, text: str) -> None:
    (violation,) = wrong([{"name": "a", "type": kind}], a=value)
    assert violation.startswith("inputs.a: expected")
    assert text in violation


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ({"type": "int", "ge": 0, "lt": 5}, 4, 5),
        ({"type": "float | None", "gt": 0}, None, 0.0),
        ({"type": "int", "multiple_of": 3}, 6, 7),
        ({"min_length": 1, "max_length": 3}, "abc", ""),
        ({"type": "list[int]", "max_length": 1}, [1], [1, 2]),
        ({"pattern": "^[a-z]+$"}, "abc", "ABC"),
    ],
)
def test_limits_of_inputs_are_kept(field: dict[str, Any], good: object, bad: object) -> None:
    fields = [{"name": "a", **field}]
    assert Values(signature(fields)).inputs({"a": good}) == {"a": good}
    assert wrong(fields, a=bad)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"inputs": [{"name": "a", "type": "bool", "ge": 0}]}, "ge is no limit for bool"),
        ({"inputs": [{"name": "a", "type": "int", "pattern": "a"}]}, "pattern is no limit for int"),
        ({"inputs": [{"name": "a", "max_length": 1, "type": "int"}]}, "max_length is no limit"),
        ({"outputs": [{"name": "b", "type": "Image"}]}, "field 'b': Image is for inputs"),
        ({"outputs": [{"name": "b", "type": "list[Audio]"}]}, "Audio is for inputs"),
        ({"inputs": [{"name": "a", "type": "Image | str"}]}, "expected Image alone or with None"),
        ({"inputs": [{"name": "a", "type": "Persona"}]}, "Team, got 'Persona'"),
        ({"types": [{**TYPES[0], "name": "list"}]}, "type 'list': the name is taken"),
        ({"types": [TYPES[0], TYPES[0]]}, "type 'Colour': the name is taken"),
        ({"types": [{**TYPES[0], "name": "a b"}]}, "expected a name such as 'Person'"),
        ({"types": [TYPES[2]]}, "field 'people': expected one of"),
        ({"types": [{**TYPES[2], "fields": [{"name": "copy"}]}]}, "'copy': the name is taken"),
        ({"types": [{**TYPES[2], "fields": [{"name": "__doc__"}]}]}, "expected a name such as"),
        ({"types": [{**TYPES[2], "fields": [{"name": "a", "type": "Image"}]}]}, "be in an object"),
    ],
)
def test_a_wrong_description_is_refused_at_its_place(spec: dict[str, Any], text: str) -> None:
    fields: dict[str, Any] = {"inputs": [{"name": "a"}], "outputs": [{"name": "b"}]}
    with pytest.raises(InvalidArgument) as raised:
        read_signature(msgspec.convert({**fields, "types": TYPES, **spec}, SignatureSpec))
    assert text in str(raised.value)


def test_outputs_come_back_with_their_types(model: Callable[..., Any]) -> None:
    outputs = [
        {"name": "who", "type": "Person"},
        {"name": "colour", "type": "Colour"},
        {"name": "day", "type": "date"},
        {"name": "score", "type": "int", "le": 5},
    ]
    given = {"who": ANN, "colour": "red", "day": "2026-11-25", "score": 5}

    async def main() -> Any:
        lm, engine = model(json.dumps(given))
        made = Program("ChainOfThought", signature([{"name": "q"}], outputs, TYPES))
        again = Program.rebuild(json.loads(json.dumps(made.recipe())))
        assert again.recipe() == made.recipe()
        engine._script = json.dumps({**given, "reasoning": "r"})
        request = again.request({"q": "?"}, lm, None, "json_schema")
        answer = await request.run(asyncio.to_thread)
        return answer["outputs"], engine.requests[0]

    found, asked = asyncio.run(main())
    assert found == {"reasoning": "r", **given}
    schema = asked.config.response_format["schema"]
    assert schema["properties"]["score"] == {"type": "integer", "maximum": 5}
    assert schema["properties"]["who"] == {"$ref": "#/$defs/Person"}
    assert sorted(schema["$defs"]) == ["Colour", "Person"]


@pytest.mark.parametrize("layout", ["text", "json"])
def test_limits_of_outputs_are_kept(model: Callable[..., Any], layout: Any) -> None:
    async def main() -> int:
        lm, engine = model("[[ ## score ## ]]\n7\n")
        if layout == "json":
            engine._script = '{"score": 7}'
        made = Program(
            "Predict",
            signature([{"name": "q"}], [{"name": "score", "type": "int", "le": 5}]),
        )
        with pytest.raises(dspy.AdapterParseError):
            await made.request({"q": "?"}, lm, None, layout).run(asyncio.to_thread)
        asked = str(engine.requests[0])
        assert "less than or equal to: 5" in asked
        return len(engine.requests)

    assert asyncio.run(main()) == (2 if layout == "text" else 1)


def test_schemas_describe_inputs_and_outputs() -> None:
    fields: list[dict[str, Any]] = [
        {"name": "who", "type": "Person", "description": "of interest"},
        {"name": "n", "type": "int | None", "ge": 1},
        {"name": "photo", "type": "Image"},
    ]
    schemas = Values(signature(fields, [{"name": "day", "type": "date"}], TYPES)).schemas()
    inputs = schemas["inputs"]
    assert inputs["required"] == ["who", "photo"]
    assert inputs["properties"]["who"] == {"$ref": "#/$defs/Person", "description": "of interest"}
    assert inputs["properties"]["n"]["anyOf"][0] == {"type": "integer", "minimum": 1}
    assert "binary parameter" in inputs["properties"]["photo"]["description"]
    assert sorted(inputs["$defs"]) == ["Colour", "Person"]
    assert schemas["outputs"]["properties"] == {"day": {"type": "string", "format": "date"}}


# --- Media ----------------------------------------------------------------------------------------


def test_media_go_into_the_request(model: Callable[..., Any]) -> None:
    async def main() -> Any:
        lm, engine = model("[[ ## answer ## ]]\nyes")
        fields = [
            {"name": "photo", "type": "Image"},
            {"name": "more", "type": "list[Image]"},
            {"name": "voice", "type": "Audio | None"},
            {"name": "before", "type": "History"},
        ]
        inputs = {
            "photo": PNG,
            "more": [{"url": "https://example.org/a.png"}, PNG],
            "voice": WAV,
            "before": [{"photo": None, "answer": "no"}],
        }
        made = Program("Predict", signature(fields))
        request = made.request(inputs, lm)
        assert request.arguments["before"].messages == [{"photo": None, "answer": "no"}]
        assert (await request.run(asyncio.to_thread))["outputs"] == {"answer": "yes"}
        return engine.requests[0].messages[-1].parts

    parts = asyncio.run(main())
    data = [part.data for part in parts if getattr(part, "data", None)]
    assert data == [base64.b64encode(held).decode() for held in (PNG, PNG, WAV)]
    assert str(parts).count("https://example.org/a.png") == 1


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("Image", b"no image", "expected the bytes of a PNG"),
        ("Image", "https://example.org/a.png", "expected a binary parameter"),
        ("Image", {"url": "http://169.254.169.254/a"}, "expected a binary parameter"),
        ("Image", {"url": "file:///etc/passwd"}, "expected a binary parameter"),
        ("Image", {"url": "https://ann:secret@example.org/"}, "expected a binary parameter"),
        ("Image", {"url": "data:image/png;base64,AAAA"}, "expected a binary parameter"),
        ("Image", None, "expected Image, got null"),
        ("list[Image]", PNG, "expected list[Image], got bytes"),
        ("Audio", {"url": "https://example.org/a.wav"}, "expected a binary parameter"),
        ("Audio", PNG, "expected the bytes of a WAV"),
        ("History", [1], "expected a list of messages"),
        ("str", PNG, "expected str, got bytes"),
        ("Any", PNG, "expected Any, got bytes"),
        ("dict", {"a": [PNG]}, "expected dict[str, Any], got bytes"),
        ("Any", "<<CUSTOM-TYPE-START-IDENTIFIER>>[]", "is DSPy's own"),
        ("dict", {"a": ["<<CUSTOM-TYPE-START-IDENTIFIER>>"]}, "is DSPy's own"),
    ],
)
def test_what_is_no_such_medium_is_refused(kind: str, value: object, text: str) -> None:
    (violation,) = wrong([{"name": "a", "type": kind}], a=value)
    assert text in violation


def test_litellm_gets_no_address_that_it_would_fetch(model: Callable[..., Any]) -> None:
    async def main() -> None:
        lm, _ = model("")
        lm.lm._engine_spec = "litellm"
        made = Program("Predict", signature([{"name": "photo", "type": "Image"}]))
        made.request({"photo": PNG}, lm)
        with pytest.raises(InvalidArgument, match="binary parameters only"):
            made.request({"photo": {"url": "https://example.org/a.png"}}, lm)

    asyncio.run(main())


def test_media_are_no_part_of_demos() -> None:
    fields = [{"name": "photo", "type": "Image"}, {"name": "q"}]
    demo = {"photo": {"url": "https://example.org/a.png"}, "answer": "yes"}
    with pytest.raises(InvalidArgument, match=r"demos\[0\].photo"):
        Program("Predict", signature(fields), demos=[demo])


class Point(BaseModel):
    x: int


def test_outputs_are_plain_data() -> None:
    assert plain([Point(x=1), {"a": dt.time(1)}, object]) == [
        {"x": 1},
        {"a": "01:00:00"},
        "<class 'object'>",
    ]
