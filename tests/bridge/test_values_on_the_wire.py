"""Values through a real server: what a caller sends, what a tool gets, what the caller sees."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.wrappers_pb2 import StringValue

from snakepit_worker import Adapter, Binary, Chunk, tool
from snakepit_worker.testing import ToolFailure
from snakepit_worker.testing.connection import decode_response
from snakepit_worker.wire.zero_copy import ZeroCopyReference
from tests.conftest import name_of

if TYPE_CHECKING:
    from snakepit_worker.testing import Connection
    from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
    from tests.bridge.conftest import Served

BIG = 10**400
REFERENCE = {
    "__snakepit_zero_copy__": True,
    "kind": "arrow",
    "ref": "g1hkAA1ub25vZGVAbm9ob3N0AAAB",
    "shape": [2, 3],
    "metadata": {},
}


class Opaque:
    def __repr__(self) -> str:
        return "Opaque(api_key='blaue-katze-4711', and more)"


RESULTS: dict[str, Any] = {
    "none": None,
    "true": True,
    "seven": 7,
    "seven as float": 7.0,
    "big": BIG,
    "beyond 64 bits": 2**64,
    "nan": math.nan,
    "inf": math.inf,
    "minus inf": -math.inf,
    "text": "ž 🐍",
    "dict": {"a": [1, None, math.nan, (2**70,)]},
    "list": [1, 2.5],
    "tuple": (1, 2),
    "set": {1},
    "bytes": b"\x00\xff",
    "no bytes": b"",
    "bytearray": bytearray(b"\x00\xff"),
    "memoryview": memoryview(b"\x00\xff"),
    "binary": Binary(b"\x00\xff"),
    "binary with metadata": Binary(b"\x00\xff", {"rows": 2}),
    "binary of a bytearray": Binary(bytearray(b"\x00\xff")),  # type: ignore[arg-type]
    "decimal": Decimal("1.50"),
    "datetime": datetime(2026, 11, 22, tzinfo=UTC),
    "opaque": Opaque(),
    "surrogate": "\ud800",
    "surrogate inside": {"a": ["\ud800"]},
}


class Values(Adapter):
    """Hands out values, and back what it was given."""

    name = "values"

    @tool
    def give(self, key: str) -> Any:
        return RESULTS[key]

    @tool
    async def give_async(self, key: str) -> Any:
        return RESULTS[key]

    @tool
    def stream(self, key: str) -> Iterator[Any]:
        yield RESULTS[key]

    @tool
    def chunk(self, key: str) -> Iterator[Chunk]:
        yield Chunk(RESULTS[key], is_final=True, metadata={"n": 1, "key": key})

    @tool
    def back(self, value: Any) -> Any:
        return value

    @tool
    def inside(self, value: Any) -> Any:
        return {"inside": [value]}

    @tool
    def look(self, value: Any) -> list[str]:
        return [type(value).__name__, repr(value)]

    @tool
    def attributes(self, value: Any) -> Any:
        assert isinstance(value, ZeroCopyReference)
        return [value.kind, value.ref, value.shape, value.device, value.metadata]

    @tool
    def cycle(self) -> Any:
        cycle: list[Any] = []
        cycle.append(cycle)
        return cycle


@pytest.fixture
def exact(serve: Served) -> Connection:
    return serve(Values())


@pytest.fixture
def compatible(serve: Served) -> Connection:
    return serve(Values(), values="compatible")


def raw(connection: Connection, key: str, method: str = "give") -> pb.ExecuteToolResponse:
    response = connection.stub.ExecuteTool(
        connection.request(f"values.{method}", {"key": key}), timeout=20
    )
    assert response.success, response.error_message
    return response


def send(connection: Connection, label: str, data: bytes, method: str = "look") -> Any:
    """A parameter as raw label and bytes."""
    request = connection.request(f"values.{method}")
    request.parameters["value"].CopyFrom(AnyMessage(type_url=label, value=data))
    return decode_response(connection.stub.ExecuteTool(request, timeout=20))


# --- Parameters -----------------------------------------------------------------------------------


@pytest.mark.conforms(35, 36, "D53")
@pytest.mark.parametrize(
    "value",
    [None, True, 7, -(2**63) - 1, 2**64, BIG, 1.5, "ž 🐍", "", [1, [None]], {"a": {"b": []}}],
    ids=name_of,
)
def test_what_is_sent_comes_back_unchanged(exact: Connection, value: object) -> None:
    got = exact.call("values.back", {"value": value})
    assert got == value
    assert type(got) is type(value)


@pytest.mark.conforms(34)
@pytest.mark.parametrize(
    ("label", "data", "seen"),
    [
        ("type.googleapis.com/snakepit.float", b"3", ["float", "3.0"]),
        ("dspex.variables/float", b'"NaN"', ["float", "nan"]),
        ("float", b'"-Infinity"', ["float", "-inf"]),
        ("type.googleapis.com/snakepit.integer", b"3.9", ["int", "3"]),
        (
            "type.googleapis.com/snakepit.tensor",
            b'{"data": [1, 2], "shape": [2, 1]}',
            ["ndarray", "array([[1],\n       [2]])"],
        ),
        ("", b'"x"', ["str", "'x'"]),
        ("anything at all", b"[1]", ["list", "[1]"]),
    ],
    ids=name_of,
)
def test_labels_that_say_something_are_heard(
    exact: Connection, label: str, data: bytes, seen: list[str]
) -> None:
    assert send(exact, label, data) == seen


@pytest.mark.conforms(37)
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{not json", id="invalid"),
        pytest.param(b'"\xff"', id="not UTF-8"),
        pytest.param(b"NaN", id="bare NaN"),
        pytest.param(b"[" * 100_000, id="nested without end"),
        pytest.param(StringValue(value="abc").SerializeToString(), id="packed StringValue"),
    ],
)
def test_a_parameter_that_is_not_json_is_a_failure_that_names_it(
    exact: Connection, data: bytes
) -> None:
    with pytest.raises(ToolFailure, match=r"ValueError: value: expected JSON") as caught:
        send(exact, "type.googleapis.com/google.protobuf.StringValue", data)
    failure = caught.value.failure
    assert failure["code"] == "INVALID_ARGUMENT"
    assert [violation["field"] for violation in failure["violations"]] == ["value"]
    assert exact.call("values.back", {"value": 1}) == 1


@pytest.mark.conforms(43)
def test_binary_parameters_arrive_as_bytes_and_win_over_json(exact: Connection) -> None:
    assert exact.call("values.look", binary={"value": b"\x00\xff"}) == ["bytes", r"b'\x00\xff'"]
    assert exact.call("values.back", {"value": "json"}, binary={"value": b"\xff"}) == b"\xff"
    assert exact.call("values.look", binary={"value": b""}) == ["bytes", "b''"]


@pytest.mark.conforms(44, "D8")
def test_pickles_are_refused(exact: Connection) -> None:
    with pytest.raises(ToolFailure, match="value: expected raw bytes, got a pickle") as caught:
        exact.call(
            "values.look",
            binary={"value": b"\x80\x04N."},
            metadata={"binary_format:value": "pickle"},
        )
    assert caught.value.failure["code"] == "INVALID_ARGUMENT"
    metadata = {"binary_format:value": "raw", "binary_format:other": "pickle"}
    assert exact.call("values.look", binary={"value": b"x"}, metadata=metadata) == ["bytes", "b'x'"]


@pytest.mark.conforms(45, 46, "D45")
def test_references_come_as_objects_and_go_back_unchanged(exact: Connection) -> None:
    assert exact.call("values.attributes", {"value": REFERENCE}) == [
        "arrow",
        REFERENCE["ref"],
        [2, 3],
        None,
        {},
    ]
    assert exact.call("values.back", {"value": REFERENCE}) == REFERENCE
    assert exact.call("values.inside", {"value": REFERENCE}) == {"inside": [REFERENCE]}
    assert exact.call("values.back", {"value": [REFERENCE]}) == [REFERENCE]
    assert exact.call("values.look", {"value": [REFERENCE]})[0] == "list"


# --- Results --------------------------------------------------------------------------------------


@pytest.mark.conforms(39, 40, 41, "D20")
@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("none", None),
        ("true", True),
        ("seven", 7),
        ("seven as float", 7.0),
        ("big", BIG),
        ("beyond 64 bits", 2**64),
        ("nan", "NaN"),
        ("inf", "Infinity"),
        ("minus inf", "-Infinity"),
        ("text", "ž 🐍"),
        ("dict", {"a": [1, None, None, [2**70]]}),
        ("list", [1, 2.5]),
        ("tuple", [1, 2]),
        ("set", {"__ffi_unserializable__": True, "__type__": "builtins.set"}),
        ("bytes", b"\x00\xff"),
        ("no bytes", ""),
        ("bytearray", b"\x00\xff"),
        ("memoryview", b"\x00\xff"),
        ("binary", b"\x00\xff"),
        ("binary with metadata", (b"\x00\xff", {"rows": 2})),
        ("binary of a bytearray", b"\x00\xff"),
        ("datetime", "2026-11-22T00:00:00+00:00"),
    ],
)
@pytest.mark.parametrize("method", ["give", "give_async"])
def test_exact_results(exact: Connection, method: str, key: str, expected: object) -> None:
    got = exact.call(f"values.{method}", {"key": key})
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.conforms(38)
def test_results_are_strict_json(exact: Connection) -> None:
    for key in ("nan", "inf", "minus inf", "dict", "text"):
        raw(exact, key).result.value.decode("utf-8", "strict")
        json.loads(raw(exact, key).result.value, parse_constant=pytest.fail)


@pytest.mark.conforms(42, "D21")
def test_bytes_come_without_a_value_and_other_results_without_bytes(exact: Connection) -> None:
    response = raw(exact, "bytes")
    assert response.binary_result == b"\x00\xff"
    assert not response.HasField("result")
    assert raw(exact, "none").binary_result == b""
    assert raw(exact, "none").result.value == b"null"


@pytest.mark.conforms(39, 40, 41)
@pytest.mark.parametrize(
    ("key", "data"),
    [
        ("none", b'"None"'),
        ("true", b"true"),
        ("seven", b"7.0"),
        ("seven as float", b"7.0"),
        ("nan", b'"NaN"'),
        ("text", '"ž 🐍"'.encode()),
        ("list", b"[1,2.5]"),
        ("tuple", b'"(1, 2)"'),
        ("set", b'"{1}"'),
        ("bytes", b"\"b'\\\\x00\\\\xff'\""),
        ("decimal", b'"1.50"'),
        ("datetime", b'"2026-11-22 00:00:00+00:00"'),
    ],
)
def test_compatible_results(compatible: Connection, key: str, data: bytes) -> None:
    response = raw(compatible, key)
    assert response.result.value == data
    assert response.binary_result == b""


def test_a_compatible_big_integer_is_a_failure(compatible: Connection) -> None:
    with pytest.raises(ToolFailure, match="does not fit a float"):
        compatible.call("values.give", {"key": "big"})
    assert compatible.call("values.give", {"key": "beyond 64 bits"}) == float(2**64)


def test_the_worker_says_which_mode_it_is_in(exact: Connection, compatible: Connection) -> None:
    assert exact.call("worker.info")["values"] == "exact"
    assert compatible.call("worker.info")["values"] == "compatible"


@pytest.mark.parametrize("key", ["surrogate", "surrogate inside"])
def test_a_result_that_cannot_be_encoded_is_a_failure(exact: Connection, key: str) -> None:
    with pytest.raises(ToolFailure, match="TypeError: the result cannot be encoded") as caught:
        exact.call("values.give", {"key": key})
    assert caught.value.failure["category"] == "serialization"
    assert exact.call("values.give", {"key": "seven"}) == 7


def test_a_result_that_contains_itself_is_a_failure(exact: Connection) -> None:
    with pytest.raises(ToolFailure, match="nested deeper"):
        exact.call("values.cycle")
    assert exact.call("values.give", {"key": "seven"}) == 7


@pytest.mark.conforms(48)
@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        ("none", None),
        ("type", f"<{__name__}.Opaque>"),
        ("repr_truncated", "Opaque(api_key='blau"),
        ("repr_redacted_truncated", "Opaque(api_key='[RED"),
    ],
)
def test_markers_follow_the_policy(serve: Served, policy: str, shown: str | None) -> None:
    connection = serve(Values(), unserializable_detail=policy, unserializable_repr_maxlen=20)
    marker = {"__ffi_unserializable__": True, "__type__": f"{__name__}.Opaque"}
    expected = marker if shown is None else {**marker, "__repr__": shown}
    assert connection.call("values.give", {"key": "opaque"}) == expected


@pytest.mark.conforms(49, "D23")
def test_large_arrays_follow_the_limit(serve: Served) -> None:
    connection = serve(Values(), tolist_max_elements=3)
    tensor = "type.googleapis.com/snakepit.tensor"
    fits = send(connection, tensor, b'{"data": [1, 2, 3], "shape": [3]}', "back")
    assert fits == [1, 2, 3]
    large = send(connection, tensor, b'{"data": [1, 2, 3, 4], "shape": [4]}', "back")
    assert large == {"__ffi_unserializable__": True, "__type__": "numpy.ndarray"}


# --- Chunks ---------------------------------------------------------------------------------------

CHUNKS = [
    ("none", b"", b""),
    ("true", b"true", b"true"),
    ("seven", b"7", b"7"),
    ("big", str(BIG).encode(), str(BIG).encode()),
    ("text", '"ž 🐍"'.encode(), "ž 🐍".encode()),
    ("list", b"[1,2.5]", b"[1,2.5]"),
    ("tuple", b"[1,2]", b"[1,2]"),
    ("bytes", b"\x00\xff", b"\x00\xff"),
    ("no bytes", b"", b""),
    ("bytearray", b"\x00\xff", b"\x00\xff"),
    ("memoryview", b"\x00\xff", b"\x00\xff"),
    ("binary with metadata", b"\x00\xff", b"\x00\xff"),
]


@pytest.mark.conforms(63, "D14")
@pytest.mark.parametrize("mode", ["exact", "compatible"])
def test_chunks(serve: Served, mode: str) -> None:
    connection = serve(Values(), values=mode)
    for key, exact, compatible in CHUNKS:
        request = connection.request("values.stream", {"key": key})
        first, last = connection.stub.ExecuteStreamingTool(request, timeout=20)
        assert first.data == (exact if mode == "exact" else compatible), key
        assert (last.data, last.is_final) == (b"", True)


def test_a_binary_chunk_takes_whatever_holds_bytes(exact: Connection) -> None:
    chunks = list(exact.stream("values.stream", {"key": "binary of a bytearray"}))
    assert chunks == [{"raw_data": b"\x00\xff", "is_final": False}, {"is_final": True}]


@pytest.mark.conforms(62)
def test_chunk_objects_are_honoured(exact: Connection) -> None:
    (chunk,) = exact.stream("values.chunk", {"key": "list"})
    assert chunk == {
        "data": [1, 2.5],
        "is_final": True,
        "_metadata": {"n": "1", "key": "list"},
    }


def test_a_map_that_looks_like_a_chunk_is_a_payload(exact: Connection) -> None:
    value = {"data": 1, "is_final": True, "metadata": {"a": "b"}}
    request = exact.request("values.back", {"value": value})
    chunks = list(exact.stub.ExecuteStreamingTool(request, timeout=20))
    assert [(json.loads(chunk.data or b"null"), chunk.is_final) for chunk in chunks] == [
        (value, False),
        (None, True),
    ]
    assert not chunks[0].metadata


@pytest.mark.parametrize(
    "arguments",
    [{"data": b"x"}, {"data": [1, {"a": bytearray(b"x")}]}, {"data": (memoryview(b"x"),)}],
)
def test_bytes_among_the_json_arguments_are_the_callers_mistake(
    exact: Connection, arguments: dict[str, Any]
) -> None:
    for call in (exact.call, exact.stream):
        with pytest.raises(TypeError, match=r"^data: .* give them as binary=\{…\}"):
            list(call("values.give", arguments))
