"""The arguments of a request, decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from snakepit_worker.errors import InvalidArgument, Violation
from snakepit_worker.wire.values import decode

if TYPE_CHECKING:
    from snakepit_worker.wire.generated.snakepit_bridge_pb2 import ExecuteToolRequest

__all__ = ["decode_arguments"]


def decode_arguments(request: ExecuteToolRequest) -> dict[str, Any]:
    """JSON parameters and binary parameters in one dictionary; a binary one wins.

    Raises:
        InvalidArgument: For a parameter that is not JSON, and for a pickled one, which this
            worker refuses to open.
    """
    arguments = {name: decode(value, name) for name, value in request.parameters.items()}
    if request.binary_parameters:
        for name, data in request.binary_parameters.items():
            if request.metadata.get(f"binary_format:{name}") == "pickle":
                text = "expected raw bytes, got a pickle, which could run code"
                msg = f"{name}: {text}"
                raise InvalidArgument(msg, violations=[Violation(name, text)])
            arguments[name] = data
    return arguments
