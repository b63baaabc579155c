"""Tools over the programs of a session."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from snakepit_adapters.dspy.arguments import Generation, ResponseFormat, SignatureSpec
from snakepit_adapters.dspy.tools.held import DEFAULT_LM, LM, MODULE, identity, leased
from snakepit_worker import CallContext, tool
from snakepit_worker.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from snakepit_adapters.dspy.programs import ModuleName, Program

__all__ = ["PROGRAM_SIZE", "ProgramTools"]

PROGRAM_SIZE: Final = 15_000
"""Bytes that a small program takes: DSPy's module, its signature class and its type adapters."""


class ProgramTools:
    """Creating, calling and inspecting programs."""

    @tool
    def predict(  # noqa: PLR0913 - the parts of a program
        self,
        signature: str | SignatureSpec,
        ctx: CallContext,
        *,
        instructions: str | None = None,
        demos: list[dict[str, Any]] | None = None,
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
        return _create("Predict", ctx, signature, instructions, demos, name, lm)

    @tool
    def chain_of_thought(  # noqa: PLR0913 - the parts of a program
        self,
        signature: str | SignatureSpec,
        ctx: CallContext,
        *,
        instructions: str | None = None,
        demos: list[dict[str, Any]] | None = None,
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
        return _create("ChainOfThought", ctx, signature, instructions, demos, name, lm)

    @tool
    async def call(  # noqa: PLR0913 - inputs, and what may differ from call to call
        self,
        handle: str,
        inputs: dict[str, Any],
        ctx: CallContext,
        *,
        config: Generation | None = None,
        response_format: ResponseFormat | None = None,
        lm: str | None = None,
    ) -> dict[str, Any]:
        """Call a program and wait for its outputs.

        Args:
            handle: Handle or name of the program.
            inputs: Values by input field; one whose type allows null may be left out.
            ctx: The call.
            config: Options of this call, such as temperature.
            response_format: Layout of the answer, where it differs from the language model's.
            lm: Another language model than the program's.

        Returns:
            The outputs, and the tokens used by model.
        """
        async with leased(ctx.session, handle, lm) as (program, model):
            request = program.request(inputs, model, config, response_format)
            return await request.run(ctx.run_sync)

    @tool
    async def stream(  # noqa: PLR0913 - as call
        self,
        handle: str,
        inputs: dict[str, Any],
        ctx: CallContext,
        *,
        config: Generation | None = None,
        response_format: ResponseFormat | None = None,
        lm: str | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Call a program and follow its outputs as the model writes them.

        Args:
            handle: Handle or name of the program.
            inputs: Values by input field; one whose type allows null may be left out.
            ctx: The call.
            config: Options of this call, such as temperature.
            response_format: Layout of the answer, where it differs from the language model's.
            lm: Another language model than the program's.

        Yields:
            {"type": "token", "field", "text"} for each piece of an output of type str, and last
            {"type": "prediction", "outputs", "usage"}.
        """
        from snakepit_adapters.dspy.streaming import stream

        async with leased(ctx.session, handle, lm) as (program, model):
            request = program.request(inputs, model, config, response_format)
            async with aclosing(stream(request)) as events:
                async for event in events:
                    yield event

    @tool
    def dump_state(self, handle: str, ctx: CallContext) -> dict[str, Any]:
        """Show what a program has learned: the instructions and demos of its predictors.

        Args:
            handle: Handle or name of the program.
            ctx: The call.

        Returns:
            The state by predictor, for `dspy.load_state`.
        """
        with ctx.session.lease(handle, MODULE) as program:
            state: dict[str, Any] = program.dump_state()
            return state

    @tool
    def load_state(
        self, handle: str, state: dict[str, dict[str, Any]], ctx: CallContext
    ) -> dict[str, Any]:
        """Give a program what another one of its form has learned.

        Calls that run keep what the program knew before; those that follow wait for the change.

        Args:
            handle: Handle or name of the program.
            state: What `dspy.dump_state` gave.
            ctx: The call.

        Returns:
            The program's handle, kind and name.
        """
        with ctx.session.lease(handle, MODULE, exclusive=True) as program:
            program.load_state(state)
        return identity(ctx.session.get(handle))

    @tool
    async def inspect(self, handle: str, ctx: CallContext) -> dict[str, Any]:
        """Show a program: its signature, its demos, and the language model that would answer.

        Args:
            handle: Handle or name of the program.
            ctx: The call.
        """
        resource = ctx.session.get(handle, MODULE)
        program: Program = resource.value
        try:
            lm = identity(found := ctx.session.get(program.lm, LM)) | found.value.describe()
        except NotFound:
            lm = None
        return identity(resource) | program.describe() | {"lm": lm}


def _create(  # noqa: PLR0913, PLR0917 - the parts of a program
    kind: ModuleName,
    ctx: CallContext,
    signature: str | SignatureSpec,
    instructions: str | None,
    demos: Sequence[dict[str, Any]] | None,
    name: str | None,
    lm: str,
) -> dict[str, Any]:
    from snakepit_adapters.dspy.programs import Program
    from snakepit_adapters.dspy.signatures import read_signature

    declared = read_signature(signature, instructions)
    program = Program(kind, declared, demos=demos or (), lm=lm)
    facts = {"module": program.kind, "lm": program.lm}
    resource = ctx.session.put(
        MODULE, program, name=name, metadata=facts, recipe=program.recipe, size=PROGRAM_SIZE
    )
    return identity(resource) | facts | {"signature": program.signature.describe()}
