"""Tools that create programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from snakepit_adapters.dspy.arguments import Generation, ProgramSpec, SignatureSpec, StepSpec
from snakepit_adapters.dspy.tool_specs import ToolSpecs
from snakepit_adapters.dspy.tools.held import DEFAULT_LM, MODULE, keep
from snakepit_worker import CallContext, tool
from snakepit_worker.errors import InvalidArgument, Violation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from snakepit_adapters.dspy.programs import Program

__all__ = ["ProgramTools", "built"]

_DEEPEST: Final = 16
Demos = list[dict[str, Any]]
Steps = Annotated[list[StepSpec], msgspec.Meta(min_length=1, max_length=100)]
Outputs = Annotated[dict[str, str], msgspec.Meta(min_length=1, max_length=100)]


class ProgramTools:
    """Creating programs."""

    @tool
    async def predict(  # noqa: PLR0913 - the parts of a program
        self,
        signature: str | SignatureSpec,
        ctx: CallContext,
        *,
        instructions: str | None = None,
        demos: Demos | None = None,
        name: str | None = None,
        lm: str = DEFAULT_LM,
    ) -> dict[str, Any]:
        """Create a program that answers in one step.

        Args:
            signature: "question, limit: int -> answer: list[str]", or inputs and outputs as lists
                of fields.
            ctx: The call.
            instructions: The task in words.
            demos: Worked examples to show to the model: values of inputs and outputs by name.
            name: A name of your own, to use in place of the handle.
            lm: Name of the language model that answers; it may be configured later.

        Returns:
            The handle and the signature.
        """
        spec = ProgramSpec(
            module="Predict", signature=signature, instructions=instructions, demos=demos or []
        )
        return keep(ctx, await built(ctx, spec, lm), name)

    @tool
    async def chain_of_thought(  # noqa: PLR0913 - the parts of a program
        self,
        signature: str | SignatureSpec,
        ctx: CallContext,
        *,
        instructions: str | None = None,
        demos: Demos | None = None,
        name: str | None = None,
        lm: str = DEFAULT_LM,
    ) -> dict[str, Any]:
        """Create a program that reasons before it answers, in an output named "reasoning".

        Args:
            signature: "question, limit: int -> answer: list[str]", or inputs and outputs as lists
                of fields.
            ctx: The call.
            instructions: The task in words.
            demos: Worked examples to show to the model: values of inputs and outputs by name.
            name: A name of your own, to use in place of the handle.
            lm: Name of the language model that answers; it may be configured later.

        Returns:
            The handle and the signature.
        """
        spec = ProgramSpec(
            module="ChainOfThought",
            signature=signature,
            instructions=instructions,
            demos=demos or [],
        )
        return keep(ctx, await built(ctx, spec, lm), name)

    @tool
    async def create(  # noqa: PLR0913 - the parts of a program
        self,
        module: str,
        ctx: CallContext,
        *,
        signature: str | SignatureSpec | None = None,
        instructions: str | None = None,
        demos: Demos | None = None,
        options: dict[str, Any] | None = None,
        program: str | ProgramSpec | None = None,
        programs: dict[str, str | ProgramSpec] | None = None,
        tools: ToolSpecs | None = None,
        config: Generation | None = None,
        name: str | None = None,
        lm: str = DEFAULT_LM,
    ) -> dict[str, Any]:
        """Create a program of any of DSPy's modules; `dspy.modules` lists them.

        Programs that it calls are copied into it as they are now.

        Args:
            module: Name of DSPy's class, such as "BestOfN"; "Registered" for one of the operator's.
            ctx: The call.
            signature: What it takes and gives, for modules that do not have that from elsewhere.
            instructions: The task in words.
            demos: Worked examples to show to the model: values of inputs and outputs by name.
            options: Options of the module, see `dspy.modules`.
            program: The program that it wraps: a handle, a name, or a description as given here.
            programs: The programs that it calls, by name.
            tools: Tools that it may call.
            config: Options of each call of the model, such as temperature.
            name: A name of your own, to use in place of the handle.
            lm: Name of the language model that answers; it may be configured later.

        Returns:
            The handle and the signature.
        """
        spec = ProgramSpec(
            module=module,
            signature=signature,
            instructions=instructions,
            demos=demos or [],
            options=options or {},
            program=program,
            programs=programs or {},
            tools=tools or [],
            config=config,
        )
        return keep(ctx, await built(ctx, spec, lm), name)

    @tool
    async def compose(
        self,
        steps: Steps,
        outputs: Outputs,
        ctx: CallContext,
        *,
        name: str | None = None,
        lm: str = DEFAULT_LM,
    ) -> dict[str, Any]:
        """Create a program of several steps, each a program wired to inputs and earlier outputs.

        Steps that do not wait for each other run at the same time.  The inputs of the whole are
        those that its steps name.

        Args:
            steps: Name, program and inputs of each step, in any order.
            outputs: Outputs of the whole by name, each "step.output".
            ctx: The call.
            name: A name of your own, to use in place of the handle.
            lm: Name of the language model that answers; it may be configured later.

        Returns:
            The handle and the signature.
        """
        graph = {
            "steps": [{"name": step.name, "inputs": step.inputs} for step in steps],
            "outputs": outputs,
        }
        programs = {step.name: step.program for step in steps}
        spec = ProgramSpec(module="Composed", options=graph, programs=programs)
        return keep(ctx, await built(ctx, spec, lm), name)

    @tool
    def modules(self) -> list[dict[str, Any]]:
        """List DSPy's modules: what each takes, and whether this worker allows it.

        Returns:
            Of each its name, whether it takes a signature, programs and tools, whether it can be
            awaited, whether it runs code, and a JSON Schema of its options; of "Registered" the
            names of the operator's classes.
        """
        from snakepit_adapters.dspy.modules import described

        return described()


async def built(
    ctx: CallContext, spec: ProgramSpec, lm: str = DEFAULT_LM, depth: int = 0
) -> Program:
    """The program that a caller describes.

    Args:
        ctx: The call.
        spec: The description.
        lm: Name of the language model that answers.
        depth: How many programs it is part of.

    Raises:
        WorkerError: When it describes none.
    """
    from snakepit_adapters.dspy.agent_tools import resolve
    from snakepit_adapters.dspy.programs import Program
    from snakepit_adapters.dspy.signatures import read_signature

    if depth > _DEEPEST:
        raise InvalidArgument(f"expected at most {_DEEPEST} programs within each other")
    named: Mapping[str, str | ProgramSpec] = spec.programs
    if spec.program is not None:
        named = {**named, "program": spec.program}
    programs = {name: await _part(ctx, part, lm, depth + 1) for name, part in named.items()}
    tools = await resolve(ctx, spec.tools) if spec.tools else []
    declared = None
    if spec.signature is not None:
        declared = await ctx.run_sync(read_signature, spec.signature, spec.instructions)
    elif spec.instructions is not None:
        _refuse_instructions(spec.module)
    return await ctx.run_sync(
        Program,
        spec.module,
        declared,
        demos=spec.demos,
        lm=lm,
        options=spec.options,
        programs=programs,
        tools=tools,
        config=spec.config,
    )


async def _part(ctx: CallContext, part: str | ProgramSpec, lm: str, depth: int) -> Program:
    if isinstance(part, ProgramSpec):
        return await built(ctx, part, lm, depth)
    async with ctx.session.lease(part, MODULE) as program:
        copied: Program = await ctx.run_sync(program.copy)
        return copied


def _refuse_instructions(module: str) -> None:
    text = f"{module} has no signature of its own that they could belong to"
    raise InvalidArgument(f"instructions: {text}", violations=[Violation("instructions", text)])
