"""DSPy's public classes and functions, described as data."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any, Final

from snakepit_worker.errors import InvalidArgument, Violation

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["discover"]

_PACKAGE: Final = "dspy"
_SPECIAL: Final = ("__init__", "__call__")
_LONGEST: Final = 500
"""Characters of a docstring or of a default."""


def discover(module_path: str) -> dict[str, Any]:
    """The public names of a package of DSPy.

    Args:
        module_path: The package.  Nothing is imported: what DSPy has not imported is not there.

    Raises:
        InvalidArgument: When it is none of DSPy's, or a private one.
    """
    parts = module_path.split(".")
    module = sys.modules.get(module_path)
    if parts[0] != _PACKAGE or any(part.startswith("_") for part in parts) or module is None:
        known = sorted(
            name
            for name, found in sys.modules.items()
            if name.startswith(f"{_PACKAGE}.") and hasattr(found, "__path__") and "._" not in name
        )
        text = f"expected {_PACKAGE} or one of its packages: {', '.join(known)}"
        raise InvalidArgument(f"module_path: {text}", violations=[Violation("module_path", text)])
    schema = {}
    for name, found in sorted(vars(module).items()):
        if name.startswith("_") or not _is_own(found):
            continue
        if inspect.isclass(found):
            schema[name] = {"type": "class", **_about(found), "methods": _methods(found)}
        elif inspect.isroutine(found):
            schema[name] = {"type": "function", **_about(found), **_call(found)}
    return schema


def _is_own(found: object) -> bool:
    module = getattr(found, "__module__", None)
    return isinstance(module, str) and module.partition(".")[0] == _PACKAGE


def _about(found: object) -> dict[str, Any]:
    return {"docstring": _docstring(found), "module": getattr(found, "__module__", "")}


def _methods(found: type) -> dict[str, Any]:
    methods = {}
    for name, method in inspect.getmembers(found, inspect.isroutine):
        own = name in _SPECIAL or not name.startswith("_")
        # Methods that come from elsewhere, such as pydantic's, are not DSPy's to use.
        if own and _is_own(method):
            methods[name] = {**_call(method), "docstring": _docstring(method)}
    return methods


def _call(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return {"signature": "(*args, **kwargs)", "parameters": []}
    parameters = []
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        described: dict[str, Any] = {"name": parameter.name}
        if parameter.default is not parameter.empty:
            described["default"] = str(parameter.default)[:_LONGEST]
        if parameter.annotation is not parameter.empty:
            described["type"] = inspect.formatannotation(parameter.annotation)
        parameters.append(described)
    return {"signature": str(signature)[:_LONGEST], "parameters": parameters}


def _docstring(found: object) -> str:
    return (inspect.getdoc(found) or "").partition("\n\n")[0][:_LONGEST]
