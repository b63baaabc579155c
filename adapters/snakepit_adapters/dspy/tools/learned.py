"""Tools over what programs have learned, and over what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from snakepit_adapters.dspy.arguments import SignatureSpec
from snakepit_adapters.dspy.tools.held import LM, MODULE, identity, keep
from snakepit_worker import CallContext, tool
from snakepit_worker.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from snakepit_adapters.dspy.programs import Program

__all__ = ["LearnedTools"]


class LearnedTools:
    """Looking at programs, and changing what they have learned."""

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
        """Show a program: its signature, its demos, its parts, and who would answer.

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

    @tool
    async def copy(self, handle: str, ctx: CallContext, name: str | None = None) -> dict[str, Any]:
        """Create another program like one, with what it has learned.

        Args:
            handle: Handle or name of the program.
            ctx: The call.
            name: A name of your own for the copy.

        Returns:
            The handle and the signature of the copy.
        """
        async with ctx.session.lease(handle, MODULE) as program:
            copied = await ctx.run_sync(program.copy)
        return keep(ctx, copied, name)

    @tool
    def reset(self, handle: str, ctx: CallContext) -> dict[str, Any]:
        """Let a program forget what it has learned; what it was created with stays.

        Args:
            handle: Handle or name of the program.
            ctx: The call.

        Returns:
            The program's handle, kind and name.
        """
        with ctx.session.lease(handle, MODULE, exclusive=True) as program:
            program.reset()
        return identity(ctx.session.get(handle))

    @tool
    def set_demos(
        self,
        handle: str,
        demos: list[dict[str, Any]],
        ctx: CallContext,
        predictor: str | None = None,
    ) -> dict[str, Any]:
        """Give a program other worked examples to show to the model.

        Args:
            handle: Handle or name of the program.
            demos: Values of inputs and outputs by name; none for no examples.
            ctx: The call.
            predictor: Which of its predictors shows them, where it has several; `dspy.inspect`
                names them.

        Returns:
            The program's handle, kind and name.
        """
        with ctx.session.lease(handle, MODULE, exclusive=True) as program:
            program.set_demos(demos, predictor)
        return identity(ctx.session.get(handle))

    @tool
    def set_instructions(
        self, handle: str, instructions: str, ctx: CallContext, predictor: str | None = None
    ) -> dict[str, Any]:
        """Tell the model the task of a program in other words.

        Args:
            handle: Handle or name of the program.
            instructions: The words.
            ctx: The call.
            predictor: Which of its predictors says them, where it has several; `dspy.inspect`
                names them.

        Returns:
            The program's handle, kind and name.
        """
        with ctx.session.lease(handle, MODULE, exclusive=True) as program:
            program.set_instructions(instructions, predictor)
        return identity(ctx.session.get(handle))

    @tool
    def schema(
        self,
        ctx: CallContext,
        handle: str | None = None,
        signature: str | SignatureSpec | None = None,
    ) -> dict[str, Any]:
        """Describe inputs and outputs with JSON Schema.

        Args:
            ctx: The call.
            handle: Handle or name of a program.
            signature: A signature instead, which is checked so without a program.

        Returns:
            "inputs" and "outputs", each a JSON Schema of an object.
        """
        from snakepit_adapters.dspy.signatures import read_signature
        from snakepit_adapters.dspy.values import Values

        if (handle is None) == (signature is None):
            raise InvalidArgument("expected either a handle or a signature")
        if signature is not None:
            return Values(read_signature(signature)).schemas()
        with ctx.session.lease(str(handle), MODULE) as program:
            schemas: dict[str, Any] = program.values.schemas()
            return schemas
