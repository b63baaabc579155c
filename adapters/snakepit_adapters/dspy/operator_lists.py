"""Lists in which the worker's operator names Python objects for callers to use."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from snakepit_worker.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Listed", "listed"]

_ENTRY: Final = re.compile(r"([A-Za-z]\w*)=([A-Za-z_][\w.]*):([A-Za-z_]\w*)\Z")


class Listed(NamedTuple):
    """One entry.

    Attributes:
        name: What callers call it.
        path: Where it is, as ``package.module:attribute``.
        object: What is there.
    """

    name: str
    path: str
    object: Any


def listed(variable: str, what: str, environment: Mapping[str, str]) -> Iterator[Listed]:
    """Import what is on a list, ``name=package.module:attribute`` with commas between entries.

    Args:
        variable: The environment variable that holds the list.
        what: What the attributes are, for messages.
        environment: Where the variable is looked up.

    Raises:
        StartError: When the list cannot be read, or something is not there.
    """
    for entry in filter(None, map(str.strip, environment.get(variable, "").split(","))):
        match = _ENTRY.match(entry)
        if match is None:
            raise StartError(f"{variable}: expected name=package.module:{what}, got {entry!r}")
        name, module, attribute = match.groups()
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise StartError(f"{variable}: {name}: {error}") from error
        yield Listed(name, f"{module}:{attribute}", found)
