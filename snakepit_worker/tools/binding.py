"""From a method's signature to validated arguments and a JSON Schema."""

from __future__ import annotations

import inspect
import typing
from collections import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from snakepit_worker.errors import InvalidArgument, StartError
from snakepit_worker.tools.context import CallContext
from snakepit_worker.tools.conversion import convert
from snakepit_worker.tools.filling import unfillable
from snakepit_worker.tools.nested_binary import has_places, placed
from snakepit_worker.tools.violations import Violations

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["RUNTIME_ARGUMENTS", "Signature"]

RUNTIME_ARGUMENTS: Final = ("session_id", "idempotent")
"""Arguments that the runtime itself consumes; tools never see them."""

_ENCODED_BYTES: Final = "contentEncoding"
"""What stands in a schema where there are bytes somewhere."""


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
        self._rest: Parameter | None = None
        """Stands for all arguments that no other parameter is for."""
        self._parameters: dict[str, Parameter] = {}
        try:
            hints = typing.get_type_hints(function, include_extras=True)
        except NameError as error:
            msg = f"tool {tool}: a type hint cannot be resolved: {error}"
            raise StartError(msg) from None
        for name, parameter in inspect.signature(function).parameters.items():
            if hints.get(name) is CallContext:
                if self.context_parameter is not None:
                    both = f"{self.context_parameter} and {name}"
                    msg = f"tool {tool}: {both} are both the CallContext; one is enough"
                    raise StartError(msg)
                self.context_parameter = name
                continue
            if parameter.kind is parameter.VAR_KEYWORD:
                self._rest = _parameter(tool, parameter, hints)
                continue
            self._parameters[name] = _parameter(tool, parameter, hints)
        self._places = {p.name for p in self._parameters.values() if has_places(p.hint)}
        self._required = {p.name for p in self._parameters.values() if p.required}
        self._returns = hints.get("return", Any)
        self._struct = self._define_struct()

    def bind(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Validated keyword arguments for the tool.

        Args:
            arguments: Decoded arguments of the call; those of the runtime are left out.

        Raises:
            InvalidArgument: Naming every argument that is wrong, missing or unknown.
        """
        if self._places:
            arguments = placed(arguments, self._places)
        bound: dict[str, Any] = {}
        for name, value in arguments.items():
            parameter = self._parameters.get(name) or self._for_the_rest(name)
            if parameter is None:
                if name in RUNTIME_ARGUMENTS:
                    continue
                raise self._refusal(arguments)
            if parameter.accepts is not None and type(value) is parameter.accepts:
                bound[name] = value
                continue
            try:
                bound[name] = convert(value, parameter.hint)
            except (msgspec.ValidationError, TypeError):
                raise self._refusal(arguments) from None
        if not arguments.keys() >= self._required:
            raise self._refusal(arguments)
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
        if self._rest is not None:
            schema["additionalProperties"] = msgspec.json.schema(self._rest.hint)
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

    def _for_the_rest(self, name: str) -> Parameter | None:
        # Python gives these two to the tool itself.
        if name in (*RUNTIME_ARGUMENTS, self.context_parameter, "self"):
            return None
        return self._rest

    def _define_struct(self) -> type[msgspec.Struct]:
        fields = [
            (p.name, p.hint) if p.required else (p.name, p.hint, p.default)
            for p in self._parameters.values()
        ]
        try:
            struct = msgspec.defstruct(
                "Arguments", fields, kw_only=True, forbid_unknown_fields=True
            )
            schema = msgspec.json.schema(struct)
        except (TypeError, ValueError) as error:
            msg = f"tool {self.tool}: its parameters cannot be described as JSON: {error}"
            raise StartError(msg) from None
        if _ENCODED_BYTES not in str(schema):
            return struct
        for parameter in self._parameters.values():
            place = None if parameter.accepts else unfillable(parameter.name, parameter.hint)
            if place is not None:
                msg = (
                    f"tool {self.tool}: {place} is bytes, which no JSON value can fill; make it a "
                    "parameter of its own, which callers send as a binary"
                )
                raise StartError(msg)
        return struct

    def _refusal(self, arguments: Mapping[str, Any]) -> InvalidArgument:
        """Looks at everything, which is only done once something is known to be wrong."""
        violations = Violations()
        for name, parameter in self._parameters.items():
            if name in arguments:
                violations.search(name, arguments[name], parameter.hint)
            elif parameter.required:
                violations.missing(name, parameter.hint)
        for name in arguments:
            if name in self._parameters or name in RUNTIME_ARGUMENTS:
                continue
            if (rest := self._for_the_rest(name)) is not None:
                violations.search(name, arguments[name], rest.hint)
            else:
                violations.unknown(name, self._parameters, self.tool)
        msg = f"wrong arguments for {self.tool}: {violations.text()}"
        return InvalidArgument(msg, violations=violations.kept())


def _parameter(tool: str, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Parameter:
    name = parameter.name
    if parameter.kind is parameter.VAR_POSITIONAL:
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


_PLAIN: Final = (str, int, bool, bytes, dict, list)
_STREAMS: Final = (
    abc.Iterator,
    abc.Iterable,
    abc.Generator,
    abc.AsyncIterator,
    abc.AsyncIterable,
    abc.AsyncGenerator,
)
