"""Programs under the names of the older adapter's tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from snakepit_adapters.dspy.arguments import FieldSpec, ProgramSpec, SignatureSpec
from snakepit_adapters.dspy.tool_specs import ToolSpec
from snakepit_adapters.dspy.tools.held import DEFAULT_LM, MODULE, keep, leased, leased_lm
from snakepit_adapters.dspy.tools.older_held import (
    SIGNATURE,
    TOOL,
    find,
    names_of,
    refuse_foreign,
    store,
)
from snakepit_adapters.dspy.tools.programs import built
from snakepit_worker import CallContext, tool
from snakepit_worker.errors import HostUnavailable, InvalidArgument, Violation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from snakepit_worker.host.elixir_tools import ElixirTool

__all__ = ["OlderProgramTools", "inputs_of", "signature_named"]

ProgramType = Literal["predict", "chain_of_thought", "react", "program_of_thought"]

_MODULES: Final[dict[str, str]] = {
    "predict": "Predict",
    "chain_of_thought": "ChainOfThought",
    "react": "ReAct",
    "program_of_thought": "ProgramOfThought",
}
_TYPES: Final = {
    "string": "str",
    "text": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "array": "list",
    "object": "dict",
    "map": "dict",
}
"""Types as Elixir code calls them."""


class OlderField(msgspec.Struct, frozen=True):
    """A field of a signature.

    Attributes:
        name: How inputs and outputs call it.
        type: Its type.
        description: What the model is told about it.
    """

    name: str
    type: str = "str"
    description: str | None = None

    def spec(self) -> FieldSpec:
        """The field as the other tools take it."""
        kind = _TYPES.get(self.type.strip().lower(), self.type)
        return FieldSpec(self.name, kind, self.description or None)


class OlderProgramTools:
    """Signatures and programs by name."""

    @tool
    def create_signature(
        self,
        name: str,
        inputs: list[OlderField],
        outputs: list[OlderField],
        ctx: CallContext,
        docstring: str | None = None,
    ) -> dict[str, Any]:
        """Keep a signature under a name, for `dspy.create_program`.

        The older adapter's name; other tools take signatures as they are.

        Args:
            name: The name; a signature that has it already is replaced.
            inputs: Fields that the caller gives.
            outputs: Fields that the model gives.
            ctx: The call.
            docstring: The task in words.

        Returns:
            The name, and the signature as text.
        """
        from snakepit_adapters.dspy.signatures import read_signature

        spec = SignatureSpec([f.spec() for f in inputs], [f.spec() for f in outputs])
        read_signature(spec, docstring)
        data = {"signature": msgspec.to_builtins(spec), "instructions": docstring}
        store(ctx.session, SIGNATURE, name, data)
        return {"success": True, "name": name, "signature_string": _text(spec)}

    @tool
    async def create_program(
        self,
        name: str,
        program_type: ProgramType,
        ctx: CallContext,
        signature: str | None = None,
        signature_name: str | None = None,
    ) -> dict[str, Any]:
        """Create a program under a name; `dspy.create` can do more.

        An agent ("react") gets the tools of `dspy.register_elixir_tool`.

        Args:
            name: The name; a program that has it already is replaced.
            program_type: What it does.
            ctx: The call.
            signature: Name of a signature, or one as text.
            signature_name: The same.

        Returns:
            The name and the type.
        """
        given = signature if signature is not None else signature_name
        if given is None or (signature is not None and signature_name is not None):
            text = "expected either signature or signature_name"
            raise InvalidArgument(text, violations=[Violation("signature", text)])
        refuse_foreign(ctx.session, name, MODULE)
        found, instructions = signature_named(ctx, given)
        registered = [find(ctx.session, TOOL, tool) for tool in names_of(ctx.session, TOOL)]
        tools = [msgspec.convert(tool, ToolSpec) for tool in registered if tool is not None]
        spec = ProgramSpec(
            module=_MODULES[program_type],
            signature=found,
            instructions=instructions,
            tools=[*tools] if program_type == "react" else [],
        )
        keep(ctx, await built(ctx, spec), name, replace=True)
        return {"success": True, "name": name, "type": program_type}

    @tool
    async def execute_program(
        self, name: str, inputs: dict[str, Any] | str, ctx: CallContext
    ) -> dict[str, Any]:
        """Call a program; `dspy.call` can do more.

        Args:
            name: Name of the program.
            inputs: Values by input field, or the same as JSON text.
            ctx: The call.

        Returns:
            The outputs, as "result", and the tokens used by model.
        """
        values = inputs_of(inputs, "inputs")
        async with leased(ctx.session, name, None) as (program, model):
            answer = await program.request(values, model).run(ctx.run_sync)
        return {"success": True, "result": answer["outputs"], "usage": answer["usage"]}

    @tool
    async def list_programs(self, ctx: CallContext) -> dict[str, Any]:
        """List the programs of the session by name.

        Args:
            ctx: The call.
        """
        return {"programs": names_of(ctx.session, MODULE)}

    @tool
    async def delete_program(self, name: str, ctx: CallContext) -> dict[str, Any]:
        """Let go of a program, as `session.release` does.

        Args:
            name: Name of the program.
            ctx: The call.
        """
        resource = ctx.session.get(name, MODULE)
        ctx.session.release(resource.handle)
        return {"success": True, "name": name}

    @tool
    async def enhanced_predict(
        self,
        signature: str,
        ctx: CallContext,
        **inputs: Any,  # noqa: ANN401 - of any type
    ) -> dict[str, Any]:
        """Answer in one step, between two Elixir tools where they are exposed to the session.

        `validate_signature` gets "signature" and "inputs" and may refuse them with false or
        {"valid": false}; `transform_result` gets "result", "signature" and "inputs", and what it
        gives is the result.

        Args:
            signature: Name of a signature, or one as text.
            ctx: The call.
            **inputs: Values by input field.

        Returns:
            The "result".
        """
        exposed = await _exposed(ctx)
        asked = {"signature": signature, "inputs": inputs}
        verdict = await _ask(ctx, exposed, "validate_signature", asked)
        _refuse(verdict)
        outputs = await _answer(ctx, "Predict", signature, inputs)
        result = outputs
        if "transform_result" in exposed:
            result = await _ask(ctx, exposed, "transform_result", {"result": outputs, **asked})
        return {"success": True, "result": result, "type": "enhanced_predict"}

    @tool
    async def enhanced_chain_of_thought(
        self,
        signature: str,
        ctx: CallContext,
        **inputs: Any,  # noqa: ANN401 - of any type
    ) -> dict[str, Any]:
        """Reason and answer, with what two Elixir tools make of it where they are exposed.

        `validate_reasoning` gets "reasoning", "context" (the inputs) and "result";
        `process_template` gets "template", which is "chain_of_thought", and "data", the outputs.

        Args:
            signature: Name of a signature, or one as text.
            ctx: The call.
            **inputs: Values by input field.

        Returns:
            The outputs as "result", and what the tools gave as "elixir_validation" and
            "formatted_output", null where there is no such tool.
        """
        exposed = await _exposed(ctx)
        outputs = await _answer(ctx, "ChainOfThought", signature, inputs)
        about = {"reasoning": outputs["reasoning"], "context": inputs, "result": outputs}
        template = {"template": "chain_of_thought", "data": outputs}
        return {
            "success": True,
            "result": outputs,
            "elixir_validation": await _ask(ctx, exposed, "validate_reasoning", about),
            "formatted_output": await _ask(ctx, exposed, "process_template", template),
            "type": "enhanced_chain_of_thought",
        }


def signature_named(ctx: CallContext, given: str) -> tuple[str | SignatureSpec, str | None]:
    """A signature of the session and its instructions, or the text itself.

    Args:
        ctx: The call.
        given: Name of a signature, or one as text.
    """
    stored = find(ctx.session, SIGNATURE, given)
    if stored is None:
        return given, None
    return msgspec.convert(stored["signature"], SignatureSpec), stored["instructions"]


def inputs_of(given: dict[str, Any] | str, argument: str) -> dict[str, Any]:
    """Values by name, also from JSON text, which the older adapter's clients send.

    Args:
        given: The values.
        argument: What they are called, for the failure.

    Raises:
        InvalidArgument: When the text is no JSON object.
    """
    if not isinstance(given, str):
        return given
    try:
        return msgspec.json.decode(given, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        text = f"expected a JSON object: {error}"
        raise InvalidArgument(
            f"{argument}: {text}", violations=[Violation(argument, text)]
        ) from None


async def _answer(
    ctx: CallContext, module: str, signature: str, inputs: Mapping[str, Any]
) -> dict[str, Any]:
    found, instructions = signature_named(ctx, signature)
    spec = ProgramSpec(module=module, signature=found, instructions=instructions)
    program = await built(ctx, spec)
    async with leased_lm(ctx.session, DEFAULT_LM) as model:
        answer = await program.request(inputs, model).run(ctx.run_sync)
    return msgspec.convert(answer["outputs"], dict[str, Any])


async def _exposed(ctx: CallContext) -> Mapping[str, ElixirTool]:
    try:
        return await ctx.elixir.list()
    except HostUnavailable as error:
        if error.retryable:
            raise
        return {}  # this worker has no host, and so no such tools


async def _ask(
    ctx: CallContext, exposed: Mapping[str, ElixirTool], name: str, arguments: Mapping[str, Any]
) -> Any:  # noqa: ANN401 - whatever the tool answers
    """What an Elixir tool says, ``None`` where there is none; it gets what it declares."""
    if name not in exposed:
        return None
    declared = {parameter["name"] for parameter in exposed[name].parameters}
    wanted = {key: value for key, value in arguments.items() if not declared or key in declared}
    return await ctx.elixir.call(name, wanted)


def _refuse(verdict: object) -> None:
    refused = verdict is False
    reason: object = "no reason given"
    if isinstance(verdict, dict):
        refused = verdict.get("valid") is False
        reason = verdict.get("error") or verdict.get("errors") or verdict.get("reason") or reason
    if refused:
        text = f"refused by the Elixir tool validate_signature: {reason}"
        raise InvalidArgument(f"signature: {text}", violations=[Violation("signature", text)])


def _text(spec: SignatureSpec) -> str:
    sides = ([f"{f.name}: {f.type}" for f in side] for side in (spec.inputs, spec.outputs))
    return " -> ".join(", ".join(side) for side in sides)
