"""All sessions of a worker: found by id, expired when idle, bounded in number."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snakepit_worker.errors import NotFound, ResourceExhausted
from snakepit_worker.sessions.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Limits", "SessionStore"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the store.

    Attributes:
        max_sessions: Sessions kept; beyond it the idle one unused for longest is closed.
        max_resources: Resources that one session may hold.
        ttl: Seconds without use after which a session is closed.
    """

    max_sessions: int = 10_000
    max_resources: int = 10_000
    ttl: float = 3600.0


class SessionStore:
    """Sessions by id, kept in order of use.

    Args:
        limits: Bounds.
        clock: Monotonic seconds.
        apart: Runs the closing of a session that has to go while a call comes or ends; closers may
            block, and such calls must not wait for them.
    """

    def __init__(
        self,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
        *,
        apart: Callable[[Callable[[], object]], object] = lambda close: close(),
    ) -> None:
        self.limits = limits
        self._apart = apart
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        """Insertion order is order of use: a session that is used moves to the end."""

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._sessions

    def open(self, session_id: str) -> Session:
        """The session with this id, made now if there is none, marked as used.

        Raises:
            ResourceExhausted: When the worker is full of sessions in use.
        """
        return self._open(session_id, calls=0)

    def enter(self, session_id: str) -> Session:
        """Open a session for a call, during which it is neither evicted nor expired.

        Every ``enter`` is followed by one ``leave``.  A call without a session id gets a session
        of its own, which ends with it.

        Raises:
            ResourceExhausted: When the worker is full of sessions in use.
        """
        if not session_id:
            return Session("", max_resources=self.limits.max_resources, clock=self._clock)
        return self._open(session_id, calls=1)

    def leave(self, session: Session) -> None:
        """End the use that ``enter`` began."""
        if not session.id:
            self._apart(session.close)
            return
        with self._lock:
            session.calls -= 1
            session.used_at = self._clock()
            if self._sessions.get(session.id) is session:  # not closed meanwhile
                del self._sessions[session.id]
                self._sessions[session.id] = session

    def get(self, session_id: str) -> Session:
        """The session with this id, which must exist.

        Raises:
            NotFound: When there is none.
        """
        with self._lock:
            session = self._sessions.get(session_id)
        if session is None:
            msg = f"no session {session_id!r} in this worker"
            raise NotFound(msg, details={"session_id": session_id})
        return session

    def sessions(self) -> list[Session]:
        """All sessions, the one unused for longest first."""
        with self._lock:
            return list(self._sessions.values())

    def close(self, session_id: str) -> int:
        """Close one session; the number of resources released, 0 for an unknown id."""
        with self._lock:
            session = self._sessions.pop(session_id, None)
        return session.close() if session is not None else 0

    def close_all(self) -> int:
        """Close every session, the youngest first; the number of resources released."""
        with self._lock:
            sessions = list(self._sessions.values())
            self._sessions.clear()
        return sum(session.close() for session in reversed(sessions))

    def expire(self) -> list[str]:
        """Close the sessions that were idle for longer than the TTL; their ids."""
        horizon = self._clock() - self.limits.ttl
        with self._lock:
            expired = []
            for session in self._sessions.values():
                if session.used_at > horizon:
                    break
                if session.calls == 0:
                    expired.append(session)
            for session in expired:
                del self._sessions[session.id]
        for session in expired:
            session.close()
        return [session.id for session in expired]

    def _open(self, session_id: str, calls: int) -> Session:
        evicted = None
        with self._lock:
            session = self._sessions.pop(session_id, None)
            if session is None:
                if len(self._sessions) >= self.limits.max_sessions:
                    evicted = self._evict()
                session = Session(
                    session_id, max_resources=self.limits.max_resources, clock=self._clock
                )
            session.used_at = self._clock()
            session.calls += calls
            self._sessions[session_id] = session
        if evicted is not None:
            self._apart(evicted.close)
        return session

    def _evict(self) -> Session:
        for session in self._sessions.values():
            if session.calls == 0:
                return self._sessions.pop(session.id)
        limit = self.limits.max_sessions
        msg = f"this worker serves its limit of {limit} sessions, all of them in use"
        raise ResourceExhausted(msg, details={"max_sessions": limit}, retry_after=1.0)
