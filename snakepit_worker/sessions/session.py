"""One session: resources by handle and by name, leased while calls use them."""

from __future__ import annotations

import difflib
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from snakepit_worker.errors import Conflict, InvalidArgument, NotFound, ResourceExhausted
from snakepit_worker.sessions.resources import Resource, new_handle
from snakepit_worker.telemetry.logging import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["Session"]

_SEARCHED: Final = 500
"""Names that are searched for near matches, which happens under the lock."""
_LONGEST_NAME: Final = 200
_REMEMBERED: Final = 256
"""Handles of released resources that are remembered, to tell "released" from "unknown"."""


class Session:
    """A caller's scope in this worker.

    Methods may be called from any thread.  The lock guards only the tables and is never held while
    foreign code (a closer, a tool) runs.

    Args:
        session_id: The id that callers use.
        max_resources: Resources that it may hold.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        session_id: str,
        *,
        max_resources: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = session_id
        self.metadata: dict[str, str] = {}
        self.created_at = time.time()
        self.used_at = clock()
        self.calls = 0
        """Calls that run in this session now; a session with calls never expires."""
        self._clock = clock
        self._max_resources = max_resources
        self._lock = threading.Lock()
        self._resources: dict[str, Resource] = {}
        self._names: dict[str, str] = {}
        self._released: dict[str, None] = {}
        self._closed = False

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
        replace: bool = False,
    ) -> Resource:
        """Keep an object under a new handle.

        Args:
            kind: What it is, such as ``dspy.module``.
            value: The object.
            name: A name of the caller's own, unique in the session.
            metadata: JSON values that describe it.
            close: Called once when the resource goes.
            replace: Whether a resource that has the name is released first.

        Raises:
            Conflict: When the name is taken and ``replace`` is false.
            ResourceExhausted: When the session is full.
            NotFound: When the session was closed meanwhile.
        """
        resource = Resource(
            new_handle(kind),
            kind,
            value,
            name=name,
            metadata=metadata or {},
            close=close,
            used_at=self._clock(),
        )
        replaced = None
        with self._lock:
            if self._closed:
                msg = f"session {self.id!r} is closed"
                raise NotFound(msg)
            if name is not None and name in self._names:
                if not replace:
                    msg = f"session {self.id!r} already has a resource named {name!r}"
                    raise Conflict(msg, retryable=False, details={"name": name})
                replaced = self._remove(self._names[name])
            if len(self._resources) >= self._max_resources:
                msg = f"session {self.id!r} holds its limit of {self._max_resources} resources"
                raise ResourceExhausted(msg, details={"max_resources": self._max_resources})
            self._resources[resource.handle] = resource
            if name is not None:
                self._names[name] = resource.handle
        if replaced is not None and replaced.leases == 0:
            _close(replaced)
        return resource

    def get(self, reference: str, kind: str | None = None) -> Resource:
        """The resource with this handle or name.

        Args:
            reference: A handle, or a name given to ``put``.
            kind: The kind it must have.

        Raises:
            NotFound: When there is none; the message names near matches.
            InvalidArgument: When it is of another kind.
        """
        with self._lock:
            resource = self._find(reference)
            if kind is not None and resource.kind != kind:
                msg = f"{reference!r} is a {resource.kind}, expected a {kind}"
                raise InvalidArgument(msg, details={"kind": resource.kind, "expected": kind})
            resource.used_at = self._clock()
            return resource

    @contextmanager
    def lease(self, reference: str, kind: str | None = None) -> Iterator[Any]:
        """The object under a handle or name, pinned for the length of a ``with`` block.

        A leased resource that is released meanwhile disappears from the session at once and is
        closed when the last lease ends.

        Args:
            reference: A handle or a name.
            kind: The kind it must have.

        Raises:
            NotFound: When there is none.
            InvalidArgument: When it is of another kind.
        """
        resource = self.get(reference, kind)
        with self._lock:
            self._find(resource.handle)
            resource.leases += 1
        try:
            yield resource.value
        finally:
            with self._lock:
                resource.leases -= 1
                last = resource.leases == 0 and resource.handle not in self._resources
            if last:
                _close(resource)

    def release(self, reference: str) -> Resource:
        """Let go of a resource and close it, at the end of its last lease if it is in use.

        Raises:
            NotFound: When there is no such resource.
        """
        with self._lock:
            resource = self._remove(self._find(reference).handle)
            in_use = resource.leases > 0
        if not in_use:
            _close(resource)
        return resource

    def resources(self, kind: str | None = None) -> list[Resource]:
        """The resources in order of creation, of one kind or of all."""
        with self._lock:
            return [r for r in self._resources.values() if kind is None or r.kind == kind]

    def close(self) -> int:
        """Close everything in reverse order of creation; the number of resources released."""
        with self._lock:
            self._closed = True
            resources = list(self._resources.values())
            self._resources.clear()
            self._names.clear()
            idle = [resource for resource in resources if resource.leases == 0]
        for resource in reversed(idle):
            _close(resource)
        return len(resources)

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
            "metadata": dict(self.metadata),
        }

    def _find(self, reference: str) -> Resource:
        resource = self._resources.get(self._names.get(reference, reference))
        if resource is not None:
            return resource
        reference = reference[:_LONGEST_NAME]
        if reference in self._released:
            msg = f"resource {reference!r} was released"
            raise NotFound(msg, details={"reference": reference, "released": True})
        # Names only: handles are random, and among thousands the search would take its time.
        near = difflib.get_close_matches(reference, list(self._names)[:_SEARCHED], n=3)
        msg = f"session {self.id!r} has no resource {reference!r}"
        if near:
            msg += f"; did you mean {' or '.join(near)}?"
        raise NotFound(msg, details={"reference": reference, "near": near})

    def _remove(self, handle: str) -> Resource:
        resource = self._resources.pop(handle)
        if resource.name is not None:
            del self._names[resource.name]
        self._released[handle] = None
        if len(self._released) > _REMEMBERED:
            del self._released[next(iter(self._released))]
        return resource


def _close(resource: Resource) -> None:
    """Run the closer.  What it raises is logged: nobody waits for it who could handle it."""
    if resource.close is None:
        return
    try:
        resource.close()
    except BaseException:  # noqa: BLE001 - see above
        logger().exception("closing a resource failed", handle=resource.handle, kind=resource.kind)
