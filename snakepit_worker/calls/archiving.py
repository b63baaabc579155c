"""Sessions that outlive their worker: taken over before a call, saved after it."""

from __future__ import annotations

import asyncio
import contextvars
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from snakepit_worker.archive.model import Change, new_fence
from snakepit_worker.deadline import NEVER, Deadline
from snakepit_worker.errors import (
    Conflict,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    SerializationError,
    Unavailable,
    WorkerError,
)
from snakepit_worker.telemetry.logging import logger
from snakepit_worker.tools.rebuilding import saved

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from concurrent.futures import Future

    from snakepit_worker.archive.model import SavedResource, SavedSession, Written
    from snakepit_worker.archive.thread import ArchiveThread
    from snakepit_worker.sessions import Ended, Session, SessionStore
    from snakepit_worker.tools.rebuilding import Rebuilder

__all__ = ["Archiving"]

_REBUILDING: Final = 300.0
"""Seconds that adapters may take to start before what is theirs is listed as lost."""
_UNSAVED: Final = "the next change in this session saves it too, if the archive answers then"
_LATE: Final = 1.0
"""Seconds after which a change that no call has saved is saved by itself."""
_REFUSALS: Final = (SerializationError, InvalidArgument, ResourceExhausted)
_LONGEST_REASON: Final = 1_000
_FRESH: Final = 1.0
"""Seconds for which it is believed that a session which holds nothing lives nowhere else."""
_THREADS: Final = 4
_PATIENCE: Final = 60.0
"""Seconds that a call without a deadline waits for the archive."""


class Archiving:
    """What joins the sessions of this worker with the archive.  Belongs to the event loop.

    Args:
        archive: The archive.
        store: The sessions.
        rebuilder: Builds what they held.
    """

    def __init__(self, archive: ArchiveThread, store: SessionStore, rebuilder: Rebuilder) -> None:
        self._archive = archive
        self._store = store
        self._rebuilder = rebuilder
        self._fences: dict[str, str] = {}
        """Of the sessions that are this worker's, or are about to be, by id."""
        self._new: set[str] = set()
        """Sessions that the archive has not been told of."""
        self._takeovers: dict[str, asyncio.Task[None]] = {}
        self._asked: dict[str, float] = {}
        """When the archive did not know a session that began here, on the monotonic clock."""
        self._commits: dict[str, asyncio.Task[None]] = {}
        self._watched: set[str] = set()
        """Sessions that have changed a moment ago."""
        self._loop = asyncio.get_running_loop()
        self._later: set[asyncio.Task[None]] = set()
        # Apart from other threads: a recipe waits for calls that have its resource for themselves.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="saving")

    async def enter(self, session_id: str, deadline: Deadline) -> None:
        """Before a call enters a session: take it over, if it is in the archive and not here.

        Args:
            session_id: The session.
            deadline: Of the call.

        Raises:
            Conflict: When the session lives on another worker.
            Unavailable: When the archive does not answer.
        """
        if not session_id:
            return
        if session_id in self._fences:
            if not self._archive.is_owner:  # this process has stood still: others may have it now
                await _within(
                    deadline,
                    asyncio.ensure_future(asyncio.wrap_future(self._archive.renewed())),
                    "the archive does not answer",
                )
            if session_id in self._store:
                return
        asked = self._asked.get(session_id)
        if asked is None or session_id not in self._store or time.monotonic() > asked + _FRESH:
            await self._take_over(session_id, deadline)

    async def _take_over(self, session_id: str, deadline: Deadline) -> None:
        takeover = self._takeovers.get(session_id)
        if takeover is None:
            # A task of its own: the next call shall find done what this one has begun.
            takeover = self._takeovers[session_id] = asyncio.create_task(self._take(session_id))
            takeover.add_done_callback(lambda _: self._takeovers.pop(session_id, None))
        await _within(deadline, takeover, f"session {session_id!r} is still being taken over")

    async def commit(self, session: Session, since: int, deadline: Deadline) -> None:
        """After a call: save what has changed in its session, if anything.

        Changes of calls that end at the same time share a commit; each returns when its own changes
        are saved.

        Args:
            session: The session.
            since: The session's version before the call.
            deadline: Of the call.

        Raises:
            Conflict: When another worker holds the session by now.
            Unavailable: When the archive does not answer.
            WorkerError: When the changes cannot be saved as they are.
        """
        if session.version == since or session.closed:
            return
        commit = asyncio.create_task(self._save(session, self._commits.get(session.id)))
        self._commits[session.id] = commit
        commit.add_done_callback(lambda done: self._committed(session.id, done))
        await _within(deadline, commit, "what the call has changed is still being saved")

    async def after_failure(
        self, session: Session, since: int, error: BaseException
    ) -> BaseException:
        """After a call that has failed: save what it has changed before; what to say of it.

        Args:
            session: Its session.
            since: The session's version before the call.
            error: What it has raised.

        Returns:
            The same, or that what it has not found lives on another worker.
        """
        if session.version != since and not session.closed:
            self._own(self._save_later(session, since))
        if isinstance(error, NotFound):
            return await self._look_for(error, session)
        return error

    def changed(self, session: Session) -> None:
        """A session has changed; may be called from any thread.

        Calls save what they change.  This is for what goes on when its call is over: a thread that
        nobody waits for any more.

        Args:
            session: The session.
        """
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._watch, session)

    def _watch(self, session: Session) -> None:
        if session.id not in self._watched:
            self._watched.add(session.id)
            self._loop.call_later(_LATE, self._look, session)

    def _look(self, session: Session) -> None:
        self._watched.discard(session.id)
        if session.has_changes and not session.closed:
            self._own(self._save_later(session, -1))

    def save_soon(self, session: Session, handle: str) -> None:
        """Save a resource that has changed outside of a call.

        Args:
            session: Who holds it.
            handle: Which it is.
        """
        if not session.closed:
            since = session.version
            with suppress(NotFound):  # released meanwhile
                session.changed(handle)
                self._own(self._save_later(session, since))

    async def _look_for(self, error: NotFound, session: Session) -> WorkerError:
        """What a session has not that began here before it began to hold things elsewhere."""
        if not session.id or session.id in self._fences or "reference" not in error.details:
            return error
        try:
            await self._take_over(session.id, NEVER)
        except WorkerError as elsewhere:
            return elsewhere
        if session.id not in self._fences:
            return error
        msg = f"session {session.id!r} has just been taken over; call again"
        return Unavailable(msg, retry_after=0.0, details={"session_id": session.id})

    def ended(self, ended: Ended) -> None:
        """A session is no more in this worker; may be called from any thread.

        Args:
            ended: The session.
        """
        session_id = ended.session_id
        self._asked.pop(session_id, None)
        fence = self._fences.pop(session_id, None)
        if fence is None or session_id in self._new or ended.reason == "taken over":
            self._new.discard(session_id)
            return
        change = Change(
            session_id=session_id,
            fence=fence,
            end="delete" if ended.reason == "closed" else "release",
        )
        self._archive.write(change)

    def lost(self, fences: Mapping[str, str]) -> None:
        """Other workers have taken sessions of this one; called on the archive's thread.

        Args:
            fences: What this worker held, by session.
        """
        for session_id, fence in fences.items():
            if self._fences.get(session_id) == fence:
                logger().warning("another worker has taken a session", session_id=session_id)
                self._store.drop(session_id, "taken over")

    async def close(self) -> None:
        """Wait for what is under way; the archive itself is closed by its owner."""
        under_way = [*self._takeovers.values(), *self._commits.values(), *self._later]
        await asyncio.gather(*under_way, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _take(self, session_id: str) -> None:
        found = await asyncio.wrap_future(self._archive.claim(session_id))
        if found is None:
            self._asked[session_id] = time.monotonic()
            return
        self._store.drop(session_id, "taken over")  # one that has held nothing until now
        self._fences[session_id] = found.fence
        try:
            await self._adopt(found)
        except BaseException:
            fence = self._fences.pop(session_id)
            self._archive.write(Change(session_id=session_id, fence=fence, end="release"))
            raise
        whom = found.taken_from.worker_id if found.taken_from is not None else None
        logger().info("session taken over", session_id=session_id, taken_from=whom)

    async def _adopt(self, found: SavedSession) -> None:
        session = self._store.make(found.session_id)
        session.created_at = found.created_at
        session.metadata.update({key: str(value) for key, value in found.metadata.items()})
        try:
            await self._rebuilder.rebuild(session, found.resources, Deadline.after(_REBUILDING))
            session.changes()  # they are in the archive already
            self._store.adopt(session)
        except BaseException:
            session.close()
            raise

    async def _save(self, session: Session, before: asyncio.Task[None] | None) -> None:
        if before is not None:  # or an older state might be written last
            await asyncio.wait([before])
        handles = session.changes()
        if not handles:
            return
        fence = self._fences.get(session.id)
        created_at = None
        if fence is None or session.id in self._new:
            fence = self._fences.setdefault(session.id, new_fence())
            self._new.add(session.id)
            created_at = session.created_at
        try:
            write = partial(self._write, session, handles, fence, created_at)
            context = contextvars.copy_context()  # in which the call's deadline is
            loop = asyncio.get_running_loop()
            written = await loop.run_in_executor(self._threads, context.run, write)
            facts = await asyncio.wrap_future(written)
        except (Conflict, NotFound):
            self._store.drop(session.id, "taken over")
            raise
        except BaseException as error:
            session.note(handles)
            if isinstance(error, Unavailable):
                msg = f"the change was made, but it is not saved: {error}"
                raise Unavailable(msg, retryable=False, help=_UNSAVED) from error
            raise
        self._new.discard(session.id)
        for handle, why in facts.lost.items():
            logger().warning("archived without its recipe", handle=handle, why=why)

    def _write(
        self, session: Session, handles: list[str], fence: str, created_at: float | None
    ) -> Future[Written]:
        """Make the recipes and hand them over; in a thread, because they may take their time."""
        now = {handle: saved(session, handle) for handle in handles}
        written = self._submit(session, now, fence, created_at)
        if written.done() and isinstance(written.exception(), _REFUSALS):
            # One bad recipe must not cost the others theirs.
            now = {handle: self._acceptable(resource) for handle, resource in now.items()}
            written = self._submit(session, now, fence, created_at)
        return written

    def _submit(
        self,
        session: Session,
        now: Mapping[str, SavedResource | None],
        fence: str,
        created_at: float | None,
    ) -> Future[Written]:
        return self._archive.write(
            Change(
                session_id=session.id,
                fence=fence,
                created_at=created_at,
                metadata=dict(session.metadata),
                put=tuple(resource for resource in now.values() if resource is not None),
                remove=tuple(handle for handle, resource in now.items() if resource is None),
            )
        )

    def _acceptable(self, resource: SavedResource | None) -> SavedResource | None:
        """A resource as the archive takes it, without its recipe if need be."""
        refused = self._archive.why_refused(resource) if resource is not None else None
        if resource is None or refused is None:
            return resource
        why = f"its recipe cannot be saved: {refused}"
        logger().warning("a resource is not saved", handle=resource.handle, why=why)
        return replace(resource, recipe=None, metadata={}, lost=why[:_LONGEST_REASON])

    async def _save_later(self, session: Session, since: int) -> None:
        """Save what nobody waits for; the session stays until that is done."""
        pinned = self._store.enter(session.id)
        try:
            with suppress(WorkerError):  # the commit itself has told the log
                await self.commit(session, since, Deadline.after(_PATIENCE))
        finally:
            self._store.leave(pinned)

    def _own(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    def _committed(self, session_id: str, commit: asyncio.Task[None]) -> None:
        if self._commits.get(session_id) is commit:
            del self._commits[session_id]
        if not commit.cancelled() and commit.exception() is not None:
            # The call that waits says it too, if it still does.
            logger().warning(
                "a session was not saved", session_id=session_id, reason=str(commit.exception())
            )


async def _within(deadline: Deadline, work: asyncio.Task[None], late: str) -> None:
    """Wait for work that goes on when the wait is over.

    Raises:
        Unavailable: When it takes too long.
    """
    done, _ = await asyncio.wait([work], timeout=deadline.bound(_PATIENCE))
    if not done:
        raise Unavailable(late, retry_after=1.0)
    work.result()
