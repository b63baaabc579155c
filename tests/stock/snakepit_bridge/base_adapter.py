from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import snakepit_bridge_pb2 as pb

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class ToolMetadata:
    description: str = ""
    supports_streaming: bool = False
    parameters: list[Any] = field(default_factory=list)
    required_variables: list[str] = field(default_factory=list)


def tool(
    description: str = "",
    supports_streaming: bool = False,  # noqa: FBT001, FBT002 - the interface
    required_variables: list[str] | None = None,
) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        text = description or inspect.getdoc(function) or ""
        metadata = ToolMetadata(text, supports_streaming, [], required_variables or [])
        function._tool_metadata = metadata  # type: ignore[attr-defined]
        return function

    return decorate


class BaseAdapter:
    def __init__(self) -> None:
        self._tools_cache: list[Any] | None = None
        self._session_context: Any = None

    @property
    def session_id(self) -> str | None:
        context = getattr(self, "session_context", None) or self._session_context
        return context.session_id if context is not None else None

    def set_session_context(self, context: Any) -> None:
        self.session_context = self._session_context = context

    def get_tools(self) -> list[Any]:
        if self._tools_cache is None:
            self._tools_cache = [
                self._registration(name, method, method._tool_metadata)
                for name, method in inspect.getmembers(self, inspect.ismethod)
                if hasattr(method, "_tool_metadata")
            ]
            execute = getattr(self, "execute_tool", None)
            if execute is not None and not hasattr(execute, "_tool_metadata"):
                self._tools_cache.append(pb.ToolRegistration(name="execute_tool"))
        return self._tools_cache

    def call_tool(self, name: str, **arguments: Any) -> Any:
        method = getattr(self, name)
        if not callable(method):
            raise TypeError(name)
        return method(**arguments)

    def register_with_session(self, session_id: str, stub: Any) -> list[str]:
        request = pb.RegisterToolsRequest(
            session_id=session_id, tools=self.get_tools(), worker_id=f"python-{id(self)}"
        )
        response = stub.RegisterTools(request)
        if callable(getattr(response, "result", None)):
            response = response.result()
        elif callable(response):
            response = response()
        elif inspect.isawaitable(response):
            response = asyncio.run(response)  # type: ignore[arg-type]
        return list(response.tool_ids) if response.success else []

    def _registration(self, name: str, method: Callable[..., Any], metadata: ToolMetadata) -> Any:
        parameters = []
        for parameter in inspect.signature(method).parameters.values():
            spec = pb.ParameterSpec(name=parameter.name, required=True)
            spec.type = getattr(parameter.annotation, "__name__", str(parameter.annotation)).lower()
            if parameter.default is not parameter.empty:
                spec.required = False
                spec.validation_json = json.dumps({"default": parameter.default})
            parameters.append(spec)
        return pb.ToolRegistration(
            name=name,
            description=metadata.description,
            parameters=parameters,
            metadata={"adapter_class": type(self).__name__, "module": type(self).__module__},
            supports_streaming=metadata.supports_streaming,
        )
