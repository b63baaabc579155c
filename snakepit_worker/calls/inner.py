"""Calls that a tool makes of this worker's other tools."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any, Final

from snakepit_worker.calls.call import Call
from snakepit_worker.errors import ResourceExhausted
from snakepit_worker.tools.inner_calls import failed, inner_request
from snakepit_worker.wire.convention import CORRELATION_HEADER
from snakepit_worker.wire.replies import reply_value

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from snakepit_worker.telemetry.spans import Spans
    from snakepit_worker.tools.context import CallContext
    from snakepit_worker.wire.generated.snakepit_bridge_pb2 import ExecuteToolResponse

__all__ = ["InnerCalls"]

_DEEPEST: Final = 4
"""Calls inside of calls.  An agent that calls an agent takes two; each depth has threads."""


class InnerCalls:
    """Serves them as any other call, one level deeper than the call that makes them.

    Args:
        serve: Serves a call within its deadline.
        loop: The worker's event loop.
        spans: Makes a span of every call, where a tracer is configured.
    """

    def __init__(
        self,
        serve: Callable[[Call], Coroutine[Any, Any, ExecuteToolResponse]],
        loop: asyncio.AbstractEventLoop,
        spans: Spans | None,
    ) -> None:
        self._serve = serve
        self._loop = loop
        self._spans = spans

    async def call(
        self,
        outer: CallContext,
        tool: str,
        arguments: Mapping[str, object],
        binary: Mapping[str, bytes],
    ) -> Any:  # noqa: ANN401 - whatever the tool answers
        """See ``CallContext.call``."""
        if asyncio.get_running_loop() is not self._loop:
            msg = "this is not the worker's event loop; use call_blocking"
            raise RuntimeError(msg)
        outer.checkpoint()
        if outer.depth >= _DEEPEST:
            msg = f"{tool}: a call can be inside of {_DEEPEST} others at most"
            details = {"limit": "depth", "value": _DEEPEST}
            raise ResourceExhausted(msg, retryable=False, details=details)
        headers = {CORRELATION_HEADER: outer.correlation_id}
        if self._spans is not None:
            headers |= self._spans.present()
        request = inner_request(outer, tool, arguments, binary)
        call = Call(request, outer.deadline, headers, depth=outer.depth + 1)
        # In a context of its own, as the calls of callers are: what frameworks keep in the outer
        # one, such as their settings and streams, is not for this call.
        context = contextvars.Context()
        response = await asyncio.create_task(self._serve(call), context=context)
        if call.failure is not None:
            raise failed(tool, call.failure)
        return reply_value(response)

    def call_blocking(
        self,
        outer: CallContext,
        tool: str,
        arguments: Mapping[str, object],
        binary: Mapping[str, bytes],
    ) -> Any:  # noqa: ANN401 - as call()
        """See ``CallContext.call_blocking``."""
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if here:
            msg = "this would block the event loop; await the call instead"
            raise RuntimeError(msg)
        call = self.call(outer, tool, arguments, binary)
        return outer.wait_for(asyncio.run_coroutine_threadsafe(call, self._loop))
