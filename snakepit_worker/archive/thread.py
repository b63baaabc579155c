"""The thread that owns the archive: it groups writes, answers questions, and keeps the lease."""

from __future__ import annotations

import importlib
import threading
import time
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from snakepit_worker.archive.lease import Lease
from snakepit_worker.archive.records import check_text, pack, why_refused
from snakepit_worker.archive.waiting import Question, WaitingLine, Write
from snakepit_worker.errors import StartError, Unavailable, WorkerError
from snakepit_worker.telemetry.logging import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from snakepit_worker.archive.database import Archive
    from snakepit_worker.archive.model import (
        ArchivedSession,
        Change,
        SavedResource,
        SavedSession,
        Totals,
        Written,
    )
    from snakepit_worker.archive.options import ArchiveOptions
    from snakepit_worker.archive.waiting import Task

__all__ = ["ArchiveThread", "preload"]

T = TypeVar("T")

_LINGER: Final = 0.1
"""Seconds for which delayed writes gather."""
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
"""Seconds between attempts while the database is away."""


def preload() -> None:
    """Import SQLAlchemy, which takes half a second, while there is something else to wait for."""
    with suppress(ModuleNotFoundError):  # told when the archive is opened
        importlib.import_module("snakepit_worker.archive.database")


class ArchiveThread:
    """The archive, for threads and event loops that must not wait for a database.

    Every method answers at once.  Futures are completed on the archive's thread; tasks are done in
    the order in which they came, and writes that came while the last commit ran share the next one.

    While the database is away, what waits is tried again until this worker's lease has ended;
    from then on it fails with `Unavailable`, and sessions may be taken by others.

    Args:
        options: Where the archive is, and how it is used.
        on_lost: Called on the archive's thread with the fences, by session, of sessions that this
            worker held and somebody else has taken or deleted.
    """

    def __init__(
        self,
        options: ArchiveOptions,
        on_lost: Callable[[Mapping[str, str]], object] = lambda _lost: None,
    ) -> None:
        self._options = options
        self._lease = Lease(options.lease, on_lost)
        self._failing_since: float | None = None
        self._delayed = options.durability == "delayed"
        self._line = WaitingLine(
            options.max_waiting, options.max_waiting_bytes, _LINGER if self._delayed else 0.0
        )
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="archive", daemon=True)

    @property
    def is_owner(self) -> bool:
        """Whether the lease runs, so that nobody else can have taken what was claimed."""
        return time.monotonic() < self._lease.until

    def start(self, address: str = "") -> Future[None]:
        """Start the thread, which imports SQLAlchemy and opens the archive.

        Args:
            address: Where this worker listens, as other workers are told.

        Returns:
            Done when the archive can be used; fails with `StartError` when it cannot.
        """
        owner = replace(self._options.owner, address=address)
        self._options = replace(self._options, owner=owner)
        self._thread.start()
        return self._started

    def write(self, change: Change) -> Future[Written]:
        """Save a change of a session.

        Recipes are encoded before this returns, so where they may be large it should not be called
        on an event loop.  Once it has returned, the change is written even if the future is
        cancelled.

        Args:
            change: What becomes of the session.

        Returns:
            Done after the commit; where durability is delayed at once, but for the first write of a
            session.  Fails with `Conflict`
            where another worker holds the session, `NotFound` where it was deleted,
            `InvalidArgument`, `SerializationError` or `ResourceExhausted` where the change cannot
            be saved, `ResourceExhausted` where too much waits, and `Unavailable` while the
            database is away.
        """
        future: Future[Written] = Future()
        # The first write of a session takes it, which only the archive can say yes to.
        delayed = self._delayed and change.created_at is None
        try:
            packed = pack(change, self._options.max_recipe)
            self._line.put(Write(packed, None if delayed else future))
        except WorkerError as error:
            future.set_exception(error)
            return future
        future.set_running_or_notify_cancel()
        if delayed:
            future.set_result(packed.written(None))
        return future

    def why_refused(self, resource: SavedResource) -> str | None:
        """Why the archive does not take a resource, if it does not.

        Args:
            resource: The resource.
        """
        return why_refused(resource, self._options.max_recipe)

    def claim(self, session_id: str) -> Future[SavedSession | None]:
        """Take a session from the archive.

        Args:
            session_id: The id that callers use.

        Returns:
            The session, or ``None`` where the archive does not know it.  Fails with `Conflict`
            where it lives on another worker.  Once it is being claimed it cannot be cancelled, and
            stays this worker's until it is released: the answer must not get lost.
        """

        def ask(archive: Archive) -> SavedSession | None:
            check_text("session_id", session_id)
            session = archive.claim(session_id)
            if session is not None:
                self._lease.hold(session_id, session.fence)
            return session

        return self._ask(ask)

    def renewed(self) -> Future[None]:
        """Done when the lease runs, after it may have ended, and what was lost has been told."""
        return self._ask(lambda _: None)

    def find(self, handle: str) -> Future[str | None]:
        """The session that holds a handle, whichever worker owns it.

        Args:
            handle: A resource's handle.
        """

        def ask(archive: Archive) -> str | None:
            check_text("handle", handle)
            return archive.find(handle)

        return self._ask(ask)

    def sessions(self, limit: int, after: str = "") -> Future[list[ArchivedSession]]:
        """What the archive holds, in the order of ids.

        Args:
            limit: Sessions at most.
            after: The last id of the page before.
        """
        return self._ask(lambda archive: archive.sessions(limit, after))

    def totals(self) -> Future[Totals]:
        """How much the archive holds."""
        return self._ask(lambda archive: archive.totals())

    def close(self, timeout: float) -> bool:
        """Write what waits, give up all sessions, and disconnect.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether all of it was done.  Otherwise what waited has failed, and sessions stay this
            worker's until its lease ends.
        """
        self._line.close(time.monotonic() + timeout)
        if self._thread.ident is not None:
            self._thread.join(timeout)
        self._fail_waiting(Unavailable("the archive is closing"))
        return not self._thread.is_alive()

    def _ask(self, ask: Callable[[Archive], T]) -> Future[T]:
        future: Future[T] = Future()
        try:
            self._line.put(Question(ask, future))
        except WorkerError as error:
            future.set_exception(error)
        return future

    def _run(self) -> None:
        try:
            archive = self._open()
        except Exception as error:  # noqa: BLE001 - whoever started it has to know
            self._line.close(time.monotonic())
            self._started.set_exception(error)
            self._fail_waiting(Unavailable("the archive could not be opened"))
            return
        self._started.set_result(None)
        try:
            self._serve(archive)
        finally:
            archive.close()

    def _open(self) -> Archive:
        try:
            # It costs half a second, which nobody waits for on this thread.
            from snakepit_worker.archive.database import Archive  # noqa: PLC0415
        except ModuleNotFoundError as error:
            msg = f"--archive needs {error.name}: install snakepit-worker[archive]"
            raise StartError(msg) from None
        archive = Archive(self._options)
        began = time.monotonic()
        archive.open()
        self._lease.begin(began)
        return archive

    def _serve(self, archive: Archive) -> None:
        while True:
            task = self._line.take(self._lease.next_renewal)
            if isinstance(task, Question):
                self._answer(archive, task)
            elif task is not None:
                self._write(archive, task)
            elif self._line.closed_until is None:
                self._renew(archive)
            else:
                break
        with suppress(WorkerError):  # the lease ends by itself
            self._attempt(archive, archive.release_all)

    def _renew(self, archive: Archive) -> None:
        try:
            self._attempt(archive, lambda: None)
        except WorkerError as error:
            logger().warning("the archive's lease was not renewed", error=str(error))
            self._lease.postpone(_LONGEST_PAUSE)
            self._fail_waiting(error)

    def _answer(self, archive: Archive, question: Question) -> None:
        if not question.future.set_running_or_notify_cancel():
            return
        try:
            answer = self._attempt(archive, lambda: question.ask(archive))
        except Exception as error:  # noqa: BLE001 - whoever asked has to know
            self._fail([question], error)
        else:
            _set_result(question.future, answer)

    def _write(self, archive: Archive, writes: Sequence[Write]) -> None:
        """Write a group; where the database refuses it, each change by itself."""
        try:
            outcomes = self._attempt(archive, lambda: archive.write([w.change for w in writes]))
        except Unavailable as error:
            self._fail(writes, error)
        except Exception as error:  # noqa: BLE001 - whoever waits has to know
            if len(writes) > 1:
                for write in writes:
                    self._write(archive, [write])
            else:
                self._fail(writes, error)
        else:
            self._report(writes, outcomes)

    def _report(self, writes: Sequence[Write], outcomes: Sequence[int | WorkerError]) -> None:
        lost: dict[str, str] = {}
        for write, outcome in zip(writes, outcomes, strict=True):
            change = write.change
            if isinstance(outcome, WorkerError):
                lost[change.session_id] = change.fence
                self._fail([write], outcome)
                continue
            if change.end is None:
                self._lease.hold(change.session_id, change.fence)
            else:
                self._lease.drop(change.session_id)
            if write.future is not None:
                _set_result(write.future, change.written(outcome))
        self._lease.lose(lost)

    def _attempt(self, archive: Archive, action: Callable[[], T]) -> T:
        """Do something with a running lease, again and again while the database is away.

        Raises:
            Unavailable: When the lease has ended, or nothing has worked for as long as that, or
                the time for closing is over.  What waits has failed then too.
        """
        pause = _FIRST_PAUSE
        while True:
            try:
                self._lease.renew_if_due(archive)
                result = action()
            except Unavailable as error:
                left = self._patience()
                if left <= 0:
                    self._fail_waiting(error)
                    raise
                logger().warning("the archive is tried again", error=str(error), pause_s=pause)
                self._line.pause(min(pause, left))
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                self._failing_since = None
                return result

    def _patience(self) -> float:
        """Seconds for which a failure is worth another attempt."""
        now = time.monotonic()
        if self._line.closed_until is not None:
            return self._line.closed_until - now
        if self._failing_since is None:
            self._failing_since = now
        return min(self._lease.until, self._failing_since + self._options.lease) - now

    def _fail_waiting(self, error: WorkerError) -> None:
        self._fail(self._line.take_all(), error)

    def _fail(self, tasks: Sequence[Task], error: Exception) -> None:
        for task in tasks:
            if task.future is not None:
                _set_exception(task.future, error)
            elif isinstance(task, Write):
                session_id = task.change.session_id
                logger().error("a change was not archived", session_id=session_id, error=str(error))


def _set_result(future: Future[Any], result: object) -> None:
    with suppress(InvalidStateError):  # cancelled, or given up by close()
        future.set_result(result)


def _set_exception(future: Future[Any], error: Exception) -> None:
    with suppress(InvalidStateError):  # cancelled, or given up by close()
        future.set_exception(error)
