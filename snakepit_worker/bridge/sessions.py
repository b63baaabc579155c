"""Who answers the RPCs about sessions: the host, or the worker itself where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from snakepit_worker.deadline import NEVER
from snakepit_worker.errors import InvalidArgument
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from snakepit_worker.calls.archiving import Archiving
    from snakepit_worker.host.client import HostClient
    from snakepit_worker.host.keepalive import KeepAlive
    from snakepit_worker.sessions import SessionStore

__all__ = ["HostSessions", "SessionAuthority", "StandaloneSessions"]


class SessionAuthority(Protocol):
    """Answers the RPCs about sessions."""

    async def initialize(
        self, request: pb.InitializeSessionRequest
    ) -> pb.InitializeSessionResponse:
        """Create a session, or find that it exists."""

    async def cleanup(self, request: pb.CleanupSessionRequest) -> pb.CleanupSessionResponse:
        """End a session."""

    async def get(self, request: pb.GetSessionRequest) -> pb.GetSessionResponse:
        """Describe a session.

        Raises:
            NotFound: When nobody knows it.
        """

    def is_valid(self, session_id: str) -> bool:
        """Whether a heartbeat for this session is good."""


class HostSessions:
    """The host is the authority: requests are passed on.

    Args:
        host: The host.
        keep_alive: Learns which session is this worker's own.
        store: What this worker holds for the sessions.
        archiving: Where sessions are that this worker does not hold, if there is an archive.
        seen: Told of each session that the host has made.
    """

    def __init__(
        self,
        host: HostClient,
        keep_alive: KeepAlive,
        store: SessionStore,
        archiving: Archiving | None,
        seen: Callable[[str], None],
    ) -> None:
        self._host = host
        self._seen = seen
        self._keep_alive = keep_alive
        self._store = store
        self._archiving = archiving

    async def initialize(
        self, request: pb.InitializeSessionRequest
    ) -> pb.InitializeSessionResponse:
        """Pass on, and keep the first session alive from now on."""
        self._keep_alive.watch(request)
        response = await self._host.initialize_session(request)
        self._seen(request.session_id)
        return response

    async def cleanup(self, request: pb.CleanupSessionRequest) -> pb.CleanupSessionResponse:
        """Close what this worker holds for the session, and pass on."""
        released = await _closed(self._store, self._archiving, request.session_id)
        response = await self._host.cleanup_session(request)
        response.resources_cleaned += released
        return response

    async def get(self, request: pb.GetSessionRequest) -> pb.GetSessionResponse:
        """Pass on."""
        return await self._host.get_session(request)

    def is_valid(self, session_id: str) -> bool:  # noqa: ARG002 - the answer must not wait
        """True: the worker's own heartbeats keep its session known to the host."""
        return True


class StandaloneSessions:
    """The worker is the authority.

    Args:
        store: The sessions.
        archiving: Where others are, if there is an archive.
    """

    def __init__(self, store: SessionStore, archiving: Archiving | None) -> None:
        self._store = store
        self._archiving = archiving

    async def initialize(
        self, request: pb.InitializeSessionRequest
    ) -> pb.InitializeSessionResponse:
        """Open the session.

        Raises:
            InvalidArgument: Without an id.
        """
        if not request.session_id:
            raise InvalidArgument("session_id: expected text, got nothing")
        session = self._store.open(request.session_id)
        session.metadata.update(request.metadata)
        return pb.InitializeSessionResponse(success=True)

    async def cleanup(self, request: pb.CleanupSessionRequest) -> pb.CleanupSessionResponse:
        """Close the session; an unknown one is closed already."""
        released = await _closed(self._store, self._archiving, request.session_id)
        return pb.CleanupSessionResponse(success=True, resources_cleaned=released)

    async def get(self, request: pb.GetSessionRequest) -> pb.GetSessionResponse:
        """Describe the session.

        Raises:
            NotFound: When there is none with this id.
        """
        session = self._store.get(request.session_id)
        response = pb.GetSessionResponse(session_id=session.id, metadata=session.metadata)
        response.created_at.FromNanoseconds(int(session.created_at * 1e9))
        return response

    def is_valid(self, session_id: str) -> bool:
        """Whether the session exists; asking keeps it alive."""
        if session_id not in self._store:
            return False
        self._store.open(session_id)
        return True


async def _closed(store: SessionStore, archiving: Archiving | None, session_id: str) -> int:
    """Close a session, in the archive too; the number of resources released."""
    if archiving is not None:
        await archiving.enter(session_id, NEVER)
    ended = store.close(session_id)
    return await ended.closed() if ended is not None else 0
