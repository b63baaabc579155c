"""Values on the wire, section 3 of the contract: exact by default, compatible on demand."""

from __future__ import annotations

import collections
import dataclasses
import enum
import json
import math
import uuid
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import given
from hypothesis import strategies as st

from snakepit_worker.errors import InvalidArgument, SerializationError
from snakepit_worker.wire.markers import MarkerRules
from snakepit_worker.wire.results import Binary, Chunk, as_chunk
from snakepit_worker.wire.values import STRING_VALUE, Values, decode, to_any
from snakepit_worker.wire.zero_copy import ZeroCopyReference
from tests.conftest import name_of, strict_json

EXACT = Values()
COMPATIBLE = Values("compatible")
REFERENCE = {
    "__snakepit_zero_copy__": True,
    "kind": "arrow",
    "device": "cpu",
    "dtype": "float32",
    "shape": [2, 3],
    "owner": "elixir",
    "ref": "g1hkAA1ub25vZGVAbm9ob3N0AAAB",
    "copy": False,
    "bytes": 24,
    "metadata": {"a": [1]},
}
BIG = 10**400

text = st.text(st.characters(codec="utf-8"))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


def message(data: bytes, label: str = STRING_VALUE) -> AnyMessage:
    return AnyMessage(type_url=label, value=data)


def result_of(values: Values, value: object) -> Any:
    """What the host makes of a result that is not binary."""
    encoded, binary = values.result(value)
    assert binary == b""
    assert encoded is not None
    assert encoded.type_url.startswith("type.googleapis.com/snakepit.")
    return strict_json(encoded.value)


# --- Parameters -----------------------------------------------------------------------------------


@pytest.mark.conforms(35, 36, "D53")
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"null", None),
        (b"true", True),
        (b"false", False),
        (b"7", 7),
        (b"-9223372036854775809", -(2**63) - 1),
        (b"18446744073709551616", 2**64),
        (str(BIG).encode(), BIG),
        (str(-BIG).encode(), -BIG),
        (b"1.0", 1.0),
        (b"1e3", 1000.0),
        (b'"text"', "text"),
        ('"žluťoučký 🐍"'.encode(), "žluťoučký 🐍"),
        (b'"\\ud83d\\udc0d"', "🐍"),
        (b'""', ""),
        (b"[]", []),
        (b' {"a": [1, {"b": null}]} ', {"a": [1, {"b": None}]}),
    ],
    ids=name_of,
)
def test_a_parameter_is_its_json_value(data: bytes, expected: object) -> None:
    value = decode(message(data), "p")
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.conforms(34)
@pytest.mark.parametrize(
    "label",
    [
        "",
        "/",
        "string",
        "boolean",
        "embedding",
        "null",
        STRING_VALUE,
        "type.googleapis.com/snakepit.map",
        "dspex.variables/choice",
        "type.googleapis.com/snakepit.float.binary",
        "FLOAT",
        "no-slash.but-dots",
    ],
)
@pytest.mark.parametrize("value", [None, 3, "NaN", [1.5], {"data": [1], "shape": [1]}])
def test_any_other_label_leaves_the_value_as_it_is(label: str, value: object) -> None:
    assert decode(message(json.dumps(value).encode(), label), "p") == value


@pytest.mark.conforms(34)
@pytest.mark.parametrize(
    "prefix", ["", "type.googleapis.com/snakepit.", "dspex.variables/", "a.b/"]
)
class TestKinds:
    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (b'"Infinity"', math.inf),
            (b'"-Infinity"', -math.inf),
            (b"3", 3.0),
            (b'"2.5"', 2.5),
            (b"-0.5", -0.5),
            (b"1152921504606846977", 1152921504606846977.0),
        ],
        ids=name_of,
    )
    def test_float(self, prefix: str, data: bytes, expected: float) -> None:
        value = decode(message(data, f"{prefix}float"), "p")
        assert value == expected
        assert type(value) is float

    def test_float_nan(self, prefix: str) -> None:
        assert math.isnan(decode(message(b'"NaN"', f"{prefix}float"), "p"))

    @pytest.mark.parametrize(
        ("data", "expected"),
        [(b"3.9", 3), (b"-3.9", -3), (b'"7"', 7), (str(BIG).encode(), BIG), (b"0", 0)],
    )
    def test_integer(self, prefix: str, data: bytes, expected: int) -> None:
        value = decode(message(data, f"{prefix}integer"), "p")
        assert value == expected
        assert type(value) is int

    def test_tensor(self, prefix: str) -> None:
        data = b'{"data": [1, 2, 3, 4, 5, 6], "shape": [3, 2]}'
        value = decode(message(data, f"{prefix}tensor"), "p")
        assert isinstance(value, np.ndarray)
        assert value.tolist() == [[1, 2], [3, 4], [5, 6]]

    @pytest.mark.parametrize("data", [b"[1, 2]", b'{"data": [1]}', b'"x"'])
    def test_a_tensor_of_another_form_stays_as_it_is(self, prefix: str, data: bytes) -> None:
        assert decode(message(data, f"{prefix}tensor"), "p") == json.loads(data)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("float", b'"x"'),
        ("float", b"[]"),
        ("float", b"{}"),
        ("float", b"null"),
        ("float", str(BIG).encode()),
        ("integer", b'"NaN"'),
        ("integer", b"null"),
        ("integer", b"[1]"),
        ("tensor", b'{"data": [1, 2, 3], "shape": [2, 2]}'),
        ("tensor", b'{"data": [1], "shape": "x"}'),
        ("tensor", b'{"data": [[1], [1, 2]], "shape": [2]}'),
    ],
    ids=name_of,
)
def test_a_value_that_does_not_fit_its_label_is_named(kind: str, data: bytes) -> None:
    with pytest.raises(
        InvalidArgument, match=f"^weight: expected a value of kind {kind}"
    ) as caught:
        decode(message(data, kind), "weight")
    assert [violation.field for violation in caught.value.violations] == ["weight"]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"   ", id="blank"),
        pytest.param(b"abc", id="bare word"),
        pytest.param(b"{", id="cut off"),
        pytest.param(b"1 2", id="two values"),
        pytest.param(b"01", id="leading zero"),
        pytest.param(b"NaN", id="bare NaN"),
        pytest.param(b'{"a": -Infinity}', id="bare infinity"),
        pytest.param(b"'a'", id="single quotes"),
        pytest.param(b"\xff\xfe", id="no text"),
        pytest.param(b'"\xff"', id="text that is not UTF-8"),
        pytest.param(b'{"\xff": 1}', id="key that is not UTF-8"),
        pytest.param(b'"\\ud800"', id="lone surrogate"),
        pytest.param(StringValue(value="abc").SerializeToString(), id="packed StringValue"),
        pytest.param(b"[" * 100_000, id="nested without end"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, id="nested too deeply"),
    ],
    ids=name_of,
)
def test_what_is_not_json_is_a_wrong_argument_that_is_named(data: bytes) -> None:
    with pytest.raises(InvalidArgument, match=r"^question: expected JSON, got ") as caught:
        decode(message(data), "question")
    assert [violation.field for violation in caught.value.violations] == ["question"]
    assert len(str(caught.value)) < 300


def test_a_top_level_reference_has_its_fields_as_attributes() -> None:
    reference = decode(message(json.dumps(REFERENCE).encode()), "p")
    assert isinstance(reference, ZeroCopyReference)
    for name, value in REFERENCE.items():
        if name != "__snakepit_zero_copy__":
            assert getattr(reference, name) == value
    assert reference.payload == REFERENCE
    with pytest.raises(AttributeError):
        _ = reference.unheard_of


def test_fields_that_the_host_left_out_of_a_reference_are_none() -> None:
    reference = decode(message(b'{"__snakepit_zero_copy__": true, "ref": "x"}'), "p")
    assert (reference.ref, reference.kind, reference.metadata) == ("x", None, None)


@pytest.mark.parametrize(
    "value",
    [
        {"__snakepit_zero_copy__": False, "ref": "x"},
        {"__snakepit_zero_copy__": None},
        [REFERENCE],
        {"inner": REFERENCE},
        "__snakepit_zero_copy__",
    ],
    ids=name_of,
)
def test_only_a_truthy_top_level_mark_makes_a_reference(value: object) -> None:
    assert decode(message(json.dumps(value).encode()), "p") == value


@given(json_values)
def test_what_a_caller_sends_is_what_a_tool_gets(value: object) -> None:
    sent = to_any(value)
    assert sent.type_url == STRING_VALUE
    received = decode(sent, "p")
    assert received == value
    assert type(received) is type(value)


# --- Results, exact -------------------------------------------------------------------------------


@pytest.mark.conforms("D20", "D23")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (False, False),
        (42, 42),
        (7, 7),
        (0, 0),
        (2**60 + 1, 2**60 + 1),
        (2**63, 2**63),
        (2**64, 2**64),
        (-(2**63) - 1, -(2**63) - 1),
        (BIG, BIG),
        (-BIG, -BIG),
        (1.5, 1.5),
        (7.0, 7.0),
        (1e300, 1e300),
        (np.float64(1.5), 1.5),
        (np.float32(1.5), 1.5),
        (np.int64(7), 7),
        (np.bool_(1), True),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (np.float64("nan"), "NaN"),
        (np.float64("-inf"), "-Infinity"),
        ("text", "text"),
        ("", ""),
        ('ž 🐍 \x00 "quoted"', 'ž 🐍 \x00 "quoted"'),
        ({"a": {"b": [1, None]}}, {"a": {"b": [1, None]}}),
        ({}, {}),
        ([], []),
        ([1, 2.5, "x", None, True], [1, 2.5, "x", None, True]),
        ((1, 2), [1, 2]),
        (np.arange(6).reshape(2, 3), [[0, 1, 2], [3, 4, 5]]),
        (datetime(2026, 11, 22, 8, 30, tzinfo=UTC), "2026-11-22T08:30:00+00:00"),
        (date(2026, 11, 22), "2026-11-22"),
        (b"", ""),
    ],
    ids=name_of,
)
def test_a_result_keeps_its_type(value: object, expected: object) -> None:
    got = result_of(EXACT, value)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (7, "integer"),
        (True, "boolean"),
        (None, "null"),
        ("7", "string"),
        (7.0, "float"),
        (math.nan, "float"),
        ({}, "map"),
        ([], "list"),
    ],
    ids=name_of,
)
def test_the_label_of_a_result_says_what_it_is(value: object, kind: str) -> None:
    encoded, _ = EXACT.result(value)
    assert encoded is not None
    assert encoded.type_url == f"type.googleapis.com/snakepit.{kind}"


@pytest.mark.parametrize("value", [{1, 2}, complex(1, 2), Decimal("1.5"), object(), range(3)])
def test_what_has_no_json_form_becomes_a_marker(value: object) -> None:
    marker = result_of(EXACT, value)
    kind = type(value)
    assert marker == {
        "__ffi_unserializable__": True,
        "__type__": f"{kind.__module__}.{kind.__qualname__}",
    }


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Record:
    name: str
    inner: Any
    _hidden: int = 0


NESTED = [
    (None, None),
    (True, True),
    (2**63 - 1, 2**63 - 1),
    (math.nan, None),
    (math.inf, None),
    (-math.inf, None),
    (np.float64("nan"), None),
    ((1, (2,)), [1, [2]]),
    (Point(1, 2), {"x": 1, "y": 2}),
    (datetime(2026, 11, 22, 8, 30, 1, 5, tzinfo=UTC), "2026-11-22T08:30:01.000005+00:00"),
    (date(2026, 11, 22), "2026-11-22"),
    (time(8, 30), "08:30:00"),
    (Colour.RED, "red"),
    (Level.HIGH, 3),
    (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    (Record("a", (1,)), {"name": "a", "inner": [1]}),
    (np.array([1, 2]), [1, 2]),
    (np.int8(3), 3),
    (b"x", {"__ffi_unserializable__": True, "__type__": "builtins.bytes"}),
    ({1}, {"__ffi_unserializable__": True, "__type__": "builtins.set"}),
    (ZeroCopyReference(REFERENCE), REFERENCE),
    ({1: 2, None: 3, 1.5: 5}, {"1": 2, "null": 3, "1.5": 5}),
    ({True: 4, False: 5}, {"true": 4, "false": 5}),
    ({2: "a", Colour.RED: "b"}, {"2": "a", "red": "b"}),
    (collections.OrderedDict(a=1), {"a": 1}),
]


@pytest.mark.conforms(38, 41, 46, "D22")
@pytest.mark.parametrize("mode", ["exact", "compatible"])
@pytest.mark.parametrize("beside", [0, 2**70], ids=["plain", "beside a big integer"])
@pytest.mark.parametrize(("value", "expected"), NESTED, ids=name_of)
def test_nested_values_are_the_same_in_both_modes_and_on_both_ways(
    mode: Any, beside: int, value: object, expected: object
) -> None:
    """A big integer takes the whole result another way through the encoder."""
    values = Values(mode)
    assert result_of(values, {"value": value, "beside": beside}) == {
        "value": expected,
        "beside": beside,
    }
    assert result_of(values, [value, beside]) == [expected, beside]
    assert strict_json(values.chunk([value, beside])) == [expected, beside]


@dataclasses.dataclass
class WithPseudoFields:
    shared: ClassVar[int] = 1
    start: dataclasses.InitVar[int]
    value: int = 0

    def __post_init__(self, start: int) -> None:
        self.value = start


@dataclasses.dataclass(frozen=True, slots=True)
class WithSlots:
    value: int


@pytest.mark.parametrize("record", [WithPseudoFields(5), WithSlots(5)])
@pytest.mark.parametrize("beside", [0, 2**70], ids=["plain", "beside a big integer"])
def test_a_dataclass_is_its_fields_on_both_ways(record: object, beside: int) -> None:
    assert result_of(EXACT, [record, beside]) == [{"value": 5}, beside]


anything = st.recursive(
    json_values
    | st.floats()
    | st.binary(max_size=5)
    | st.datetimes()
    | st.dates()
    | st.uuids()
    | st.decimals()
    | st.complex_numbers()
    | st.sampled_from([Colour.RED, Level.HIGH, Point(1, 2), np.float32(2.5), ...]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(text | st.integers() | st.none(), inner, max_size=3)
        | st.builds(Record, text, inner)
    ),
    max_leaves=10,
)


@pytest.mark.conforms(38, 41, "D22")
@given(anything)
def test_results_are_strict_json_and_the_same_on_both_ways(value: object) -> None:
    plain, _ = strict_json(EXACT.to_json([value, 0]))
    beside_big, _ = strict_json(EXACT.to_json([value, 2**70]))
    assert json.dumps(plain) == json.dumps(beside_big)  # tells 1 from 1.0 and from True


@pytest.mark.parametrize(
    "value", ["\ud800", ["a", "\udfff"], {"\ud800": 1}, {"a": {"b": "x\udc00"}}, [2**70, "\ud800"]]
)
@pytest.mark.parametrize("values", [EXACT, COMPATIBLE])
def test_lone_surrogates_cannot_be_encoded(values: Values, value: object) -> None:
    with pytest.raises(SerializationError, match="cannot be encoded"):
        values.result(value)


class Endless:
    def to_dict(self) -> dict[str, Endless]:
        return {"next": self}


class Doubling:
    def model_dump(self) -> list[Doubling]:
        return [self, self]


def cyclic_list() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


def cyclic_dict() -> dict[str, Any]:
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    return cycle


@pytest.mark.parametrize("value", [cyclic_list(), cyclic_dict(), Endless(), Doubling()])
@pytest.mark.parametrize("beside", [0, 2**70])
def test_nesting_without_end_is_an_error(value: object, beside: int) -> None:
    with pytest.raises(SerializationError, match="deeper than 200 levels; it may refer"):
        EXACT.result([value, beside])


def test_an_integer_with_too_many_digits_for_python_is_an_error() -> None:
    with pytest.raises(SerializationError, match="cannot be encoded"):
        EXACT.result(10**5000)


@pytest.mark.conforms(45, 46, "D45")
def test_a_reference_goes_back_unchanged() -> None:
    reference = decode(message(json.dumps(REFERENCE).encode()), "p")
    assert result_of(EXACT, reference) == REFERENCE
    assert result_of(COMPATIBLE, reference) == REFERENCE
    assert result_of(EXACT, {"inner": [reference]}) == {"inner": [REFERENCE]}
    assert strict_json(EXACT.chunk(reference)) == REFERENCE


def test_what_a_marker_says_is_set_by_the_rules() -> None:
    values = Values(rules=MarkerRules("repr_truncated", repr_max_length=4))
    assert result_of(values, {1, 2})["__repr__"] == "{1, "


# --- Binary results -------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [b"\x00\xff", bytearray(b"\x00\xff"), memoryview(b"\x00\xff")])
def test_bytes_are_a_binary_result_without_a_value(value: object) -> None:
    assert EXACT.result(value) == (None, b"\x00\xff")


@pytest.mark.parametrize("values", [EXACT, COMPATIBLE])
def test_binary_may_carry_metadata(values: Values) -> None:
    result, binary = values.result(Binary(b"\x00\xff", {"rows": 2, "big": BIG, "odd": {1}}))
    assert binary == b"\x00\xff"
    assert result is not None
    assert strict_json(result.value) == {
        "rows": 2,
        "big": BIG,
        "odd": {"__ffi_unserializable__": True, "__type__": "builtins.set"},
    }
    assert values.result(Binary(b"\x00\xff")) == (None, b"\x00\xff")


@pytest.mark.parametrize("data", [bytearray(b"ab"), memoryview(b"ab")])
def test_binary_takes_whatever_holds_bytes(data: Any) -> None:
    assert EXACT.result(Binary(data)) == (None, b"ab")
    assert EXACT.chunk(Binary(data)) == b"ab"


def test_bytes_are_not_copied() -> None:
    payload = bytes(1000)
    assert EXACT.result(payload)[1] is payload
    assert EXACT.result(Binary(payload, {"a": 1}))[1] is payload
    assert EXACT.chunk(payload) is payload
    assert EXACT.chunk(Binary(payload)) is payload


# --- Results, compatible --------------------------------------------------------------------------


@pytest.mark.conforms(41)
@pytest.mark.parametrize(
    ("value", "kind", "data"),
    [
        (None, "string", b'"None"'),
        (True, "boolean", b"true"),
        (False, "boolean", b"false"),
        (42, "float", b"42.0"),
        (Level.HIGH, "float", b"3.0"),
        (1.5, "float", b"1.5"),
        (np.float64(1.5), "float", b"1.5"),
        (math.nan, "float", b'"NaN"'),
        (math.inf, "float", b'"Infinity"'),
        (-math.inf, "float", b'"-Infinity"'),
        ("ž", "string", '"ž"'.encode()),
        ({"a": 1}, "map", b'{"a":1}'),
        ([1, None], "list", b"[1,null]"),
        ((1, 2), "string", b'"(1, 2)"'),
        ({1}, "string", b'"{1}"'),
        (b"ab", "string", b"\"b'ab'\""),
        (b"", "string", b"\"b''\""),
        (bytearray(b"ab"), "string", b"\"bytearray(b'ab')\""),
        (Decimal("1.50"), "string", b'"1.50"'),
        (datetime(2026, 11, 22, tzinfo=UTC), "string", b'"2026-11-22 00:00:00+00:00"'),
        (complex(1, 2), "string", b'"(1+2j)"'),
        (np.int64(3), "string", b'"3"'),
        (np.arange(3), "string", b'"[0 1 2]"'),
    ],
    ids=name_of,
)
def test_compatible_results_have_the_shapes_of_the_reference(
    value: object, kind: str, data: bytes
) -> None:
    encoded, binary = COMPATIBLE.result(value)
    assert binary == b""
    assert encoded == message(data, f"type.googleapis.com/snakepit.{kind}")


def test_a_compatible_big_integer_loses_its_precision_as_it_always_did() -> None:
    assert result_of(COMPATIBLE, 2**60 + 1) == 1.152921504606847e18
    with pytest.raises(SerializationError, match="float"):
        COMPATIBLE.result(BIG)


def test_a_compatible_reference_keeps_its_label() -> None:
    encoded, _ = COMPATIBLE.result(ZeroCopyReference(REFERENCE))
    assert encoded is not None
    assert encoded.type_url == "type.googleapis.com/snakepit.string"
    assert strict_json(encoded.value) == REFERENCE


# --- Chunks ---------------------------------------------------------------------------------------


@pytest.mark.conforms(63, "D14")
@pytest.mark.parametrize(
    ("value", "exact", "compatible"),
    [
        (None, b"", b""),
        ({"a": 1}, b'{"a":1}', b'{"a":1}'),
        ({}, b"{}", b"{}"),
        (7, b"7", b"7"),
        (BIG, str(BIG).encode(), str(BIG).encode()),
        (1.5, b"1.5", b"1.5"),
        (True, b"true", b"true"),
        ([1, None], b"[1,null]", b"[1,null]"),
        ((1,), b"[1]", b"[1]"),
        (b"\x00\xff", b"\x00\xff", b"\x00\xff"),
        (bytearray(b"ab"), b"ab", b"ab"),
        (memoryview(b"ab"), b"ab", b"ab"),
        (Binary(b"ab", {"ignored": 1}), b"ab", b"ab"),
        ("ž", '"ž"'.encode(), "ž".encode()),
        ("123", b'"123"', b"123"),
        ("", b'""', b""),
        (
            {1},
            b'{"__ffi_unserializable__":true,"__type__":"builtins.set"}',
            b'{"__ffi_unserializable__":true,"__type__":"builtins.set"}',
        ),
    ],
    ids=name_of,
)
def test_chunks(value: object, exact: bytes, compatible: bytes) -> None:
    assert EXACT.chunk(value) == exact
    assert COMPATIBLE.chunk(value) == compatible


def test_a_chunk_that_cannot_be_encoded_is_an_error() -> None:
    with pytest.raises(SerializationError):
        EXACT.chunk("\ud800")


@pytest.mark.conforms("D14")
@given(st.floats())
def test_a_number_in_a_chunk_is_strict_json(number: float) -> None:
    strict_json(EXACT.chunk(number))
    strict_json(EXACT.chunk([number]))


class ForeignChunk:
    def __init__(self, data: object, *, is_final: object, **more: object) -> None:
        vars(self).update(data=data, is_final=is_final, **more)

    def __repr__(self) -> str:
        return f"ForeignChunk({vars(self)})"


@pytest.mark.conforms(62)
@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (7, Chunk(7)),
        (None, Chunk(None)),
        ({"data": 1, "is_final": True}, Chunk({"data": 1, "is_final": True})),
        (Chunk(1, metadata={"a": "b"}), Chunk(1, metadata={"a": "b"})),
        (ForeignChunk(1, is_final=False), Chunk(1)),
        (ForeignChunk([2], is_final=1), Chunk([2], is_final=True)),
        (
            ForeignChunk(1, is_final=True, metadata={"a": 1}),
            Chunk(1, is_final=True, metadata={"a": 1}),
        ),
        (ForeignChunk(1, is_final=True, metadata="text"), Chunk(1, is_final=True)),
        (ForeignChunk(1, is_final=True, metadata=None), Chunk(1, is_final=True)),
    ],
    ids=name_of,
)
def test_an_item_with_data_and_is_final_is_a_chunk(item: object, expected: Chunk) -> None:
    assert as_chunk(item) == expected


@pytest.mark.parametrize("item", [np.arange(2), Chunk, ForeignChunk, memoryview(b"x")])
def test_other_items_are_payloads(item: object) -> None:
    assert as_chunk(item).data is item
