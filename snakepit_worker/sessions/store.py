"""All sessions of a worker: found by id, expired when idle, bounded in number and in bytes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from snakepit_worker.errors import Conflict, NotFound, ResourceExhausted
from snakepit_worker.sessions.closing import close_here
from snakepit_worker.sessions.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from snakepit_worker.sessions.closing import Closing, Dispose

__all__ = ["Ended", "Limits", "Reason", "SessionStore"]

Reason: TypeAlias = Literal[
    "closed", "idle", "too many sessions", "too many bytes", "taken over", "shutdown"
]
_RETRY: Final = 1.0
"""Seconds after which a full worker may be asked again."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the store.

    Attributes:
        max_sessions: Sessions kept; beyond it the idle one unused for longest is closed.
        max_resources: Resources that one session may hold.
        max_bytes: Bytes that all sessions together may hold; beyond it idle ones are closed.
        ttl: Seconds without use after which a session is closed.
    """

    max_sessions: int = 10_000
    max_resources: int = 10_000
    max_bytes: int = 2**62
    ttl: float = 3600.0


@dataclass(frozen=True, slots=True)
class Ended:
    """A session that is no more.

    Attributes:
        session_id: Its id.
        reason: Why.
        released: Resources by kind.
        size: Bytes that it held, as far as known.
        closing: Done when what nobody used is closed.
    """

    session_id: str
    reason: Reason
    released: Counter[str]
    size: int
    closing: Closing

    async def closed(self) -> int:
        """Wait until what nobody used is closed; the number of resources released."""
        await asyncio.shield(asyncio.wrap_future(self.closing))
        return self.released.total()


class SessionStore:
    """Sessions by id, kept in order of use.

    Args:
        limits: Bounds.
        clock: Monotonic seconds.
        dispose: Closes what nobody can reach any more.  Closers may block, and calls must not wait
            for them.
        ended: Told of every session that is no more, but for those of calls without a session.
        changed: Told of every change of a session by somebody who saves them; with the session's
            lock held.
    """

    def __init__(
        self,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
        *,
        dispose: Dispose = close_here,
        ended: Callable[[Ended], object] = lambda _: None,
        changed: Callable[[Session], object] | None = None,
    ) -> None:
        self.limits = limits
        self._dispose = dispose
        self._ended = ended
        self._changed = changed
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        """Insertion order is order of use: a session that is used moves to the end."""
        self._size_lock = threading.Lock()
        self.size = 0
        """Bytes that all sessions hold, as far as known."""

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
        return self._open(session_id, calls=1) if session_id else self.make("")

    def leave(self, session: Session) -> None:
        """End the use that ``enter`` began."""
        if not session.id:
            session.close()
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

    def make(self, session_id: str) -> Session:
        """A session that the store does not have yet; see ``adopt``.

        Args:
            session_id: Its id.
        """
        return Session(
            session_id,
            max_resources=self.limits.max_resources,
            clock=self._clock,
            dispose=self._dispose,
            account=self,
            changed=self._changed if session_id else None,
        )

    def adopt(self, session: Session) -> None:
        """Keep a session that ``make`` made.

        Raises:
            ResourceExhausted: When the worker is full of sessions in use.
            Conflict: When there is one of this id already.
        """
        with self._lock:
            if session.id in self._sessions:
                raise Conflict(f"session {session.id!r} has begun meanwhile")
            evicted = self._make_room()
            self._sessions[session.id] = session
        if evicted is not None:
            self._end(evicted, "too many sessions")

    def close(self, session_id: str) -> Ended | None:
        """Close one session; ``None`` for an unknown id."""
        return self.drop(session_id, "closed")

    def drop(self, session_id: str, reason: Reason) -> Ended | None:
        """Close one session for another reason than that somebody has asked for it.

        Args:
            session_id: Its id.
            reason: Why.
        """
        with self._lock:
            session = self._sessions.pop(session_id, None)
        return self._end(session, reason) if session is not None else None

    def close_all(self) -> list[Ended]:
        """Close every session, the youngest first."""
        with self._lock:
            sessions = list(self._sessions.values())
            self._sessions.clear()
        return [self._end(session, "shutdown") for session in reversed(sessions)]

    def expire(self) -> list[Ended]:
        """Close the sessions that were idle for longer than the TTL."""
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
        return [self._end(session, "idle") for session in expired]

    # What sessions ask when they take something in, or let it go.

    def reserve(self, session: Session, size: int) -> None:
        """Count bytes that a session is about to hold, at the cost of idle sessions if need be.

        Raises:
            ResourceExhausted: When all others are in use, or hold nothing.
        """
        while not self._fits(size):
            with self._lock:
                victim = self._pop_idle(session)
            if victim is None:
                limit = self.limits.max_bytes
                msg = f"the sessions of this worker hold {self.size} of at most {limit} bytes"
                facts = {"max_bytes": limit, "size": size}
                msg += f", and {size} more do not fit (--max-session-bytes)"
                raise ResourceExhausted(msg, details=facts)
            self._end(victim, "too many bytes")

    def give_back(self, size: int) -> None:
        """Count bytes that a session has let go."""
        with self._size_lock:
            self.size -= size

    def _fits(self, size: int) -> bool:
        with self._size_lock:
            fits = self.size + size <= self.limits.max_bytes
            if fits:
                self.size += size
            return fits

    def _open(self, session_id: str, calls: int) -> Session:
        evicted = None
        with self._lock:
            session = self._sessions.pop(session_id, None)
            if session is None:
                evicted = self._make_room()
                session = self.make(session_id)
            session.used_at = self._clock()
            session.calls += calls
            self._sessions[session_id] = session
        if evicted is not None:
            self._end(evicted, "too many sessions")
        return session

    def _make_room(self) -> Session | None:
        """Take out the session unused for longest, if there are too many for one more."""
        if len(self._sessions) < self.limits.max_sessions:
            return None
        evicted = next((s for s in self._sessions.values() if s.calls == 0), None)
        if evicted is not None:
            return self._sessions.pop(evicted.id)
        limit = self.limits.max_sessions
        msg = (
            f"this worker serves its limit of {limit} sessions, all of them in use (--max-sessions)"
        )
        raise ResourceExhausted(msg, details={"max_sessions": limit}, retry_after=_RETRY)

    def _pop_idle(self, besides: Session) -> Session | None:
        """Take out the session unused for longest that holds bytes."""
        for session in self._sessions.values():
            if session.calls == 0 and session.size and session is not besides:
                return self._sessions.pop(session.id)
        return None

    def _end(self, session: Session, reason: Reason) -> Ended:
        size = session.size
        resources, closing = session.close()
        kinds = Counter(resource.kind for resource in resources)
        ended = Ended(session.id, reason, kinds, size, closing)
        self._ended(ended)
        return ended
