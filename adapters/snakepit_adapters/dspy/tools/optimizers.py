"""Tools over optimizers: programs that learn from rows."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Annotated, Any, get_args

import msgspec

from snakepit_adapters.dspy.arguments import ResponseFormat
from snakepit_adapters.dspy.metric_specs import MetricSpec
from snakepit_adapters.dspy.optimizer_specs import OptimizerSpec
from snakepit_adapters.dspy.tools.held import MODULE, identity, leased
from snakepit_adapters.dspy.tools.rows import (
    Calls,
    Concurrency,
    Rows,
    Seconds,
    judge_of,
    lm_of,
    rows_of,
)
from snakepit_worker import CallContext, tool
from snakepit_worker.errors import Conflict, NotFound, WorkerError

if TYPE_CHECKING:
    from snakepit_adapters.dspy.compiling import Compilation
    from snakepit_adapters.dspy.programs import Program
    from snakepit_worker.sessions import Resource, Session

__all__ = ["OptimizerTools"]

Errors = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class OptimizerTools:
    """Compiling programs."""

    @tool
    async def compile(  # noqa: PLR0913 - what there is to say of a run
        self,
        handle: str,
        optimizer: str | OptimizerSpec,
        trainset: Rows,
        ctx: CallContext,
        *,
        metric: MetricSpec | None = None,
        valset: Rows | None = None,
        teacher: str | None = None,
        lm: str | None = None,
        prompt_lm: str | None = None,
        teacher_lm: str | None = None,
        response_format: ResponseFormat | None = None,
        max_calls: Calls | None = None,
        max_seconds: Seconds | None = None,
        max_errors: Errors = 10,
        threads: Concurrency = 4,
        name: str | None = None,
        replace: bool = False,
    ) -> dict[str, Any]:
        """Have an optimizer of DSPy teach a program; takes long, so start it with `job.start`.

        The program stays as it is; what has learned is a new one.  Where the call is cancelled, the
        best program so far is kept in the session under the name, if one has been scored.

        Args:
            handle: Handle or name of the program.
            optimizer: Name of an optimizer, such as "BootstrapFewShot", or an object with its name
                and its options.
            trainset: Rows to learn from: a data set, or a part of one.
            ctx: The call.
            metric: What tells good answers from bad ones.
            valset: Rows to choose by, for optimizers that do.
            teacher: Another program of the same form that works out demos.
            lm: Another language model than the program's.
            prompt_lm: Name of the language model that writes instructions, where it is another.
            teacher_lm: Name of the language model that works out demos, where it is another.
            response_format: Layout of answers, where it differs from the language model's.
            max_calls: Requests to language models at most; then the best program so far is given.
            max_seconds: Time at most; then the best program so far is given.
            max_errors: Failed examples, in a pass over the rows, from which on it gives up.
            threads: Examples at a time.
            name: A name of your own for the new program; without effect if it is taken meanwhile.
            replace: Whether a program of that name gives way.

        Returns:
            The handle of the new program, its score, and what the run did, used and met with.
        """
        from snakepit_adapters.dspy.compiling import Compilation
        from snakepit_adapters.dspy.metering import Limits
        from snakepit_adapters.dspy.metrics import metric as measure
        from snakepit_adapters.dspy.optimizer_checks import check, named
        from snakepit_adapters.dspy.plans import Plan, examples
        from snakepit_adapters.dspy.spending import RunAccount

        spec = named(optimizer) if isinstance(optimizer, str) else optimizer
        session = ctx.session
        if name is not None and not replace:
            _refuse_taken(session, name)
        async with AsyncExitStack() as leases:
            # Copies, so that nobody who would change the programs has to wait for the end.
            async with leased(session, handle, lm) as (found, _):
                account = RunAccount.of(ctx, found)
                program = await ctx.run_sync(found.copy)
                model = await lm_of(leases, session, lm or program.lm)
            taught: Program | None = None
            if teacher is not None:
                async with session.lease(teacher, MODULE) as found:
                    taught = await ctx.run_sync(found.copy)
            rows, inputs = await rows_of(session, trainset)
            check(
                spec,
                metric=metric is not None,
                valset=valset is not None,
                teacher=teacher is not None,
                prompt_lm=prompt_lm is not None,
                teacher_lm=teacher_lm is not None,
                rows=len(rows),
            )
            learned_from = await ctx.run_sync(examples, "trainset", rows, inputs, program, model)
            chosen_by = None
            if valset is not None:
                rows, inputs = await rows_of(session, valset)
                chosen_by = await ctx.run_sync(examples, "valset", rows, inputs, program, model)
            judge = await judge_of(leases, session, metric)
            writer = prompt_lm and await lm_of(leases, session, prompt_lm)
            worker = teacher_lm and await lm_of(leases, session, teacher_lm)
            plan = Plan(
                program=program,
                model=model,
                layout=response_format,
                spec=spec,
                metric=None if metric is None else measure(metric, judge_lm=judge),
                measure=metric,
                trainset=learned_from,
                valset=chosen_by,
                teacher=taught,
                prompt_lm=writer or None,
                teacher_lm=worker or None,
                limits=Limits(max_calls, max_seconds),
                threads=threads,
                max_errors=max_errors,
            )
            compilation = Compilation(plan, ctx, account)
            try:
                outcome = await ctx.run_sync(compilation.run)
            except asyncio.CancelledError:
                await _keep_best(compilation, ctx, name, replace=replace)
                raise
        kept = _keep(ctx, outcome.program, name, outcome.score, replace=replace)
        return kept | {"score": outcome.score, **outcome.facts}

    @tool
    def optimizers(self) -> list[dict[str, Any]]:
        """List the optimizers, each with its options, their limits and their defaults.

        Returns:
            For each its name, what it does, and a JSON Schema of its options.
        """
        shown = []
        for kind in get_args(OptimizerSpec):
            schema = msgspec.json.schema(kind)
            text = inspect.cleandoc(kind.__doc__ or "").split("\n\nAttributes:", maxsplit=1)[0]
            shown.append({"name": kind.__name__, "description": text, "options": schema})
        return shown


def _keep(
    ctx: CallContext, program: Program, name: str | None, score: float | None, *, replace: bool
) -> dict[str, Any]:
    def put(name: str | None) -> Resource:
        return ctx.session.put(
            MODULE,
            program,
            name=name,
            metadata={"module": program.kind, "lm": program.lm, "score": score},
            recipe=program.recipe,
            size=program.size,
            replace=replace,
        )

    try:
        return identity(put(name))
    except Conflict:  # the name was taken meanwhile; what was learned is not to be lost
        return identity(put(None))


async def _keep_best(
    compilation: Compilation, ctx: CallContext, name: str | None, *, replace: bool
) -> None:
    """Keep what a cancelled run has found, and say so to the pollers of its job."""
    compilation.cancel()
    best = await asyncio.to_thread(compilation.best)
    if best is None:
        return
    try:
        kept = _keep(ctx, best.program, name, best.score, replace=replace)
    except WorkerError:  # the session is closed, or has no room
        return
    ctx.partial({"best_so_far": kept, "score": best.score, **best.facts})


def _refuse_taken(session: Session, name: str) -> None:
    with suppress(NotFound):
        session.get(name)
        raise Conflict(f"session {session.id!r} has a resource {name!r} already")
