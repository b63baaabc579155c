"""A synchronous stub for the host, for code that was written for Snakepit's own worker.

Such code calls it from threads of its own, with or without deadline and headers.  It gets both:
no call outlives the tool call that it is part of, and each carries its correlation id.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

import grpc

from snakepit_worker.errors import HostUnavailable
from snakepit_worker.wire.convention import CHANNEL_OPTIONS, CORRELATION_HEADER, correlation_headers
from snakepit_worker.wire.generated.snakepit_bridge_pb2_grpc import BridgeServiceStub

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from snakepit_worker.deadline import Deadline

__all__ = ["BlockingHost", "BlockingStub"]

_CALL_TIMEOUT: Final = 300.0
"""Seconds for a call without a deadline, the host's own default for a call to a worker."""


class BlockingHost:
    """The connection behind all blocking stubs of a worker, opened when the first call is made.

    Args:
        address: ``host:port`` of the host, or ``None`` where the worker has none.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._stub: Any = None

    def stub(self) -> Any:  # noqa: ANN401 - the generated stub
        """The generated stub.

        Raises:
            HostUnavailable: When the worker has no host.
        """
        if self._address is None:
            msg = "this worker has no host; Elixir tools need --elixir-address"
            raise HostUnavailable(msg, retryable=False)
        with self._lock:
            if self._channel is None:
                self._channel = grpc.insecure_channel(self._address, options=CHANNEL_OPTIONS)
                self._stub = BridgeServiceStub(self._channel)
            return self._stub

    def close(self) -> None:
        """Close the connection, if there is one."""
        with self._lock:
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()


class BlockingStub:
    """What a tool call's code sees as the host's stub.

    Args:
        host: The connection.
        deadline: Of the tool call.
        correlation_id: Of the tool call.
    """

    def __init__(self, host: BlockingHost, deadline: Deadline, correlation_id: str) -> None:
        self._host = host
        self._deadline = deadline
        self._headers = correlation_headers(correlation_id)

    def __getattr__(self, rpc: str) -> Callable[..., Any]:
        """The RPC of this name; takes a request, and the options of a generated stub."""
        if rpc.startswith("_"):
            raise AttributeError(rpc)
        method = getattr(self._host.stub(), rpc)

        def call(
            request: object,
            timeout: float | None = None,
            metadata: Sequence[tuple[str, str | bytes]] | None = None,
            **options: Any,  # noqa: ANN401 - those of the generated stub
        ) -> Any:  # noqa: ANN401 - the RPC's response
            limit = self._deadline.bound(_CALL_TIMEOUT if timeout is None else timeout)
            headers = tuple(metadata or ())
            if all(key != CORRELATION_HEADER for key, _ in headers):
                headers += self._headers
            return method(request, timeout=limit, metadata=headers, **options)

        return call
