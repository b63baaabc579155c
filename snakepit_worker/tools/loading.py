"""Where adapters come from: entry points by name, classes by dotted path."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Final

from snakepit_worker.errors import StartError
from snakepit_worker.tools.api import Adapter
from snakepit_worker.tools.foreign import ForeignAdapter, is_foreign

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["ENTRY_POINT_GROUP", "load"]

_SNAKEPIT: Final = "snakepit_bridge"
_BASE: Final = "snakepit_bridge.base_adapter"
_GENERATED_BASE: Final = "snakepit_bridge.adapters.base"
_WHATEVER: Final = (Exception, SystemExit)
"""What the code of an adapter may raise; one that exits must not decide our exit status."""
ENTRY_POINT_GROUP: Final = "snakepit_worker.adapters"


def load(name: str, *, thread_safe: bool = False) -> Adapter | ForeignAdapter:
    """Import an adapter and make its one instance.

    Args:
        name: An entry-point name such as ``dspy``, or a dotted class path such as
            ``my_package.my_module.MyAdapter``.
        thread_safe: Whether a class written for Snakepit's own worker has to say that it allows
            concurrent calls.

    Returns:
        The adapter; a class written for Snakepit's own worker is wrapped, and built per request.

    Raises:
        StartError: When it cannot be imported or is not an adapter; the message names the cause.
    """
    found = _class(name) if "." in name else _entry_point(name)
    if is_foreign(found):
        return ForeignAdapter(found, name, must_be_thread_safe=thread_safe)
    if not (isinstance(found, type) and issubclass(found, Adapter)):
        msg = (
            f"adapter {name}: {found!r} is neither a subclass of snakepit_worker.Adapter nor a "
            "class with execute_tool or with methods that carry Snakepit's tool decorator"
        )
        raise StartError(msg)
    try:
        return found()
    except _WHATEVER as error:
        msg = f"adapter {name}: {found.__name__}() failed: {_cause(error)}"
        raise StartError(msg) from error


def _entry_point(name: str) -> object:
    from importlib import metadata  # noqa: PLC0415 - class paths are ready sooner without it

    entry_points = metadata.entry_points(group=ENTRY_POINT_GROUP)
    for entry_point in entry_points:
        if entry_point.name == name:
            try:
                return entry_point.load()
            except _WHATEVER as error:
                msg = f"adapter {name} ({entry_point.value}) cannot be imported: {_cause(error)}"
                raise StartError(msg) from error
    known = ", ".join(sorted({entry_point.name for entry_point in entry_points})) or "none"
    msg = (
        f"unknown adapter {name!r}; installed are: {known}; an adapter of your own is given as "
        "package.module.ClassName"
    )
    raise StartError(msg)


def _class(path: str) -> object:
    module_name, _, class_name = path.rpartition(".")
    # As for a script: what lies in the working directory can be imported.
    if os.getcwd() not in sys.path and "" not in sys.path:  # noqa: PTH109 - sys.path holds text
        sys.path.append(os.getcwd())  # noqa: PTH109
    try:
        module = _module(module_name)
    except _WHATEVER as error:
        msg = f"adapter {path}: module {module_name} cannot be imported: {_cause(error)}"
        if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith(_SNAKEPIT):
            msg += (
                "; it needs Snakepit's own Python package: put the folder priv/python of the "
                "snakepit dependency on PYTHONPATH, as the host does"
            )
        raise StartError(msg) from error
    found = getattr(module, class_name, None)
    if found is None:
        msg = f"adapter {path}: module {module_name} has no {class_name}"
        raise StartError(msg)
    return found


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != _GENERATED_BASE:
            raise
    # Adapters made by Snakepit's generator import a module that its package does not have.
    sys.modules[_GENERATED_BASE] = importlib.import_module(_BASE)
    return importlib.import_module(name)


def _cause(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
