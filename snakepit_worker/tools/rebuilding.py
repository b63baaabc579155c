"""Resources to recipes and back: what a session holds, as it can be built again elsewhere."""

from __future__ import annotations

import asyncio
import inspect
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from snakepit_worker.archive.model import SavedResource
from snakepit_worker.errors import DeadlineExceeded, NotFound, WorkerError
from snakepit_worker.sessions import Resource
from snakepit_worker.telemetry.logging import logger
from snakepit_worker.tools.api import Rebuilt
from snakepit_worker.wire.json_text import valid_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from snakepit_worker.deadline import Deadline
    from snakepit_worker.sessions import Recipe, Session
    from snakepit_worker.tools.registry import LoadedAdapter, Registry

__all__ = ["Rebuilder", "saved"]

_BUILDING: Final = 60.0
"""Seconds that building one resource may take."""
_NO_RECIPE: Final = "its adapter gives no recipe for it"


def saved(session: Session, handle: str) -> SavedResource | None:
    """A resource as it is now, ``None`` when it is no more.

    Waits for calls that have it for themselves, because half a change is no state to go back to;
    so this is for threads.

    Args:
        session: Who holds it.
        handle: Which it is.

    Raises:
        WorkerError: When it stays in use for too long.
    """
    try:
        resource = session.get(handle, even_lost=True)
        if resource.recipe is None:
            return _saved(resource, None, resource.lost or _NO_RECIPE)
        with session.lease(handle):
            try:
                return _saved(resource, dict(resource.recipe()), None)
            except Exception as error:  # noqa: BLE001 - an adapter's code
                logger().exception("a recipe cannot be made", handle=handle, kind=resource.kind)
                return _saved(resource, None, f"its recipe cannot be made: {_reason(error)}")
    except NotFound:
        return None


def _saved(resource: Resource, recipe: dict[str, object] | None, lost: str | None) -> SavedResource:
    return SavedResource(
        handle=resource.handle,
        kind=resource.kind,
        created_at=resource.created_at,
        name=resource.name,
        metadata=resource.metadata,
        recipe=recipe,
        lost=lost,
        size=resource.size,
    )


class Rebuilder:
    """Builds resources again, with the adapters that made them.

    Args:
        registry: The adapters.
        ready: Waits for those that have not started.
    """

    def __init__(
        self,
        registry: Registry,
        ready: Callable[[LoadedAdapter, Deadline], Awaitable[None]],
    ) -> None:
        self._registry = registry
        self._ready = ready

    async def rebuild(
        self,
        session: Session,
        resources: Iterable[SavedResource],
        deadline: Deadline,
        *,
        replace: bool = False,
    ) -> None:
        """Put resources into a session, the oldest first.

        What cannot be built again is listed in the session as lost, with the reason.  Either all of
        them are there at the end, or none.

        Args:
            session: Where to.
            resources: As they were saved.
            deadline: For adapters that have not started.
            replace: Whether what has the name of one is released first.

        Raises:
            ResourceExhausted: When the session or the worker is full.
            Conflict: When the session has such a handle or name already.
        """
        added: list[Resource] = []
        try:
            for resource in resources:
                new = await self._resource(resource, deadline)
                session.add(new, replace=replace)
                added.append(new)
        except BaseException:
            for new in added:
                with suppress(NotFound):
                    session.release(new.handle)
            raise

    async def _resource(self, old: SavedResource, deadline: Deadline) -> Resource:
        new = Resource(
            old.handle,
            old.kind,
            None,
            name=old.name,
            metadata=old.metadata,
            created_at=old.created_at,
            lost=old.lost,
        )
        if old.recipe is None:
            new.lost = old.lost or _NO_RECIPE
            return new
        try:
            rebuilt = await self._build(old, old.recipe, deadline)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - an adapter's code
            new.lost = f"it cannot be built again: {_reason(error)}"
            logger().warning("a resource is lost", handle=old.handle, kind=old.kind, why=new.lost)
            return new
        new.value = rebuilt.value
        new.close = rebuilt.close
        new.recipe = rebuilt.recipe
        new.size = old.size if rebuilt.size is None else rebuilt.size
        return new

    async def _build(self, old: SavedResource, recipe: Recipe, deadline: Deadline) -> Rebuilt:
        name = old.kind.partition(".")[0]
        owner = self._registry.adapters.get(name)
        if owner is None:
            raise NotFound(f"this worker does not serve adapter {name}")
        await self._ready(owner, deadline)
        try:
            async with asyncio.timeout(_BUILDING):
                built = await _call(owner.adapter.rebuild, old.kind, recipe)
        except TimeoutError:
            raise DeadlineExceeded(f"building it took longer than {_BUILDING:g} seconds") from None
        if not isinstance(built, Rebuilt):
            raise TypeError(f"{name}.rebuild gave {type(built).__name__} instead of a Rebuilt")
        return built


async def _call(rebuild: Callable[..., Any], kind: str, recipe: Recipe) -> object:
    if inspect.iscoroutinefunction(rebuild):
        return await rebuild(kind, recipe)
    outcome: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()

    def run() -> None:
        try:
            built, failure = rebuild(kind, recipe), None
        except BaseException as error:  # noqa: BLE001 - an adapter's code
            built, failure = None, error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(_settle, outcome, built, failure)

    # A thread of its own: one that hangs must not be missed by anybody else.
    threading.Thread(target=run, name=f"rebuild {kind}", daemon=True).start()
    built = await outcome
    return await built if inspect.isawaitable(built) else built


def _settle(outcome: asyncio.Future[object], built: object, failure: BaseException | None) -> None:
    if outcome.done():
        return
    if failure is None:
        outcome.set_result(built)
    elif isinstance(failure, StopIteration):  # no future takes it
        outcome.set_exception(RuntimeError("StopIteration"))
    else:
        outcome.set_exception(failure)


def _reason(error: BaseException) -> str:
    text = valid_text(error)
    return text if isinstance(error, WorkerError) else f"{type(error).__name__}: {text}"
