"""One session: resources by handle and by name, leased while calls use them."""

from __future__ import annotations

import difflib
import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

from snakepit_worker.errors import (
    Conflict,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Violation,
)
from snakepit_worker.sessions.closing import Closing, Dispose, close_here
from snakepit_worker.sessions.leases import Lease, Waiter, next_turns, take
from snakepit_worker.sessions.resources import (
    Recipe,
    Resource,
    estimated_size,
    looks_like_a_handle,
    new_handle,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["Account", "Session"]

_SEARCHED: Final = 500
"""Names that are searched for near matches, which happens under the lock."""
_LONGEST_NAME: Final = 200
_REMEMBERED: Final = 256
"""Handles of released resources that are remembered, to tell "released" from "unknown"."""


class Account(Protocol):
    """Knows how many bytes all sessions hold."""

    def reserve(self, session: Session, size: int) -> None:
        """Add to them.

        Raises:
            ResourceExhausted: When that is too many.
        """

    def give_back(self, size: int) -> None:
        """Take from them."""


class Session:
    """A caller's scope in this worker.

    Methods may be called from any thread.  The lock guards only the tables and is never held while
    foreign code (a closer, a tool) runs.

    Args:
        session_id: The id that callers use.
        max_resources: Resources that it may hold.
        clock: Monotonic seconds.
        dispose: Closes what nobody can reach any more.
        account: Counts the bytes.
        changed: Told of every change by somebody who asks for ``changes``, with the lock held.
    """

    def __init__(  # noqa: PLR0913 - only the store builds one
        self,
        session_id: str,
        *,
        max_resources: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
        dispose: Dispose = close_here,
        account: Account | None = None,
        changed: Callable[[Session], object] | None = None,
    ) -> None:
        self.id = session_id
        self.metadata: dict[str, str] = {}
        self.created_at = time.time()
        self.used_at = clock()
        self.calls = 0
        """Calls that run in this session now; a session with calls never expires."""
        self.size = 0
        """Bytes of what it holds, as far as known."""
        self._clock = clock
        self._max_resources = max_resources
        self._dispose = dispose
        self._account = account
        self._lock = threading.Lock()
        self._resources: dict[str, Resource] = {}
        self._names: dict[str, str] = {}
        self._released: dict[str, str] = {}
        self._tell = changed
        self._changes: dict[str, None] | None = {} if changed is not None else None
        self.version = 0
        """Grows with every change; stays 0 in a session that nobody keeps a journal of."""
        self.closed = False
        """Whether it has ended; whoever still has it may use what it has leased, and no more."""

    def __len__(self) -> int:
        return len(self._resources)

    def put(  # noqa: PLR0913 - all but the first two are optional facts about the resource
        self,
        kind: str,
        value: object,
        *,
        name: str | None = None,
        metadata: Mapping[str, object] | None = None,
        close: Callable[[], object] | None = None,
        recipe: Callable[[], Recipe] | None = None,
        size: int | None = None,
        replace: bool = False,
    ) -> Resource:
        """Keep an object under a new handle.

        Args:
            kind: What it is, such as ``dspy.module``.
            value: The object.
            name: A name of the caller's own, unique in the session.
            metadata: JSON values that describe it.
            close: Called once when the resource goes; what it returns is awaited if it can be.
            recipe: Gives the present recipe, from which the adapter can build it again elsewhere.
            size: Bytes that it takes; estimated when omitted.
            replace: Whether a resource that has the name is released first.

        Raises:
            InvalidArgument: When the name is empty, very long, or the handle of another resource.
            Conflict: When the name is taken and ``replace`` is false.
            ResourceExhausted: When the session is full, or the worker.
            NotFound: When the session was closed meanwhile.
            TypeError: When ``close`` or ``recipe`` cannot be called.
        """
        if name is not None:
            _check_name(name)
        for argument, given in (("close", close), ("recipe", recipe)):
            if given is not None and not callable(given):
                msg = f"{argument} must be callable, got {type(given).__name__}"
                raise TypeError(msg)
        resource = Resource(
            new_handle(kind),
            kind,
            value,
            name=name,
            metadata=metadata or {},
            close=close,
            recipe=recipe,
            size=estimated_size(value) if size is None else size,
            used_at=self._clock(),
        )
        self.add(resource, replace=replace)
        return resource

    def add(self, resource: Resource, *, replace: bool = False) -> None:
        """Keep a resource that has its handle already.

        Args:
            resource: The resource.
            replace: Whether a resource that has the name is released first.

        Raises:
            InvalidArgument: When the name is the handle of another resource.
            Conflict: When the name or the handle is taken.
            ResourceExhausted: When the session is full, or the worker.
            NotFound: When the session was closed meanwhile.
        """
        if self._account is not None:
            self._account.reserve(self, resource.size)
        try:
            with self._lock:
                replaced = self._add(resource, replace=replace)
                idle = [gone for gone in replaced if gone.leases == 0]
        except BaseException:
            if self._account is not None:
                self._account.give_back(resource.size)
            raise
        if replaced:
            self._let_go(replaced, idle)

    def get(self, reference: str, kind: str | None = None, *, even_lost: bool = False) -> Resource:
        """The resource with this handle or name.

        Args:
            reference: A handle, or a name given to ``put``.
            kind: The kind it must have.
            even_lost: Whether one that was lost will do.

        Raises:
            NotFound: When there is none (the message names near matches), or it was lost.
            InvalidArgument: When it is of another kind.
        """
        with self._lock:
            resource = self._find(reference)
            if resource.lost is not None and not even_lost:
                msg = f"{reference!r}, a {resource.kind}, was lost: {resource.lost}"
                raise NotFound(msg, details={"reference": reference, "lost": resource.lost})
            if kind is not None and resource.kind != kind:
                msg = f"{reference!r} is a {resource.kind}, expected a {kind}"
                raise InvalidArgument(msg, details={"kind": resource.kind, "expected": kind})
            resource.used_at = self._clock()
            return resource

    def lease(self, reference: str, kind: str | None = None, *, exclusive: bool = False) -> Lease:
        """The object under a handle or name, pinned for the length of a block.

        ``with`` in a thread and ``async with`` in a coroutine wait their turn, within the call's
        time.  A leased resource that is released meanwhile disappears from the session at once and
        is closed when the last lease ends.

        Args:
            reference: A handle or a name.
            kind: The kind it must have.
            exclusive: Whether nobody else may use it meanwhile, because it is being changed.  Calls
                to Elixir are refused meanwhile: what Elixir calls back could wait for this very
                lease.  So prepare a change first, and hold the lease only to make it.

        Raises:
            NotFound: When there is none (on entering, as all that follow).
            InvalidArgument: When it is of another kind.
            Conflict: When it stays in use for too long, or a plain ``with`` in a coroutine would
                have to wait.
            DeadlineExceeded: When the call's time is over first.
        """
        return Lease(self, reference, kind, exclusive=exclusive)

    def release(self, reference: str) -> Resource:
        """Let go of a resource and close it, at the end of its last lease if it is in use.

        Args:
            reference: A handle or a name.

        Raises:
            NotFound: When there is no such resource.
        """
        with self._lock:
            resource = self._remove(self._find(reference).handle)
            idle = [resource] if resource.leases == 0 else []
        self._let_go([resource], idle)
        return resource

    def changed(self, reference: str) -> None:
        """Say that the recipe of a resource has changed; the end of an exclusive lease does it too.

        Args:
            reference: A handle or a name.
        """
        with self._lock:
            self._note(self._find(reference).handle)

    def resources(self, kind: str | None = None) -> list[Resource]:
        """The resources in order of creation, of one kind or of all."""
        with self._lock:
            return [r for r in self._resources.values() if kind is None or r.kind == kind]

    def close(self) -> tuple[list[Resource], Closing]:
        """Close everything in reverse order of creation, what is in use at the end of its leases.

        Returns:
            The resources released, and what is done when those that nobody used are closed.
        """
        with self._lock:
            self.closed = True
            resources = list(self._resources.values())
            self._resources.clear()
            self._names.clear()
            self.size = 0
            idle = [resource for resource in resources if resource.leases == 0]
        return resources, self._let_go(resources, idle)

    @property
    def has_changes(self) -> bool:
        """Whether anything has changed since ``changes`` was asked for the last time."""
        return bool(self._changes)

    def changes(self) -> list[str]:
        """Handles of what has come, gone or changed since this was asked for the last time.

        Nothing, always, for a session that nobody keeps a journal of.
        """
        if self._changes is None:
            return []
        with self._lock:
            changed = list(self._changes)
            self._changes.clear()
            return changed

    def note(self, handles: Iterable[str]) -> None:
        """Count changes as not asked for yet.

        Args:
            handles: What ``changes`` gave.
        """
        with self._lock:
            for handle in handles:
                self._note(handle, tell=False)

    def describe_resources(self, kind: str | None = None) -> list[dict[str, object]]:
        """The resources as JSON values, in order of creation, of one kind or of all."""
        now = self._clock()
        return [resource.describe(now) for resource in self.resources(kind)]

    def describe(self) -> dict[str, object]:
        """The session as JSON values."""
        return {
            "session_id": self.id,
            "created_at": self.created_at,
            "idle_s": round(self._clock() - self.used_at, 3),
            "calls": self.calls,
            "resources": len(self),
            "size": self.size,
            "metadata": dict(self.metadata),
        }

    # What leases need.

    def begin_lease(self, resource: Resource, *, exclusive: bool, at_once: bool) -> Waiter | None:
        """Count a lease, or queue it up; whom to wait for."""
        with self._lock:
            self._find(resource.handle)  # it may have gone since the caller found it
            return take(resource, exclusive=exclusive, at_once=at_once)

    def end_lease(self, resource: Resource, *, changed: bool = False) -> None:
        """End a lease that was counted.

        Args:
            resource: What was leased.
            changed: Whether it may be another now.
        """
        with self._lock:
            resource.leases -= 1
            resource.exclusive = False
            if changed and resource.handle in self._resources:
                self._note(resource.handle)
            granted = next_turns(resource)
            last = resource.leases == 0 and resource.handle not in self._resources
        for waiter in granted:
            waiter.set_result(None)
        if last:
            self._dispose([resource])

    def end_wait(self, resource: Resource) -> None:
        """Let those pass who waited behind somebody that has given up."""
        with self._lock:
            granted = next_turns(resource)
        for waiter in granted:
            waiter.set_result(None)

    def _add(self, resource: Resource, *, replace: bool) -> list[Resource]:
        """Enter a resource into the tables; those that it replaces."""
        name = resource.name
        if self.closed:
            raise NotFound(f"session {self.id!r} is closed")
        if resource.handle in self._resources:
            raise Conflict(f"session {self.id!r} already has {resource.handle!r}", retryable=False)
        if name is not None and name in self._resources:
            raise _wrong_name(f"{name!r} is the handle of another resource")
        taken = name is not None and name in self._names
        lost = name is not None and taken and self._resources[self._names[name]].lost
        if taken and not (replace or lost):
            msg = f"session {self.id!r} already has a resource named {name!r}"
            raise Conflict(msg, retryable=False, details={"name": name})
        if len(self._resources) - taken >= self._max_resources:
            msg = f"session {self.id!r} holds its limit of {self._max_resources} resources"
            msg += " (--max-resources)"
            raise ResourceExhausted(msg, details={"max_resources": self._max_resources})
        replaced = [self._remove(self._names[name])] if taken and name is not None else []
        self._resources[resource.handle] = resource
        self.size += resource.size
        if name is not None:
            self._names[name] = resource.handle
        self._note(resource.handle)
        return replaced

    def _find(self, reference: str) -> Resource:
        resource = self._resources.get(self._names.get(reference, reference))
        if resource is not None:
            return resource
        reference = reference[:_LONGEST_NAME]
        if reference in self._released:
            msg = f"resource {reference!r}, a {self._released[reference]}, was released"
            raise NotFound(msg, details={"reference": reference, "released": True})
        # Names only: handles are random, and among thousands the search would take its time.
        near = difflib.get_close_matches(reference, list(self._names)[:_SEARCHED], n=3)
        msg = f"session {self.id!r} has no resource {reference!r}"
        if near:
            msg += f"; did you mean {' or '.join(near)}?"
        elif looks_like_a_handle(reference):
            msg += "; it, or the session that had it, may have expired"
        raise NotFound(msg, details={"reference": reference, "near": near})

    def _remove(self, handle: str) -> Resource:
        resource = self._resources.pop(handle)
        self.size -= resource.size
        if resource.name is not None:
            del self._names[resource.name]
        self._released[handle] = resource.kind
        if len(self._released) > _REMEMBERED:
            del self._released[next(iter(self._released))]
        self._note(handle)
        return resource

    def _note(self, handle: str, *, tell: bool = True) -> None:
        if self._changes is not None:
            self._changes[handle] = None
            self.version += 1
            if tell and self._tell is not None:
                self._tell(self)

    def _let_go(self, gone: Sequence[Resource], idle: Sequence[Resource]) -> Closing:
        """After resources were taken out of the tables: their bytes are free, and they close.

        Args:
            gone: All of them.
            idle: Those that nobody used at that moment, in order of creation; the last lease of any
                other closes it.
        """
        if self._account is not None:
            self._account.give_back(sum(resource.size for resource in gone))
        return self._dispose(idle[::-1])


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
        raise _wrong_name(f"expected text of 1 to {_LONGEST_NAME} characters")


def _wrong_name(text: str) -> InvalidArgument:
    return InvalidArgument(f"name: {text}", violations=[Violation("name", text)])
