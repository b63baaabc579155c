"""Leases: who uses a resource, alone or with others, and who waits for it.

A lease works for threads (``with``) and for coroutines (``async with``) alike.  Those who wait are
served in the order in which they came, so that neither readers nor writers starve.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from snakepit_worker import deadline
from snakepit_worker.errors import Conflict, DeadlineExceeded, FailedPrecondition

if TYPE_CHECKING:
    from types import TracebackType

    from snakepit_worker.sessions.resources import Resource
    from snakepit_worker.sessions.session import Session

__all__ = ["Lease", "Waiter", "exclusively_held", "next_turns", "take"]

_LONGEST_WAIT: Final = 300.0
"""Seconds, for calls that have more time, or all the time in the world."""

_held: ContextVar[tuple[Lease, ...]] = ContextVar("held_leases", default=())
"""Leases of the call that the running code serves."""


def exclusively_held() -> str | None:
    """Handle of a resource that the current call has for itself, if there is one."""
    return next((lease.resource.handle for lease in _held.get() if lease.exclusive), None)


class Waiter(concurrent.futures.Future[None]):
    """A lease that waits; done when it is granted.

    Args:
        exclusive: Whether it allows no other.
    """

    def __init__(self, *, exclusive: bool) -> None:
        super().__init__()
        self.exclusive = exclusive


class Lease:
    """A resource of a session, pinned for the length of a ``with`` or ``async with`` block.

    The block's variable is the object itself.

    Args:
        session: The session.
        reference: Handle or name.
        kind: The kind it must have.
        exclusive: Whether nobody else may use it meanwhile.

    Attributes:
        exclusive: Whether nobody else may use it meanwhile.
        resource: What is leased, once it is.
    """

    resource: Resource

    def __init__(
        self, session: Session, reference: str, kind: str | None, *, exclusive: bool
    ) -> None:
        self.exclusive = exclusive
        self._session = session
        self._reference = reference
        self._kind = kind

    def __enter__(self) -> Any:  # noqa: ANN401 - whatever was put there
        waiter = self._begin()
        if waiter is not None:
            self._wait(waiter)
        return self._granted()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _held.set(tuple(lease for lease in _held.get() if lease is not self))
        self._session.end_lease(self.resource, changed=self.exclusive)

    async def __aenter__(self) -> Any:  # noqa: ANN401 - as above
        waiter = self._begin()
        if waiter is not None:
            seconds = self._patience()
            try:
                await asyncio.wait_for(asyncio.wrap_future(waiter), seconds)
            except TimeoutError:
                self._give_up(waiter)
                raise self._late() from None
            except BaseException:
                self._give_up(waiter)
                raise
        return self._granted()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)

    def _begin(self) -> Waiter | None:
        """Ask for the resource; whom to wait for.

        Raises:
            NotFound: When there is none.
            InvalidArgument: When it is of another kind.
            FailedPrecondition: When this very call stands in its own way.
        """
        self.resource = resource = self._session.get(self._reference, self._kind)
        mine = [lease for lease in _held.get() if lease.resource is resource]
        if any(lease.exclusive or self.exclusive for lease in mine):
            msg = f"this call uses {self._reference!r} already and would wait for itself"
            raise FailedPrecondition(msg, details={"handle": resource.handle})
        return self._session.begin_lease(resource, exclusive=self.exclusive, at_once=bool(mine))

    def _granted(self) -> Any:  # noqa: ANN401 - as __enter__
        """Check that what was waited for is still there.

        Raises:
            NotFound: When it was released meanwhile.
        """
        try:
            self._session.get(self.resource.handle)
        except BaseException:
            self._session.end_lease(self.resource)
            raise
        _held.set((*_held.get(), self))
        return self.resource.value

    def _wait(self, waiter: Waiter) -> None:
        """Wait in a thread.

        Raises:
            Conflict: On an event loop, which must not wait here.
            DeadlineExceeded: When the call's time is over.
        """
        try:
            if _on_event_loop():
                msg = f"{self._reference!r} is in use; a coroutine waits for it with `async with`"
                raise Conflict(msg, details={"handle": self.resource.handle})
            waiter.result(self._patience())
        except TimeoutError:
            self._give_up(waiter)
            raise self._late() from None
        except BaseException:
            self._give_up(waiter)
            raise

    def _give_up(self, waiter: Waiter) -> None:
        if waiter.cancel():
            self._session.end_wait(self.resource)
        else:  # granted just now
            self._session.end_lease(self.resource)

    def _patience(self) -> float:
        return deadline.current.get().bound(_LONGEST_WAIT)

    def _late(self) -> DeadlineExceeded | Conflict:
        details = {"handle": self.resource.handle}
        msg = f"{self._reference!r} was in use by other calls all the time"
        if deadline.current.get().passed:
            return DeadlineExceeded(msg, details=details)
        return Conflict(msg, details=details)


def take(resource: Resource, *, exclusive: bool, at_once: bool) -> Waiter | None:
    """Count a lease, or queue it up.  Needs the lock of the session.

    Args:
        resource: What is wanted.
        exclusive: Whether it allows no other.
        at_once: Whether it may overtake those who wait: they wait for the very call that asks.
    """
    if _fits(resource, exclusive=exclusive) and (at_once or not resource.waiting):
        resource.leases += 1
        resource.exclusive = exclusive
        return None
    waiter = Waiter(exclusive=exclusive)
    if resource.waiting is None:
        resource.waiting = deque()
    resource.waiting.append(waiter)
    return waiter


def next_turns(resource: Resource) -> list[Waiter]:
    """Count the leases whose turn it is now.  Needs the lock of the session.

    Args:
        resource: What others have left, or no longer wait for.

    Returns:
        Those leases, to be told so without the lock.
    """
    granted: list[Waiter] = []
    waiting = resource.waiting
    while waiting:
        waiter = waiting[0]
        if not waiter.cancelled() and not _fits(resource, exclusive=waiter.exclusive):
            return granted
        waiting.popleft()
        if waiter.set_running_or_notify_cancel():  # it may give up at this very moment
            resource.leases += 1
            resource.exclusive = waiter.exclusive
            granted.append(waiter)
    resource.waiting = None
    return granted


def _fits(resource: Resource, *, exclusive: bool) -> bool:
    return resource.leases == 0 if exclusive else not resource.exclusive


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
