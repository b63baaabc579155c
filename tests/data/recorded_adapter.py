"""An adapter in Snakepit's own style, with the tools that the recorded host called."""

from __future__ import annotations

import threading
from typing import Any


class Recorded:
    """Answers each of the recorded tool names; `execute_tool` is all it has."""

    def execute_tool(self, tool_name: str, arguments: dict[str, Any], context: Any) -> Any:
        if tool_name == "any":
            return what_came(arguments, context)
        if tool_name == "probe_host":
            return what_the_host_answers(arguments, context)
        if tool_name == "fail":
            raise ValueError("asked")
        if tool_name == "bytes":
            return b"\x00\x01"
        assert tool_name == "st"
        return ({"number": number} for number in range(arguments["n"]))


def what_came(arguments: dict[str, Any], context: Any) -> Any:
    return {
        "values": {
            key: {"bytes": value.hex()} if isinstance(value, bytes) else value
            for key, value in arguments.items()
        },
        "types": {key: type(value).__name__ for key, value in arguments.items()},
        "session": context.session_id,
        "metadata": context.request_metadata,
        "on_main_thread": threading.current_thread().name == "main-thread",
    }


def what_the_host_answers(arguments: dict[str, Any], context: Any) -> Any:
    everything = {
        "s_": "text",
        "u": "hé ☃",
        "big": 2**70,
        "f": 1.5,
        "b": True,
        "n": None,
        "l": [1, "a", None],
        "m": {"k": {"d": 1}},
    }
    binary = context.call_elixir_tool("binary_meta")
    return {
        "arguments": arguments,
        "tools": {name: tool["description"] for name, tool in context.elixir_tools.items()},
        "parameters": context.elixir_tools["echo"]["parameters"],
        "same": context.call_elixir_tool("echo", **everything) == everything,
        "binary": context.call_elixir_tool("binary").hex(),
        "binary_meta": [binary.data.hex(), binary.metadata],
        "tuple": context.call_elixir_tool("tuple"),
        "nothing": context.call_elixir_tool("nothing"),
        "errors": {
            name: error_of(context, name) for name in ("raises", "throws", "exits", "absent")
        },
    }


def error_of(context: Any, name: str) -> str:
    try:
        return f"no error: {context.call_elixir_tool(name)}"
    except (RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
