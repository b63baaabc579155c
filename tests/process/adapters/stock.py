"""Adapters over Snakepit's own Python package, which the worker finds on PYTHONPATH."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

import snakepit_bridge_pb2 as pb
from snakepit_bridge import SessionContext, telemetry
from snakepit_bridge.base_adapter import BaseAdapter, tool
from snakepit_bridge.serialization import TypeSerializer

if TYPE_CHECKING:
    from collections.abc import Iterator


class Bridge:
    """Does what SnakeBridge's adapter does (interop 8.9)."""

    refs: ClassVar[dict[str, Any]] = {}
    configured_by: ClassVar[int] = 0

    def set_session_context(self, context: Any) -> None:
        self.context = context

    def execute_tool(self, tool_name: str, arguments: dict[str, Any], context: Any) -> Any:
        assert context is self.context
        with telemetry.span("python.call", {"library": arguments.get("library", "")}):
            return getattr(self, tool_name.partition(".")[2])(arguments)

    def call(self, arguments: dict[str, Any]) -> Any:
        ref = f"{arguments['session_id']}:{len(self.refs)}"
        self.refs[ref] = arguments["value"]
        return {"__type__": "ref", "id": ref}

    def release_ref(self, arguments: dict[str, Any]) -> Any:
        return self.refs.pop(arguments["ref"])

    def configure(self, arguments: dict[str, Any]) -> bool:
        """As `dspy.configure`, for which only one thread is good."""
        del arguments
        thread = threading.get_ident()
        if type(self).configured_by not in {0, thread}:
            raise RuntimeError("configured by another thread")
        type(self).configured_by = thread
        return True

    def callback(self, arguments: dict[str, Any]) -> Any:
        return self._call_back(arguments)

    def callback_from_a_thread(self, arguments: dict[str, Any]) -> Any:
        with ThreadPoolExecutor(1) as own:
            return own.submit(self._call_back, arguments).result()

    def stream(self, arguments: dict[str, Any]) -> Iterator[Any]:
        for number in range(arguments["n"]):
            yield self._call_back({**arguments, "value": number})

    def _call_back(self, arguments: dict[str, Any]) -> Any:
        request = pb.ExecuteElixirToolRequest(
            session_id=arguments["session_id"], tool_name="snakebridge.callback"
        )
        request.parameters["value"].value = json.dumps(arguments["value"]).encode()
        response = self.context.stub.ExecuteElixirTool(request)
        if not response.success:
            raise RuntimeError(response.error_message)
        return TypeSerializer.decode_any(response.result, response.binary_result or None)


class Helped(BaseAdapter):
    """Uses the package's helpers."""

    def execute_tool(self, tool_name: str, arguments: dict[str, Any], context: Any) -> Any:
        return getattr(self, tool_name)(context, **arguments)

    def correlation(self, context: Any) -> list[str | None]:
        del context
        seen: list[str | None] = [telemetry.get_correlation_id()]
        seen += [value for name, value in telemetry.outgoing_metadata()]
        return seen

    async def correlation_async(self, context: Any) -> str | None:
        del context
        return telemetry.get_correlation_id()

    def correlation_afterwards(self, context: Any) -> str | None:
        """What a thread sees that belongs to no call."""
        del context
        seen: list[str | None] = []
        thread = threading.Thread(target=lambda: seen.append(telemetry.get_correlation_id()))
        thread.start()
        thread.join()
        return seen[0]

    def events(self, context: Any, label: str) -> None:
        del context
        telemetry.emit("tool.result_size", {"message_size": 7}, {"tool": label})
        with telemetry.span("tool.execution", {"tool": label}):
            pass

    def broken_span(self, context: Any, label: str) -> None:
        del context
        with telemetry.span("tool.execution", {"tool": label}):
            raise ValueError("no")

    def context_members(self, context: Any) -> dict[str, Any]:
        with context as entered:
            assert entered is context
        context.cleanup()
        return {
            "same": context is self.session_context,
            "session_id": context.session_id,
            "helper": self.session_id,
            "metadata": context.request_metadata,
            "tools": {name: spec["description"] for name, spec in context.elixir_tools.items()},
            "stock": isinstance(context, SessionContext),
        }

    def ask(self, context: Any, name: str, value: Any) -> Any:
        return context.call_elixir_tool(name, value=value)

    def on_main_thread(self, context: Any, **_: Any) -> bool:
        del context
        return threading.current_thread() is threading.main_thread()

    def hold_main_thread(self, context: Any) -> bool:
        assert context.call_elixir_tool("held")
        return threading.current_thread() is threading.main_thread()


class NotJson(BaseAdapter):
    """A default that is not JSON breaks the base class's registration."""

    @tool("Has an odd default")
    def odd(self, value: Any = object()) -> str:  # noqa: B008 - what people write
        return type(value).__name__

    @tool("The name is not for the host")
    def _hidden(self) -> None: ...
