"""The host's sessions: kept for an hour after the last access, and not more than ten thousand.

Interop 5.5 says which calls count as an access; a session that exists is not refreshed by being
initialized again.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["HostSession", "SessionRefused", "SessionTable"]

_SWEEP: Final = 60.0
"""Seconds between two looks for sessions whose time is over; until then they live on."""
_BEAM_START: Final = -(2**59) / 1e9
"""Seconds at which the monotonic clock of a BEAM begins."""


class SessionRefused(Exception):  # noqa: N818 - the host refuses, nothing broke
    """A session that is not made; the text is the host's."""


@dataclass(frozen=True, slots=True)
class HostSession:
    """What the host knows of a session.

    Attributes:
        metadata: As the first initialization brought it.
        created_at: Whole seconds of the BEAM's monotonic clock, and so below zero for years.
    """

    metadata: Mapping[str, str]
    created_at: int


class SessionTable(Mapping[str, Mapping[str, str]]):
    """Metadata by session id.  Looking at it is no access.

    Args:
        ttl: Seconds from the last access to the end.
        quota: How many there may be.
        clock: Seconds, for tests that do not want to wait an hour.
    """

    def __init__(
        self,
        ttl: float = 3600.0,
        quota: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ttl = ttl
        self._quota = quota
        self._clock = clock
        self._begun = clock()
        self._sweeps = 0
        self._lock = threading.Lock()
        self._sessions: dict[str, HostSession] = {}
        self._accessed: dict[str, float] = {}

    def initialize(self, session_id: str, metadata: Mapping[str, str]) -> None:
        """Make a session; one that exists stays as it is.

        Args:
            session_id: Its id.
            metadata: Kept with it.

        Raises:
            SessionRefused: For an empty id, and while there are as many as there may be, even
                when the session is one of them.
        """
        with self._lock:
            now = self._sweep()
            if not session_id:
                raise SessionRefused("invalid_id")
            if len(self._sessions) >= self._quota:
                raise SessionRefused("session_quota_exceeded")
            if session_id not in self._sessions:
                created_at = math.floor(_BEAM_START + now - self._begun)
                self._sessions[session_id] = HostSession(dict(metadata), created_at)
                self._accessed[session_id] = now

    def access(self, session_id: str) -> HostSession | None:
        """A session, whose time begins anew; None when there is none.

        Args:
            session_id: Its id.
        """
        with self._lock:
            now = self._sweep()
            session = self._sessions.get(session_id)
            if session is not None:
                self._accessed[session_id] = now
            return session

    def delete(self, session_id: str) -> None:
        """Forget a session, if it is known.

        Args:
            session_id: Its id.
        """
        with self._lock:
            self._delete(session_id)

    def __getitem__(self, session_id: str) -> Mapping[str, str]:
        with self._lock:
            self._sweep()
            return self._sessions[session_id].metadata

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            self._sweep()
            return iter(list(self._sessions))

    def __len__(self) -> int:
        with self._lock:
            self._sweep()
            return len(self._sessions)

    def _sweep(self) -> float:
        """Do what the host did at its last look; the time.

        Nothing has been accessed since, or it would have been done then.
        """
        now = self._clock()
        sweeps = int((now - self._begun) / _SWEEP)
        if sweeps > self._sweeps:
            self._sweeps = sweeps
            looked = self._begun + sweeps * _SWEEP
            for session_id, accessed in list(self._accessed.items()):
                if accessed + self._ttl < looked:
                    self._delete(session_id)
        return now

    def _delete(self, session_id: str) -> None:
        self._sessions.pop(session_id, None)
        self._accessed.pop(session_id, None)
