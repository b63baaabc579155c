"""All that is wrong about an argument at once, each thing with its path."""

from __future__ import annotations

import dataclasses
import enum
import time
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snakepit_worker.tools.conversion import convert
from snakepit_worker.tools.violations import Violations
from tests.conftest import name_of

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1


class Inputs(msgspec.Struct, forbid_unknown_fields=True):
    question: str
    limit: Annotated[int, msgspec.Meta(ge=1, le=9)] = 1
    api_key: Annotated[str, msgspec.Meta(max_length=3)] = ""


class Example(msgspec.Struct):
    inputs: Inputs
    weights: dict[str, float] = {}
    colour: Colour | None = None


class Renamed(msgspec.Struct, rename="camel"):
    first_name: str


class Range(msgspec.Struct):
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            msg = "low is above high"
            raise ValueError(msg)


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    name: str


class Row(msgspec.Struct, array_like=True):
    key: str
    count: int
    more: float = 0.0


class Get(msgspec.Struct, array_like=True, tag="get"):
    key: str


class Put(msgspec.Struct, array_like=True, tag="put"):
    key: str
    value: int


class Empty(msgspec.Struct, forbid_unknown_fields=True):
    pass


class Box(msgspec.Struct, Generic[T]):
    content: T


class Tree(msgspec.Struct):
    children: list[Tree] = []
    weight: int = 0


class Options(TypedDict):
    depth: int
    wide: NotRequired[bool]


class Place(NamedTuple):
    x: int
    y: int = 0


@dataclasses.dataclass
class Point:
    x: int
    label: str = ""

    def __post_init__(self) -> None:
        if self.label == "no":
            raise ValueError("not this one")


Short = Annotated[list[int], msgspec.Meta(max_length=2)]
Words = Annotated[dict[str, int], msgspec.Meta(min_length=1)]
Positive = Annotated[int, msgspec.Meta(gt=0, description="above zero")]
Zoned = Annotated[datetime, msgspec.Meta(tz=True)]


def searched(hint: Any, value: object) -> Violations:
    violations = Violations()
    violations.search("p", value, hint)
    return violations


def found(hint: Any, value: object) -> dict[str, str]:
    kept = searched(hint, value).kept()
    named = {violation.field: violation.description for violation in kept}
    assert len(named) == len(kept)
    return named


def test_all_violations_of_a_nested_argument_are_found_at_once() -> None:
    examples = [
        {"inputs": {"question": "a"}, "weights": {"b": 1}},
        {"inputs": {"question": 1, "limit": 0}, "weights": {"b": "c", "two words": None}},
        "text",
        {"inputs": {"limt": 3, "limit": 12}, "colour": "blue"},
        {"weights": []},
    ]
    assert found(list[Example], examples) == {
        "p[1].inputs.question": "expected str, got int (1)",
        "p[1].inputs.limit": "expected int >= 1, got 0",
        "p[1].weights.b": "expected float, got str ('c')",
        "p[1].weights['two words']": "expected float, got null (None)",
        "p[2]": "expected object, got str ('text')",
        "p[3].inputs.question": "expected str, got nothing",
        "p[3].inputs.limit": "expected int <= 9, got 12",
        "p[3].inputs.limt": "unknown field; did you mean limit?",
        "p[3].colour": "expected one of 'red', 'green', got 'blue'",
        "p[4].inputs": "expected object, got nothing",
        "p[4].weights": "expected object, got array ([])",
    }


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (Inputs, {"question": "", "zzz": 1}, {"p.zzz": "the object has question, limit, api_key"}),
        (Empty, {"a": 1}, {"p.a": "the object has no fields"}),
        (Renamed, {"first_name": "a"}, {"p.firstName": "expected str, got nothing"}),
        (Range, {"low": 2, "high": 1}, {"p": "low is above high, got {'low': 2, 'high': 1}"}),
        (Range, {"low": "2", "high": "1"}, {"p.low": "int", "p.high": "int"}),
        (list[Range], [{"low": 2, "high": 1}] * 2, {"p[0]": "low", "p[1]": "low"}),
        (Point, {"label": "no"}, {"p.x": "expected int, got nothing"}),
        (Point, {"x": 1, "label": "no"}, {"p": "not this one"}),
        (Options, {"wide": 1}, {"p.depth": "got nothing", "p.wide": "expected bool, got int"}),
        (Place, ["a", "b"], {"p[0]": "int", "p[1]": "int"}),
        (Place, [], {"p": "array of length 1 to 2, got 0"}),
        (Place, ["a", 2, 3], {"p": "array of length 1 to 2, got 3", "p[0]": "expected int"}),
        (Row, ["a"], {"p": "array of at least length 2, got 1"}),
        (Row, [1, "b", "c", "d"], {"p[0]": "str", "p[1]": "int", "p[2]": "float"}),
        (Row, {"key": "a"}, {"p": "expected array, got object"}),
        (tuple[int, str], ["a", 1], {"p[0]": "expected int", "p[1]": "expected str"}),
        (tuple[int, str], ["a"], {"p": "length 2", "p[0]": "expected int"}),
        (tuple[int, ...], [1, "a", 2, "b"], {"p[1]": "expected int", "p[3]": "expected int"}),
        (set[int], [1, "a", 1, "b"], {"p[1]": "expected int", "p[3]": "expected int"}),
        (set[Any], [[1]], {"p": "unhashable type: 'list'"}),
        (frozenset[str], [1], {"p[0]": "expected str"}),
        (Short, [1, "a", 3], {"p": "expected array of length <= 2", "p[1]": "expected int"}),
        (Words, {}, {"p": "expected object of length >= 1"}),
        (
            dict[int, str],
            {"1": 2, "a": "b"},
            {"p['1']": "str", "p.a": "key: expected int, got str"},
        ),
        (
            dict[Colour, int],
            {"blue": 1},
            {"p.blue": "key: expected one of 'red', 'green', got 'blue'"},
        ),
        (Cat | Dog, {"lives": 9}, {"p.type": "expected one of 'Cat', 'Dog', got nothing"}),
        (Cat | Dog, {"type": "Cow"}, {"p.type": "expected one of 'Cat', 'Dog', got 'Cow'"}),
        (Cat | Dog, {"type": "Dog", "name": 1}, {"p.name": "expected str, got int"}),
        (Cat | Dog | None, 1, {"p": "expected object | null, got int (1)"}),
        (Cat, {"type": "Dog"}, {"p.type": "expected one of 'Cat'", "p.lives": "got nothing"}),
        (Get | Put, ["put", 1, "a"], {"p[1]": "expected str", "p[2]": "expected int"}),
        (Get | Put, ["pop", 1], {"p[0]": "expected one of 'get', 'put', got 'pop'"}),
        (int | list[Row] | None, [["a", "b"]], {"p[0][1]": "expected int, got str"}),
        (int | list[Row] | None, {}, {"p": "expected int | array | null, got object"}),
        (Box[int], {"content": "a"}, {"p.content": "expected int, got str"}),
        (list[Positive | None], [0, None, "a"], {"p[0]": ">= 1, got 0", "p[2]": "int | null"}),
        (Literal["a", 1], 2, {"p": "expected one of 1, 'a', got 2"}),
        (list[Level], [2], {"p[0]": "expected one of 1, got 2"}),
        (Zoned, "2026-01-01T00:00:00", {"p": "expected datetime with a timezone component"}),
        (list[date], ["x"], {"p[0]": "invalid RFC3339 encoded date, got 'x'"}),
        (list[Decimal], ["x", True], {"p[0]": "invalid decimal", "p[1]": "expected decimal"}),
        (list[bytes], [b"a", "YQ=="], {"p[1]": "expected bytes, got str ('YQ==')"}),
    ],
    ids=name_of,
)
def test_each_part_is_named(hint: Any, value: object, expected: dict[str, str]) -> None:
    named = found(hint, value)
    assert set(named) == set(expected)
    for field, words in expected.items():
        assert words in named[field]


@pytest.mark.parametrize("value", [{"question": "a"}, {"question": "a", "limit": 3}], ids=name_of)
def test_nothing_is_found_where_nothing_is_wrong(value: object) -> None:
    assert found(Inputs, value) == {}
    assert searched(Inputs, value).text() == ""


# --- What is shown of values ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Inputs, {"question": "a", "api_key": "blaue-katze-4711"}),
        (dict[str, int], {"token": "blaue-katze-4711"}),
        (dict[str, dict[str, int]], {"passwords": {"a": 1}, "password": {"a": "blaue-katze-4711"}}),
        (dict[str, Colour], {"secret": "blaue-katze-4711"}),
        (int, {"token": "blaue-katze-4711"}),
        (int, {"key": "blaue-katze-4711"}),
        (int, "Bearer blaue-katze-4711"),
        (int, "https://me:blaue-katze-4711@example.org"),
        (dict[str, int], {"Bearer blaue-katze-4711": "a"}),
        (Empty, {"Bearer blaue-katze-4711": "a"}),
        (dict[int, int], {"Bearer blaue-katze-4711": 1}),
    ],
    ids=name_of,
)
def test_secrets_are_not_shown(hint: Any, value: object) -> None:
    (told,) = searched(hint, value).kept()
    assert "4711" not in told.field + told.description
    assert told.description


def test_long_values_and_names_are_cut() -> None:
    for value in ("x" * 9_000, ["x" * 9_000], {"y" * 9_000: 1}, list(range(100))):
        assert len(found(int, value)["p"]) < 120
    (told,) = searched(dict[str, int], {"x" * 9_000: "a"}).kept()
    assert len(told.field) < 120


# --- Limits ---------------------------------------------------------------------------------------


def test_of_many_the_first_are_told_and_all_are_counted() -> None:
    violations = searched(list[int], ["x"] * 70)
    assert [told.field for told in violations.kept()] == [f"p[{index}]" for index in range(50)]
    assert violations.text().endswith("p[49]: expected int, got str ('x'); and 20 more")


def test_each_argument_gets_a_word_in() -> None:
    violations = Violations()
    violations.search("a", ["x"] * 100, list[int])
    violations.search("b", ["x", "y"], list[int])
    violations.missing("c", str)
    violations.unknown("d", ["a"], "t")
    fields = [told.field for told in violations.kept()]
    assert fields == [*(f"a[{index}]" for index in range(46)), "b[0]", "b[1]", "c", "d"]
    assert violations.text().endswith("; and 54 more")


def test_more_unknown_arguments_than_anybody_reads_are_counted() -> None:
    violations = Violations()
    for index in range(100_000):
        violations.unknown(str(index), [], "t")
    assert len(violations.kept()) == 50
    assert violations.text().endswith("49: unknown argument; t takes no arguments; and 99950 more")


def nested(depth: int, width: int) -> Any:
    tree: Any = {"weight": "heavy"}
    for _ in range(depth):
        tree = {"children": [*({} for _ in range(width)), tree]}
    return tree


@pytest.mark.parametrize(("depth", "width"), [(5, 0), (100, 0), (190, 0), (60, 500), (190, 1_000)])
def test_what_lies_deep_is_found_with_its_path(depth: int, width: int) -> None:
    (field,) = found(Tree, nested(depth, width))
    assert field == f"p{f'.children[{width}]' * depth}.weight"


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (list[int], ["x"] * 1_000_000),
        (list[int], [1] * 1_000_000 + ["x"]),
        (list[dict[str, int]], [{"a": 1}] * 300_000 + [{"a": "x"}]),
        (list[int], [["x" * 10_000] * 20] * 100),
        (Tree, nested(190, 2_000)),
    ],
    ids=["all wrong", "the last one wrong", "small objects", "large items", "deep and wide"],
)
def test_a_search_has_an_end(hint: Any, value: object) -> None:
    """The event loop waits for it; each takes some tenths of a second."""
    begun = time.thread_time()
    assert searched(hint, value).kept()
    assert time.thread_time() - begun < 20


# --- Agreement with msgspec -----------------------------------------------------------------------

LIST: Any = list
SET: Any = set
DICT: Any = dict
TUPLE: Any = tuple
BOX: Any = Box

hints = st.recursive(
    st.sampled_from(
        [
            *(None, bool, int, float, str, bytes, Any, date, datetime, UUID, Decimal, Zoned),
            *(Colour, Level, Literal["a", 1], Positive, Short, Words, Inputs, Example, Renamed),
            *(Range, Cat, Dog, Cat | Dog, Row, Get | Put, Empty, Box[int], Tree, Options),
            *(Place, Point, Annotated[str, msgspec.Meta(pattern="^a", max_length=2)]),
        ]
    ),
    lambda inner: st.one_of(
        inner.map(lambda hint: LIST[hint]),
        inner.map(lambda hint: SET[hint]),
        inner.map(lambda hint: DICT[str, hint]),
        inner.map(lambda hint: DICT[int, hint]),
        inner.map(lambda hint: TUPLE[hint, ...]),
        inner.map(lambda hint: hint | None if hint is not None else hint),
        st.tuples(inner, inner).map(lambda pair: TUPLE[pair]),
        inner.map(lambda hint: BOX[hint]),
    ),
    max_leaves=4,
)
names = st.sampled_from(
    [
        *("a", "b", "1", "x", "y", "question", "limit", "inputs", "weights", "low", "high", "type"),
        *("lives", "name", "key", "count", "content", "children", "weight", "depth", "firstName"),
    ]
)
values = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(-2, 12), st.floats(), st.binary(max_size=3)),
        st.sampled_from(
            ["", "a", "ab", "red", "Cat", "Dog", "get", "put", "2026-01-01", "1.5", "x"]
        ),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=8,
)


@st.composite
def nearly_fitting(draw: st.DrawFn, hint: Any) -> Any:
    """What msgspec accepts, with a part of it replaced: random values hardly ever fit."""
    try:
        value = msgspec.to_builtins(draw(st.from_type(hint)), builtin_types=(bytes,), str_keys=True)
    except Exception:  # noqa: BLE001 - no such strategy, or a class that refuses its own parts
        return draw(values)
    return draw(changed(value))


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    choice = draw(st.sampled_from(["inside", "inside", "as it is", "replaced"]))
    if choice == "as it is":
        return value
    if choice == "replaced" or not value or not isinstance(value, list | dict):
        return draw(values)
    if isinstance(value, list):
        index = draw(st.integers(0, len(value) - 1))
        return [*value[:index], draw(changed(value[index])), *value[index + 1 :]]
    name = draw(st.sampled_from(sorted(value)))
    others = {key: item for key, item in value.items() if key != name}
    return draw(
        st.sampled_from(
            [others, {**value, "more": 1}, {**others, name: draw(changed(value[name]))}]
        )
    )


def agrees(hint: Any, value: object) -> None:
    try:
        convert(value, hint)
        fits = True
    except (msgspec.ValidationError, TypeError):
        fits = False
    kept = searched(hint, value).kept()
    assert (kept == []) == fits
    assert len({(told.field, told.description) for told in kept}) == len(kept)
    for told in kept:
        assert told.field.startswith("p")
        assert told.description


@settings(max_examples=300)
@given(hints, st.data())
def test_something_is_found_exactly_where_msgspec_refuses(hint: Any, data: st.DataObject) -> None:
    agrees(hint, data.draw(values))
    agrees(hint, data.draw(nearly_fitting(hint)))
