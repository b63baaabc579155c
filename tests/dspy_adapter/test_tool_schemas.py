"""Schemas of agents' tools, from what the host and adapters say of their parameters."""

from __future__ import annotations

from typing import Any

import pytest

from snakepit_adapters.dspy.tool_schemas import closed, from_parameters, inlined, without_bytes


def parameter(**given: Any) -> dict[str, Any]:
    plain = {"type": "any", "description": "", "required": False, "default": None}
    return {"name": "p", **plain, "validation": {}, **given}


def property_of(**given: Any) -> Any:
    return from_parameters([parameter(**given)])["properties"]["p"]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("string", "string"),
        (":string", "string"),
        ("Integer", "integer"),
        ("float", "number"),
        ("boolean", "boolean"),
        ("list", "array"),
        ("map", "object"),
    ],
)
def test_types_have_the_names_of_both_languages(kind: str, expected: str) -> None:
    assert property_of(type=kind) == {"type": expected}


def test_an_unknown_type_is_any() -> None:
    assert property_of(type="MyApp.Money") == {}


def test_descriptions_and_defaults_are_kept() -> None:
    assert property_of(type="integer", description="how many", default=0) == {
        "type": "integer",
        "description": "how many",
        "default": 0,
    }


@pytest.mark.parametrize(
    ("kind", "validation", "expected"),
    [
        ("integer", {"min": 1, "max": 5}, {"minimum": 1, "maximum": 5}),
        ("string", {"min": 1, "max_length": 5}, {"minLength": 1, "maxLength": 5}),
        ("list", {"min_length": 2}, {"minItems": 2}),
        ("string", {"choices": ["a", "b"]}, {"enum": ["a", "b"]}),
        ("string", {"enum": ["a"], "one_of": ["b"]}, {"enum": ["a"]}),
        ("string", {"pattern": "^a"}, {"pattern": "^a"}),
        ("list", {"items": {"type": "integer"}}, {"items": {"type": "integer"}}),
        ("any", {"min": 1}, {}),
        ("integer", {"minimum": "one", "enum": "a", "choices": 1, "min": None}, {}),
        ("integer", ["no", "object"], {}),
    ],
    ids=str,
)
def test_validations_become_schema(kind: str, validation: Any, expected: dict[str, Any]) -> None:
    schema = property_of(type=kind, validation=validation)
    schema.pop("type", None)
    assert schema == expected


def test_a_tool_takes_nothing_that_it_does_not_name() -> None:
    schema = from_parameters([parameter(required=True), parameter(name="q")])
    assert schema["required"] == ["p"]
    assert schema["additionalProperties"] is False
    assert closed({"type": "object"}) == {
        "type": "object",
        "properties": {},
        "required": [],
        "additionalProperties": False,
    }


BINARY = {"type": "string", "contentEncoding": "base64"}


@pytest.mark.parametrize(
    "part", [BINARY, {"anyOf": [BINARY, {"type": "null"}]}, {"$ref": "#/$defs/Data"}], ids=str
)
def test_bytes_are_left_out_unless_they_are_required(part: dict[str, Any]) -> None:
    schema = {
        "properties": {"data": part, "n": {"type": "integer"}},
        "required": ["n"],
        "$defs": {"Data": BINARY},
    }
    kept = without_bytes(schema)
    assert kept is not None
    assert list(kept["properties"]) == ["n"]
    assert without_bytes({**schema, "required": ["data"]}) is None


def test_references_are_replaced() -> None:
    definitions = {"Item": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Item"}}}}
    schema = {"anyOf": [{"$ref": "#/$defs/Item"}, {"type": "null"}]}
    found = inlined(schema, definitions, depth=2)
    item = found["anyOf"][0]
    assert item["properties"]["next"]["properties"]["next"] == {"description": "any value"}
    assert "$ref" not in str(found)
