"""Binary parameters that belong inside of a JSON argument.

JSON has no bytes, so a caller sends them beside it, under the name of their place: the binary
parameter ``inputs.photos[0]`` becomes an item of ``photos`` in the argument ``inputs``.
"""

from __future__ import annotations

import copy
import re
import typing
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from snakepit_worker.errors import InvalidArgument, Violation

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["ObjectWithBinary", "ObjectsWithBinary", "has_places", "placed"]

_PLACES: Final = {"binary_places": True}

ObjectWithBinary = Annotated[dict[str, Any], msgspec.Meta(extra=_PLACES)]
"""Hint of a tool's parameter: a JSON object, into which binary parameters may go."""

ObjectsWithBinary = Annotated[list[dict[str, Any]], msgspec.Meta(extra=_PLACES)]
"""The same for a list of objects."""

_NAME: Final = re.compile(r"[^.\[\]]+((?:\.[^.\[\]]+|\[[0-9]{1,6}\])+)\Z")
_STEP: Final = re.compile(r"\.([^.\[\]]+)|\[([0-9]+)\]")

Place = tuple[str | int, ...]


def has_places(hint: Any) -> bool:  # noqa: ANN401 - any type hint
    """Whether binary parameters may go into arguments of a hint.

    Args:
        hint: The hint.
    """
    metas = typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()
    return any(isinstance(meta, msgspec.Meta) and meta.extra == _PLACES for meta in metas)


def placed(arguments: Mapping[str, Any], roots: Collection[str]) -> Mapping[str, Any]:
    """The arguments with binary ones in their places.

    Args:
        arguments: JSON and binary ones by name.
        roots: Arguments that have such places.

    Raises:
        InvalidArgument: When a place does not exist and cannot be made.
    """
    found = {name: place for name in arguments if (place := _place(name, arguments, roots))}
    if not found:
        return arguments
    given = {name: value for name, value in arguments.items() if name not in found}
    for root in {str(place[0]) for place in found.values()} & given.keys():
        given[root] = copy.deepcopy(given[root])
    # In order, so that the items of a list come one after the other.
    for name, place in sorted(found.items(), key=lambda item: [str(s).rjust(6) for s in item[1]]):
        if not _put(given, place, arguments[name]):
            text = "expected the place of a binary parameter: there is no such object or list"
            raise InvalidArgument(f"{name}: {text}", violations=[Violation(name, text)])
    return given


def _place(name: str, arguments: Mapping[str, Any], roots: Collection[str]) -> Place | None:
    match = _NAME.match(name)
    if match is None or not isinstance(arguments[name], bytes):
        return None
    root = name[: match.start(1)]
    if root not in roots:
        return None
    steps = (step.groups() for step in _STEP.finditer(match[1]))
    return (root, *(key if key is not None else int(index) for key, index in steps))


def _put(given: Any, place: Place, data: bytes) -> bool:  # noqa: ANN401 - JSON values
    *way, last = place
    for step, following in zip(way, place[1:], strict=True):
        new: Any = {} if isinstance(following, str) else []
        if not _fits(given, step):
            return False
        if isinstance(given, dict):
            given = given.setdefault(step, new)
        else:
            if step == len(given):
                given.append(new)
            given = given[step]
    if not _fits(given, last):
        return False
    if isinstance(given, list) and last == len(given):
        given.append(data)
    else:
        given[last] = data
    return True


def _fits(container: object, step: str | int) -> bool:
    if isinstance(container, dict):
        return isinstance(step, str)
    return isinstance(container, list) and isinstance(step, int) and step <= len(container)
