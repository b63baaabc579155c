"""Tools that call programs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Final

import msgspec

from snakepit_adapters.dspy.arguments import Generation, ResponseFormat
from snakepit_adapters.dspy.tools.held import leased
from snakepit_worker import CallContext, tool
from snakepit_worker.errors import InvalidArgument
from snakepit_worker.tools.nested_binary import ObjectsWithBinary, ObjectWithBinary

__all__ = ["CallTools"]

_MOST: Final = 10_000
Concurrency = Annotated[int, msgspec.Meta(ge=1, le=64)]


class CallTools:
    """Calling programs."""

    @tool
    async def call(  # noqa: PLR0913 - inputs, and what may differ from call to call
        self,
        handle: str,
        inputs: ObjectWithBinary,
        ctx: CallContext,
        *,
        config: Generation | None = None,
        response_format: ResponseFormat | None = None,
        lm: str | None = None,
        trace: bool = False,
    ) -> dict[str, Any]:
        """Call a program and wait for its outputs.

        Images and audio come as binary parameters that bear the names of their places, such as
        "inputs.photo" or "inputs.photos[0]"; an image may also be {"url": "https://..."}, which
        goes to the provider as it is.

        Args:
            handle: Handle or name of the program.
            inputs: Values by input field; one whose type allows null may be left out.
            ctx: The call.
            config: Options of this call, such as temperature.
            response_format: Layout of the answer, where it differs from the language model's.
            lm: Another language model than the program's.
            trace: Whether to tell what each predictor was given and gave.

        Returns:
            The outputs, and the tokens used by model.
        """
        async with leased(ctx.session, handle, lm) as (program, model):
            request = program.request(inputs, model, config, response_format)
            return await request.run(ctx.run_sync, trace=trace)

    @tool
    async def stream(  # noqa: PLR0913 - as call
        self,
        handle: str,
        inputs: ObjectWithBinary,
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
            {"type": "token", "field", "text"} for each piece of an output of type str, with the
            "predictor" where the module has several, {"type": "status", "step", "state"} for the
            steps of a composed program, and last {"type": "prediction", "outputs", "usage"}.
        """
        from snakepit_adapters.dspy.streaming import stream

        async with leased(ctx.session, handle, lm) as (program, model):
            request = program.request(inputs, model, config, response_format)
            async with aclosing(stream(request)) as events:
                async for event in events:
                    yield event

    @tool
    async def batch(  # noqa: PLR0913 - as call
        self,
        handle: str,
        inputs: ObjectsWithBinary,
        ctx: CallContext,
        *,
        concurrency: Concurrency = 8,
        config: Generation | None = None,
        response_format: ResponseFormat | None = None,
        lm: str | None = None,
    ) -> dict[str, Any]:
        """Call a program with many inputs, several at once; one that fails does not end the others.

        Pollers of a job see each result as a part, with its "index".

        Args:
            handle: Handle or name of the program.
            inputs: Values by input field, one object for each call; 10,000 at most.
            ctx: The call.
            concurrency: How many calls run at once.
            config: Options of these calls, such as temperature.
            response_format: Layout of the answers, where it differs from the language model's.
            lm: Another language model than the program's.

        Returns:
            "results" in the order of the inputs, each with "outputs" and "usage" or with "error",
            and how many "succeeded" and "failed".
        """
        from snakepit_adapters.dspy.swallowed import described

        if len(inputs) > _MOST:
            raise InvalidArgument(f"inputs: expected at most {_MOST}, got {len(inputs)}")
        results: list[dict[str, Any]] = [{} for _ in inputs]
        waiting = iter(enumerate(inputs))
        done = failed = 0
        async with leased(ctx.session, handle, lm) as (program, model):

            async def work() -> None:
                nonlocal done, failed
                for index, given in waiting:
                    try:
                        request = program.request(given, model, config, response_format)
                        result = await request.run(ctx.run_sync)
                    except Exception as error:  # noqa: BLE001 - it fails one call, whatever it is
                        result = {"error": described(error)}
                        failed += 1
                    results[index] = result
                    done += 1
                    ctx.partial({"index": index, **result})
                    ctx.progress(done / len(inputs), f"{done} of {len(inputs)}, {failed} failed")

            async with asyncio.TaskGroup() as group:
                for _ in range(min(concurrency, len(inputs))):
                    group.create_task(work())
        return {"results": results, "succeeded": done - failed, "failed": failed}
