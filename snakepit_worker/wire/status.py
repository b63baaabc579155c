"""A failure as a gRPC status, which is how a stream ends that went wrong.

The message is the failure's JSON object, cut to what peers accept, because the host hands it to
its callers as it is.  Other clients find the same facts as ``google.rpc`` details in the standard
trailer (the richer error model of gRPC, AIP-193).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import grpc
from google.rpc import error_details_pb2 as rpc
from google.rpc.status_pb2 import Status as RpcStatus

from snakepit_worker.wire.json_text import dumps, valid_text
from snakepit_worker.wire.redaction import redact

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from snakepit_worker.wire.failures import Failure

__all__ = [
    "CUTTING_ORDER",
    "DETAILS_TRAILER",
    "STATUS_LIMIT",
    "STATUS_MESSAGE_LIMIT",
    "Status",
    "as_status",
]

DETAILS_TRAILER: Final = "grpc-status-details-bin"
STATUS_LIMIT: Final = 8_192
"""Bytes of message and details together: gRPC-core peers drop a status beyond (interop 4.7)."""
STATUS_MESSAGE_LIMIT: Final = 4_096
"""Bytes of the message after percent-encoding."""
CUTTING_ORDER: Final = (
    "stacktrace",
    "cause",
    "exceptions",
    "details",
    "notes",
    "help",
    "violations",
    "context",
)
"""Keys that a message loses until it fits, the first one first."""

_ROOM: Final = 512
"""Bytes kept for the names of the trailers and for others beside these two."""
_DOMAIN: Final = "snakepit-worker"
_UNCHANGED: Final = bytes(set(range(0x20, 0x7F)) - {ord("%")})
"""Characters that the encoding of a message leaves as they are."""
_REASON_LIMIT: Final = 63
_TEXT_LIMIT: Final = 1_024
_NAME_LIMIT: Final = 256
"""Bytes of texts within the details, so that `ErrorInfo` fits whatever it says."""
_LAST_RESORT: Final = 100
"""Characters of a class name and an id beside a message that has been cut."""
_FRAMES: Final = 30
_RESOURCES: Final = ("tool", "handle", "session_id", "adapter")
"""Details that name what was not found."""

_Details: TypeAlias = "list[Message]"


@dataclass(frozen=True, slots=True)
class Status:
    """What ends an RPC.

    Attributes:
        code: The code.
        message: JSON text.
        details: A serialized ``google.rpc.Status``.
    """

    code: grpc.StatusCode
    message: str
    details: bytes


def as_status(failure: Failure, *, compatible: bool = False) -> Status:
    """The status that a stream ends with.

    Args:
        failure: What went wrong.
        compatible: Whether the code is INTERNAL whatever it was, as Snakepit's own program does.
    """
    internal = compatible or not failure.classified
    code = grpc.StatusCode.INTERNAL if internal else grpc.StatusCode[failure.code]
    message = _message(failure)
    room = STATUS_LIMIT - _ROOM - _encoded_length(message)
    return Status(code, message, _details(failure, code, room * 3 // 4))  # sent as base64


def _message(failure: Failure) -> str:
    """The failure's object as far as it fits.

    What does not fit goes in the fixed order, and at last the end of the text.
    """
    whole = {
        "type": failure.type,
        "message": failure.message,
        "context": failure.site.context(),
        "stacktrace": failure.stacktrace,
        **failure.facts(),
    }
    for drop in (None, *CUTTING_ORDER):
        whole.pop(drop or "", None)
        text = dumps(whole)
        if _encoded_length(text) <= STATUS_MESSAGE_LIMIT:
            return text
    message = failure.message
    ids = {
        "type": failure.type[:_LAST_RESORT],
        "correlation_id": failure.site.correlation_id[:_LAST_RESORT],
    }
    while True:
        message = message[: len(message) // 2]
        text = dumps({**whole, **ids, "message": f"{message}…"})
        if _encoded_length(text) <= STATUS_MESSAGE_LIMIT or not message:
            return text


def _details(failure: Failure, code: grpc.StatusCode, room: int) -> bytes:
    """The same facts for other clients: what does not fit goes, debug information first."""
    parts = [_error_info(failure), *_retry_info(failure), *_bad_request(failure)]
    parts += [*_resource_info(failure), *_debug_info(failure)]  # last of all, so first to go
    while True:
        status = RpcStatus(code=code.value[0], message=_cut(failure.message, _TEXT_LIMIT))
        for part in parts:
            status.details.add().Pack(part)
        encoded: bytes = status.SerializeToString()
        if len(encoded) <= room:
            return encoded
        if not parts:
            return b""
        parts.pop()


def _error_info(failure: Failure) -> Message:
    reason = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", failure.type).upper()
    metadata = {
        "type": _cut(failure.type, _NAME_LIMIT),
        "category": failure.category,
        "retryable": "true" if failure.retryable else "false",
        "error_id": failure.error_id,
        "correlation_id": _cut(failure.site.correlation_id, _NAME_LIMIT),
    }
    info: Message = rpc.ErrorInfo(reason=reason[:_REASON_LIMIT], domain=_DOMAIN, metadata=metadata)
    return info


def _retry_info(failure: Failure) -> _Details:
    if failure.retry_after is None:
        return []
    info = rpc.RetryInfo()
    info.retry_delay.FromMilliseconds(round(failure.retry_after * 1000))
    return [info]


def _bad_request(failure: Failure) -> _Details:
    violations = failure.facts().get("violations")
    if not isinstance(violations, list):
        return []
    request = rpc.BadRequest()
    for violation in violations:
        request.field_violations.add(
            field=valid_text(violation["field"]), description=valid_text(violation["description"])
        )
    return [request]


def _resource_info(failure: Failure) -> _Details:
    if failure.code != "NOT_FOUND":
        return []
    named = [(kind, failure.details[kind]) for kind in _RESOURCES if kind in failure.details]
    return [
        rpc.ResourceInfo(
            resource_type=kind,
            resource_name=_cut(redact(valid_text(name), _TEXT_LIMIT), _NAME_LIMIT),
        )
        for kind, name in named[:1]
    ]


def _debug_info(failure: Failure) -> _Details:
    if not failure.stacktrace:
        return []
    entries = [valid_text(line.rstrip()) for line in failure.stacktrace[-_FRAMES:]]
    return [rpc.DebugInfo(stack_entries=entries)]


def _cut(text: str, size: int) -> str:
    """As much of the text as so many bytes hold."""
    return valid_text(text[:size]).encode()[:size].decode("utf-8", "ignore")


def _encoded_length(text: str) -> int:
    """Bytes after the percent-encoding of gRPC status messages, which makes three of most."""
    data = text.encode()
    return len(data) + 2 * len(data.translate(None, _UNCHANGED))
