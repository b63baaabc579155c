"""The types that a signature may name: a closed list, read by a parser of its own.

DSPy resolves type names in the frames of its callers and imports the modules that they mention.
Text from another process must not reach that, so types are read here and handed over as objects.

    type     = member { "|" member }
    member   = "str" | "int" | "float" | "bool" | "Any" | "None"
             | "date" | "datetime" | "time"
             | "Image" | "Audio" | "History" | the name of a type of the signature's own
             | "list" [ "[" type "]" ]
             | "dict" [ "[" "str" "," type "]" ]
             | "Optional" "[" type "]"
             | "Union" "[" type { "," type } "]"
             | "Literal" "[" constant { "," constant } "]"
    constant = a string without backslashes | a whole number | "True" | "False" | "None"
"""

from __future__ import annotations

import datetime as dt
import functools
import operator
import re
from dataclasses import dataclass
from types import GenericAlias, MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import dspy

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RESERVED_TYPES", "FieldType", "GrammarError", "Media", "Reader", "read_type"]

Media = Literal["Image", "Audio", "History"]
"""Types whose values DSPy has classes of its own for; only inputs have them."""

_TOKEN: Final = re.compile(
    r"""
        (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>-?[0-9]{1,18}(?![0-9]))
      | (?P<string>'[^'\\\n]*'|"[^"\\\n]*")
      | (?P<mark>->|[\[\],:|])
    """,
    re.VERBOSE,
)
_SPACE: Final = re.compile(r"\s*")
_MAX_LENGTH: Final = 10_000
_MAX_DEPTH: Final = 16


class GrammarError(Exception):
    """Text that the grammar does not know.

    Args:
        message: What was expected and what came.
        position: Characters before the place, which the message counts from one; ``None`` when it
            is not about a place in a text.
    """

    def __init__(self, message: str, position: int | None) -> None:
        super().__init__(message if position is None else f"{message} at character {position + 1}")


@dataclass(frozen=True, slots=True)
class FieldType:
    """A type in both forms.

    Attributes:
        text: How the grammar writes it.
        annotation: The object by which Python, and so DSPy, knows it.
        members: The alternatives of a union; empty for other types.
        converted: Whether JSON has no such values, so that some of them are read from texts or
            objects.
        media: What kind of media its values hold, if any.
    """

    text: str
    annotation: Any
    members: tuple[FieldType, ...] = ()
    converted: bool = False
    media: Media | None = None

    @property
    def optional(self) -> bool:
        """Whether ``None`` is one of its values."""
        return self in (_ANY, _NONE) or _NONE in self.members


_ANY: Final = FieldType("Any", Any)
_NONE: Final = FieldType("None", None)
_PLAIN: Final = {
    "str": FieldType("str", str),
    "int": FieldType("int", int),
    "float": FieldType("float", float),
    "bool": FieldType("bool", bool),
    "Any": _ANY,
    "None": _NONE,
    "date": FieldType("date", dt.date, converted=True),
    "datetime": FieldType("datetime", dt.datetime, converted=True),
    "time": FieldType("time", dt.time, converted=True),
    "Image": FieldType("Image", dspy.Image, media="Image"),
    "Audio": FieldType("Audio", dspy.Audio, media="Audio"),
    "History": FieldType("History", dspy.History, media="History"),
}
_NAMES: Final = (*_PLAIN, "list", "dict", "Optional", "Union", "Literal")
RESERVED_TYPES: Final = frozenset(_NAMES)
"""Names that a type of a caller's own cannot have."""
_OWN: Final[Mapping[str, FieldType]] = MappingProxyType({})
_CONSTANTS: Final = {"True": True, "False": False, "None": None}


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


class Reader:
    """Reads a text token by token.

    Args:
        text: A signature or a type.
        own: Types of the signature's own, by name.

    Raises:
        GrammarError: When the text is too long, or a character of it begins no token.
    """

    def __init__(self, text: str, own: Mapping[str, FieldType] = _OWN) -> None:
        if len(text) > _MAX_LENGTH:
            raise GrammarError(f"expected at most {_MAX_LENGTH} characters, got more", _MAX_LENGTH)
        self._tokens = _tokens(text)
        self._own = own
        self._index = 0
        self._depth = 0

    @property
    def position(self) -> int:
        """Characters before the next token."""
        return self._next.position

    @property
    def at_end(self) -> bool:
        """Whether everything is read."""
        return self._next.kind == "end"

    def accept(self, mark: str) -> bool:
        """Read the mark if it comes next."""
        if self._next[:2] != ("mark", mark):
            return False
        self._index += 1
        return True

    def expect(self, mark: str) -> None:
        """Read the mark.

        Raises:
            GrammarError: When something else comes.
        """
        if not self.accept(mark):
            raise self.unexpected(repr(mark))

    def name(self, what: str) -> str:
        """Read a name; ``what`` tells in an error what it would have been.

        Raises:
            GrammarError: When something else comes.
        """
        if self._next.kind != "name":
            raise self.unexpected(what)
        return self._take()

    def type(self) -> FieldType:
        """Read a type.

        Raises:
            GrammarError: When there is none, or none on the list.
        """
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise GrammarError(f"expected at most {_MAX_DEPTH} levels of types", self.position)
        position = self.position
        members = [self._member()]
        while self.accept("|"):
            members.append(self._member())
        self._depth -= 1
        return _union(members, position)

    def unexpected(self, expected: str) -> GrammarError:
        """The error for a next token that does not belong here."""
        got = "the end" if self.at_end else repr(self._next.text)
        return GrammarError(f"expected {expected}, got {got}", self.position)

    @property
    def _next(self) -> _Token:
        return self._tokens[self._index]

    def _take(self) -> str:
        text = self._next.text
        self._index += 1
        return text

    def _member(self) -> FieldType:
        position = self.position
        name = self.name("a type")
        if name in _PLAIN:
            return _PLAIN[name]
        if name in self._own:
            return self._own[name]
        if name == "list":
            return self._list()
        if name == "dict":
            return self._dict()
        if name not in _NAMES:
            known = ", ".join((*_NAMES, *self._own))
            raise GrammarError(f"expected one of {known}, got {name!r}", position)
        self.expect("[")
        if name == "Literal":
            return self._literal()
        members = [self.type()]
        while name == "Union" and self.accept(","):
            members.append(self.type())
        self.expect("]")
        return _union(members if name == "Union" else [*members, _NONE], position)

    def _list(self) -> FieldType:
        item = _ANY
        if self.accept("["):
            item = self.type()
            self.expect("]")
        return FieldType(
            f"list[{item.text}]",
            GenericAlias(list, (item.annotation,)),
            converted=item.converted,
            media=item.media,
        )

    def _dict(self) -> FieldType:
        value = _ANY
        if self.accept("["):
            if self._next.text != "str":
                raise self.unexpected("'str', as keys are in JSON")
            self._take()
            self.expect(",")
            value = self.type()
            self.expect("]")
        return FieldType(
            f"dict[str, {value.text}]",
            GenericAlias(dict, (str, value.annotation)),
            converted=value.converted,
            media=value.media,
        )

    def _literal(self) -> FieldType:
        constants = [self._constant()]
        while self.accept(","):
            constants.append(self._constant())
        self.expect("]")
        text = ", ".join(repr(constant) for constant in constants)
        return FieldType(f"Literal[{text}]", Literal[tuple(constants)])

    def _constant(self) -> str | int | bool | None:
        if self._next.kind == "string":
            return self._take()[1:-1]
        if self._next.kind == "number":
            return int(self._take())
        if self._next.text in _CONSTANTS:
            return _CONSTANTS[self._take()]
        raise self.unexpected("a string, a whole number, True, False or None")


def read_type(text: str, own: Mapping[str, FieldType] = _OWN) -> FieldType:
    """The type that a text names.

    Args:
        text: The text.
        own: Types of the signature's own, by name.

    Raises:
        GrammarError: When it names none on the list.
    """
    reader = Reader(text, own)
    field_type = reader.type()
    if not reader.at_end:
        raise reader.unexpected("the end")
    return field_type


def _tokens(text: str) -> list[_Token]:
    tokens = []
    position = _skip_space(text, 0)
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise GrammarError(
                f"expected a name, a type or a mark, got {text[position]!r}", position
            )
        tokens.append(_Token(str(match.lastgroup), match[0], position))
        position = _skip_space(text, match.end())
    return [*tokens, _Token("end", "", len(text))]


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _union(types: list[FieldType], position: int) -> FieldType:
    """One type of several: nested unions made flat, each member once, in order."""
    members: dict[FieldType, None] = {}
    for field_type in types:
        members.update(dict.fromkeys(field_type.members or (field_type,)))
    if len(members) == 1:
        return next(iter(members))
    media = next((member.media for member in members if member.media), None)
    if media is not None and any(m != _NONE and m.media is None for m in members):
        raise GrammarError(f"expected {media} alone or with None", position)
    text = " | ".join(member.text for member in members)
    annotation = functools.reduce(operator.or_, (member.annotation for member in members))
    converted = any(member.converted for member in members)
    return FieldType(text, annotation, tuple(members), converted, media)
