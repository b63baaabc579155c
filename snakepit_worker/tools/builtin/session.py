"""``session.*``: what a caller can ask about its session, and let go of."""

from __future__ import annotations

import base64
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Protocol

import msgspec

from snakepit_worker.errors import InvalidArgument, Violation
from snakepit_worker.tools.api import Adapter, Rebuilt, tool
from snakepit_worker.tools.builtin.documents import SessionDocument, export, resources_of
from snakepit_worker.tools.context import CallContext

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractAsyncContextManager

    from snakepit_worker.archive.model import SavedResource
    from snakepit_worker.deadline import Deadline
    from snakepit_worker.sessions import Recipe, Resource, Session, SessionStore
    from snakepit_worker.tools.builtin.documents import ResourceDocument

__all__ = ["Enter", "Rebuild", "SessionTools"]

_VALUE: Final = "session.value"


class Enter(Protocol):
    """Enters a session for the length of an ``async with`` block, and saves it at its end."""

    def __call__(
        self, session_id: str, deadline: Deadline, /
    ) -> AbstractAsyncContextManager[Session]:
        """The session, which begins now if it has not yet."""


class Rebuild(Protocol):
    """Builds resources again."""

    async def __call__(
        self,
        session: Session,
        resources: Iterable[SavedResource],
        deadline: Deadline,
        /,
        *,
        replace: bool,
    ) -> None:
        """Put them into a session."""


class SessionTools(Adapter):
    """Tools over the caller's session.

    Args:
        store: All sessions of the worker.
        enter: Enters another session than the caller's.
        rebuild: Builds resources again in a session.
    """

    name: ClassVar[str] = "session"

    def __init__(self, store: SessionStore, enter: Enter, rebuild: Rebuild) -> None:
        self._store = store
        self._enter = enter
        self._rebuild = rebuild

    @tool
    async def info(self, ctx: CallContext) -> dict[str, Any]:
        """The session: its id, age, idle time and number of resources."""
        return ctx.session.describe()

    @tool(name="list")
    async def resources(self, ctx: CallContext, kind: str | None = None) -> list[dict[str, Any]]:
        """The resources that the session holds, of one kind or of all, oldest first."""
        return ctx.session.describe_resources(kind)

    @tool
    def put(
        self,
        ctx: CallContext,
        value: Any,  # noqa: ANN401 - JSON
        *,
        name: str | None = None,
        replace: bool = False,
    ) -> dict[str, Any]:
        """Keep a value for later calls.

        Args:
            ctx: The call.
            value: A JSON value, or a binary parameter.
            name: A name of your own, to use in place of the handle.
            replace: Whether what has the name already is released first.

        Returns:
            The handle, the kind, the name and the size in bytes.
        """
        recipe = partial(_recipe, value)
        size = len(value) if isinstance(value, bytes) else len(msgspec.json.encode(value))
        kept = ctx.session.put(_VALUE, value, name=name, recipe=recipe, size=size, replace=replace)
        return {"handle": kept.handle, "kind": _VALUE, "name": name, "size": size}

    @tool
    def get(self, ctx: CallContext, name: str | None = None, handle: str | None = None) -> Any:  # noqa: ANN401
        """A value that was put, by name or by handle.

        Args:
            ctx: The call.
            name: Name of the value.
            handle: Handle of the value, in place of the name.
        """
        reference = name or handle
        if reference is None or (name and handle):
            text = "expected a name or a handle, one of the two"
            raise InvalidArgument(text, violations=[Violation("name", text)])
        return ctx.session.get(reference, _VALUE).value

    def rebuild(self, kind: str, recipe: Recipe) -> Rebuilt:
        """A value, from its JSON or its bytes.

        Args:
            kind: Of the resource; there is only one.
            recipe: What ``_recipe`` made.
        """
        del kind
        encoded = recipe.get("base64")
        value = recipe["value"] if encoded is None else base64.b64decode(encoded)
        return Rebuilt(value, recipe=partial(_recipe, value))

    @tool
    def export(self, ctx: CallContext) -> dict[str, Any]:
        """The session as a JSON document, from which `session.import` builds it again.

        It holds recipes and no secrets; what has no recipe is in it with the reason.
        """
        return export(ctx.session)

    @tool(name="import")
    async def import_(
        self, ctx: CallContext, document: SessionDocument, *, replace: bool = False
    ) -> list[dict[str, Any]]:
        """Build what a document describes, in this session.

        Args:
            ctx: The call.
            document: What `session.export` gave.
            replace: Whether what has the name of a resource is released first.

        Returns:
            For each resource its old handle and its new one, kind and name; and why it was lost, if
            it was.
        """
        return await self._import(ctx, ctx.session, document, replace=replace)

    @tool
    async def clone(
        self,
        ctx: CallContext,
        to: Annotated[str, msgspec.Meta(min_length=1)],
        *,
        replace: bool = False,
    ) -> list[dict[str, Any]]:
        """Build what this session holds once more, in another one.

        Args:
            ctx: The call.
            to: Id of the other session, which begins now if it has not yet.
            replace: Whether what has the name of a resource there is released first.

        Returns:
            As `session.import`.
        """
        if to == ctx.session.id:
            text = "expected the id of another session"
            raise InvalidArgument(text, violations=[Violation("to", text)])
        document = msgspec.convert(await ctx.run_sync(export, ctx.session), SessionDocument)
        async with self._enter(to, ctx.deadline) as session:
            return await self._import(ctx, session, document, replace=replace)

    @tool
    def release(self, ctx: CallContext, handle: str) -> dict[str, Any]:
        """Let go of a resource, by handle or by name, and close it."""
        released = ctx.session.release(handle)
        return {"handle": released.handle, "kind": released.kind, "name": released.name}

    @tool
    async def close(self, ctx: CallContext) -> dict[str, Any]:
        """Close the session and everything in it; says how many resources that were."""
        ended = self._store.close(ctx.session.id)
        released = await ended.closed() if ended is not None else 0
        return {"session_id": ctx.session.id, "released": released}

    async def _import(
        self, ctx: CallContext, session: Session, document: SessionDocument, *, replace: bool
    ) -> list[dict[str, Any]]:
        resources = resources_of(document)
        await self._rebuild(session, resources, ctx.deadline, replace=replace)
        return [
            _told(old, session.get(new.handle, even_lost=True))
            for old, new in zip(document.resources, resources, strict=True)
        ]


def _told(old: ResourceDocument, new: Resource) -> dict[str, Any]:
    told = {"old": old.handle, "handle": new.handle, "kind": new.kind, "name": new.name}
    return told if new.lost is None else told | {"lost": new.lost}


def _recipe(value: object) -> Recipe:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return {"value": value}
