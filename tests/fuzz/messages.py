"""Requests of every shape, built from the descriptors of the protocol."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st

from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.message import Message

    Texts = st.SearchStrategy[str]

__all__ = ["REQUESTS", "damaged", "damages", "json_values", "messages"]

REQUESTS: Final[dict[str, type[Message]]] = {
    method.name: getattr(pb, method.input_type.name)
    for method in pb.DESCRIPTOR.services_by_name["BridgeService"].methods
}
"""The request message of each RPC."""

_HUGE: Final = 2_000
_DEEP: Final = 5_000

text = st.text(st.characters(codec="utf-8"), max_size=20)
odd_texts = st.sampled_from([
    "", " ", "\0", "\n", "\u2028", "é" * 5_000, "🐍" * 2_000, "x" * 70_000, "%s", "{}", "../..",
    "__class__", "null", "[", "a.b.c", "token=1a2b3c4d", "\x7f", "\u202e", "true",
])  # fmt: skip
texts = text | odd_texts

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**63) - 1, 2**64, 10**400, 0.0, -0.0, 1e308, 5e-324])
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
_not_json = st.binary(max_size=30) | st.sampled_from([
    b"", b"NaN", b"-Infinity", b"{", b"[1,", b'"\\ud800"', b'"\xff"', b"01", b"1 2", b"1e999",
    b"9" * 5_000, b"[" * _DEEP, b"[" * _DEEP + b"]" * _DEEP, b'{"a":' * _DEEP + b"1" + b"}" * _DEEP,
    b'{"a":1,"a":2}', b"\xef\xbb\xbf1", b'"' + b"x" * 70_000 + b'"',
])  # fmt: skip
_payloads = json_values.map(lambda value: json.dumps(value).encode()) | _not_json
_labels = (
    st.sampled_from([
        "type.googleapis.com/google.protobuf.StringValue", "", "/", "float", "integer", "tensor",
        "type.googleapis.com/snakepit.float", "dspex.variables/integer", "a/tensor",
        "type.googleapis.com/snakepit.map", "type.googleapis.com/snakepit.float.binary",
    ])
    | texts
)  # fmt: skip
_tensors = st.fixed_dictionaries({"data": json_values, "shape": json_values})
_references = st.dictionaries(
    st.sampled_from(["kind", "ref", "shape", "metadata", "device"]), json_values
).map(lambda fields: {"__snakepit_zero_copy__": True, **fields})
_special = (_tensors | _references).map(lambda value: json.dumps(value).encode())

Damage: TypeAlias = "tuple[str, tuple[float, float], bytes]"
_place = st.floats(0, 1)
damages: Final[st.SearchStrategy[list[Damage]]] = st.lists(
    st.tuples(
        st.sampled_from(["change", "add", "repeat", "remove", "cut"]),
        st.tuples(_place, _place),
        st.binary(min_size=1, max_size=20),
    ),
    min_size=1,
    max_size=3,
)
"""What may be done to a message."""

_KINDS: Final[dict[int, Callable[[], st.SearchStrategy[Any]]]] = {
    FieldDescriptor.CPPTYPE_INT32: lambda: _integers(32),
    FieldDescriptor.CPPTYPE_INT64: lambda: _integers(64),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats,
    FieldDescriptor.CPPTYPE_BOOL: st.booleans,
}


def messages(kind: type[Message], known: Mapping[str, Texts]) -> st.SearchStrategy[Any]:
    """Messages of a kind: each field there or not, with any value.

    Args:
        kind: The class.
        known: Texts that mean something, by the name of the field or map that they stand in; any
            other text may come in their place.
    """
    if kind is AnyMessage:
        return st.builds(AnyMessage, type_url=_labels, value=_payloads | _special)
    if kind is Timestamp:
        return st.builds(Timestamp, seconds=_integers(64), nanos=_integers(32))
    fields = {field.name: _field(field, known) for field in kind.DESCRIPTOR.fields}
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: kind(**values))


def damaged(data: bytes, damages: list[Damage]) -> bytes:
    """The bytes with some of them changed, added, repeated or cut off.

    Args:
        data: A valid message.
        damages: What to do, one after the other; see `damages`.
    """
    for how, places, more in damages:
        first, last = sorted(round(place * len(data)) for place in places)
        data = {
            "change": data[:first] + more + data[first + len(more) :],
            "add": data[:first] + more + data[first:],
            "repeat": data[:last] + data[first:],
            "remove": data[:first] + data[last:],
            "cut": data[:first],
        }[how]
    return data


def _integers(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _field(field: Any, known: Mapping[str, Texts]) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        keys = known[field.name] | texts if field.name in known else texts
        values = _value(value, known)
        assert key.cpp_type == FieldDescriptor.CPPTYPE_STRING
        small = st.dictionaries(keys, values, max_size=4)
        one = _smallest(value)
        huge = st.just(_HUGE).map(lambda count: {f"k{number}": one for number in range(count)})
        return st.one_of(small, small, small, huge)
    if field.is_repeated:
        return st.lists(_value(field, known), max_size=4)
    return _value(field, known)


def _smallest(field: Any) -> Any:
    if field.message_type is not None:
        return GetMessageClass(field.message_type)()
    return b"" if field.type == FieldDescriptor.TYPE_BYTES else ""


def _value(field: Any, known: Mapping[str, Texts]) -> Any:
    if field.message_type is not None:
        return messages(GetMessageClass(field.message_type), known)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _payloads | st.just(b"\x80\x04N.")  # a pickle
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return known[field.name] | texts if field.name in known else texts
    return _KINDS[field.cpp_type]()
