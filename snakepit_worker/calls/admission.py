"""Who may run now, who waits, and who is told to come again later.

A call runs on something with a bounded number of places: the event loop, the threads for plain
functions, or the main thread.  Each has a `Lane`.  A call that finds no place waits for one, in a
bounded queue; sessions with waiting calls take turns, so that one with hundreds of calls does not
make another's only call wait for all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from snakepit_worker.errors import ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Lane", "WaitingRules"]

_FIRST_PACE: Final = 1.0
"""Seconds per call, as long as none has ended."""
_SHARE: Final = 0.2
"""Weight of the newest call in the average."""
_SOONEST: Final = 0.1
_LATEST: Final = 60.0
_STUCK: Final = 10.0
"""Seconds to wait where no place is left; nobody knows when there will be one."""
_PATIENCE: Final = 2.0
"""Seconds without any place after which nobody waits for one any more."""


@dataclass(frozen=True, slots=True)
class WaitingRules:
    """Bounds of a lane beside its places.

    Attributes:
        waiting: Calls that wait at most.
        session_running: Calls of one session that run at most; 0 for as many as there are places.
        session_waiting: Calls of one session that wait at most.
    """

    waiting: int = 1_000
    session_running: int = 0
    session_waiting: int = 250


@dataclass(slots=True)
class _Session:
    running: int = 0
    waiters: deque[asyncio.Future[None]] = field(default_factory=deque)


class Lane:
    """Places for calls.  Lives on the event loop.

    Args:
        name: What it stands for, in messages: ``threads``.
        places: Calls that run at once.
        rules: Its other bounds.
        flag: Sets how many places there are, where they can be set.
        stuck: Counts what holds places though nobody waits for it any more.
    """

    def __init__(
        self,
        name: str,
        places: int,
        rules: WaitingRules,
        *,
        flag: str = "",
        stuck: Callable[[], int] = lambda: 0,
    ) -> None:
        self.name = name
        self._flag = flag
        self._count_stuck = stuck
        self.size = places
        self.places = places
        self._rules = rules
        self._sessions: dict[str, _Session] = {}
        self._turns: deque[str] = deque()
        """Sessions whose next call could run, had it a place.  Empty while places are free."""
        self._pace = _FIRST_PACE
        self._losing_patience: asyncio.TimerHandle | None = None
        self._stuck = False
        self.running = 0
        self.waiting = 0

    async def enter(self, session_id: str) -> None:
        """Take a place, or wait for one.

        Every ``enter`` that returns is followed by one ``leave``.

        Args:
            session_id: Whose call it is.

        Raises:
            ResourceExhausted: When too many wait already, or there will be no place.
        """
        session = self._sessions.get(session_id)
        if session is None:
            session = self._sessions[session_id] = _Session()
        if self.running < self.places and self._may_run(session):
            self.running += 1
            session.running += 1
            return
        try:
            self._check(session)
        except ResourceExhausted:
            self._forget(session_id, session)
            raise
        await self._wait(session_id, session)

    def leave(self, session_id: str, seconds: float) -> None:
        """Give a place back.

        Args:
            session_id: Whose call it was.
            seconds: How long it ran.
        """
        self._pace += _SHARE * (seconds - self._pace)
        session = self._sessions[session_id]
        self.running -= 1
        session.running -= 1
        if session.waiters and session_id not in self._turns and self._may_run(session):
            self._turns.append(session_id)
        self._forget(session_id, session)
        self._fill()

    def resize(self, places: int) -> None:
        """Have more places, or fewer; calls that run already go on.

        Without any, calls wait for a moment, and are refused from then on.

        Args:
            places: Calls that run at once.
        """
        self.places = places
        if self._losing_patience is not None:
            self._losing_patience.cancel()
            self._losing_patience = None
        self._stuck = False
        if places == 0:
            loop = asyncio.get_running_loop()
            self._losing_patience = loop.call_later(_PATIENCE, self._lose_patience)
        self._fill()

    def _lose_patience(self) -> None:
        self._stuck = True
        for session in self._sessions.values():
            for place in session.waiters:
                if not place.done():
                    place.set_exception(self._no_place())

    def _may_run(self, session: _Session) -> bool:
        limit = self._rules.session_running
        return limit == 0 or session.running < limit

    async def _wait(self, session_id: str, session: _Session) -> None:
        place = asyncio.get_running_loop().create_future()
        session.waiters.append(place)
        self.waiting += 1
        if session_id not in self._turns and self._may_run(session):
            self._turns.append(session_id)
        try:
            await place
        except (asyncio.CancelledError, ResourceExhausted):
            if _is_granted(place):  # it came with the cancellation
                self.leave(session_id, self._pace)
            else:
                self._give_up(session_id, session, place)
            raise

    def _give_up(self, session_id: str, session: _Session, place: asyncio.Future[None]) -> None:
        if place in session.waiters:
            session.waiters.remove(place)
            self.waiting -= 1
        if not session.waiters and session_id in self._turns:
            self._turns.remove(session_id)
        self._forget(session_id, session)

    def _fill(self) -> None:
        while self.running < self.places and self._turns:
            session_id = self._turns.popleft()
            session = self._sessions[session_id]
            place = session.waiters.popleft()
            self.waiting -= 1
            if not place.done():  # one that is cancelled may not know yet
                self.running += 1
                session.running += 1
                place.set_result(None)
            if session.waiters and self._may_run(session):
                self._turns.append(session_id)

    def _forget(self, session_id: str, session: _Session) -> None:
        idle = session.running == 0 and not session.waiters
        if idle and self._sessions.get(session_id) is session:  # it may be another one by now
            del self._sessions[session_id]

    def _check(self, session: _Session) -> None:
        """Whether one more may wait.

        Raises:
            ResourceExhausted: When not.
        """
        if self._stuck:
            raise self._no_place()
        if self.waiting >= self._rules.waiting:
            msg = f"{self.name}: {self.running} calls run and {self.waiting} wait"
            raise self._exhausted(msg, "max_waiting", self._rules.waiting)
        if len(session.waiters) >= self._rules.session_waiting:
            waiting = len(session.waiters)
            msg = f"{self.name}: {waiting} calls of this session wait"
            raise self._exhausted(msg, "max_session_waiting", self._rules.session_waiting)

    def _no_place(self) -> ResourceExhausted:
        remedy = "worker.stats shows them; tools that call ctx.checkpoint() in loops end in time"
        if self._flag:
            remedy += f", and {self._flag} gives more places"
        return ResourceExhausted(
            f"{self.name}: every place is held by a call that nobody waits for any more",
            details=self._facts("places", self.size) | {"running": self._count_stuck()},
            help=remedy,
            retry_after=_STUCK,
        )

    def _exhausted(self, message: str, limit: str, value: int) -> ResourceExhausted:
        turn = self._pace * (self.waiting + 1) / max(self.places, 1)
        return ResourceExhausted(
            f"{message}, the limit (--{limit.replace('_', '-')})",
            details=self._facts(limit, value),
            retry_after=min(max(turn, _SOONEST), _LATEST),
        )

    def _facts(self, limit: str, value: int) -> dict[str, object]:
        return {
            "lane": self.name,
            "limit": limit,
            "value": value,
            "running": self.running,
            "waiting": self.waiting,
        }


def _is_granted(place: asyncio.Future[None]) -> bool:
    return place.done() and not place.cancelled() and place.exception() is None
