"""Sessions and resources as rows of the archive, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from snakepit_worker.archive.model import SavedResource, Written
from snakepit_worker.archive.screening import find_secret
from snakepit_worker.errors import (
    InvalidArgument,
    ResourceExhausted,
    SerializationError,
    Violation,
    WorkerError,
)
from snakepit_worker.telemetry.logging import logger
from snakepit_worker.wire.redaction import REDACTED, is_secret, redact_value

if TYPE_CHECKING:
    from snakepit_worker.archive.model import Change, End

__all__ = ["PackedChange", "check_text", "pack", "unpack_resource", "unpack_session", "why_refused"]

_LONGEST_ID: Final = 1_000
"""Bytes of a name that is part of a key; PostgreSQL's indexes take 2,700 of all in one."""
_LONGEST_TEXT: Final = 10_000
_MOST_METADATA: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class PackedChange:
    """A change as it is written; see `Change` for what the fields mean.

    Attributes:
        metadata: JSON.
        put: Columns of resources, by handle.
        lost: Resources without a recipe that had one, by handle, and why.
        bytes: Bytes of JSON in all.
    """

    session_id: str
    fence: str
    created_at: float | None
    metadata: str | None
    put: Mapping[str, Mapping[str, object]]
    remove: tuple[str, ...]
    end: End | None
    lost: Mapping[str, str]
    bytes: int

    def written(self, version: int | None) -> Written:
        """The answer to whoever asked for the change."""
        return Written(version, self.lost)


def pack(change: Change, max_recipe: int) -> PackedChange:
    """Check a change and turn it into columns, with all that is JSON encoded.

    Args:
        change: The change.
        max_recipe: Bytes that one recipe may take.

    Raises:
        InvalidArgument: For an id or a name that no database takes.
        SerializationError: For a recipe or metadata that is not JSON.
        ResourceExhausted: For a recipe or metadata that is too large.
    """
    check_text("session_id", change.session_id)
    check_text("fence", change.fence)
    for handle in change.remove:
        check_text("handle", handle)
    put = {r.handle: _columns(change.session_id, r, max_recipe) for r in change.put}
    metadata = None
    if change.metadata is not None:
        metadata = _metadata(change.metadata, f"session {change.session_id!r}")
    return PackedChange(
        session_id=change.session_id,
        fence=change.fence,
        created_at=change.created_at,
        metadata=metadata,
        put=put,
        remove=change.remove,
        end=change.end,
        lost={
            r.handle: str(put[r.handle]["lost"])
            for r in change.put
            if r.recipe is not None and put[r.handle]["recipe"] is None
        },
        bytes=sum(_length(row[key]) for row in put.values() for key in ("recipe", "metadata"))
        + _length(metadata),
    )


def why_refused(resource: SavedResource, max_recipe: int) -> str | None:
    """Why the archive does not take a resource, if it does not.

    Args:
        resource: The resource.
        max_recipe: Bytes of JSON that its recipe may take.
    """
    try:
        _columns("", resource, max_recipe)
    except WorkerError as error:
        return str(error)
    return None


def check_text(field: str, value: str) -> None:
    """Refuse a text that cannot be part of a key.

    Args:
        field: What the text is, for the message.
        value: The text.

    Raises:
        InvalidArgument: For an empty or too long one, or one that is not valid text.
    """
    _check_text(field, value, _LONGEST_ID)
    if not value:
        _refuse(field, "must not be empty")


def unpack_session(row: Mapping[str, Any]) -> tuple[int, float, Mapping[str, object]]:
    """Version, time of creation and metadata of a session, with a warning for what is corrupt.

    Args:
        row: The columns.
    """
    session_id = str(row["session_id"])
    try:
        version, created_at = int(row["version"]), float(row["created_at"])
    except (ValueError, TypeError) as error:
        logger().warning(
            "the archive holds a corrupt session", session_id=session_id, error=str(error)
        )
        version, created_at = 0, 0.0
    return version, created_at, _unpack_metadata(row["metadata"], session_id=session_id)


def unpack_resource(row: Mapping[str, Any], session_id: str) -> SavedResource:
    """A resource from its columns; without a recipe, and with a warning, where it is corrupt.

    Args:
        row: The columns.
        session_id: Its session, for the warning.
    """
    handle = str(row["handle"])
    recipe, lost = None, row["lost"]
    try:
        if row["recipe"] is not None:
            recipe = _decode(row["recipe"])
        created_at, size = float(row["created_at"]), int(row["size"])
    except (ValueError, TypeError) as error:
        logger().warning(
            "the archive holds a corrupt resource",
            session_id=session_id,
            handle=handle,
            error=str(error),
        )
        recipe, lost, created_at, size = None, f"its row in the archive is corrupt: {error}", 0.0, 0
    return SavedResource(
        handle=handle,
        kind=str(row["kind"]),
        created_at=created_at,
        name=None if row["name"] is None else str(row["name"]),
        metadata=_unpack_metadata(row["metadata"], session_id=session_id, handle=handle),
        recipe=recipe,
        lost=None if lost is None else str(lost),
        size=size,
    )


def _columns(session_id: str, resource: SavedResource, max_recipe: int) -> dict[str, object]:
    check_text("handle", resource.handle)
    _check_text("kind", resource.kind, _LONGEST_TEXT)
    _check_text("name", resource.name or "", _LONGEST_TEXT)
    _check_text("lost", resource.lost or "", _LONGEST_TEXT)
    recipe, lost = None, resource.lost
    if resource.recipe is None:
        lost = lost or "it has no recipe"
    elif (place := find_secret(resource.recipe)) is not None:
        lost = f"its recipe holds what looks like a secret, at {place}"
        logger().warning(
            "a resource is archived without its recipe, which holds what looks like a secret",
            session_id=session_id,
            handle=resource.handle,
            place=place,
        )
    else:
        what = f"the recipe of {resource.handle!r}"
        recipe, lost = _encode(resource.recipe, what, max_recipe), None
    return {
        "handle": resource.handle,
        "kind": resource.kind,
        "name": resource.name,
        "metadata": _metadata(resource.metadata, repr(resource.handle)),
        "recipe": recipe,
        "lost": lost,
        "created_at": resource.created_at,
        "size": resource.size,
    }


def _metadata(value: Mapping[str, object], whose: str) -> str:
    if find_secret(value) is not None:
        value = {key: REDACTED if is_secret(key) else redact_value(value[key]) for key in value}
    return _encode(value, f"the metadata of {whose}", _MOST_METADATA)


def _unpack_metadata(text: object, **ids: str) -> Mapping[str, object]:
    try:
        return _decode(text)
    except ValueError as error:
        logger().warning("the archive holds corrupt metadata", error=str(error), **ids)
        return {}


def _encode(value: Mapping[str, object], what: str, most: int) -> str:
    try:
        data = msgspec.json.encode(value, enc_hook=_plain)
    except (TypeError, ValueError) as error:
        raise SerializationError(f"{what} cannot be archived: {error}") from error
    if len(data) > most:
        msg = f"{what} takes {len(data):,} bytes, more than the archive's limit of {most:,}"
        raise ResourceExhausted(
            msg, retryable=False, details={"bytes": len(data), "max_bytes": most}
        )
    return data.decode()


def _plain(value: object) -> object:
    """What `find_secret` lets through and msgspec does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, float):  # such as numpy's, which derives from it
        return float(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _decode(text: object) -> Mapping[str, object]:
    """The object that a column holds.

    Raises:
        ValueError: When it holds anything else.
    """
    if not isinstance(text, str):
        raise ValueError(f"{type(text).__name__} in place of text")  # noqa: TRY004 - see above
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if not isinstance(value, dict):
        raise ValueError(f"{type(value).__name__} in place of an object")  # noqa: TRY004 - see above
    return value


def _check_text(field: str, value: str, most: int) -> None:
    try:
        length = len(value.encode())
    except UnicodeEncodeError:
        _refuse(field, "is not valid Unicode")
    if length > most:
        _refuse(field, f"takes {length:,} bytes, more than {most:,}")
    if "\0" in value:
        _refuse(field, "holds a NUL character")


def _refuse(field: str, problem: str) -> None:
    raise InvalidArgument(
        f"{field} {problem}, so it cannot be archived", violations=[Violation(field, problem)]
    )


def _length(text: object) -> int:
    return len(text) if isinstance(text, str) else 0
