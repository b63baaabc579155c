"""The load: one client process for all servers, which is told over stdin what to call.

A process of its own, so that neither the stand-in host nor the measuring takes part in it; one for
all, so that what the client does by itself is the same for every server::

    python -m benchmarks.load
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import grpc.aio
import msgspec
import orjson
import uvloop

from snakepit_worker.wire.convention import CHANNEL_OPTIONS
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from snakepit_worker.wire.values import to_any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from grpc.aio import UnaryStreamMultiCallable, UnaryUnaryMultiCallable

__all__ = ["Order", "Outcome"]

_CHUNKS: Final = 500
"""Chunks of one stream."""
_PAYLOAD_BYTES: Final = 8 * 1024 * 1024

_TIMEOUT: Final = 240.0
"""Seconds; the host sends a deadline with every call (interop 2.5)."""
_CORRELATION_ID: Final = "sp-0d11d67e0ed7f6651e74e2c1"
_HEADERS: Final = (("x-snakepit-correlation-id", _CORRELATION_ID),)
_METADATA: Final = {
    "correlation_id": _CORRELATION_ID,
    "python_platform": "x86_64-pc-linux-gnu",
    "python_runtime_hash": "889c603f0d17cb54060951bcf4c4f9b8c9ebd9e52b392c70209bb9755d797d9e",
    "python_version": "3.13.5",
}
"""As the host sends it (interop 2.6)."""
_ECHO: Final = {"text": "What is the capital of France? Answer in one word.", "n": 7}
_PUT: Final = {"name": "question", "value": _ECHO, "replace": True}


class Order(msgspec.Struct, frozen=True):
    """What to call, and how often.

    Attributes:
        tool: Full name of a tool of `benchmarks.adapter`, or ``session.put``.
        calls: How many calls.
        in_flight: How many of them at a time.
        sessions: Among how many sessions those in flight are divided.
    """

    tool: str
    calls: int
    in_flight: int = 1
    sessions: int = 1

    @property
    def items(self) -> int:
        """What is counted: chunks where the tool streams, else calls."""
        return self.calls * (_CHUNKS if self.streams else 1)

    @property
    def streams(self) -> bool:
        """Whether the tool streams."""
        return "count" in self.tool

    def quarter(self) -> Order:
        """The same with a quarter of the calls."""
        return msgspec.structs.replace(self, calls=self.calls // 4)


class Outcome(msgspec.Struct, frozen=True):
    """How the calls went.

    Attributes:
        seconds: From the first call to the end of the last.
        median: Seconds that a call took.
        error: Why the calls were given up, empty when they were not.
    """

    seconds: float = 0.0
    median: float = 0.0
    error: str = ""


class _WrongAnswerError(Exception):
    """A server answered, but not as it should; the message is the answer."""


class _Target:
    """One server, with a connection that stays open."""

    def __init__(self, address: str) -> None:
        channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        service = "/snakepit.bridge.BridgeService"
        # The requests are bytes already: the client must not be what is measured.
        self._unary: UnaryUnaryMultiCallable[bytes, pb.ExecuteToolResponse] = channel.unary_unary(
            f"{service}/ExecuteTool",
            response_deserializer=pb.ExecuteToolResponse.FromString,
        )
        self._stream: UnaryStreamMultiCallable[bytes, pb.ToolChunk] = channel.unary_stream(
            f"{service}/ExecuteStreamingTool",
            response_deserializer=pb.ToolChunk.FromString,
        )

    async def run(self, order: Order) -> Outcome:
        """Make the calls.

        Raises:
            _WrongAnswerError: When an answer is wrong.
            grpc.RpcError: When there is none.
        """
        durations: list[float] = []

        async def one_after_another(call: Callable[[], Awaitable[None]], count: int) -> None:
            for _ in range(count):
                begun = time.perf_counter()
                await call()
                durations.append(time.perf_counter() - begun)

        begun = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for index in range(order.in_flight):
                count = len(range(index, order.calls, order.in_flight))
                call = self._caller(order, index % order.sessions)
                group.create_task(one_after_another(call, count))
        return Outcome(time.perf_counter() - begun, statistics.median(durations))

    def _caller(self, order: Order, session: int) -> Callable[[], Awaitable[None]]:
        request = partial(_request, f"session_{session + 1}_1795334162543942", order.tool)
        if order.streams:
            return partial(self._count, request({"n": _CHUNKS}))
        if order.tool == "bench.size":
            payload = {"data": bytes(_PAYLOAD_BYTES)}
            return partial(self._call, request({}, payload), orjson.dumps(_PAYLOAD_BYTES))
        if order.tool == "session.put":
            return partial(self._call, request(_PUT), None)
        return partial(self._call, request(_ECHO), orjson.dumps(_ECHO))

    async def _call(self, request: bytes, expected: bytes | None) -> None:
        """Make a call, whose answer is not known before where none is expected."""
        response = await self._unary(request, timeout=_TIMEOUT, metadata=_HEADERS)
        wrong = not response.success if expected is None else response.result.value != expected
        if wrong:
            raise _WrongAnswerError(str(response)[:500])

    async def _count(self, request: bytes) -> None:
        chunks = 0
        async for chunk in self._stream(request, timeout=_TIMEOUT, metadata=_HEADERS):
            chunks += bool(chunk.data)  # the worker ends its streams with an empty one
        if chunks != _CHUNKS:
            raise _WrongAnswerError(f"{chunks} chunks instead of {_CHUNKS}")


def _request(
    session_id: str, tool: str, arguments: dict[str, Any], binary: dict[str, bytes] | None = None
) -> bytes:
    return pb.ExecuteToolRequest(
        session_id=session_id,
        tool_name=tool,
        parameters={name: to_any(value) for name, value in arguments.items()},
        binary_parameters=binary or {},
        metadata=_METADATA,
    ).SerializeToString()


async def _take_orders() -> None:
    targets: dict[str, _Target] = {}
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
        address, order = msgspec.json.decode(line, type=tuple[str, Order])
        if address not in targets:
            targets[address] = _Target(address)
        try:
            outcome = await targets[address].run(order)
        except* (_WrongAnswerError, grpc.RpcError) as group:
            outcome = Outcome(error=str(group.exceptions[0]))
        sys.stdout.buffer.write(msgspec.json.encode(outcome) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    uvloop.run(_take_orders())
