"""Calls that are arguments or results of another call: how they are asked for and answered."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final

import orjson

from snakepit_worker.errors import InnerCallFailed, InvalidArgument, Violation
from snakepit_worker.wire.generated.snakepit_bridge_pb2 import ExecuteToolRequest
from snakepit_worker.wire.values import to_any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from snakepit_worker.tools.context import CallContext
    from snakepit_worker.wire.failures import Failure
    from snakepit_worker.wire.generated.snakepit_bridge_pb2 import ExecuteToolResponse

__all__ = ["build_request", "failed", "inner_request", "outcome", "refusal"]

_SESSION: Final = "session_id"


def build_request(
    ctx: CallContext, tool: str, arguments: Mapping[str, Any], binary: Mapping[str, str]
) -> tuple[ExecuteToolRequest, list[Violation]]:
    """The request of an inner call, and what is wrong with it.

    Args:
        ctx: The outer call; its session and metadata are those of the inner one.
        tool: Full name.
        arguments: By name; a ``session_id`` among them names another session.
        binary: Binary parameters by name, as base64.
    """
    violations = []
    request = ExecuteToolRequest(session_id=ctx.worker_session_id, tool_name=tool)
    request.metadata.update(ctx.metadata)
    session = {} if ctx.session.id == ctx.worker_session_id else {_SESSION: ctx.session.id}
    for name, value in {**session, **arguments}.items():
        request.parameters[name].CopyFrom(to_any(value))
    for name, text in binary.items():
        try:
            request.binary_parameters[name] = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            violations.append(Violation(f"binary.{name}", f"expected base64: {error}"))
    return request, violations


def inner_request(
    ctx: CallContext, tool: str, arguments: Mapping[str, object], binary: Mapping[str, bytes]
) -> ExecuteToolRequest:
    """The request of a call that a tool makes of another.

    Args:
        ctx: The outer call; its session and metadata are those of the inner one.
        tool: Full name.
        arguments: By name.
        binary: Binary parameters by name.

    Raises:
        InvalidArgument: When the arguments name a session.
    """
    if _SESSION in arguments:
        text = "a tool calls others in its own session only"
        raise InvalidArgument(f"{_SESSION}: {text}", violations=[Violation(_SESSION, text)])
    request, _ = build_request(ctx, tool, arguments, {})
    request.binary_parameters.update(binary)
    return request


def failed(tool: str, failure: Failure) -> InnerCallFailed:
    """The failure of an inner call, for the tool that made it.

    Args:
        tool: Whose failure it is.
        failure: The failure.
    """
    return InnerCallFailed(
        f"{tool}: {failure.type}: {failure.message}",
        tool=tool,
        type=failure.type,
        reason=failure.message,
        code=failure.code,
        retryable=failure.retryable,
        retry_after=failure.retry_after,
        violations=failure.violations,
        details={**failure.details, "tool": tool, "error_id": failure.error_id},
        help=failure.help,
    )


def refusal(tool: str, violations: Sequence[Violation]) -> InvalidArgument | None:
    """Why a call can only fail, if anything is wrong with it.

    Args:
        tool: Its tool.
        violations: What is wrong.
    """
    if not violations:
        return None
    text = "; ".join(f"{wrong.field}: {wrong.description}" for wrong in violations)
    return InvalidArgument(f"wrong arguments for {tool}: {text}", violations=violations)


def outcome(response: ExecuteToolResponse) -> dict[str, Any]:
    """The reply of an inner call as JSON, in which the reply's own JSON stands as it is.

    Args:
        response: The reply.
    """
    answer: dict[str, Any] = {
        "success": response.success,
        "execution_time_ms": response.execution_time_ms,
    }
    if not response.success:
        answer["error"] = orjson.Fragment(response.error_message)
        return answer
    value = response.result.value
    answer["result"] = orjson.Fragment(value) if value else None
    if response.binary_result:
        answer["binary_result"] = base64.b64encode(response.binary_result).decode()
    return answer
