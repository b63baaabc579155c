"""What both ends of the wire agree on beside messages: limits and headers (interop 2.4, 2.6)."""

from __future__ import annotations

from typing import Final, TypeAlias

__all__ = [
    "CHANNEL_OPTIONS",
    "CORRELATION_HEADER",
    "LOOPBACK",
    "MAX_MESSAGE_BYTES",
    "SERVER_OPTIONS",
    "Headers",
    "correlation_headers",
]

MAX_MESSAGE_BYTES: Final = 104_857_600
"""100 MiB for one message, in either direction."""

LOOPBACK: Final = "127.0.0.1"
"""Where a worker listens, and nowhere else (interop 2.1)."""

CORRELATION_HEADER: Final = "x-snakepit-correlation-id"

Headers: TypeAlias = tuple[tuple[str, str | bytes], ...]
"""What is sent beside a request, in grpc's own form."""

CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # The peer is on this machine, whatever proxy the environment names.
    ("grpc.enable_http_proxy", 0),
    # By itself gRPC lets up to two minutes pass before it tries again to connect.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)

SERVER_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # With port reuse two servers could share a port without noticing.
    ("grpc.so_reuseport", 0),
)

_LONGEST_HEADER: Final = 1_000
"""Characters; gRPC refuses all headers together beyond 8 KiB."""


def correlation_headers(correlation_id: str) -> Headers:
    """The header that carries a correlation id, if one can: who calls us may send any text as one.

    Args:
        correlation_id: The id, or nothing.
    """
    fits = correlation_id.isascii() and correlation_id.isprintable()
    if not correlation_id or not fits or len(correlation_id) > _LONGEST_HEADER:
        return ()
    return ((CORRELATION_HEADER, correlation_id),)
