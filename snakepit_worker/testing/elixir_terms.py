"""Elixir's text for a term, as ``inspect`` gives it.

The host falls back to it wherever a value is not JSON: results of tools, metadata, reasons of
failures.  Python values stand for terms: a tuple for a tuple, bytes for a binary that is not text,
`Inspect` for everything that Python has no word for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Inspect", "float_text", "inspect", "plain_text"]

_WORDS: Final = {None: "nil", True: "true", False: "false"}
_ESCAPES: Final = {
    "\0": r"\0",
    "\a": r"\a",
    "\b": r"\b",
    "\t": r"\t",
    "\n": r"\n",
    "\v": r"\v",
    "\f": r"\f",
    "\r": r"\r",
    "\x1b": r"\e",
    "\x7f": r"\d",
    '"': r"\"",
    "\\": r"\\",
}
_ONE_BYTE: Final = 0x100
_EXACT: Final = float(1 << 53)
"""From here on not every whole number is a float, and Erlang writes an exponent."""


@dataclass(frozen=True, slots=True)
class Inspect:
    """A term that Python has no value for, by its text: ``Inspect("{:ok, 3}")``.

    Attributes:
        text: What ``inspect`` gives for it.
    """

    text: str


def inspect(value: object) -> str:
    """The text of a term.

    Unlike Elixir's it has no limit of fifty items.

    Args:
        value: JSON values, tuples, bytes and `Inspect`.

    Raises:
        TypeError: For a value that stands for no term.
    """
    if isinstance(value, Inspect):
        return value.text
    if value is None or isinstance(value, bool):
        return _WORDS[value]
    if isinstance(value, int | float):
        return float_text(value) if isinstance(value, float) else str(value)
    if isinstance(value, str | bytes):
        return _quoted(value) if isinstance(value, str) else _binary(value)
    return _collection(value)


def plain_text(value: object) -> str:
    """A term in a place where only text fits: text as it is, everything else inspected."""
    return value if isinstance(value, str) else inspect(value)


def float_text(value: float) -> str:
    """A float in the shorter of its two notations, as Erlang writes it: ``1.0e3``, ``100.0``.

    Raises:
        TypeError: For infinities and NaN, which are no floats over there.
    """
    if not math.isfinite(value):
        msg = f"{value} is no term"
        raise TypeError(msg)
    sign = "-" if math.copysign(1.0, value) < 0 else ""
    number = Decimal(repr(abs(value))).normalize().as_tuple()
    digits = "".join(map(str, number.digits))
    point = len(digits) + int(number.exponent)  # the value is 0.digits times ten to this power
    if value == 0:
        return f"{sign}0.0"
    if 0 < point < len(digits):
        return f"{sign}{digits[:point]}.{digits[point:]}"
    scientific = f"{sign}{digits[0]}.{digits[1:] or '0'}e{point - 1}"
    if point <= 0:
        decimal = f"{sign}0.{'0' * -point}{digits}"
    else:
        decimal = f"{sign}{digits}{'0' * (point - len(digits))}.0"
    too_large = point > 0 and abs(value) >= _EXACT
    return scientific if too_large or len(scientific) < len(decimal) else decimal


def _collection(value: object) -> str:
    if isinstance(value, dict):
        items = ", ".join(f"{inspect(key)} => {inspect(item)}" for key, item in _sorted(value))
        return f"%{{{items}}}"
    if isinstance(value, tuple):
        return f"{{{_joined(value)}}}"
    if isinstance(value, list):
        if value and all(type(item) is int and _is_printable_ascii(item) for item in value):
            return f"~c{_quoted(''.join(map(chr, value)))}"  # a list of characters, it thinks
        return f"[{_joined(value)}]"
    msg = f"{type(value).__name__} stands for no term"
    raise TypeError(msg)


def _joined(items: Iterable[object]) -> str:
    return ", ".join(map(inspect, items))


def _sorted(mapping: Mapping[object, object]) -> list[tuple[object, object]]:
    """The entries in the order of small maps, by key; larger ones have none that one could name."""
    return sorted(mapping.items(), key=lambda entry: plain_text(entry[0]).encode())


def _is_printable_ascii(code: int) -> bool:
    return 0 < code < _ONE_BYTE and (chr(code) in _ESCAPES or 0x20 <= code <= 0x7E)  # noqa: PLR2004


def _quoted(text: str) -> str:
    return f'"{"".join(map(_character, text))}"'.replace("#{", r"\#{")


def _character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02X}" if code < _ONE_BYTE else f"\\x{{{code:X}}}"


def _binary(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\ufffe"
    if all(character in _ESCAPES or character.isprintable() for character in text):
        return _quoted(text)
    return f"<<{', '.join(map(str, data))}>>"
