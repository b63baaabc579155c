"""What holds for every parameter, whatever its label and its bytes."""

from __future__ import annotations

from google.protobuf.any_pb2 import Any as AnyMessage

from snakepit_worker.errors import InvalidArgument, SerializationError
from snakepit_worker.wire.redaction import redact
from snakepit_worker.wire.values import Values, decode
from snakepit_worker.wire.zero_copy import ZeroCopyReference
from tests.conftest import strict_json

__all__ = ["LABELS", "check"]

LABELS = ("", "float", "integer", "tensor", "a/b.float", "anything")
_values = Values()


def check(label: str, data: bytes) -> None:
    """Decode a parameter, encode what comes of it, and decode that.

    Args:
        label: What the parameter says that it is.
        data: What it holds.
    """
    redact(data.decode("utf-8", "replace"))
    try:
        value = decode(AnyMessage(type_url=label, value=data), "parameter")
    except InvalidArgument as error:
        assert error.violations  # noqa: PT017 - each names the parameter
        return
    try:
        encoded = _values.to_json(value)
    except SerializationError:
        assert _depth(data) > 100
        return
    again = strict_json(encoded)
    if label in {"", "anything"}:  # no conversion
        assert again == (value.payload if isinstance(value, ZeroCopyReference) else value)


def _depth(data: bytes) -> int:
    return max(data.count(b"["), data.count(b"{"), data.count(b"[") + data.count(b"{"))
