"""What Elixir code sees of a worker's replies (interop 3.3, 3.4, 4.4, 4.7)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from snakepit_worker.testing import elixir_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb

__all__ = ["ToolFailure", "decode_chunk", "decode_response"]


class ToolFailure(Exception):  # noqa: N818 - the word for it on both sides
    """A tool call that failed, with the failure object that Elixir would see.

    Attributes:
        failure: The decoded object; only its ``message`` where the worker sent other text.
    """

    def __init__(self, failure: Mapping[str, Any]) -> None:
        super().__init__(": ".join(str(failure[k]) for k in ("type", "message") if k in failure))
        self.failure = failure


def decode_response(response: pb.ExecuteToolResponse) -> Any:  # noqa: ANN401 - see Connection.call
    """A unary reply as the host decodes it (interop 3.3, 3.4, 4.7).

    Raises:
        ToolFailure: When it is a failure.
    """
    if not response.success:
        raise ToolFailure(_failure(response.error_message))
    value: Any = None
    if response.HasField("result"):
        raw = response.result.value
        try:
            value = elixir_json.decode(raw) if raw else ""
        except elixir_json.JasonError:
            value = raw
    if not response.binary_result:
        return value
    return response.binary_result if value in (None, {}) else (response.binary_result, value)


def decode_chunk(chunk: pb.ToolChunk) -> dict[str, Any]:
    """A chunk as the map that an Elixir callback receives (interop 4.4)."""
    decoded: dict[str, Any] = {}
    if chunk.data:
        decoded = {"raw_data": chunk.data}
        with contextlib.suppress(elixir_json.JasonError):
            value = elixir_json.decode(chunk.data)
            decoded = value if isinstance(value, dict) else {"data": value}
    decoded["is_final"] = chunk.is_final
    if chunk.metadata:
        decoded["_metadata"] = dict(chunk.metadata)
    return decoded


def _failure(text: str) -> Mapping[str, Any]:
    """The object in a reply's error text; any other text is the whole message."""
    with contextlib.suppress(elixir_json.JasonError):
        failure = elixir_json.decode(text.encode())
        if isinstance(failure, dict) and all(
            isinstance(failure.get(key), str) for key in ("type", "message")
        ):
            return failure
    return {"message": text}
