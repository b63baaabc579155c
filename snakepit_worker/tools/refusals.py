"""What msgspec has against a value, in words for those who sent it.

The value is shown as far as it is short and no secret.
"""

from __future__ import annotations

import difflib
import re
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import inspect

from snakepit_worker.errors import Violation
from snakepit_worker.tools.conversion import convert, hint_of
from snakepit_worker.wire.redaction import is_secret, redact, redact_value

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ["Path", "expected", "field", "refusal", "unknown", "violation", "with_remedy"]

Path = tuple[str | int, ...]
"""Names and indexes that lead from the arguments to a value."""

_PREVIEW: Final = 60
_LONGEST_NAME: Final = 100
_FEW: Final = 20
_NOTHING: Final = object()
_PARTS: Final = re.compile(r"(?s)(.*?)(?: - at (`key` in )?`\$(.*)`)?")
_STEP: Final = re.compile(r"\.(\w+)|\[(\d+|\.\.\.)\]")
_OWN_WORDS: Final = re.compile("Expected |Invalid |Object |Number ")
_EXPECTED: Final = re.compile("Expected (.+), got ")


def refusal(value: object, hint: Any) -> str | None:  # noqa: ANN401 - any type hint
    """What msgspec says against the value, if anything.

    Args:
        value: That was given.
        hint: What it should be.
    """
    try:
        convert(value, hint)
    except (msgspec.ValidationError, TypeError) as error:
        return str(error)
    return None


def violation(path: Path, refused: str, value: object, kind: inspect.Type) -> Violation:
    """What is wrong, where it is, and what came.

    Args:
        path: Where the value lies.
        refused: What msgspec says, perhaps about something inside the value.
        value: That was given.
        kind: What it should be.
    """
    text, of_key, inside = _parts(refused)
    steps = _STEP.findall(inside)
    wanted, _, given = text.replace("`", "").partition(", got ")
    is_choice = isinstance(kind, inspect.LiteralType | inspect.EnumType) and not inside
    if is_choice or text.startswith(("Invalid enum value", "Invalid value")):
        wanted = f"expected {_choice(kind) or 'one of its values'}"
    elif _OWN_WORDS.match(wanted):
        wanted = wanted[0].lower() + wanted[1:]
    if any(is_secret(step) for step in (*path, *(name for name, _ in steps)) if type(step) is str):
        came = given
    else:
        came = _preview(_inside(value, steps))
        came = f"{given} ({came})" if given else came
    words = with_remedy(path, f"{wanted}, got {came}" if came else wanted)
    return Violation(field(path) + inside, f"key: {words}" if of_key else words)


def with_remedy(path: Path, words: str) -> str:
    """What is wrong, with what to do where that is not plain.

    Args:
        path: Where the value lies.
        words: What was expected, and what came.
    """
    of_bytes = len(path) == 1 and words.startswith("expected bytes")
    return f"{words}; send it as a binary parameter" if of_bytes else words


def unknown(path: Path, thing: str, known: Collection[str], taker: str) -> Violation:
    """A name that nobody asked for.

    Args:
        path: Where it stands; the name is the last of it.
        thing: What it names.
        known: Names that could have been.
        taker: Begins a sentence that ends with these names, where none is near.
    """
    near = difflib.get_close_matches(str(path[-1])[:_LONGEST_NAME], known, n=1)
    names = _few(known) or f"no {thing}s"
    rest = f"did you mean {near[0]}?" if near else f"{taker} {names}"
    return Violation(field(path), f"unknown {thing}; {rest}")


def expected(kind: inspect.Type) -> str:
    """What a value should be, in a few words.

    Args:
        kind: Its type.
    """
    text = _choice(kind)
    if text is None:
        match = _EXPECTED.match(refusal(_NOTHING, hint_of(kind)) or "")
        text = match[1].replace("`", "") if match else "a value"
    return text


def field(path: Path) -> str:
    """The path as text, such as ``items[3].name``.

    Args:
        path: Names and indexes, the argument's name first.
    """
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
            continue
        name = redact(step, _LONGEST_NAME)
        if not text:
            text = name
        elif name.isidentifier():
            text += f".{name}"
        else:
            text += f"[{name!r}]"
    return text


def _parts(refused: str) -> tuple[str, str, str]:
    """Text, whether it is about a key, and the path inside the value."""
    match = _PARTS.fullmatch(refused)
    return match.groups("") if match else (refused, "", "")  # type: ignore[return-value]


def _choice(kind: inspect.Type) -> str | None:
    choices = _choices(kind)
    if not choices:
        return None
    return f"one of {_few(map(repr, choices))}"


def _few(names: Iterable[str]) -> str:
    shown = list(islice(names, _FEW + 1))
    shown[_FEW:] = ["…"] * (len(shown) - _FEW)
    return ", ".join(shown)


def _choices(kind: inspect.Type) -> list[object]:
    match kind:
        case inspect.Metadata():
            return _choices(kind.type)
        case inspect.LiteralType():
            return list(kind.values)
        case inspect.EnumType():
            return [member.value for member in kind.cls]
        case inspect.UnionType():
            return [choice for member in kind.types for choice in _choices(member)]
        case inspect.StructType():
            return [] if kind.tag is None else [kind.tag]
    return []


def _inside(value: Any, steps: list[tuple[str, str]]) -> Any:  # noqa: ANN401 - any JSON value
    """What lies at these steps; the nearest container where it cannot be told."""
    for name, index in steps:
        try:
            value = value[int(index)] if index else value[name]
        except (KeyError, IndexError, TypeError, ValueError):
            return value
    return value


def _preview(value: object) -> str:
    """A short form of what came; secrets go before it is cut."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} bytes"
    if isinstance(value, list | dict) and len(value) > _FEW:
        return f"{len(value)} of them"
    text = repr(redact_value(value, depth=1))
    return text if len(text) <= _PREVIEW else text[:_PREVIEW] + "…"
