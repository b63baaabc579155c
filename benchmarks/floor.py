"""The floor: what gRPC, uvloop and orjson cost with next to nothing around them.

Started as a process of its own, it prints its port and serves until its standard input ends::

    python -m benchmarks.floor
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import grpc.aio
import orjson
import uvloop
from google.protobuf.any_pb2 import Any as AnyMessage

from snakepit_worker.wire.convention import SERVER_OPTIONS
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from snakepit_worker.wire.generated.snakepit_bridge_pb2_grpc import (
    BridgeServiceServicer,
    add_BridgeServiceServicer_to_server,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    Context = grpc.aio.ServicerContext[Any, Any]


class Floor(BridgeServiceServicer):
    """The tools of `benchmarks.adapter`, told apart by what the request holds."""

    async def ExecuteTool(  # noqa: N802 - named by the protocol
        self, request: pb.ExecuteToolRequest, _context: Context
    ) -> pb.ExecuteToolResponse:
        """The echo, or the size of a binary parameter."""
        arguments = _decode(request)
        answer: object
        if request.binary_parameters:
            answer = len(request.binary_parameters["data"])
        else:
            answer = {"text": arguments["text"], "n": arguments["n"]}
        return pb.ExecuteToolResponse(
            success=True,
            result=AnyMessage(
                type_url="type.googleapis.com/snakepit.map", value=orjson.dumps(answer)
            ),
        )

    async def ExecuteStreamingTool(  # noqa: N802 - named by the protocol
        self, request: pb.ExecuteToolRequest, _context: Context
    ) -> AsyncIterator[pb.ToolChunk]:
        """The count."""
        for index in range(_decode(request)["n"]):
            data = orjson.dumps({"token": "word", "index": index})
            yield pb.ToolChunk(chunk_id=f"count-{index + 1}", data=data)


def _decode(request: pb.ExecuteToolRequest) -> dict[str, Any]:
    return {name: orjson.loads(value.value) for name, value in request.parameters.items()}


async def _serve() -> None:
    server = grpc.aio.server(options=SERVER_OPTIONS)
    add_BridgeServiceServicer_to_server(Floor(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    await server.stop(None)


if __name__ == "__main__":
    uvloop.run(_serve())
