"""Objects that JSON does not know: the order of conversions, markers, and what they may show."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any, NamedTuple, NoReturn

import msgspec
import numpy as np
import pytest

from snakepit_worker.flags import parse
from snakepit_worker.wire.markers import DETAIL_POLICIES, MarkerRules
from snakepit_worker.wire.values import Values
from tests.conftest import name_of

METHODS = ("model_dump", "to_dict", "_asdict", "tolist", "isoformat")
RULES = MarkerRules()


def thing(*working: str, failing: tuple[str, ...] = ()) -> object:
    """An object with these methods, each of which returns its own name or raises."""

    def fail(_: object) -> NoReturn:
        raise RuntimeError

    methods: dict[str, Any] = {name: lambda _, name=name: name for name in working}
    return type("Thing", (), {**methods, **dict.fromkeys(failing, fail)})()


def is_marker(value: Any) -> bool:
    return isinstance(value, dict) and value.get("__ffi_unserializable__") is True


@pytest.mark.conforms(47)
@pytest.mark.parametrize("first", range(len(METHODS)))
def test_methods_are_asked_in_the_order_of_the_contract(first: int) -> None:
    assert RULES.convert(thing(*METHODS[first:])) == METHODS[first]


@pytest.mark.conforms(47)
@pytest.mark.parametrize("failing", range(1, len(METHODS)))
def test_a_method_that_raises_is_skipped(failing: int) -> None:
    assert RULES.convert(thing(METHODS[failing], failing=METHODS[:failing])) == METHODS[failing]


@pytest.mark.conforms(47)
def test_an_object_whose_methods_all_raise_becomes_a_marker() -> None:
    assert is_marker(RULES.convert(thing(failing=METHODS)))


def test_what_is_not_callable_is_no_method() -> None:
    odd = thing()
    odd.__dict__.update(model_dump="text", to_dict=None)
    assert is_marker(RULES.convert(odd))


def test_a_class_is_not_asked_for_its_instances_methods() -> None:
    assert RULES.convert(type(thing("to_dict"))) == {
        "__ffi_unserializable__": True,
        "__type__": "builtins.type",
    }


class Itself:
    def to_dict(self) -> Itself:
        return self


def test_an_object_that_converts_to_itself_becomes_a_marker() -> None:
    assert is_marker(RULES.convert(Itself()))


class Pair(NamedTuple):
    left: int
    right: int


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Pair(1, 2), {"left": 1, "right": 2}),
        (np.arange(3), [0, 1, 2]),
        (np.float32(0.5), 0.5),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
    ],
    ids=name_of,
)
def test_well_known_objects(value: object, expected: object) -> None:
    assert RULES.convert(value) == expected


class Outer:
    class Inner:
        def __init__(self, text: str = "") -> None:
            self.text = text
            self.asked = 0

        def __repr__(self) -> str:
            self.asked += 1
            return self.text


TYPE = f"{__name__}.Outer.Inner"


@pytest.mark.conforms(48)
@pytest.mark.parametrize("policy", DETAIL_POLICIES)
def test_a_marker_names_the_type(policy: Any) -> None:
    marker = MarkerRules(policy).marker(Outer.Inner())
    assert marker["__ffi_unserializable__"] is True
    assert marker["__type__"] == TYPE


@pytest.mark.conforms(48)
def test_by_default_repr_is_neither_shown_nor_called() -> None:
    value = Outer.Inner("text")
    assert set(RULES.marker(value)) == {"__ffi_unserializable__", "__type__"}
    assert value.asked == 0


def test_policy_type_shows_a_placeholder_and_does_not_call_repr() -> None:
    value = Outer.Inner("text")
    assert MarkerRules("type").marker(value)["__repr__"] == f"<{TYPE}>"
    assert value.asked == 0


@pytest.mark.parametrize(
    ("limit", "shown"), [(0, ""), (4, "some"), (9, "some text"), (2000, "some text")]
)
def test_policy_repr_truncated_cuts_at_the_limit(limit: int, shown: str) -> None:
    rules = MarkerRules("repr_truncated", repr_max_length=limit)
    assert rules.marker(Outer.Inner("some text"))["__repr__"] == shown


def test_policy_repr_truncated_hides_nothing() -> None:
    text = "password='hunter2'"
    assert MarkerRules("repr_truncated").marker(Outer.Inner(text))["__repr__"] == text


@pytest.mark.conforms(48)
@pytest.mark.parametrize("limit", range(40))
def test_redaction_comes_before_cutting(limit: int) -> None:
    """Cut first, half a secret would no longer look like one."""
    rules = MarkerRules("repr_redacted_truncated", repr_max_length=limit)
    shown = rules.marker(Outer.Inner("key sk-abcdefghijklmnop end"))["__repr__"]
    assert shown == "key [REDACTED] end"[:limit]


class BadRepr:
    def __repr__(self) -> str:
        raise ValueError


@pytest.mark.parametrize("policy", ["repr_truncated", "repr_redacted_truncated"])
def test_a_repr_that_fails_gives_a_placeholder(policy: Any) -> None:
    shown = MarkerRules(policy).marker(BadRepr())["__repr__"]
    assert isinstance(shown, str)
    assert "BadRepr" in shown


class Array:
    """Something that expands into a list and counts how often it is asked to."""

    def __init__(self, length: int, **attributes: object) -> None:
        self.length = length
        self.expanded = 0
        vars(self).update(attributes)

    def tolist(self) -> list[int]:
        self.expanded += 1
        return [0] * self.length

    def isoformat(self) -> str:
        return "the next step"


@pytest.mark.conforms(49)
@pytest.mark.parametrize(
    "attributes",
    [
        pytest.param({"shape": (3, 4), "dtype": "int8"}, id="like an array"),
        pytest.param({"shape": (3, 4), "nnz": 2}, id="like a sparse matrix"),
        pytest.param({"size": 12, "values": ()}, id="like a table"),
    ],
)
@pytest.mark.parametrize(("limit", "expands"), [(11, False), (12, True), (13, True)])
def test_a_size_that_is_known_is_looked_at_before_expanding(
    attributes: dict[str, object],
    limit: int,
    expands: bool,  # noqa: FBT001 - a row of the table
) -> None:
    value = Array(12, **attributes)
    converted = MarkerRules(tolist_max_elements=limit).convert(value)
    assert converted == ([0] * 12 if expands else "the next step")
    assert value.expanded == int(expands)


@pytest.mark.parametrize(("limit", "expands"), [(11, False), (12, True)])
def test_a_size_that_is_not_known_is_counted_afterwards(
    limit: int,
    expands: bool,  # noqa: FBT001 - a row of the table
) -> None:
    value = Array(12)
    converted = MarkerRules(tolist_max_elements=limit).convert(value)
    assert converted == ([0] * 12 if expands else "the next step")
    assert value.expanded == 1


def test_leaves_count_and_not_lists() -> None:
    class Nested:
        def tolist(self) -> list[list[int]]:
            return [[1, 2], [3], []]

    assert MarkerRules(tolist_max_elements=3).convert(Nested()) == [[1, 2], [3], []]
    assert is_marker(MarkerRules(tolist_max_elements=2).convert(Nested()))


def test_an_array_that_does_not_fit_into_memory_takes_the_next_step() -> None:
    class Huge(Array):
        def tolist(self) -> list[int]:
            raise MemoryError

    assert RULES.convert(Huge(1)) == "the next step"


@pytest.mark.parametrize("shape", [(4, 5), (20,), (1, 20, 1), (0, 10**9)])
def test_numpy_arrays_up_to_the_limit_become_lists(shape: tuple[int, ...]) -> None:
    rules = MarkerRules(tolist_max_elements=20)
    fits = np.zeros(shape, dtype=np.int8)
    assert rules.convert(fits) == fits.tolist()
    assert is_marker(rules.convert(np.zeros(21, dtype=np.int8)))


def test_the_default_limit_is_a_million_elements() -> None:
    assert is_marker(RULES.convert(np.broadcast_to(np.int8(0), (1_000_001,))))


def test_a_limit_of_zero_expands_nothing() -> None:
    assert is_marker(MarkerRules(tolist_max_elements=0).convert(np.zeros(1)))


def test_markers_appear_wherever_the_object_stood() -> None:
    marker = {"__ffi_unserializable__": True, "__type__": TYPE}
    encoded = Values().to_json({"a": [Outer.Inner(), {"b": Outer.Inner()}]})
    assert encoded == Values().to_json({"a": [marker, {"b": marker}]})


@pytest.mark.parametrize("policy", DETAIL_POLICIES)
def test_the_policy_comes_from_the_environment(policy: str) -> None:
    settings = parse([], {"SNAKEPIT_UNSERIALIZABLE_DETAIL": policy})
    assert settings.unserializable_detail == policy


@pytest.mark.conforms(49)
@pytest.mark.parametrize(
    ("text", "expected"),
    [("17", 17), ("0", 0), ("2000", 2000), ("2001", 2000), ("-1", 0), ("many", 500), ("", 500)],
)
def test_a_bad_length_in_the_environment_falls_back(text: str, expected: int) -> None:
    settings = parse([], {"SNAKEPIT_UNSERIALIZABLE_REPR_MAXLEN": text})
    assert settings.unserializable_repr_maxlen == expected


@pytest.mark.conforms(49)
@pytest.mark.parametrize(("text", "expected"), [("0", 0), ("5", 5), ("-1", 0), ("x", 1_000_000)])
def test_a_bad_number_of_elements_in_the_environment_falls_back(text: str, expected: int) -> None:
    settings = parse([], {"SNAKEPIT_TOLIST_MAX_ELEMENTS": text})
    assert settings.tolist_max_elements == expected


def test_an_unknown_policy_in_the_environment_shows_nothing() -> None:
    settings = parse([], {"SNAKEPIT_UNSERIALIZABLE_DETAIL": "everything"})
    assert settings.unserializable_detail == "none"


class Person(msgspec.Struct, rename="camel", tag="person"):
    first_name: str
    nick_name: str | msgspec.UnsetType = msgspec.UNSET


class Circle(msgspec.Struct, tag_field="shape", tag="circle"):
    radius: float


class Both(msgspec.Struct, array_like=True, tag=7):
    left: int
    right: Circle


@pytest.mark.parametrize("mode", ["orjson", "slow"])
def test_structs_keep_their_names_and_their_tag(mode: str) -> None:
    extra = 1 << 70 if mode == "slow" else 1
    value = [Person("Ann"), Person("Bo", "B"), Circle(2.0), Both(1, Circle(3.0)), extra]
    assert msgspec.json.decode(Values().to_json(value)) == [
        {"type": "person", "firstName": "Ann"},
        {"type": "person", "firstName": "Bo", "nickName": "B"},
        {"shape": "circle", "radius": 2.0},
        [7, 1, {"shape": "circle", "radius": 3.0}],
        extra,
    ]


def test_a_struct_comes_back_as_it_went() -> None:
    for value in (Person("Ann"), Circle(1.0), Both(1, Circle(2.0))):
        assert msgspec.json.decode(Values().to_json(value), type=type(value)) == value
