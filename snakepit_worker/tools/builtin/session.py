"""``session.*``: what a caller can ask about its session, and let go of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from snakepit_worker.tools.api import Adapter, tool
from snakepit_worker.tools.context import CallContext

if TYPE_CHECKING:
    from snakepit_worker.sessions import SessionStore

__all__ = ["SessionTools"]


class SessionTools(Adapter):
    """Tools over the caller's session.

    Args:
        store: All sessions of the worker.
    """

    name: ClassVar[str] = "session"

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    @tool
    async def info(self, ctx: CallContext) -> dict[str, Any]:
        """The session: its id, age, idle time and number of resources."""
        return ctx.session.describe()

    @tool(name="list")
    async def resources(self, ctx: CallContext, kind: str | None = None) -> list[dict[str, Any]]:
        """The resources that the session holds, of one kind or of all, oldest first."""
        return ctx.session.describe_resources(kind)

    @tool
    def release(self, ctx: CallContext, handle: str) -> dict[str, Any]:
        """Let go of a resource, by handle or by name, and close it."""
        released = ctx.session.release(handle)
        return {"handle": released.handle, "kind": released.kind, "name": released.name}

    @tool
    def close(self, ctx: CallContext) -> dict[str, Any]:
        """Close the session and everything in it; says how many resources that were."""
        return {"session_id": ctx.session.id, "released": self._store.close(ctx.session.id)}
