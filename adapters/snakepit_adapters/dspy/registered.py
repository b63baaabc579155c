"""Modules of the operator's own: classes on a list, and nothing else."""

from __future__ import annotations

import inspect
import typing
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import dspy

from snakepit_adapters.dspy.operator_lists import listed
from snakepit_adapters.dspy.signatures import Field, Signature
from snakepit_adapters.dspy.type_grammar import FieldType
from snakepit_worker.errors import InvalidArgument, NotFound, StartError, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["VARIABLE", "make", "names", "registered", "signature_of"]

VARIABLE: Final = "SNAKEPIT_DSPY_MODULES"
"""Environment variable: ``name=package.module:Class``, several with commas between them."""

_classes: Final[dict[str, type[Any]]] = {}
_ANYTHING: Final = FieldType("Any", Any)


@contextmanager
def registered(environment: Mapping[str, str]) -> Iterator[None]:
    """Import the classes that the operator has named, for the length of the block.

    Args:
        environment: Where the variable is looked up.

    Raises:
        StartError: When the list cannot be read, or a class is not there or no module.
    """
    for name, path, found in listed(VARIABLE, "Class", environment):
        if not (isinstance(found, type) and issubclass(found, dspy.Module)):
            raise StartError(f"{VARIABLE}: {name}: {path} is no dspy.Module")
        _classes[name] = found
    try:
        yield
    finally:
        _classes.clear()


def names() -> list[str]:
    """The names on the list."""
    return sorted(_classes)


def make(name: str, arguments: Mapping[str, Any]) -> Any:  # noqa: ANN401 - DSPy has no types
    """A module of a class on the list.

    Args:
        name: What the operator calls the class.
        arguments: Keyword arguments for it.

    Raises:
        NotFound: When no class is called so.
        InvalidArgument: When the class refuses the arguments.
    """
    found = _classes.get(name)
    if found is None:
        known = ", ".join(names()) or "none"
        raise NotFound(
            f"no module {name!r} is registered; registered: {known}",
            help=f"the operator of the worker registers classes in {VARIABLE}",
        )
    try:
        return found(**arguments)
    except (TypeError, ValueError) as error:
        text = f"{name} refuses them: {error}"
        violation = Violation("options.arguments", text)
        raise InvalidArgument(f"options.arguments: {text}", violations=[violation]) from error


def signature_of(module: Any) -> Signature:  # noqa: ANN401 - DSPy has no types
    """What a module takes and gives, as far as it says.

    That is its attribute ``signature``; without one, its inputs are the parameters of ``forward``
    and its outputs whatever it gives.

    Args:
        module: The module.
    """
    declared: Any = getattr(module, "signature", None)
    if hasattr(declared, "input_fields"):
        return Signature(
            tuple(_field(*item) for item in declared.input_fields.items()),
            tuple(_field(*item) for item in declared.output_fields.items()),
            declared.instructions,
        )
    forward = type(module).aforward if hasattr(type(module), "aforward") else type(module).forward
    try:
        hints = typing.get_type_hints(forward)
    except Exception:  # noqa: BLE001 - hints are hints
        hints = {}
    inputs = []
    for parameter in list(inspect.signature(forward).parameters.values())[1:]:
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        hint = hints.get(parameter.name, Any)
        if parameter.default is not parameter.empty:
            hint = hint | None if hint is not Any else hint
        inputs.append(Field(parameter.name, _type(hint)))
    return Signature(tuple(inputs), ())


def _field(name: str, info: Any) -> Field:  # noqa: ANN401 - pydantic's description of a field
    extra = info.json_schema_extra or {}
    desc = extra.get("desc")
    return Field(name, _type(info.annotation), None if desc == f"${{{name}}}" else desc)


def _type(hint: Any) -> FieldType:  # noqa: ANN401 - any type hint
    if hint is Any:
        return _ANYTHING
    members = typing.get_args(hint) if type(None) in typing.get_args(hint) else ()
    none = (FieldType("None", None),) if members else ()
    media = {dspy.Image: "Image", dspy.Audio: "Audio", dspy.History: "History"}
    kinds = [media[m] for m in (hint, *typing.get_args(hint)) if m in media]
    text = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    return FieldType(
        text.replace("typing.", ""),
        hint,
        none,
        converted=not kinds and hint not in (str, int, float, bool),
        media=typing.cast("Any", kinds[0]) if kinds else None,
    )
