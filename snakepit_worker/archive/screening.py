"""Looking through a recipe before it is stored: it has to be JSON, and hold no secret."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, TypeAlias

from snakepit_worker.errors import SerializationError
from snakepit_worker.wire.redaction import is_secret, redact

__all__ = ["BINARY", "REFERENCES", "find_secret"]

REFERENCES: Final = frozenset({"env", "file"})
"""Keys of an object that says where a secret is found, such as ``{"env": "OPENAI_API_KEY"}``."""

BINARY: Final = "base64"
"""The one key of an object that holds bytes."""

_DEEPEST: Final = 200
_PIECE: Final = 65_536
_OVERLAP: Final = 4_096
_Place: TypeAlias = "tuple[_Place | None, str | int]"


def find_secret(value: object) -> str | None:  # noqa: C901 - a branch per type of JSON
    """The place of something that looks like a secret, such as ``lm.api_key``.

    That is any text that would not go into a log line unchanged, and what goes by a telling name
    unless it is empty, a number, or says where the secret is found (`REFERENCES`).

    Args:
        value: JSON: dictionaries with text as keys, lists, tuples, text, finite numbers, booleans
            and ``None``.

    Raises:
        SerializationError: For anything else, and for what is nested too deeply.
    """
    waiting: list[tuple[object, _Place | None, int]] = [(value, None, 0)]
    while waiting:
        item, place, depth = waiting.pop()
        if depth > _DEEPEST:
            raise SerializationError(f"{_path(place)[:80]}... is nested too deeply to be archived")
        if isinstance(item, str):
            if _looks_secret(item):
                return _path(place)
        elif isinstance(item, Mapping):
            for key, child in item.items():
                if not isinstance(key, str):
                    raise SerializationError(f"a key of {_path(place)} is {type(key).__name__}")
                here = (place, key)
                if is_secret(key) and _is_told(child):
                    return _path(here)
                if key != BINARY or len(item) > 1:  # bytes, in which nothing can be recognised
                    waiting.append((child, here, depth + 1))
        elif isinstance(item, list | tuple):
            waiting.extend((child, (place, i), depth + 1) for i, child in enumerate(item))
        else:
            _check_plain(item, place)
    return None


def _looks_secret(text: str) -> bool:
    """Look at a text in pieces that overlap: between them other threads have their turn."""
    for start in range(0, len(text), _PIECE):
        piece = text[max(0, start - _OVERLAP) : start + _PIECE]
        if redact(piece) != piece:
            return True
    return False


def _check_plain(value: object, place: _Place | None) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise SerializationError(f"{_path(place)} is {value}, which JSON does not have")
    if value is not None and not isinstance(value, bool | int | float):
        raise SerializationError(f"{_path(place)} is {type(value).__name__}, which is not JSON")


def _is_told(value: object) -> bool:
    """Whether the value behind a telling name is the secret itself."""
    if isinstance(value, Mapping):
        return not value.keys() <= REFERENCES
    return bool(value) and not isinstance(value, bool | int | float)


def _path(place: _Place | None) -> str:
    parts: list[str] = []
    while place is not None:
        place, step = place
        parts.append(f"[{step}]" if isinstance(step, int) else f".{step}")
    return "".join(reversed(parts)).lstrip(".") or "the value"
