"""The Python side of a BEAM system: a worker process that hosts framework adapters.

This module holds what an adapter author needs::

    from snakepit_worker import Adapter, CallContext, tool

    class Echo(Adapter):
        name = "echo"

        @tool
        async def say(self, text: str, ctx: CallContext) -> str:
            "Answer with the text."
            return text

Importing it brings in neither grpc nor structlog.
"""

from snakepit_worker.tools.api import Adapter, Rebuilt, tool
from snakepit_worker.tools.context import CallContext
from snakepit_worker.wire.results import Binary, Chunk

__all__ = ["Adapter", "Binary", "CallContext", "Chunk", "Rebuilt", "tool"]

__version__ = "0.1.0"
