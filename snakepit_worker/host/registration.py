"""Telling the host which tools this worker has, so that its own ExecuteTool RPC reaches them.

The host keeps tools by session and never forgets them (interop 4.8).  A worker registers once for
each session that a request names, in the background: no call waits for it or fails because of it.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Final

import grpc.aio

from snakepit_worker.telemetry.logging import logger
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from snakepit_worker.host.client import HostClient

__all__ = ["Registration", "acceptable"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_MOST_METADATA: Final = 31
"""Entries of a tool's metadata; the host adds one of its own and allows 32."""
_SESSIONS: Final = 64
"""Sessions that are remembered: normally there is one, the worker's own."""
_RETRY_AFTER: Final = 30.0
_UNKNOWN_SESSION: Final = "not_found"
_DUPLICATE: Final = "duplicate_tool"


class Registration:
    """The registrations of one worker.

    Args:
        host: The host.
        worker_id: The host's own name for this worker, by which it finds the way back.
        tools: Gives what is to be registered, for a session id.
    """

    def __init__(
        self,
        host: HostClient,
        worker_id: str,
        tools: Callable[[str], Awaitable[Iterable[pb.ToolRegistration]]],
    ) -> None:
        self._host = host
        self._worker_id = worker_id
        self._tools = tools
        self._due: dict[str, float] = {}
        """When each session is next tried; never again once it is registered."""
        self._tasks: set[asyncio.Task[None]] = set()

    def seen(self, session_id: str) -> None:
        """A request named this session.  Returns at once.

        Args:
            session_id: As in the request.
        """
        due = self._due.get(session_id)
        if not session_id or (due is not None and due > time.monotonic()):
            return
        if due is None and len(self._due) >= _SESSIONS:
            del self._due[next(iter(self._due))]
        self._due[session_id] = float("inf")
        task = asyncio.ensure_future(self._register(session_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()

    async def _register(self, session_id: str) -> None:
        try:
            tools = acceptable(await self._tools(session_id))
            request = pb.RegisterToolsRequest(
                session_id=session_id, worker_id=self._worker_id, tools=tools
            )
            reason = await self._send(request)
        except grpc.aio.AioRpcError as error:
            reason = f"{error.code().name}: {error.details()}"
        except Exception as error:  # noqa: BLE001 - an adapter's own code describes its tools
            reason = f"{type(error).__name__}: {error}"
        if reason:
            self._due[session_id] = time.monotonic() + _RETRY_AFTER
            logger().warning("tools not registered; will try again", reason=reason)

    async def _send(self, request: pb.RegisterToolsRequest) -> str:
        """Register; the reason when that failed."""
        if not request.tools:
            return ""
        response = await self._host.register_tools(request)
        if not response.success and response.error_message == _UNKNOWN_SESSION:
            session = pb.InitializeSessionRequest(session_id=request.session_id)
            await self._host.initialize_session(session)
            response = await self._host.register_tools(request)
        if response.success or _DUPLICATE in response.error_message:
            return ""
        return response.error_message


def acceptable(tools: Iterable[pb.ToolRegistration]) -> list[pb.ToolRegistration]:
    """The tools that the host takes, since one that it refuses would spoil the whole batch.

    Args:
        tools: All of them.
    """
    good = []
    for tool in tools:
        if not _NAME.fullmatch(tool.name):
            logger().warning("tool not registered: the host refuses its name", tool=tool.name)
        elif len(tool.metadata) > _MOST_METADATA:
            logger().warning("tool not registered: too much metadata", tool=tool.name)
        else:
            good.append(tool)
    return good
