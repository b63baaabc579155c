"""Adapters that call Elixir tools, one written for Snakepit's own worker and one for this one."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import msgspec

from snakepit_worker import Adapter, CallContext, tool
from snakepit_worker.errors import WorkerError
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from snakepit_worker.wire.values import decode

if TYPE_CHECKING:
    from collections.abc import Callable


class Foreign:
    """Calls through the context and through the stub."""

    def execute_tool(self, tool_name: str, arguments: dict[str, Any], context: Any) -> Any:
        run: Callable[[dict[str, Any], Any], Any] = getattr(self, tool_name)
        return run(arguments, context)

    def call(self, arguments: dict[str, Any], context: Any) -> Any:
        return context.call_elixir_tool(arguments.pop("name"), **arguments)

    def call_in_session(self, arguments: dict[str, Any], context: Any) -> Any:
        """The same where the caller has named a session of its own."""
        return self.call({k: v for k, v in arguments.items() if k != "session_id"}, context)

    def call_twice(self, arguments: dict[str, Any], context: Any) -> Any:
        """Through the context first, then through the stub."""
        first = self.call({"name": arguments["first"]}, context)
        return [first, self.through_stub(arguments, context)]

    def caught(self, arguments: dict[str, Any], context: Any) -> list[str]:
        try:
            self.call(arguments, context)
        except Exception as error:  # noqa: BLE001 - its exact class is asked for
            return [type(error).__name__, str(error)]
        return []

    def listed(self, _: dict[str, Any], context: Any) -> Any:
        return context.elixir_tools

    def through_stub(self, arguments: dict[str, Any], context: Any) -> Any:
        request = pb.ExecuteElixirToolRequest(
            session_id=context.session_id, tool_name=arguments["name"]
        )
        request.parameters["value"].value = msgspec.json.encode(arguments["value"])
        response = context.stub.ExecuteElixirTool(request, metadata=arguments.get("headers"))
        return decode(response.result, "result") if response.success else response.error_message

    def through_stub_in_thread(self, arguments: dict[str, Any], context: Any) -> Any:
        answers: list[Any] = []
        thread = threading.Thread(
            target=lambda: answers.append(self.through_stub(arguments, context))
        )
        thread.start()
        thread.join()
        return answers[0]

    async def in_coroutine(self, arguments: dict[str, Any], context: Any) -> Any:
        return self.call(arguments, context)

    def clean_up(self, _: dict[str, Any], context: Any) -> bool:
        with context as entered:
            context.cleanup()
        return entered is context

    def stub_fails(self, arguments: dict[str, Any], context: Any) -> str:
        with contextlib.suppress(RuntimeError):
            context.call_elixir_tool("echo", value=1)
        try:
            return str(self.through_stub(arguments, context))
        except WorkerError as error:
            return type(error).__name__


class Native(Adapter):
    """The same for this worker."""

    name = "native"

    @tool
    async def call(self, ctx: CallContext, name: str, arguments: dict[str, Any]) -> Any:
        return await ctx.elixir.call(name, arguments)

    @tool
    def call_blocking(self, ctx: CallContext, name: str, arguments: dict[str, Any]) -> Any:
        return ctx.elixir.call_blocking(name, arguments)

    @tool
    async def caught(self, ctx: CallContext, name: str, arguments: dict[str, Any]) -> list[Any]:
        return await _caught(ctx, name, arguments)

    @tool
    def caught_blocking(self, ctx: CallContext, name: str, arguments: dict[str, Any]) -> list[Any]:
        try:
            ctx.elixir.call_blocking(name, arguments)
        except WorkerError as error:
            return _described(error)
        return []

    @tool
    async def call_while_holding(self, ctx: CallContext, *, exclusive: bool) -> Any:
        resource = ctx.session.put("native.thing", None)
        async with ctx.session.lease(resource.handle, exclusive=exclusive):
            return await ctx.elixir.call("echo", {"value": 1})

    @tool
    async def on_loop(self, ctx: CallContext) -> list[str]:
        said = []
        for call in (lambda: ctx.elixir.call_blocking("echo", {}), ctx.elixir.list_blocking):
            try:
                call()
            except RuntimeError as error:
                said.append(str(error))
        return said

    @tool
    async def listed(self, ctx: CallContext) -> dict[str, Any]:
        return {
            name: [found.session_id, found.description, list(found.parameters)]
            for name, found in (await ctx.elixir.list()).items()
        }


async def _caught(ctx: CallContext, name: str, arguments: dict[str, Any]) -> list[Any]:
    try:
        await ctx.elixir.call(name, arguments)
    except WorkerError as error:
        return _described(error)
    return []


def _described(error: WorkerError) -> list[Any]:
    return [type(error).__name__, getattr(error, "tool", None), getattr(error, "reason", None)]
