"""Tools that create agents."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from snakepit_adapters.dspy.arguments import Generation, ProgramSpec, SignatureSpec
from snakepit_adapters.dspy.tool_specs import ToolSpecs
from snakepit_adapters.dspy.tools.held import DEFAULT_LM, keep
from snakepit_adapters.dspy.tools.programs import built
from snakepit_worker import CallContext, tool

__all__ = ["AgentTools"]

_Steps = Annotated[int, msgspec.Meta(ge=1, le=200)]


class AgentTools:
    """Creating agents.  They are called and followed as other programs are."""

    @tool
    async def react(  # noqa: PLR0913 - the parts of an agent
        self,
        signature: str | SignatureSpec,
        tools: ToolSpecs,
        ctx: CallContext,
        *,
        max_iters: _Steps = 20,
        native: bool = False,
        instructions: str | None = None,
        config: Generation | None = None,
        name: str | None = None,
        lm: str = DEFAULT_LM,
    ) -> dict[str, Any]:
        """Create an agent, which thinks, calls tools and sees their results until it can answer.

        A tool that fails is one more thing that it sees.  Streams of an agent have events
        "thought", "action", "observation" and "answer" beside tokens.

        Args:
            signature: "question -> answer", or inputs and outputs as lists of fields.
            tools: What it may call: "elixir:NAME" for an Elixir tool that is exposed to the
                session, "elixir:*" for all of them, "worker:ADAPTER.TOOL" for a tool of another
                adapter, "corpus:NAME" for a search in a corpus; or objects with "tool" and a "name"
                and "description" of your own.
            ctx: The call.
            max_iters: Steps at most; then it answers from what it has seen.
            native: Whether the model calls tools by the provider's own means.
            instructions: The task in words.
            config: Options of each call of the model, such as temperature.
            name: A name of your own, to use in place of the handle.
            lm: Name of the language model that answers; it may be configured later.

        Returns:
            The handle and the signature.
        """
        spec = ProgramSpec(
            module="ReActV2" if native else "ReAct",
            signature=signature,
            instructions=instructions,
            options={"max_iters": max_iters},
            tools=tools,
            config=config,
        )
        return keep(ctx, await built(ctx, spec, lm), name)
