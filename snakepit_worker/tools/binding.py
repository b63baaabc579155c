"""From a method's signature to validated arguments and a JSON Schema."""

from __future__ import annotations

import difflib
import inspect
import re
import typing
from collections import abc
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from snakepit_worker.errors import InvalidArgument, StartError, Violation
from snakepit_worker.tools.context import CallContext
from snakepit_worker.wire.redaction import is_secret, redact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["RUNTIME_ARGUMENTS", "Signature"]

RUNTIME_ARGUMENTS: Final = ("session_id", "idempotent")
"""Arguments that the runtime itself consumes; tools never see them."""

_BINARY: Final = (bytes, bytearray, memoryview)
"""Given as binary parameters only: a JSON string is never taken for base64."""

_PREVIEW: Final = 60
_ENOUGH: Final = 50
"""Violations that are collected; what sends more is no mistake of a person."""
_LONGEST_NAME: Final = 100
_FEW: Final = 20
_LONGEST_LOOK: Final = 4_096
_STEP: Final = re.compile(r"\.(\w+)|\[(\d+|\.\.\.)\]")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument of a tool."""

    name: str
    hint: Any
    required: bool
    default: object
    accepts: type | None
    """A class whose instances need no further look, for hints that are plain classes."""


class Signature:
    """How a tool is called.

    Args:
        function: The tool, bound to its adapter.
        tool: Its name, for messages.

    Raises:
        StartError: When the signature cannot be served: no hint, or one that JSON cannot fill.
    """

    def __init__(self, function: Callable[..., Any], tool: str) -> None:
        self.tool = tool
        self.context_parameter: str | None = None
        self._parameters: dict[str, Parameter] = {}
        try:
            hints = typing.get_type_hints(function, include_extras=True)
        except NameError as error:
            msg = f"tool {tool}: a type hint cannot be resolved: {error}"
            raise StartError(msg) from None
        for name, parameter in inspect.signature(function).parameters.items():
            if hints.get(name) is CallContext:
                self.context_parameter = name
                continue
            self._parameters[name] = _parameter(tool, parameter, hints)
        self._required = [p.name for p in self._parameters.values() if p.required]
        self._returns = hints.get("return", Any)
        self._struct = self._define_struct()

    def bind(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Validated keyword arguments for the tool.

        Args:
            arguments: Decoded arguments of the call; those of the runtime are left out.

        Raises:
            InvalidArgument: Naming every argument that is wrong, missing or unknown.
        """
        bound: dict[str, Any] = {}
        violations: list[Violation] = []
        for name, value in arguments.items():
            if len(violations) >= _ENOUGH:
                break
            parameter = self._parameters.get(name)
            if parameter is None:
                if name in RUNTIME_ARGUMENTS:
                    continue
                violations.append(Violation(name, self._unknown(name)))
            elif parameter.accepts is not None and type(value) is parameter.accepts:
                bound[name] = value
            else:
                try:
                    bound[name] = msgspec.convert(value, parameter.hint, builtin_types=_BINARY)
                except msgspec.ValidationError as error:
                    violations.append(_violation(parameter, value, error))
        violations += [
            Violation(name, f"expected {self._expected(name)}, got nothing")
            for name in self._required
            if name not in arguments
        ]
        if violations:
            order = list(self._parameters)
            violations.sort(key=lambda v: _position(v.field, order))  # arguments come in any order
            text = "; ".join(f"{v.field}: {v.description}" for v in violations)
            msg = f"wrong arguments for {self.tool}: {text}"
            raise InvalidArgument(msg, violations=violations)
        return bound

    def schema(self) -> dict[str, Any]:
        """JSON Schema of the arguments."""
        schemas, components = msgspec.json.schema_components(
            [self._struct], ref_template="#/$defs/{name}"
        )
        name = schemas[0]["$ref"].rpartition("/")[2]
        schema: dict[str, Any] = components.pop(name)
        schema.pop("title", None)
        if components:
            schema["$defs"] = components
        return schema

    def returns(self) -> dict[str, Any]:
        """JSON Schema of the result, or of each item of a stream; empty where it cannot be told."""
        hint = self._returns
        if typing.get_origin(hint) in _STREAMS:
            hint = typing.get_args(hint)[0]
        try:
            return msgspec.json.schema(hint)
        except (TypeError, ValueError):
            return {}

    def _define_struct(self) -> type[msgspec.Struct]:
        fields = [
            (p.name, p.hint) if p.required else (p.name, p.hint, p.default)
            for p in self._parameters.values()
        ]
        try:
            struct = msgspec.defstruct(
                "Arguments", fields, kw_only=True, forbid_unknown_fields=True
            )
            msgspec.json.schema(struct)
        except (TypeError, ValueError) as error:
            msg = f"tool {self.tool}: its parameters cannot be described as JSON: {error}"
            raise StartError(msg) from None
        return struct

    def _expected(self, name: str) -> str:
        hint = self._parameters[name].hint
        try:
            msgspec.convert(_NOTHING, hint)
        except msgspec.ValidationError as error:
            match = _EXPECTED.match(str(error))
            if match:
                return match[1].replace("`", "")
        return "a value"

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name[:_LONGEST_NAME], self._parameters, n=1)
        if near:
            return f"unknown argument; did you mean {near[0]}?"
        known = ", ".join(self._parameters) or "no arguments"
        return f"unknown argument; {self.tool} takes {known}"


def _parameter(tool: str, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Parameter:
    name = parameter.name
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        msg = f"tool {tool}: *{name} cannot be described; name each parameter"
        raise StartError(msg)
    if parameter.kind is parameter.POSITIONAL_ONLY:
        msg = f"tool {tool}: parameter {name} is positional-only; arguments come by name"
        raise StartError(msg)
    if name in RUNTIME_ARGUMENTS:
        msg = f"tool {tool}: parameter {name} belongs to the runtime; ask the CallContext instead"
        raise StartError(msg)
    if name not in hints:
        msg = f"tool {tool}: parameter {name} has no type hint"
        raise StartError(msg)
    hint = hints[name]
    required = parameter.default is parameter.empty
    accepts = hint if hint in _PLAIN else None
    return Parameter(name, hint, required, None if required else parameter.default, accepts)


def _violation(parameter: Parameter, value: object, error: msgspec.ValidationError) -> Violation:
    text, _, path = str(error).partition(" - at `$")
    path = path.removesuffix("`")
    expected, _, kind = text.replace("`", "").partition(", got ")
    expected = expected[:1].lower() + expected[1:]
    if text.startswith("Invalid enum value"):
        choices = _choices(parameter.hint)
        expected = f"expected one of {', '.join(map(repr, choices))}" if choices else expected
    description = expected
    if is_secret(parameter.name):
        return Violation(parameter.name + path, description)
    came = _preview(_inside(value, path))
    description += f", got {kind} ({came})" if kind else f", got {came}"
    return Violation(parameter.name + path, description)


def _position(field: str, order: list[str]) -> tuple[int, str]:
    """By signature; what is unknown comes last."""
    name = re.split(r"[.\[]", field, maxsplit=1)[0]
    return (order.index(name) if name in order else len(order), field)


def _choices(hint: Any) -> list[Any]:  # noqa: ANN401 - any type hint
    """The values that a Literal or an Enum allows, wherever it stands in the hint."""
    if typing.get_origin(hint) is typing.Literal:
        return list(typing.get_args(hint))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return [member.value for member in hint]
    return [choice for part in typing.get_args(hint) for choice in _choices(part)]


def _inside(value: Any, path: str) -> Any:  # noqa: ANN401 - any JSON value
    """What lies at a path such as ``[1].name``; the nearest container where it cannot be told."""
    for key, index in _STEP.findall(path):
        try:
            value = value[int(index)] if index else value[key]
        except (KeyError, IndexError, TypeError, ValueError):
            return value
    return value


def _preview(value: object) -> str:
    """A short form of what came; secrets go before it is cut."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} bytes"
    if isinstance(value, list | dict) and len(value) > _FEW:
        return f"{len(value)} of them"
    text = redact(repr(value)[:_LONGEST_LOOK])
    return text if len(text) <= _PREVIEW else text[:_PREVIEW] + "…"


_PLAIN: Final = (str, int, bool, bytes, dict, list)
_NOTHING: Final = object()
_EXPECTED: Final = re.compile(r"Expected (.+), got ")
_STREAMS: Final = (
    abc.Iterator,
    abc.Iterable,
    abc.Generator,
    abc.AsyncIterator,
    abc.AsyncIterable,
    abc.AsyncGenerator,
)
