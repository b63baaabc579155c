"""Adapters that were written for Snakepit's own Python worker.

Such a class is built once per request and answers to any tool name.  It may inherit from
Snakepit's base classes, or from nothing; it has ``execute_tool(tool_name, arguments, context)``,
or only methods that carry Snakepit's decorator (interop section 8).
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from snakepit_worker.errors import NotFound, StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ForeignAdapter", "is_foreign"]

_TOOL_ATTRIBUTE: Final = "_tool_metadata"
"""Set on a function by the decorator of Snakepit's base class."""
_THREAD_SAFE: Final = "__thread_safe__"


def is_foreign(found: object) -> TypeGuard[type]:
    """Whether this is a class that can serve as such an adapter."""
    return inspect.isclass(found) and (
        callable(getattr(found, "execute_tool", None)) or bool(_decorated(found))
    )


class ForeignAdapter:
    """A class, and how its instances are called.

    Args:
        kind: The class.
        path: Dotted path under which it was found.
        must_be_thread_safe: Whether requests are served at the same time because the operator
            asked for it.

    Raises:
        StartError: When it would have to be thread-safe and does not say that it is.
    """

    def __init__(self, kind: type, path: str, *, must_be_thread_safe: bool) -> None:
        self.kind = kind
        self.path = path
        if must_be_thread_safe and not getattr(kind, _THREAD_SAFE, False):
            msg = (
                f"adapter {path}: --max-workers asks for concurrent calls, and {kind.__name__} "
                f"does not say that it allows them; set {_THREAD_SAFE} = True on it if it does"
            )
            raise StartError(msg)

    @property
    def is_async(self) -> bool:
        """Whether its tools are coroutines, which take no thread while they wait."""
        return inspect.iscoroutinefunction(getattr(self.kind, "execute_tool", None))

    def build(self, context: object) -> Any:  # noqa: ANN401 - an instance of the class
        """An instance for one request.

        Args:
            context: Handed to ``set_session_context`` where the class has it.
        """
        instance = self.kind()
        set_context = getattr(instance, "set_session_context", None)
        if set_context is not None:
            set_context(context)
        return instance

    def execute(
        self, instance: object, tool: str, arguments: Mapping[str, Any], context: object
    ) -> Any:  # noqa: ANN401 - whatever the tool returns
        """Run a tool: through ``execute_tool``, ``call_tool``, or the decorated method itself.

        Args:
            instance: What ``build`` gave.
            tool: Its name.
            arguments: As they came.
            context: The session context.

        Raises:
            NotFound: When the class has only decorated methods, and none of this name.
        """
        execute = getattr(instance, "execute_tool", None)
        if execute is not None:
            return execute(tool_name=tool, arguments=arguments, context=context)
        if tool not in _decorated(self.kind):
            known = ", ".join(_decorated(self.kind))
            raise NotFound(f"{self.kind.__name__} has no tool {tool!r}; it has: {known}")
        call = getattr(instance, "call_tool", None)
        if call is None or _first_parameter(call) in arguments:  # where the two would collide
            return getattr(instance, tool)(**arguments)
        return call(tool, **arguments)


def _first_parameter(function: Callable[..., Any]) -> str | None:
    return next(iter(inspect.signature(function).parameters), None)


def _decorated(kind: object) -> dict[str, Callable[..., Any]]:
    return {
        name: function
        for name, function in inspect.getmembers(kind, callable)
        if hasattr(function, _TOOL_ATTRIBUTE)
    }
