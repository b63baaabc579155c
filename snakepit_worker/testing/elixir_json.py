"""JSON as the host reads and writes it, with the words of its library for what is wrong.

The host uses Jason, whose messages name the first byte that does not fit; a worker that sends a
packed message instead of JSON meets them (interop 5.3).
"""

from __future__ import annotations

import math
import re
from typing import Any, Final, NoReturn

import msgspec

from snakepit_worker.testing.elixir_terms import float_text, inspect

__all__ = ["JasonError", "NotJson", "decode", "encode"]

_decode = msgspec.json.Decoder().decode

_WHITE_SPACE: Final = re.compile(rb"[ \t\n\r]*")
_NUMBER: Final = re.compile(
    rb"-?(?:(?:0|[1-9][0-9]*)(?:\.(?:[0-9]+(?:[eE][+-]?[0-9]*)?)?|[eE][+-]?[0-9]*)?)?"
)
_WORD: Final = re.compile(rb"true|false|null")
_TEXT: Final = re.compile(rb'[^"\\\x00-\x1f]*')
_HEX: Final = re.compile(rb"[0-9a-fA-F]{4}")
_SIMPLE_ESCAPES: Final = b'btnfr"/\\'
_PRINTABLE: Final = frozenset((*range(0x20, 0x80), *b"\a\b\t\n\v\f\r\x1b"))
_CONTROL: Final = {
    **{chr(code): f"\\u{code:04X}" for code in range(0x20)},
    **dict(zip('\b\t\n\f\r"\\', (rf"\{letter}" for letter in 'btnfr"\\'), strict=True)),
}
_ESCAPE: Final = str.maketrans(_CONTROL)


class JasonError(ValueError):
    """Bytes that are not JSON; the text is the host's."""


class NotJson(TypeError):  # noqa: N818 - it is no failure: the host goes on with other text
    """A value that the host cannot write as JSON."""


def decode(data: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """The value of a JSON text.

    Raises:
        JasonError: When it is none.
        RecursionError: When it is nested deeper than Python goes; the host would go on.
    """
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        _Scanner(data).scan()
        raise


def encode(value: object) -> str:
    """A value as JSON text, the keys of objects sorted.

    Raises:
        NotJson: When the value, or a part of it, has no JSON form on the host.
    """
    if isinstance(value, str):
        return f'"{value.translate(_ESCAPE)}"'
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return float_text(value)
    if isinstance(value, list):
        return f"[{','.join(map(encode, value))}]"
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        items = sorted(value.items(), key=lambda item: item[0].encode())
        return f"{{{','.join(f'{encode(key)}:{encode(item)}' for key, item in items)}}}"
    raise NotJson(type(value).__name__)


class _Scanner:
    """Finds the first thing that is wrong with a text, from left to right.

    Args:
        data: The text.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._closers: list[bytes] = []

    def scan(self) -> None:
        """Go through the text.

        Raises:
            JasonError: At the first thing that is wrong.
        """
        while True:
            while not self._value():
                pass
            while self._closers and self._closes():
                pass
            if not self._closers:
                if self._next():
                    self._fail(self._at)
                return

    def _value(self) -> bool:
        """Read a value; False when it has only begun, and the first value inside it is next."""
        start = self._next()
        if start in {b"[", b"{"}:
            self._at += 1
            closer = b"]" if start == b"[" else b"}"
            if self._next() == closer:
                self._at += 1
                return True
            if start == b"{":
                self._key()
            self._closers.append(closer)
            return False
        if start == b'"':
            self._string()
        elif start and start in b"-0123456789":
            self._number()
        else:
            self._match(_WORD)
        return True

    def _closes(self) -> bool:
        """After a value: whether what it is in ends here; if not, the next value inside follows."""
        closer = self._closers[-1]
        found = self._next()
        if found not in {closer, b","}:
            self._fail(self._at)
        self._at += 1
        if found == closer:
            self._closers.pop()
            return True
        if closer == b"}":
            self._key()
        return False

    def _key(self) -> None:
        if self._next() != b'"':
            self._fail(self._at)
        self._string()
        if self._next() != b":":
            self._fail(self._at)
        self._at += 1

    def _number(self) -> None:
        begin = self._at
        token = self._match(_NUMBER)
        if not token[-1:].isdigit():
            self._fail(self._at)
        if not token.lstrip(b"-").isdigit() and not math.isfinite(float(token)):
            self._fail_token(begin, self._at)

    def _string(self) -> None:
        self._at += 1
        while True:
            begin = self._at
            try:
                self._match(_TEXT).decode()
            except UnicodeDecodeError as error:
                self._fail(begin + error.start)
            end = self._data[self._at : self._at + 1]
            if end == b'"':
                self._at += 1
                return
            if end != b"\\":
                self._fail(self._at)
            self._escape()

    def _escape(self) -> None:
        kind = self._data[self._at + 1 : self._at + 2]
        if kind == b"u":
            self._unicode_escape()
        elif not kind:
            self._fail(self._at)
        elif kind not in _SIMPLE_ESCAPES:
            self._fail(self._at + 1)
        else:
            self._at += 2

    def _unicode_escape(self) -> None:
        first = self._unit(self._at)
        if first & 0xFC00 == 0xDC00:  # noqa: PLR2004 - a low surrogate alone
            self._fail_token(self._at, self._at + 6)
        if first & 0xFC00 != 0xD800:  # noqa: PLR2004 - no high one either
            self._at += 6
            return
        second = self._at + 6
        if self._data[second : second + 2] != b"\\u" or len(self._data) < second + 6:
            self._fail(second)
        if self._unit(second) & 0xFC00 != 0xDC00:  # noqa: PLR2004 - not its other half
            self._fail_token(self._at, second + 6)
        self._at = second + 6

    def _unit(self, at: int) -> int:
        if len(self._data) < at + 6:
            self._fail(at)
        if not _HEX.match(self._data, at + 2):
            self._fail_token(at, at + 6)
        return int(self._data[at + 2 : at + 6], 16)

    def _next(self) -> bytes:
        """The next byte that is not white space, empty at the end."""
        self._match(_WHITE_SPACE)
        return self._data[self._at : self._at + 1]

    def _match(self, pattern: re.Pattern[bytes]) -> bytes:
        found = pattern.match(self._data, self._at)
        if found is None:
            self._fail(self._at)
        self._at = found.end()
        return found[0]

    def _fail(self, position: int) -> NoReturn:
        if position == len(self._data):
            raise JasonError(f"unexpected end of input at position {position}")
        byte = self._data[position]
        shown = f" ({inspect(chr(byte))})" if byte in _PRINTABLE else ""
        raise JasonError(f"unexpected byte at position {position}: 0x{byte:X}{shown}")

    def _fail_token(self, begin: int, end: int) -> NoReturn:
        token = self._data[begin:end]
        raise JasonError(f"unexpected sequence at position {begin}: {inspect(token)}")
