"""What the host makes of parameters, and of results (interop 5.3, 5.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf.any_pb2 import Any as AnyMessage

from snakepit_worker.testing import elixir_json
from snakepit_worker.testing.elixir_terms import inspect

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["InvalidParameter", "decode_parameters", "encode_any", "encode_result"]

_STRING_VALUE: Final = "type.googleapis.com/google.protobuf.StringValue"
"""The label of all that the host sends, though what it labels is JSON and no such message."""


class InvalidParameter(ValueError):  # noqa: N818 - an answer, not a defect
    """A parameter that is not JSON; the text is the host's."""


def decode_parameters(
    parameters: Mapping[str, AnyMessage], binary: Mapping[str, bytes] | None = None
) -> dict[str, Any]:
    """The parameters of a call.

    Args:
        parameters: JSON under any label.
        binary: Raw bytes, which win over JSON of the same name.

    Raises:
        InvalidParameter: For the first one that is not JSON.
    """
    decoded: dict[str, Any] = {}
    for name, message in parameters.items():
        try:
            decoded[name] = elixir_json.decode(message.value)
        except elixir_json.JasonError as error:
            if message.type_url == _STRING_VALUE:
                raise InvalidParameter(f"Invalid parameter {name}: {inspect(str(error))}") from None
            text = f"Invalid parameter {name} ({message.type_url}): {error}"
            raise InvalidParameter(text) from None
    return {**decoded, **(binary or {})}


def encode_any(value: object) -> AnyMessage:
    """A term as the host sends it: JSON where it can be, the inspected term where it cannot.

    Args:
        value: See `elixir_terms.inspect`.

    Raises:
        TypeError: For a value that stands for no term.
    """
    try:
        text = elixir_json.encode(value)
    except elixir_json.NotJson:
        text = inspect(value)
    return AnyMessage(type_url=_STRING_VALUE, value=text.encode())


def encode_result(result: object) -> tuple[AnyMessage, bytes]:
    """A tool's result as ``(result, binary_result)``.

    Args:
        result: Bytes stand for ``{:binary, bytes}``, a pair of bytes and a dictionary for
            ``{:binary, bytes, metadata}``, everything else for the term that it looks like.

    Raises:
        TypeError: For a value that stands for no term.
    """
    match result:
        case bytes():
            return encode_any({}), result
        case (bytes() as data, dict() as metadata):
            return encode_any(metadata), data
        case _:
            return encode_any(result), b""
