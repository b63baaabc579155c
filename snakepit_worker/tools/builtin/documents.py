"""Sessions as JSON documents: what ``session.export`` gives and ``session.import`` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from snakepit_worker.archive.model import SavedResource
from snakepit_worker.archive.screening import find_secret
from snakepit_worker.sessions.resources import new_handle
from snakepit_worker.tools.rebuilding import saved

if TYPE_CHECKING:
    from snakepit_worker.sessions import Session

__all__ = ["ResourceDocument", "SessionDocument", "export", "resources_of"]


class ResourceDocument(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A resource of an exported session."""

    kind: str
    handle: Annotated[str, msgspec.Meta(description="what it was called there")]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    created_at: Annotated[float, msgspec.Meta(description="Unix seconds")] = 0.0
    metadata: dict[str, Any] = {}
    size: Annotated[int, msgspec.Meta(ge=0, description="bytes")] = 0
    recipe: Annotated[
        dict[str, Any] | None, msgspec.Meta(description="how its adapter builds it again")
    ] = None
    lost: Annotated[str | None, msgspec.Meta(description="why there is no recipe")] = None


class SessionDocument(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An exported session."""

    version: Literal[1]
    session_id: str
    resources: list[ResourceDocument]


def export(session: Session) -> dict[str, Any]:
    """A session as a document, which holds no secrets.  Waits for resources; for threads.

    Args:
        session: The session.

    Raises:
        WorkerError: When a resource stays in use for too long.
    """
    found = [saved(session, resource.handle) for resource in session.resources()]
    document = SessionDocument(
        version=1,
        session_id=session.id,
        resources=[_document(resource) for resource in found if resource is not None],
    )
    exported: dict[str, Any] = msgspec.to_builtins(document)
    return exported


def resources_of(document: SessionDocument) -> list[SavedResource]:
    """The resources of a document, under handles of their own.

    Args:
        document: The document.
    """
    return [
        SavedResource(
            handle=new_handle(resource.kind),
            kind=resource.kind,
            created_at=resource.created_at,
            name=resource.name,
            metadata=resource.metadata,
            recipe=resource.recipe,
            lost=resource.lost,
            size=resource.size,
        )
        for resource in document.resources
    ]


def _document(resource: SavedResource) -> ResourceDocument:
    recipe, lost = resource.recipe, resource.lost
    place = find_secret(recipe) if recipe is not None else None
    if place is not None:
        recipe, lost = None, f"its recipe holds what looks like a secret, at {place}"
    metadata = resource.metadata if find_secret(resource.metadata) is None else {}
    return ResourceDocument(
        kind=resource.kind,
        handle=resource.handle,
        name=resource.name,
        created_at=resource.created_at,
        metadata=dict(metadata),
        size=resource.size,
        recipe=dict(recipe) if recipe is not None else None,
        lost=lost,
    )
