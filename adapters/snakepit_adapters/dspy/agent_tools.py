"""Tools of an agent: Elixir tools, tools of the worker's other adapters, and searches.

An agent goes on after a tool has failed, with the failure as its observation.  So these tools raise
nothing but what ends the call of the agent.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import dspy
import orjson
from jsonschema import (  # type: ignore[import-untyped]
    Draft202012Validator,
    SchemaError,
)

from snakepit_adapters.dspy.metered import present_account
from snakepit_adapters.dspy.tool_schemas import inlined
from snakepit_adapters.dspy.tool_specs import ToolDescription, describe
from snakepit_adapters.dspy.tools.held import CORPUS
from snakepit_worker.errors import FailedPrecondition, InnerCallFailed, WorkerError
from snakepit_worker.wire.redaction import redact
from snakepit_worker.wire.results import Binary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from snakepit_adapters.dspy.tool_specs import ToolSpec
    from snakepit_worker.tools.context import CallContext

__all__ = ["AgentEvent", "AgentTool", "Observation", "emit", "resolve"]

_LONGEST: Final = 20_000
"""Characters of an observation; all of them are in every prompt that follows."""
_MOST_PROBLEMS: Final = 5
_BYTES: Final = (bytes, bytearray)


class Observation(str):
    """What an agent sees of a tool's result.

    Attributes:
        failed: Whether the tool failed.
    """

    __slots__ = ("failed",)
    failed: bool

    def __new__(cls, text: str, *, failed: bool = False) -> Observation:  # noqa: PYI034 - no Self before 3.11's typing of str
        """The text, cut where it is too long."""
        if len(text) > _LONGEST:
            text = f"{text[:_LONGEST]}… ({len(text) - _LONGEST} more characters)"
        made = super().__new__(cls, text)
        made.failed = failed
        return made

    def __deepcopy__(self, memo: object) -> Observation:
        return self

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


@dataclass(frozen=True, slots=True)
class AgentEvent:
    """Something that an agent has done, on its way through DSPy's stream.

    Attributes:
        data: What the caller receives.
    """

    data: Mapping[str, object]


async def emit(event: Mapping[str, object]) -> None:
    """Put an event into the stream of the present call, if it has one, behind the tokens before it.

    Args:
        event: What the caller receives.
    """
    stream = dspy.settings.send_stream
    if stream is not None:
        await stream.send(AgentEvent(event))


async def resolve(ctx: CallContext, specs: Sequence[str | ToolSpec]) -> list[AgentTool]:
    """The tools that a caller means, for a DSPy module.

    Args:
        ctx: The call that asks.
        specs: What the caller named, see ``ToolSpec``.

    Raises:
        InvalidArgument: For tools that there are not or that an agent cannot call.
        HostUnavailable: When Elixir tools are meant and the host does not answer.
    """
    return [AgentTool(described) for described in await describe(ctx, specs)]


class AgentTool(dspy.Tool):  # type: ignore[misc]  # DSPy has no types
    """A tool as DSPy's agents call it, each time on behalf of the call that runs the agent.

    Args:
        described: The tool.
    """

    def __init__(self, described: ToolDescription) -> None:
        parameters = described.parameters
        definitions = parameters.get("$defs", {})
        required = parameters["required"]
        args = {
            # DSPy takes every argument without a default for a required one.
            name: inlined(part, definitions) | ({} if name in required else _optional(part))
            for name, part in parameters["properties"].items()
        }
        super().__init__(
            _Target(described),
            name=described.name,
            desc=described.description,
            args=args,
            arg_types=dict.fromkeys(args, Any),
        )

    @property
    def described(self) -> ToolDescription:
        """The tool, for the recipe of the agent."""
        described: ToolDescription = self.func.described
        return described

    def __call__(self, /, **arguments: Any) -> Observation:  # noqa: ANN401 - as the base class
        """Call it and wait, on a thread."""
        observation: Observation = self.func.run_blocking(arguments)
        return observation

    async def acall(self, /, **arguments: Any) -> Observation:  # noqa: ANN401 - as the base class
        """Call it and await the result."""
        observation: Observation = await self.func.run(arguments)
        event = {"type": "observation", "tool": self.name, "text": str(observation)}
        await emit({**event, "failed": observation.failed})
        return observation


class _Target:
    """What a tool stands for."""

    def __init__(self, described: ToolDescription) -> None:
        self.described = described
        self._validator = _validator(described.parameters)

    def __call__(self, **arguments: Any) -> Observation:  # noqa: ANN401 - for code that takes the function out of the tool
        return self.run_blocking(arguments)

    def __deepcopy__(self, memo: object) -> _Target:
        return self  # it never changes

    async def run(self, arguments: Mapping[str, Any]) -> Observation:
        """Call it on the event loop."""
        call = _serving()
        wrong = self._wrong(arguments)
        if wrong is not None:
            return wrong
        target = self.described.target
        try:
            if self.described.source == "elixir":
                return _observed(await call.elixir.call(target, arguments))
            if self.described.source == "worker":
                return _observed(await call.call(target, arguments))
            return await call.run_sync(_search, call, target, arguments)
        except Exception as error:  # noqa: BLE001 - any failure is for the agent to see
            return _failed(error)

    def run_blocking(self, arguments: Mapping[str, Any]) -> Observation:
        """Call it on a thread."""
        call = _serving()
        wrong = self._wrong(arguments)
        if wrong is not None:
            return wrong
        target = self.described.target
        try:
            if self.described.source == "elixir":
                return _observed(call.elixir.call_blocking(target, arguments))
            if self.described.source == "worker":
                return _observed(call.call_blocking(target, arguments))
            return _search(call, target, arguments)
        except Exception as error:
            if call.cancelled:  # an ordinary exception would be one more observation
                raise asyncio.CancelledError from error
            return _failed(error)

    def _wrong(self, arguments: Mapping[str, Any]) -> Observation | None:
        problems = []
        for error in self._validator.iter_errors(dict(arguments)):
            place = ".".join(str(step) for step in error.absolute_path)
            problems.append(f"{place}: {error.message}" if place else error.message)
            if len(problems) == _MOST_PROBLEMS:
                break
        if not problems:
            return None
        return Observation(f"Error: wrong arguments: {'; '.join(problems)}", failed=True)


def _serving() -> CallContext:
    account = present_account()
    if account is None:
        raise FailedPrecondition("tools of an agent can only be called while a call is served")
    return account.call


def _search(call: CallContext, corpus: str, arguments: Mapping[str, Any]) -> Observation:
    with call.session.lease(corpus, CORPUS) as found:
        passages = found.search(call.session, arguments["query"], arguments.get("k", 3))
    return Observation("\n\n".join(f"[{p.index}] {p.text}" for p in passages))


def _observed(value: object) -> Observation:
    """A result as text: what is text stays as it is, the rest becomes JSON."""
    if isinstance(value, str):
        return Observation(value)
    if isinstance(value, Binary):
        return Observation(f"{len(value.data)} bytes, with {_json(value.metadata)}")
    if isinstance(value, _BYTES):
        return Observation(f"{len(value)} bytes")
    return Observation(_json(value))


def _json(value: object) -> str:
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _failed(error: Exception) -> Observation:
    if isinstance(error, InnerCallFailed):
        text = f"{error.type}: {error.reason}"
    elif isinstance(error, WorkerError):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}"
    return Observation(f"Error: {redact(text, _LONGEST)}", failed=True)


def _optional(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {} if "default" in schema else {"default": None}


def _validator(schema: dict[str, Any]) -> Draft202012Validator:
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError:
        # What a tool was registered with is free text; the other side checks its arguments, too.
        schema = {"type": "object", "required": schema["required"]}
    return Draft202012Validator(schema)
