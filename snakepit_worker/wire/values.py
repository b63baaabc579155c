"""``google.protobuf.Any`` to Python values and back.

The host uses ``Any`` as a pair of label and raw JSON bytes, whatever the label says, so this
module never packs or unpacks messages.  Decoding goes through msgspec, which keeps integers of any
size; encoding through orjson, which calls our hook for everything that is not JSON, with a slower
path for what orjson refuses (integers beyond 64 bits, keys that are not text).
"""

from __future__ import annotations

import json
import math
from datetime import date, datetime, time
from enum import Enum
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
import orjson
from google.protobuf.any_pb2 import Any as AnyMessage

from snakepit_worker.errors import InvalidArgument, SerializationError, Violation
from snakepit_worker.wire.markers import MarkerRules
from snakepit_worker.wire.results import Binary
from snakepit_worker.wire.zero_copy import MARKER, ZeroCopyReference

__all__ = ["PLAIN_TYPES", "Values", "ValuesMode", "decode", "to_any"]

ValuesMode = Literal["exact", "compatible"]

STRING_VALUE: Final = "type.googleapis.com/google.protobuf.StringValue"
_BYTES: Final = (bytes, bytearray, memoryview)
_PLAIN_SCALARS: Final = frozenset((type(None), bool, int, float, str, bytes))
_CONTAINERS: Final = frozenset((dict, list))
PLAIN_TYPES: Final = _PLAIN_SCALARS | _CONTAINERS
"""Types of JSON, and bytes, whose values say nothing more than their data."""
_PLAIN_CHUNKS: Final = frozenset((dict, list, int, float, bool))
_RESULT: Final = "type.googleapis.com/snakepit."
_decode_json = msgspec.json.Decoder().decode
_MAX_DEPTH: Final = 200
"""Nesting that the slow path follows; orjson itself stops at 254."""


def decode(message: AnyMessage, name: str) -> Any:  # noqa: ANN401 - any JSON value
    """The Python value of one parameter or result.

    Args:
        message: Label and JSON bytes.
        name: What it is called, for the error.

    Raises:
        InvalidArgument: When the bytes are not JSON, or do not fit the label.
    """
    try:
        value = _decode_json(message.value)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        text = f"expected JSON, got {_preview(message.value)}: {error}"
        raise InvalidArgument(f"{name}: {text}", violations=[Violation(name, text)]) from None
    kind = message.type_url.rpartition("/")[2].rpartition(".")[2]
    if kind in _CONVERSIONS:
        try:
            return _CONVERSIONS[kind](value)
        except (TypeError, ValueError, OverflowError, KeyError) as error:
            text = f"expected a value of kind {kind}: {error}"
            raise InvalidArgument(f"{name}: {text}", violations=[Violation(name, text)]) from None
    if type(value) is dict and value.get(MARKER):
        return ZeroCopyReference(value)
    return value


def to_any(value: object) -> AnyMessage:
    """A JSON value as the host reads parameters.

    Raises:
        SerializationError: When the value is not JSON.
    """
    return AnyMessage(type_url=STRING_VALUE, value=Values().to_json(value))


class Values:
    """Encoder of results and chunks.

    Args:
        mode: ``exact`` keeps Python's types; ``compatible`` gives the shapes of the program that
            Snakepit ships (integers as floats, None as text).
        rules: What becomes of objects that are not JSON.
    """

    def __init__(self, mode: ValuesMode = "exact", rules: MarkerRules | None = None) -> None:
        self._exact = mode == "exact"
        self._rules = rules or MarkerRules()

    def to_json(self, value: object) -> bytes:
        """Strict JSON: no bare NaN, valid UTF-8, integers exact.

        Raises:
            SerializationError: For text with lone surrogates, and for nesting without end.
        """
        try:
            return orjson.dumps(value, self._rules.convert, orjson.OPT_PASSTHROUGH_DATACLASS)
        except (TypeError, RecursionError):
            pass
        try:
            plain = self._plain(value, 0)
            text = json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            return text.encode()
        except Exception as error:  # noqa: BLE001 - keys and values have methods of their own
            reason = str(error) or type(error).__name__
            raise SerializationError(f"the result cannot be encoded as JSON: {reason}") from None

    def result(self, value: object) -> tuple[AnyMessage | None, bytes]:
        """A unary result as ``(result, binary_result)``.

        Raises:
            SerializationError: When the value cannot be encoded.
        """
        if self._exact:
            kind = _EXACT_KINDS.get(type(value))
            if kind is not None:
                return self._labelled(kind, value)
            if isinstance(value, _BYTES):
                return _bytes_result(bytes(value))
            if isinstance(value, Binary):
                return self._binary(value)
            return self._labelled("string", value)
        if isinstance(value, Binary):
            return self._binary(value)
        return self._compatible(value)

    def plain_result(self, value: object) -> tuple[AnyMessage | None, bytes] | None:
        """The same for a value that is JSON all through, ``None`` for any other.

        Calls no foreign code, so that it may run where nothing may block.

        Args:
            value: What a tool returned.
        """
        kind = type(value)
        if kind in _PLAIN_SCALARS:
            try:
                return self.result(value)
            except SerializationError:
                return None
        if kind not in _CONTAINERS:
            return None
        data = _plain_json(value)
        return None if data is None else (_any(_EXACT_KINDS[kind], data), b"")

    def plain_chunk(self, value: object) -> bytes | None:
        """The payload of a chunk that is JSON all through, ``None`` for any other.

        Args:
            value: An item of a stream.
        """
        if type(value) in _PLAIN_SCALARS:
            try:
                return self.chunk(value)
            except SerializationError:
                return None
        return _plain_json(value) if type(value) in _CONTAINERS else None

    def chunk(self, value: object) -> bytes:
        """The payload of one stream chunk; empty for None.

        Raises:
            SerializationError: When the value cannot be encoded.
        """
        if type(value) in _PLAIN_CHUNKS:
            return self.to_json(value)
        if value is None:
            return b""
        if isinstance(value, _BYTES):
            return bytes(value)
        if isinstance(value, Binary):
            return _bytes_of(value)
        if isinstance(value, str) and not self._exact:
            return value.encode("utf-8", "replace")
        return self.to_json(value)

    def _binary(self, value: Binary) -> tuple[AnyMessage | None, bytes]:
        data = _bytes_of(value)
        if not value.metadata:
            return _bytes_result(data)
        return self._labelled("map", dict(value.metadata))[0], data

    def _labelled(self, kind: str, value: object) -> tuple[AnyMessage, bytes]:
        if isinstance(value, float) and not math.isfinite(value):
            return _any("float", _float_word(value)), b""
        return _any(kind, self.to_json(value)), b""

    def _compatible(self, value: object) -> tuple[AnyMessage, bytes]:
        """The shapes of interop section 3.3: numbers are floats, the rest is text."""
        if value is None:
            return _any("string", b'"None"'), b""
        if isinstance(value, bool | dict | list | str):
            kind = next(k for t, k in _COMPATIBLE_KINDS if isinstance(value, t))
            return self._labelled(kind, value)
        if isinstance(value, int | float):
            try:
                number = float(value)
            except OverflowError as error:
                raise SerializationError(f"the result does not fit a float: {error}") from None
            return self._labelled("float", number)
        if isinstance(value, ZeroCopyReference):
            return self._labelled("string", value)
        return self._labelled("string", str(value))

    def _plain(self, value: object, depth: int) -> object:  # noqa: C901, PLR0911 - a line per type
        """The value in plain JSON types, for the encoder that knows big integers.

        Raises:
            ValueError: When the nesting is deeper than the limit.
        """
        if depth > _MAX_DEPTH:
            msg = f"nested deeper than {_MAX_DEPTH} levels; it may refer to itself"
            raise ValueError(msg)
        if isinstance(value, Enum):
            return self._plain(value.value, depth + 1)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return str(value)
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else None
        if isinstance(value, dict):
            return {_key(k): self._plain(v, depth + 1) for k, v in value.items()}
        if isinstance(value, list) or type(value) is tuple:
            return [self._plain(item, depth + 1) for item in value]
        if isinstance(value, UUID):
            return str(value)
        if isinstance(value, datetime | date | time):
            return value.isoformat()
        return self._plain(self._rules.convert(value), depth + 1)


def _plain_json(value: object) -> bytes | None:
    try:
        return orjson.dumps(value, None, orjson.OPT_PASSTHROUGH_DATACLASS)
    except (TypeError, RecursionError):
        return None


def _any(kind: str, payload: bytes) -> AnyMessage:
    return AnyMessage(type_url=_RESULT + kind, value=payload)


def _bytes_result(data: bytes) -> tuple[AnyMessage | None, bytes]:
    # An empty binary_result means "no binary" to the host; empty text is the nearest it can read.
    return (None, data) if data else (_any("string", b'""'), b"")


def _bytes_of(value: Binary) -> bytes:
    if not isinstance(value.data, _BYTES):
        kind = type(value.data).__name__
        raise SerializationError(f"the data of a Binary must be bytes, got {kind}")
    return bytes(value.data)


def _float_word(value: float) -> bytes:
    if math.isnan(value):
        return b'"NaN"'
    return b'"Infinity"' if value > 0 else b'"-Infinity"'


def _key(key: object) -> str:
    if isinstance(key, Enum):
        return _key(key.value)
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    return str(key)


def _preview(data: bytes) -> str:
    return "no bytes" if not data else f"{len(data)} bytes starting with {data[:24]!r}"


def _tensor(value: object) -> object:
    if not (isinstance(value, dict) and "data" in value and "shape" in value):
        return value
    import numpy as np  # noqa: PLC0415 - only callers that send tensors pay for NumPy

    return np.array(value["data"]).reshape(value["shape"])


_CONVERSIONS: Final[dict[str, Any]] = {
    "float": float,  # which knows the words NaN, Infinity and -Infinity
    "integer": int,
    "tensor": _tensor,
}
_EXACT_KINDS: Final[dict[type, str]] = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "float",
    str: "string",
    dict: "map",
    list: "list",
    tuple: "list",
}
_COMPATIBLE_KINDS: Final = ((bool, "boolean"), (dict, "map"), (list, "list"), (str, "string"))
