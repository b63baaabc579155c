"""The result in a reply, decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from snakepit_worker.errors import WorkerError
from snakepit_worker.wire.results import Binary
from snakepit_worker.wire.values import decode

if TYPE_CHECKING:
    from snakepit_worker.wire.generated.snakepit_bridge_pb2 import (
        ExecuteElixirToolResponse,
        ExecuteToolResponse,
    )

__all__ = ["reply_value"]


def reply_value(response: ExecuteToolResponse | ExecuteElixirToolResponse) -> Any:  # noqa: ANN401 - any JSON value
    """The result of a call that succeeded, of either side's tools.

    Args:
        response: The reply.

    Returns:
        The decoded value; text where it is not JSON; for a binary result bytes, or `Binary` where
        metadata came with them.
    """
    value: Any = None
    if response.HasField("result"):
        try:
            value = decode(response.result, "result")
        except WorkerError:  # a term that is not JSON comes as Elixir shows it
            value = response.result.value.decode("utf-8", "replace")
    if response.binary_result:
        return Binary(response.binary_result, value) if value else response.binary_result
    return value
