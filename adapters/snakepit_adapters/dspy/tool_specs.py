"""Tools for agents, as callers name them and as models are told of them.

Does not import DSPy: the worker has to know the arguments of its tools before that is loaded.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec

from snakepit_adapters.dspy.tool_schemas import closed, from_parameters, without_bytes
from snakepit_adapters.dspy.tools.held import CORPUS
from snakepit_worker.errors import InnerCallFailed, InvalidArgument, NotFound, Violation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from snakepit_worker.host.elixir_tools import ElixirTool
    from snakepit_worker.tools.context import CallContext

__all__ = ["ToolDescription", "ToolSpec", "ToolSpecs", "describe"]

_OTHERS: Final = "worker.tools"
_OWN: Final = ("dspy", "job", "session", "worker")
"""Adapters whose tools a model must not call: they reach beyond what the caller has listed."""

_TAKEN: Final = ("finish", "submit")
"""Tools that DSPy's agents add by themselves."""

_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_NAME: Final = 64
"""Characters that providers take in the name of a tool."""

_FORMS: Final = "elixir:NAME, elixir:*, worker:ADAPTER.TOOL or corpus:NAME"


class ToolSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tool for an agent, with other words than its own.

    Attributes:
        tool: "elixir:NAME" for an Elixir tool that is exposed to the session, "elixir:*" for all of
            them, "worker:ADAPTER.TOOL" for a tool of another adapter of this worker, "corpus:NAME"
            for a search in a corpus.
        name: What the model calls it.
        description: What the model is told that it does.
    """

    tool: str
    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    description: str | None = None


ToolSpecs = Annotated[list[str | ToolSpec], msgspec.Meta(max_length=128)]
"""Tools for an agent; a text stands for a spec that says nothing more."""


class ToolDescription(msgspec.Struct, frozen=True):
    """A tool as a model is told of it, and what it stands for.

    Attributes:
        source: Where it runs.
        target: Its name there.
        name: What the model calls it.
        description: What it does.
        parameters: JSON Schema of its arguments, an object.
    """

    source: Literal["elixir", "worker", "corpus"]
    target: str
    name: str
    description: str
    parameters: dict[str, Any]


async def describe(ctx: CallContext, specs: Sequence[str | ToolSpec]) -> list[ToolDescription]:
    """The tools that a caller means.

    Args:
        ctx: The call that asks; its session has the Elixir tools and the corpora.
        specs: What the caller named.

    Raises:
        InvalidArgument: For tools that there are not, that an agent cannot call, or that would go
            by the same name.
        HostUnavailable: When Elixir tools are meant and the host does not answer.
    """
    wanted = [ToolSpec(spec) if isinstance(spec, str) else spec for spec in specs]
    exposed: Mapping[str, ElixirTool] = {}
    if any(spec.tool.startswith("elixir:") for spec in wanted):
        exposed = await ctx.elixir.list()
    found: list[ToolDescription] = []
    violations: list[Violation] = []
    for index, spec in enumerate(wanted):
        try:
            found += await _find(ctx, spec, exposed)
        except _Unusable as problem:
            violations.append(Violation(f"tools[{index}]", str(problem)))
    violations += _clashes(found)
    if violations:
        text = "; ".join(f"{wrong.field}: {wrong.description}" for wrong in violations)
        raise InvalidArgument(text, violations=violations)
    return found


class _Unusable(Exception):  # noqa: N818 - becomes a violation
    """Why a spec names no tool that an agent can call."""


async def _find(
    ctx: CallContext, spec: ToolSpec, exposed: Mapping[str, ElixirTool]
) -> list[ToolDescription]:
    source, _, target = spec.tool.partition(":")
    if not target:
        raise _Unusable(f"expected {_FORMS}, got {spec.tool!r}")
    if source == "elixir" and target == "*":
        if spec.name is not None or spec.description is not None:
            raise _Unusable("several tools cannot share one name or description")
        return [_elixir(ToolSpec(f"elixir:{name}"), exposed[name]) for name in sorted(exposed)]
    if source == "elixir":
        if target not in exposed:
            raise _Unusable(
                f"no Elixir tool {target!r} is exposed to this session{_near(target, exposed)}"
            )
        return [_elixir(spec, exposed[target])]
    if source == "worker":
        return [_described(spec, "worker", target, *await _worker(ctx, target))]
    if source == "corpus":
        return [_corpus(ctx, spec, target)]
    raise _Unusable(f"expected {_FORMS}, got {spec.tool!r}")


def _elixir(spec: ToolSpec, tool: ElixirTool) -> ToolDescription:
    schema = from_parameters(tool.parameters)
    return _described(spec, "elixir", tool.name, tool.description, schema)


async def _worker(ctx: CallContext, target: str) -> tuple[str, dict[str, Any]]:
    adapter = target.partition(".")[0]
    if adapter in _OWN:
        raise _Unusable(f"tools of {adapter} are not for agents; corpus:NAME searches in a corpus")
    try:
        tools = {tool["name"]: tool for tool in await ctx.call(_OTHERS, {"adapter": adapter})}
    except InnerCallFailed as failure:
        raise _Unusable(failure.reason) from None
    tool = tools.get(target)
    if tool is None:
        raise _Unusable(f"adapter {adapter} has no tool {target!r}{_near(target, tools)}")
    if tool["streams"]:
        raise _Unusable(f"{target} streams, and an agent needs one result")
    schema = without_bytes(tool["parameters"])
    if schema is None:
        raise _Unusable(f"{target} needs bytes, which a model cannot give")
    return tool["description"], closed(schema)


def _corpus(ctx: CallContext, spec: ToolSpec, target: str) -> ToolDescription:
    try:
        resource = ctx.session.get(target, CORPUS)
    except NotFound as error:
        raise _Unusable(str(error)) from None
    name = resource.name or target
    text = f"Search {resource.metadata['passages']} passages; answers those nearest in meaning."
    schema = {
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "what to look for"},
            "k": {"type": "integer", "minimum": 1, "maximum": 20, "default": 3},
        },
        "required": ["query"],
        "additionalProperties": False,
    }
    return _described(spec, "corpus", name, text, schema, f"search_{name}")


def _described(  # noqa: PLR0913, PLR0917 - the parts of a description
    spec: ToolSpec,
    source: Literal["elixir", "worker", "corpus"],
    target: str,
    description: str,
    parameters: dict[str, Any],
    name: str | None = None,
) -> ToolDescription:
    given = spec.name or _NOT_IN_NAMES.sub("_", name or target)[:_LONGEST_NAME]
    return ToolDescription(source, target, given, spec.description or description, parameters)


def _clashes(found: Iterable[ToolDescription]) -> list[Violation]:
    violations = []
    seen = dict.fromkeys(_TAKEN, "a tool that DSPy adds")
    for tool in found:
        label = f"{tool.source}:{tool.target}"
        if tool.name in seen:
            text = f"{label} would be called {tool.name!r}, as {seen[tool.name]}; give it a name"
            violations.append(Violation("tools", text))
        seen.setdefault(tool.name, label)
    return violations


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""
