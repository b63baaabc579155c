"""From type hints to validated arguments, violations that name everything, and JSON Schema."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import (
    AsyncIterator,  # noqa: TC003 - hints of tools are read at run time
    Generator,  # noqa: TC003 - hints of tools are read at run time
    Iterator,  # noqa: TC003 - hints of tools are read at run time
)
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Optional, TypedDict
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_worker.errors import InvalidArgument, StartError
from snakepit_worker.tools.binding import Signature
from snakepit_worker.tools.context import CallContext  # noqa: TC001 - hints of tools are read at run time
from snakepit_worker.wire.failures import CallSite, describe
from snakepit_worker.wire.zero_copy import ZeroCopyReference
from tests.conftest import name_of


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Item(msgspec.Struct):
    name: str
    count: int = 1
    tags: list[str] = []


class Blob(msgspec.Struct):
    data: bytes


@dataclasses.dataclass
class Labelled:
    label: str
    blob: Blob | None = None
    others: list[Labelled] = dataclasses.field(default_factory=list)


class Tree(msgspec.Struct):
    children: list[Tree] = []


class Arguments(msgspec.Struct):
    """Named as the runtime's own class."""

    inner: int


@dataclasses.dataclass
class Point:
    x: int


class Options(TypedDict):
    depth: int


Share = Annotated[float, msgspec.Meta(ge=0, le=1, description="a part of the whole")]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=8, pattern="^[a-z]+$")]
Few = Annotated[list[int], msgspec.Meta(max_length=3)]
Thumbnail = Annotated[bytes, msgspec.Meta(max_length=4)]


def taking(hint: Any, *default: Any) -> Signature:
    """The signature of a tool with one parameter, ``p``."""

    def tool(p: Any) -> None:
        del p

    tool.__annotations__["p"] = hint
    tool.__defaults__ = default or None
    return Signature(tool, "shop.tool")


def bound(hint: Any, value: object) -> Any:
    return taking(hint).bind({"p": value})["p"]


def violations(signature: Signature, arguments: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(InvalidArgument) as caught:
        signature.bind(arguments)
    found = {violation.field: violation.description for violation in caught.value.violations}
    assert len(found) == len(caught.value.violations)
    assert str(caught.value).startswith("wrong arguments for shop.tool: ")
    for field, description in found.items():
        assert f"{field}: {description}" in str(caught.value)
    return found


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (str, "a", "a"),
        (str, "", ""),
        (int, 7, 7),
        (int, 10**400, 10**400),
        (float, 1.5, 1.5),
        (float, 7, 7.0),
        (bool, True, True),
        (None, None, None),
        (Any, {"a": [1]}, {"a": [1]}),
        (dict, {"a": 1}, {"a": 1}),
        (list, [1, "a"], [1, "a"]),
        (Optional[int], None, None),  # noqa: UP045 - authors write both
        (int | None, 7, 7),
        (int | str, "a", "a"),
        (list[int], [1, 2], [1, 2]),
        (dict[str, list[float]], {"a": [1]}, {"a": [1.0]}),
        (dict[int, str], {"1": "a", "-2": "b"}, {1: "a", -2: "b"}),
        (dict[UUID, int], {"00000000-0000-0000-0000-000000000005": 1}, {UUID(int=5): 1}),
        (tuple[int, str], [1, "a"], (1, "a")),
        (set[int], [1, 1, 2], {1, 2}),
        (Literal["cpu", "gpu"], "gpu", "gpu"),
        (Literal[1, 2], 2, 2),
        (Colour, "red", Colour.RED),
        (Share, 1, 1.0),
        (Name, "tea", "tea"),
        (Few, [1, 2, 3], [1, 2, 3]),
        (Item, {"name": "tea"}, Item("tea")),
        (Item, {"name": "tea", "count": 2, "tags": ["a"], "more": 1}, Item("tea", 2, ["a"])),
        (list[Item], [{"name": "tea"}], [Item("tea")]),
        (Tree, {"children": [{}, {"children": [{}]}]}, Tree([Tree(), Tree([Tree()])])),
        (Point, {"x": 1}, Point(1)),
        (Options, {"depth": 3}, {"depth": 3}),
        (datetime, "2026-11-22T08:00:00Z", datetime(2026, 11, 22, 8, tzinfo=UTC)),
        (UUID, "00000000-0000-0000-0000-000000000005", UUID(int=5)),
        (bytes, b"\xff", b"\xff"),
        (bytearray, b"\xff", bytearray(b"\xff")),
        (memoryview, b"\xff", memoryview(b"\xff")),
        (bytes | None, b"\xff", b"\xff"),
        (bytes | None, None, None),
        (Thumbnail, b"1234", b"1234"),
    ],
    ids=name_of,
)
def test_what_fits_is_converted(hint: Any, value: object, expected: object) -> None:
    got = bound(hint, value)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("hint", "value", "field", "words"),
    [
        (str, 1, "p", ["expected str", "got int", "1"]),
        (str, None, "p", ["expected str", "got null"]),
        (int, "7", "p", ["expected int", "got str", "'7'"]),
        (int, True, "p", ["expected int", "got bool", "True"]),
        (int, 7.5, "p", ["expected int", "got float", "7.5"]),
        (float, "1", "p", ["expected float", "got str"]),
        (float, True, "p", ["expected float", "got bool"]),
        (float, 10**400, "p", ["range", "got 1000"]),
        (bool, 1, "p", ["expected bool", "got int"]),
        (None, 0, "p", ["expected null", "got int"]),
        (list, {}, "p", ["expected array", "got object"]),
        (dict, [1], "p", ["expected object", "got array", "[1]"]),
        (int | None, "x", "p", ["expected int | null", "got str", "'x'"]),
        (int | str, 1.5, "p", ["expected int | str", "got float"]),
        (list[int], [1, "x"], "p[1]", ["expected int", "got str"]),
        (list[int], "x", "p", ["expected array", "got str"]),
        (dict[str, int], {"a": "x"}, "p.a", ["expected int", "got str"]),
        (dict[str, list[int]], {"a": ["x"]}, "p.a[0]", ["expected int", "got str"]),
        (tuple[int, str], [1], "p", ["expected array of length 2", "got 1"]),
        (set[Any], [[1]], "p", ["unhashable"]),
        (Literal["cpu", "gpu"], "tpu", "p", ["expected", "cpu", "gpu", "got 'tpu'"]),
        (Literal["cpu", "gpu"], 3, "p", ["expected one of 'cpu', 'gpu', got int (3)"]),
        (Literal["cpu", "gpu"], None, "p", ["expected one of 'cpu', 'gpu', got null (None)"]),
        (Literal[1, 2], 3, "p", ["expected", "1", "2", "got 3"]),
        (list[Literal["a", "b"]], ["a", "c"], "p[1]", ["expected", "a", "b", "got"]),
        (Colour, "blue", "p", ["expected", "red", "green", "got 'blue'"]),
        (Share, 1.5, "p", ["expected float <= 1", "got 1.5"]),
        (Share, -1, "p", ["expected float >= 0", "got -1"]),
        (Name, "", "p", ["length >= 1", "got ''"]),
        (Name, "Tea", "p", ["matching", "[a-z]", "got 'Tea'"]),
        (Few, [1, 2, 3, 4], "p", ["length <= 3", "got [1, 2, 3, 4]"]),
        (Item, {}, "p.name", ["expected str", "got nothing"]),
        (Item, [], "p", ["expected object", "got array"]),
        (Item, {"name": 1}, "p.name", ["expected str", "got int"]),
        (Item, {"name": "a", "tags": ["b", 1]}, "p.tags[1]", ["expected str", "got int"]),
        (list[Item], [{"name": "a"}, {"name": 1}], "p[1].name", ["expected str", "got int"]),
        (Point, {"x": "1"}, "p.x", ["expected int", "got str"]),
        (Options, {}, "p.depth", ["expected int", "got nothing"]),
        (datetime, "yesterday", "p", ["datetime", "got 'yesterday'"]),
        (UUID, "x", "p", ["UUID", "got 'x'"]),
        (bytes, "YQ==", "p", ["expected bytes", "got str", "; send it as a binary parameter"]),
        (bytes | None, "YQ==", "p", ["expected bytes | null", "got str"]),
        (bytes, [1], "p", ["expected bytes", "got array"]),
        (Thumbnail, b"12345", "p", ["length <= 4", "got 5 bytes"]),
        (str, b"\xff", "p", ["expected str", "got bytes", "1 bytes"]),
    ],
    ids=name_of,
)
def test_what_does_not_fit_is_named_with_what_was_expected_and_what_came(
    hint: Any, value: object, field: str, words: list[str]
) -> None:
    found = violations(taking(hint), {"p": value})
    assert set(found) == {field}
    for word in words:
        assert word in found[field]


@pytest.mark.parametrize("hint", [str, int, dict[str, int], Item, Literal["a"]], ids=name_of)
def test_a_large_value_is_not_shown_in_full(hint: Any) -> None:
    for value in ("x" * 100_000, list(range(10_000)), {"name": 1, "x" * 10_000: "y" * 10_000}):
        problem = ""
        try:
            taking(hint).bind({"p": value})
        except InvalidArgument as error:
            problem = str(error)
        assert len(problem) < 300


class Shop:
    """A tool with a bit of everything."""

    def order(
        self,
        article: str,
        ctx: CallContext,
        quantity: Annotated[int, msgspec.Meta(ge=1)] = 1,
        *,
        express: bool = False,
        notes: list[str] | None = None,
    ) -> dict[str, Any]:
        return {"ctx": ctx, "a": article, "q": quantity, "e": express, "n": notes}


SHOP = Signature(Shop().order, "shop.tool")


def test_all_that_is_wrong_is_named_at_once() -> None:
    assert violations(SHOP, {"quantity": 0, "express": "yes", "notes": [1], "colour": "red"}) == {
        "quantity": "expected int >= 1, got 0",
        "express": "expected bool, got str ('yes')",
        "notes[0]": "expected str, got int (1)",
        "colour": "unknown argument; shop.tool takes article, quantity, express, notes",
        "article": "expected str, got nothing",
    }


def test_an_unknown_argument_is_told_its_neighbour() -> None:
    found = violations(SHOP, {"article": "tea", "quantitty": 2})
    assert found == {"quantitty": "unknown argument; did you mean quantity?"}


def test_a_tool_without_parameters_takes_none() -> None:
    def tool() -> None: ...

    signature = Signature(tool, "shop.tool")
    assert signature.bind({}) == {}
    assert violations(signature, {"x": 1}) == {
        "x": "unknown argument; shop.tool takes no arguments"
    }


@pytest.mark.parametrize("name", ["session_id", "idempotent"])
def test_arguments_of_the_runtime_are_left_out(name: str) -> None:
    assert SHOP.bind({"article": "tea", name: "x"}) == {"article": "tea"}


@pytest.mark.parametrize("name", ["ctx", "self"])
def test_callers_cannot_fill_what_is_not_a_parameter(name: str) -> None:
    assert set(violations(SHOP, {"article": "tea", name: "x"})) == {name}


def test_the_context_may_have_any_name_and_place() -> None:
    assert SHOP.context_parameter == "ctx"

    def tool(anything: CallContext) -> None:
        del anything

    assert Signature(tool, "t").context_parameter == "anything"
    assert taking(str).context_parameter is None


def test_defaults_are_left_to_python() -> None:
    assert SHOP.bind({"article": "tea"}) == {"article": "tea"}
    assert SHOP.bind({"article": "tea", "notes": None}) == {"article": "tea", "notes": None}


wrong = {"article": 1, "quantity": 0, "express": 3, "notes": "x", "unknown": None}
right = {"article": "tea", "quantity": 2, "express": True, "notes": ["x"]}


@given(st.fixed_dictionaries({}, optional={name: st.booleans() for name in (*right, "unknown")}))
def test_exactly_the_wrong_the_missing_and_the_unknown_are_named(given: dict[str, bool]) -> None:
    arguments = {
        name: right[name] if good and name in right else wrong[name] for name, good in given.items()
    }
    expected = {name for name in arguments if arguments[name] is wrong[name]}
    if "article" not in arguments:
        expected.add("article")
    if expected:
        assert set(violations(SHOP, arguments)) == expected
    else:
        assert SHOP.bind(arguments) == arguments


@given(st.data())
def test_whatever_a_struct_can_hold_arrives_as_that_struct(data: st.DataObject) -> None:
    item = data.draw(st.builds(Item, st.text(), st.integers(), st.lists(st.text(), max_size=3)))
    sent = msgspec.to_builtins([item])
    assert bound(list[Item], sent) == [item]
    assert bound(Any, sent) == sent


@pytest.mark.parametrize(
    "value", ["x" * 1000, b"x" * 1000, list(range(1000)), dict.fromkeys("abc")], ids=name_of
)
def test_large_arguments_are_not_copied(value: Any) -> None:
    assert bound(type(value), value) is value
    assert bound(Any, value) is value


def test_large_binary_arguments_are_not_copied_even_within_limits() -> None:
    value = bytes(1000)
    assert bound(Annotated[bytes, msgspec.Meta(max_length=2000)], value) is value
    assert bound(bytes | None, value) is value
    view = bound(memoryview, value)
    assert view.obj is value


@pytest.mark.parametrize(
    "value", [ZeroCopyReference({"__snakepit_zero_copy__": True, "ref": "x"}), object()]
)
def test_any_takes_a_reference_as_it_is(value: object) -> None:
    assert bound(Any, value) is value


def test_a_reference_is_no_object_of_another_type() -> None:
    reference = ZeroCopyReference({"__snakepit_zero_copy__": True, "ref": "x"})
    for hint in (dict, str, Item):
        assert "got ZeroCopyReference" in violations(taking(hint), {"p": reference})["p"]


@pytest.mark.parametrize("name", ["api_key", "token", "password"])
def test_the_value_of_a_secret_is_never_shown(name: str) -> None:
    def tool(p: Annotated[str, msgspec.Meta(max_length=3)]) -> None:
        del p

    tool.__annotations__[name] = tool.__annotations__.pop("p")
    tool.__code__ = tool.__code__.replace(co_varnames=(name,))
    signature = Signature(tool, "shop.tool")
    for value in ("blaue-katze-4711", 4711, ["blaue-katze-4711"]):
        (description,) = violations(signature, {name: value}).values()
        assert "4711" not in description
        assert "expected str" in description


class Model(msgspec.Struct):
    model: str
    api_key: str = ""


@pytest.mark.parametrize("length", [8, 40, 60, 100, 400])
def test_a_secret_inside_of_what_came_does_not_leave_the_process(length: int) -> None:
    secret = "Xq7" * length
    with pytest.raises(InvalidArgument) as caught:
        taking(Model).bind({"p": {"api_key": secret[:length]}})
    assert "Xq7Xq7" not in describe(caught.value, CallSite("t", "s")).to_json()


# --- Signatures that cannot be served -------------------------------------------------------------


class Unknown:
    pass


def no_hint(p) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - under test
    del p


def variadic(*values: int) -> None:
    del values


def rest_without_a_hint(**values) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN003 - under test
    del values


def rest(ctx: CallContext, first: str = "", **values: int) -> None:
    del ctx, first, values


def positional(p: int, /) -> None:
    del p


def of_the_runtime(session_id: str) -> None:
    del session_id


def of_the_runtime_too(idempotent: bool) -> None:  # noqa: FBT001 - under test
    del idempotent


def unresolvable(p: Missing) -> None:  # type: ignore[name-defined]  # noqa: F821 - under test
    del p


def of_a_class_that_json_cannot_fill(p: Unknown) -> None:
    del p


def two_contexts(one: CallContext, other: CallContext) -> None:
    del one, other


def a_blob(p: Blob) -> None:
    del p


def perhaps_a_blob(p: dict[str, list[Labelled | None]]) -> None:
    del p


def many_bytes(p: list[bytes]) -> None:
    del p


def bytes_or_numbers(p: list[bytes | None] | int) -> None:
    del p


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        (two_contexts, "one and other are both the CallContext; one is enough"),
        (a_blob, r"p\.data is bytes, .* a parameter of its own"),
        (perhaps_a_blob, r"p\[…\]\[…\]\.blob\.data is bytes"),
        (many_bytes, r"p\[…\] is bytes"),
        (bytes_or_numbers, r"p\[…\] is bytes"),
        (no_hint, "parameter p has no type hint"),
        (variadic, r"\*values cannot be described"),
        (rest_without_a_hint, "parameter values has no type hint"),
        (positional, "p is positional-only"),
        (of_the_runtime, "session_id belongs to the runtime"),
        (of_the_runtime_too, "idempotent belongs to the runtime"),
        (unresolvable, "Missing"),
        (of_a_class_that_json_cannot_fill, "Unknown"),
    ],
)
def test_a_signature_that_cannot_be_served_does_not_start(tool: Any, words: str) -> None:
    with pytest.raises(StartError, match=rf"(?s)^tool shop\.tool: .*{words}"):
        Signature(tool, "shop.tool")


@pytest.mark.parametrize(
    ("hint", "value"),
    [(bytes, b"a"), (bytes | None, b"a"), (bytes | int, b"a"), (list[bytes | int], [1])],
    ids=name_of,
)
def test_bytes_that_a_caller_can_give_are_fine(hint: Any, value: Any) -> None:
    def function(p: Any) -> None:
        del p

    function.__annotations__["p"] = hint
    assert Signature(function, "shop.tool").bind({"p": value}) == {"p": value}


# --- JSON Schema ----------------------------------------------------------------------------------


def test_the_schema_describes_every_parameter_and_forbids_others() -> None:
    assert SHOP.schema() == {
        "type": "object",
        "properties": {
            "article": {"type": "string"},
            "quantity": {"type": "integer", "minimum": 1, "default": 1},
            "express": {"type": "boolean", "default": False},
            "notes": {
                "anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}],
                "default": None,
            },
        },
        "required": ["article"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (str, {"type": "string"}),
        (float, {"type": "number"}),
        (Any, {}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Literal["cpu", "gpu"], {"enum": ["cpu", "gpu"]}),
        (
            Share,
            {"type": "number", "minimum": 0, "maximum": 1, "description": "a part of the whole"},
        ),
        (Name, {"type": "string", "minLength": 1, "maxLength": 8, "pattern": "^[a-z]+$"}),
        (Few, {"type": "array", "items": {"type": "integer"}, "maxItems": 3}),
    ],
    ids=name_of,
)
def test_hints_become_schemas(hint: Any, schema: object) -> None:
    assert taking(hint).schema()["properties"] == {"p": schema}


@pytest.mark.parametrize("hint", [Item, Tree, Colour, Point, Options, Arguments, list[Arguments]])
def test_references_of_a_schema_lead_somewhere(hint: Any) -> None:
    schema = taking(hint).schema()
    assert set(schema["properties"]) == {"p"}
    references = [part.split('"')[0] for part in json.dumps(schema).split('"$ref": "')[1:]]
    assert references
    for reference in references:
        place: Any = schema
        for key in reference.removeprefix("#/").split("/"):
            place = place[key]
        assert place


def test_a_schema_is_json_and_fresh_for_every_caller() -> None:
    signature = taking(Item, None)
    first = signature.schema()
    assert json.loads(json.dumps(first)) == first
    first.clear()
    assert signature.schema()["properties"]


def text() -> str: ...  # type: ignore[empty-body]


def items() -> list[Item]: ...  # type: ignore[empty-body]


def unsaid():  # type: ignore[no-untyped-def]  # noqa: ANN201 - under test
    ...


def odd() -> Unknown: ...  # type: ignore[empty-body]


def nothing() -> None: ...


def iterating() -> Iterator[int]: ...  # type: ignore[empty-body]


def generating() -> Generator[int, None, str]: ...  # type: ignore[empty-body]


async def streaming() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("tool", "schema"),
    [
        (text, {"type": "string"}),
        (nothing, {"type": "null"}),
        (unsaid, {}),
        (odd, {}),
        (iterating, {"type": "integer"}),
        (generating, {"type": "integer"}),
        (streaming, {"type": "integer"}),
    ],
)
def test_the_result_is_described_too(tool: Any, schema: object) -> None:
    assert Signature(tool, "t").returns() == schema


def test_a_result_of_structs_has_its_definitions() -> None:
    described = Signature(items, "t").returns()
    assert described["type"] == "array"
    assert described["$defs"]["Item"]["required"] == ["name"]


def test_bytes_that_were_not_given_are_a_binary_parameter() -> None:
    def function(data: bytes) -> None:
        del data

    with pytest.raises(InvalidArgument, match=r"got nothing; send it as a binary parameter$"):
        Signature(function, "shop.tool").bind({})


def test_the_rest_of_the_arguments_can_have_a_parameter() -> None:
    signature = Signature(rest, "shop.tool")
    assert signature.bind({"a": 1, "first": "x", "session_id": "s", "b": 2}) == {
        "a": 1,
        "first": "x",
        "b": 2,
    }
    schema = signature.schema()
    assert list(schema["properties"]) == ["first"]
    assert schema["additionalProperties"] == {"type": "integer"}


@pytest.mark.parametrize(
    ("arguments", "field"),
    [({"a": "text"}, "a"), ({"ctx": 1}, "ctx"), ({"self": 1}, "self"), ({"first": 1}, "first")],
    ids=str,
)
def test_the_rest_is_checked_too(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        Signature(rest, "shop.tool").bind(arguments)
    assert [violation.field for violation in raised.value.violations] == [field]
