"""Tools as callers see them: names, texts from docstrings, JSON Schemas."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snakepit_worker.tools.registry import Tool

__all__ = ["describe"]


def describe(tool: Tool) -> dict[str, Any]:
    """A tool as JSON values.

    The description is the docstring up to its sections; what the section ``Args`` says about a
    parameter becomes the description of that parameter in the schema.

    Args:
        tool: The tool.
    """
    # Imported here, because a worker describes its tools only when asked.
    from docstring_parser import DocstringStyle, parse  # noqa: PLC0415

    docs = parse(inspect.getdoc(tool.function) or "", style=DocstringStyle.GOOGLE)
    schema = tool.signature.schema()
    properties = schema.get("properties", {})
    for parameter in docs.params:
        described = properties.get(parameter.arg_name)
        if described is not None and parameter.description:
            described.setdefault("description", _one_line(parameter.description))
    return {
        "name": tool.name,
        "description": _one_line(
            f"{docs.short_description or ''}\n\n{docs.long_description or ''}"
        ),
        "streams": tool.streams,
        "parameters": schema,
        "returns": tool.signature.returns(),
    }


def _one_line(text: str) -> str:
    """The text with the line breaks of its source removed, paragraphs kept."""
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
