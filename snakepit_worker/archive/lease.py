"""What this worker holds, and the lease by which it does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from snakepit_worker.errors import WorkerError
from snakepit_worker.telemetry.logging import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from snakepit_worker.archive.database import Archive

__all__ = ["Lease"]

_EXPIRE_EVERY: Final = 300.0
_SHOWN: Final = 10


class Lease:
    """Renews a worker's lease, and finds out what it lost.

    Args:
        seconds: Length of the lease.
        on_lost: Called with the fences, by session, of what was taken or deleted by others.
    """

    def __init__(self, seconds: float, on_lost: Callable[[Mapping[str, str]], object]) -> None:
        self._seconds = seconds
        self._on_lost = on_lost
        self._held: dict[str, str] = {}
        self._next_expiry = 0.0
        self.until = 0.0
        """When it ends for sure, on the monotonic clock: before the database thinks so."""
        self.next_renewal = 0.0

    def begin(self, began: float) -> None:
        """Count a renewal.

        Args:
            began: When it was asked for, on the monotonic clock.
        """
        self.until = began + self._seconds
        self.next_renewal = began + self._seconds / 3

    def renew_if_due(self, archive: Archive) -> None:
        """Renew the lease, and delete what is too old, as far as it is time for either.

        Raises:
            WorkerError: When the lease was not renewed.
        """
        began = time.monotonic()
        if began < min(self.next_renewal, self.until):
            return
        held = archive.renew()
        self.begin(began)
        if held is not None:
            self.lose({key: fence for key, fence in self._held.items() if held.get(key) != fence})
        if began >= self._next_expiry:
            self._next_expiry = began + _EXPIRE_EVERY
            self._expire(archive)

    def postpone(self, seconds: float) -> None:
        """Wait a while with the next renewal, unless somebody needs the lease before."""
        self.next_renewal = time.monotonic() + seconds

    def hold(self, session_id: str, fence: str) -> None:
        """Remember a session as ours."""
        self._held[session_id] = fence

    def drop(self, session_id: str) -> None:
        """Forget a session that was given up."""
        self._held.pop(session_id, None)

    def lose(self, sessions: Mapping[str, str]) -> None:
        """Tell about sessions that somebody else has now, as far as they were ours.

        Args:
            sessions: Fences by session.
        """
        lost = {key: fence for key, fence in sessions.items() if self._held.get(key) == fence}
        if not lost:
            return
        logger().warning(
            "sessions are no longer held by this worker",
            count=len(lost),
            session_ids=sorted(lost)[:_SHOWN],
        )
        for session_id in lost:
            del self._held[session_id]
        try:
            self._on_lost(lost)
        except Exception:  # noqa: BLE001 - the archive has to go on
            logger().exception("dropping lost sessions failed")

    def _expire(self, archive: Archive) -> None:
        try:
            expired = archive.expire()
        except WorkerError as error:  # the next round will
            logger().warning("old sessions were not deleted", error=str(error))
        else:
            if expired:
                logger().info("sessions expired in the archive", count=len(expired))
